use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use futures_util::stream::{Stream, StreamExt};
use tokio::sync::mpsc::{self, Receiver, Sender};
use tonic::Status;

use crate::{Code, Problem};

/// Streams the answers of a call's requests, each as soon as it is complete.
///
/// A task of its own drives the requests, whether or not the client reads. A request holds the generation that it was
/// checked against. If it waited for its client, it would keep that model in memory and block every later reload. The
/// task ends with the last request, or when this drops.
pub(super) struct Answers<M> {
    received: Receiver<M>,
    /// Answers that nobody has read yet.
    missing: usize,
}

impl<M: Send + 'static> Answers<M> {
    /// Starts the requests, which give `missing` answers. The channel has room for every answer, so none waits for the reader.
    pub(super) fn of(missing: usize, rows: impl Stream<Item = M> + Send + 'static) -> Answers<M> {
        let (sender, received) = mpsc::channel(missing.max(1));
        tokio::spawn(run(rows, sender));
        Answers { received, missing }
    }
}

async fn run<M>(rows: impl Stream<Item = M>, sender: Sender<M>) {
    let all = async {
        let mut rows = pin!(rows);
        while let Some(answer) = rows.next().await {
            if sender.send(answer).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = all => {}
        // The client left: dropping the requests withdraws them.
        () = sender.closed() => {}
    }
}

impl<M> Stream for Answers<M> {
    type Item = Result<M, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<M, Status>>> {
        let answer = ready!(self.received.poll_recv(context));
        Poll::Ready(match answer {
            Some(answer) => {
                self.missing = self.missing.saturating_sub(1);
                Some(Ok(answer))
            }
            None if self.missing == 0 => None,
            // The task panicked. Ending the stream here would look like success.
            None => {
                self.missing = 0;
                Some(Err(Problem::new(Code::Internal, Code::Internal.typical_detail()).into()))
            }
        })
    }
}
