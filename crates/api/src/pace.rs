//! How slowly a body may arrive.

use std::time::{Duration, Instant};

use super::{Code, Problem};

/// A body must keep up [`SLOWEST`] in each window: a third of its timeout, and at least this long. Two packets that are
/// lost in a row, or a change of the mobile cell, stop a client for some 6 s.
const WINDOW: Duration = Duration::from_secs(10);

/// Bytes in a second: half of the slowest mobile network (GPRS on one slot). A body that ends within the first window may
/// be slower.
const SLOWEST: usize = 512;

/// Waits until the body of a request is too slow, and returns the refusal. The body begins when this is first polled,
/// and may take `timeout`. `received` tells how many bytes have arrived.
///
/// The timeout alone would let a client hold memory for its whole length with a body that it never ends.
pub(crate) async fn too_slow(timeout: Duration, received: impl Fn() -> usize) -> Problem {
    let mut pace = Pace::begin(Instant::now(), timeout);
    loop {
        tokio::time::sleep_until(pace.due().into()).await;
        if let Err(problem) = pace.check(Instant::now(), received()) {
            return problem;
        }
    }
}

/// The pace of one body.
struct Pace {
    timeout: Duration,
    /// When the body must be complete.
    end: Instant,
    window: Duration,
    window_end: Instant,
    /// Bytes before the window.
    counted: usize,
}

impl Pace {
    fn begin(now: Instant, timeout: Duration) -> Pace {
        let window = (timeout / 3).max(WINDOW);
        Pace { timeout, end: now + timeout, window, window_end: now + window, counted: 0 }
    }

    /// Bytes that each window must bring.
    fn least(&self) -> usize {
        SLOWEST * self.window.as_secs() as usize
    }

    /// When it must be checked next.
    fn due(&self) -> Instant {
        self.end.min(self.window_end)
    }

    /// Checks a body of which `received` bytes have arrived.
    ///
    /// # Errors
    /// 408 if it takes too long or arrives too slowly.
    fn check(&mut self, now: Instant, received: usize) -> Result<(), Problem> {
        if now >= self.end {
            let detail = format!("the body did not arrive within {} s", self.timeout.as_secs_f64());
            return Err(Problem::new(Code::RequestTimeout, detail));
        }
        if now >= self.window_end {
            if received.saturating_sub(self.counted) < self.least() {
                let (least, seconds) = (self.least(), self.window.as_secs());
                let detail = format!("the body stopped: at least {least} bytes of it must arrive in each {seconds} s");
                return Err(Problem::new(Code::RequestTimeout, detail));
            }
            (self.counted, self.window_end) = (received, now + self.window);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::{Pace, WINDOW};
    use crate::Code;

    const TIMEOUT: Duration = Duration::from_secs(30);

    /// Of a window of 10 s.
    const LEAST: usize = 5120;

    #[test]
    fn a_body_that_stops_is_refused_in_the_window_after_its_last_bytes() {
        let begun = Instant::now();
        let mut pace = Pace::begin(begun, TIMEOUT);
        assert_eq!(pace.due(), begun + WINDOW);
        assert_eq!(pace.check(begun + WINDOW / 2, 0), Ok(()), "the window is not over");
        assert_eq!(pace.check(begun + WINDOW, 1 << 20), Ok(()));
        assert_eq!(pace.due(), begun + 2 * WINDOW);
        let problem = pace.check(begun + 2 * WINDOW, (1 << 20) + LEAST - 1).unwrap_err();
        assert!(problem.code == Code::RequestTimeout && problem.detail.contains("5120 bytes"), "{problem:?}");
    }

    #[test]
    fn a_slow_body_keeps_up_until_the_timeout() {
        let begun = Instant::now();
        let mut pace = Pace::begin(begun, TIMEOUT);
        for windows in 1..3 {
            assert_eq!(pace.check(begun + windows * WINDOW, windows as usize * LEAST), Ok(()));
        }
        assert_eq!(pace.due(), begun + TIMEOUT);
        let problem = pace.check(begun + TIMEOUT, 3 * LEAST).unwrap_err();
        assert!(problem.detail.ends_with("within 30 s"), "{problem:?}");
    }

    #[test]
    fn a_short_timeout_comes_before_the_window() {
        let begun = Instant::now();
        let mut pace = Pace::begin(begun, Duration::from_millis(500));
        assert_eq!(pace.due(), begun + Duration::from_millis(500));
        assert!(pace.check(pace.due(), 1 << 20).unwrap_err().detail.ends_with("within 0.5 s"));
    }
}
