use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_util::stream::{FuturesUnordered, Stream, StreamExt};
use tokio::sync::mpsc::{self, Receiver, Sender};
use tonic::Status;

use crate::{Code, Problem};

/// The answers of a call's rows, each as soon as it is there.
///
/// A task of their own brings the rows to their end, whether or not anybody reads: a row holds the model that it was
/// validated against, and one that waited for its client would keep that model in memory and every later reload from
/// beginning. The task ends with the last row, or when this drops.
pub(super) struct Answers<M> {
    received: Receiver<M>,
    /// Rows whose answers are not read yet.
    missing: usize,
}

impl<M: Send + 'static> Answers<M> {
    /// Starts the rows. There is room for what all of them say, so none waits for a reader.
    pub(super) fn of<F: Future<Output = M> + Send + 'static>(rows: FuturesUnordered<F>) -> Answers<M> {
        let missing = rows.len();
        let (sender, received) = mpsc::channel(missing.max(1));
        tokio::spawn(run(rows, sender));
        Answers { received, missing }
    }
}

async fn run<M, F: Future<Output = M>>(mut rows: FuturesUnordered<F>, sender: Sender<M>) {
    let all = async {
        while let Some(answer) = rows.next().await {
            if sender.send(answer).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = all => {}
        // Rows whose client left are withdrawn.
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
            // The task broke off: an end without a word would pass for an answer.
            None => {
                self.missing = 0;
                Some(Err(Problem::new(Code::Internal, Code::Internal.meaning()).into()))
            }
        })
    }
}
