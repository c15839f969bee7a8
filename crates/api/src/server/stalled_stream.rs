use std::cell::Cell;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use canet_serving::metrics::Disconnect;
use hyper::rt::Executor;
use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep, sleep_until};

use super::activity::Activity;

/// Spawns the streams of an HTTP/2 connection, and resets those whose client stops taking their answer.
///
/// hyper does not ask a body for more while the client's window is closed, so no body can notice that it is stalled. But
/// hyper spawns the future of each stream here. Dropping that future resets the stream, and h2 then discards the
/// stream's buffer.
#[derive(Clone)]
pub(super) struct StreamExecutor {
    /// Counts streams that are reset.
    pub(super) activity: Activity,
    /// A client must take a piece of its answer within this time.
    pub(super) timeout: Duration,
}

impl<F> Executor<F> for StreamExecutor
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, stream: F) {
        let StreamExecutor { activity, timeout } = self.clone();
        let stream = UntilStalled { stream, activity, timeout, timer: None, deadline: None };
        tokio::spawn(STREAM.scope(Progress::default(), stream));
    }
}

tokio::task_local! {
    /// What the stream of this task waits for.
    static STREAM: Progress;
}

/// How a stream's answer gets on.
#[derive(Default)]
struct Progress {
    waits: Cell<Waits>,
    /// Whether a piece was given since the stream was last looked at.
    has_moved: Cell<bool>,
}

/// What a stream waits for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Waits {
    /// The request's body or the answer.
    #[default]
    ForServer,
    /// The client, which has to take the piece that was given last.
    ForClient,
}

/// Records what the present task's stream waits for. Outside of an HTTP/2 stream it does nothing.
pub(super) fn now_waits(waits: Waits) {
    // The error says that there is no stream.
    let _ = STREAM.try_with(|progress| {
        progress.waits.set(waits);
        progress.has_moved.set(true);
    });
}

pin_project! {
    /// Runs a stream to its end, or until it waited for its client for `timeout`.
    struct UntilStalled<F> {
        #[pin]
        stream: F,
        activity: Activity,
        timeout: Duration,
        // Most streams never wait for their client, and have no timer.
        timer: Option<Pin<Box<Sleep>>>,
        deadline: Option<Instant>,
    }
}

impl<F: Future<Output = ()>> Future for UntilStalled<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let me = self.project();
        if me.stream.poll(context).is_ready() {
            return Poll::Ready(());
        }
        let (waits, has_moved) = STREAM.with(|progress| (progress.waits.get(), progress.has_moved.take()));
        if waits == Waits::ForServer {
            *me.deadline = None;
            return Poll::Pending;
        }
        let deadline = match *me.deadline {
            Some(deadline) if !has_moved => deadline,
            _ => *me.deadline.insert(Instant::now() + *me.timeout),
        };
        let timer = me.timer.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        // An answer that gets on moves its deadline often. The timer follows only when it fires.
        while timer.as_mut().poll(context).is_ready() {
            if timer.deadline() >= deadline {
                me.activity.disconnects(Disconnect::Stalled);
                tracing::debug!("a stream was reset because its client does not take the answer");
                return Poll::Ready(());
            }
            timer.as_mut().reset(deadline);
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, poll_fn};
    use std::task::Poll;
    use std::time::{Duration, Instant};

    use tokio::time::timeout;

    use super::{Activity, Progress, STREAM, UntilStalled, Waits, now_waits};

    const SHORT: Duration = Duration::from_millis(20);

    /// Runs a stream as the executor does. Returns once it has ended or was stalled.
    async fn run(stream: impl Future<Output = ()>) {
        let activity = Activity::new(None);
        let stream = UntilStalled { stream, activity, timeout: SHORT, timer: None, deadline: None };
        STREAM.scope(Progress::default(), stream).await;
    }

    #[tokio::test]
    async fn only_a_stream_that_waits_for_its_client_is_stalled() {
        let waiting = |waits| async move {
            now_waits(waits);
            pending::<()>().await;
        };
        run(waiting(Waits::ForClient)).await;
        assert!(timeout(5 * SHORT, run(waiting(Waits::ForServer))).await.is_err());
    }

    #[tokio::test]
    async fn a_stream_that_moves_goes_on() {
        let began = Instant::now();
        let mut has_ended = false;
        // Woken again at once: it never stands still for long, but takes longer than the timeout in all.
        let stream = poll_fn(|context| {
            now_waits(Waits::ForClient);
            context.waker().wake_by_ref();
            has_ended = began.elapsed() > 5 * SHORT;
            if has_ended { Poll::Ready(()) } else { Poll::Pending }
        });
        run(stream).await;
        assert!(has_ended);
    }
}
