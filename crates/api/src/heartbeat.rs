use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::{Code, Problem};

/// Time between two beats.
const INTERVAL: Duration = Duration::from_secs(1);

/// A runtime is stuck if it has not run a task of its own for this time. A busy one runs every task within milliseconds.
const STUCK: Duration = Duration::from_secs(10);

/// Shows other threads whether a runtime still runs its tasks.
///
/// Probes with a runtime of their own answer however busy the server is. They must still fail if the server's runtime
/// hangs, because only a restart helps then.
#[derive(Clone, Debug)]
pub struct Heartbeat(Arc<Beats>);

#[derive(Debug)]
struct Beats {
    began: Instant,
    /// When the last beat came: milliseconds from `began`.
    last: AtomicU64,
}

impl Heartbeat {
    /// Beats on the present runtime, as long as somebody listens.
    ///
    /// # Panics
    /// Outside of a runtime.
    pub fn start() -> Heartbeat {
        let beats = Arc::new(Beats { began: Instant::now(), last: AtomicU64::new(0) });
        let listeners = Arc::downgrade(&beats);
        tokio::spawn(async move {
            while let Some(beats) = listeners.upgrade() {
                beats.last.store(milliseconds(beats.began.elapsed()), Ordering::Relaxed);
                drop(beats);
                tokio::time::sleep(INTERVAL).await;
            }
        });
        Heartbeat(beats)
    }

    /// # Errors
    /// 503 if the runtime is stuck.
    pub(crate) fn check(&self) -> Result<(), Problem> {
        let last = Duration::from_millis(self.0.last.load(Ordering::Relaxed));
        check(self.0.began.elapsed().saturating_sub(last))
    }
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn check(silence: Duration) -> Result<(), Problem> {
    if silence < STUCK {
        return Ok(());
    }
    let detail = format!("the server has run no task for {} s", silence.as_secs());
    Err(Problem::new(Code::Unavailable, detail))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Heartbeat, STUCK, check};

    #[test]
    fn a_runtime_that_runs_nothing_is_stuck() {
        assert!(check(STUCK - Duration::from_millis(1)).is_ok());
        let problem = check(STUCK).unwrap_err();
        assert_eq!(
            (problem.code.mapping().name, &*problem.detail),
            ("unavailable", "the server has run no task for 10 s")
        );
    }

    #[tokio::test]
    async fn a_runtime_that_runs_tasks_beats() {
        let heartbeat = Heartbeat::start();
        // The first beat may come within the millisecond in which the runtime began, so this waits for the second.
        let second_beat = async {
            while heartbeat.0.last.load(std::sync::atomic::Ordering::Relaxed) == 0 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), second_beat).await.unwrap();
        assert!(heartbeat.check().is_ok());
    }
}
