use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::task;

/// Larger bodies are parsed one after the other. Below, waking another thread would take longer than it is worth.
const LARGE: usize = 64 << 10;

/// A compressed body of some bytes may unpack to a large one.
static UNPACKING: Semaphore = Semaphore::const_new(1);
static PARSING: Semaphore = Semaphore::const_new(1);

/// The turn of a body that takes long to unpack or to parse.
///
/// A connection may bring many such bodies at one time. Without turns they would keep the few threads that serve all
/// connections. A body waits for its turn without a thread, and its work runs beside those threads, so other requests do not
/// wait for it.
#[derive(Debug)]
pub(crate) struct BodyTurn(Option<SemaphorePermit<'static>>);

impl BodyTurn {
    /// Waits until no other body is unpacked.
    pub(crate) async fn to_unpack() -> BodyTurn {
        // Nothing closes the semaphores.
        BodyTurn(UNPACKING.acquire().await.ok())
    }

    /// Waits until no other large body is parsed, if one of `bytes` is large.
    pub(crate) async fn to_parse(bytes: usize) -> BodyTurn {
        BodyTurn(if bytes > LARGE { PARSING.acquire().await.ok() } else { None })
    }

    /// Runs the work on a body or on a part of it.
    pub(crate) fn run<T>(&self, work: impl FnOnce() -> T) -> T {
        let runs_beside = || Handle::try_current().is_ok_and(|it| it.runtime_flavor() == RuntimeFlavor::MultiThread);
        if self.0.is_some() && runs_beside() { task::block_in_place(work) } else { work() }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use futures_util::FutureExt;
    use tokio::runtime::Builder;

    use super::{BodyTurn, LARGE};

    /// Far longer than the work takes.
    const SOON: Duration = Duration::from_secs(60);

    #[test]
    fn other_tasks_run_while_a_large_body_is_parsed() {
        let runtime = Builder::new_multi_thread().worker_threads(1).build().unwrap();
        let task = runtime.spawn(async {
            let (sender, receiver) = mpsc::channel();
            let turn = BodyTurn::to_parse(LARGE + 1).await;
            tokio::spawn(async move { sender.send(()) });
            turn.run(move || receiver.recv_timeout(SOON))
        });
        assert_eq!(runtime.block_on(task).unwrap(), Ok(()));
    }

    #[test]
    fn large_bodies_are_parsed_one_after_the_other_and_small_ones_at_once() {
        let runtime = Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let first = BodyTurn::to_parse(LARGE + 1).await;
            let mut second = Box::pin(BodyTurn::to_parse(LARGE + 1));
            assert!(second.as_mut().now_or_never().is_none());
            assert_eq!(BodyTurn::to_parse(LARGE).await.run(|| 1), 1);
            assert_eq!(first.run(|| 2), 2);
            drop(first);
            assert_eq!(second.await.run(|| 4), 4);
        });
    }
}
