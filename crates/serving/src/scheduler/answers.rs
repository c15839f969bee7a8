use std::time::Duration;

use super::cost::correction;

/// Nanoseconds a byte before an answer was timed.
const FIRST_GUESS: f64 = 4.0;

/// The bounds of the nanoseconds a byte.
const BOUNDS: (f64, f64) = (0.01, 10_000.0);

/// Large answers that wait to be built or are being built, and how long building takes.
///
/// Building means to write the bytes. It runs on the runtime's threads, not on the device.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AnswerQueue {
    nanoseconds_a_byte: f64,
    answers: usize,
    /// The predicted time of all of them.
    predicted: Duration,
}

impl Default for AnswerQueue {
    fn default() -> AnswerQueue {
        AnswerQueue { nanoseconds_a_byte: FIRST_GUESS, answers: 0, predicted: Duration::ZERO }
    }
}

impl AnswerQueue {
    /// The predicted time of an answer of `bytes`.
    pub(crate) fn time(&self, bytes: usize) -> Duration {
        Duration::from_nanos((bytes as f64 * self.nanoseconds_a_byte) as u64)
    }

    /// Whether no answer waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.answers == 0
    }

    /// The predicted time of all answers.
    pub(crate) fn predicted(&self) -> Duration {
        self.predicted
    }

    /// Counts an answer that was predicted to take `time`.
    pub(crate) fn add(&mut self, time: Duration) {
        self.answers += 1;
        self.predicted += time;
    }

    /// Counts the answer no longer.
    pub(crate) fn remove(&mut self, time: Duration) {
        self.answers -= 1;
        self.predicted = self.predicted.saturating_sub(time);
    }

    /// Learns from an answer of `bytes` that was built in `took`.
    pub(crate) fn observe(&mut self, bytes: usize, took: Duration) {
        let change = correction(took.as_nanos() as f64, bytes.max(1) as f64 * self.nanoseconds_a_byte);
        self.nanoseconds_a_byte = (self.nanoseconds_a_byte * (1.0 + change)).clamp(BOUNDS.0, BOUNDS.1);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::AnswerQueue;

    #[test]
    fn predictions_converge_to_the_times_of_answers() {
        for nanoseconds in [1, 60] {
            let mut queue = AnswerQueue::default();
            for bytes in (0..200).map(|n| 50_000 + 1_000 * n) {
                queue.observe(bytes, Duration::from_nanos(nanoseconds * bytes as u64));
            }
            let (found, expected) = (queue.time(1 << 20).as_nanos() as f64, (nanoseconds << 20) as f64);
            assert!((found / expected - 1.0).abs() < 0.05, "{found} {expected}");
        }
    }

    #[test]
    fn one_outlier_moves_a_prediction_by_a_tenth_at_most() {
        for took in [Duration::ZERO, Duration::from_secs(3600)] {
            let mut queue = AnswerQueue::default();
            let before = queue.time(1 << 20).as_secs_f64();
            queue.observe(1 << 20, took);
            assert!((queue.time(1 << 20).as_secs_f64() / before - 1.0).abs() < 0.1001);
        }
    }
}
