use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use canet_serving::metrics::{Disconnect, Metrics};
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

/// [`Activity::stuck`] looks this often within its timeout.
const STEPS: usize = 2;

/// Tracks the requests, the unwritten answers and the writes of one connection.
#[derive(Clone)]
pub(super) struct Activity(Arc<State>);

/// Atomic counters, because the tasks of HTTP/2 streams and of their connection change them for every request.
struct State {
    began: Instant,
    metrics: Option<Arc<Metrics>>,
    /// Requests that were received and whose answer has not been taken over by the transport.
    open: AtomicUsize,
    /// Those of the open requests that wait for the server, not for the client to take its answer.
    computing: AtomicUsize,
    /// Pieces of answers that are not written yet, by the step in which the body gave them.
    unwritten: [AtomicUsize; STEPS + 3],
    /// The present step of [`Activity::stuck`].
    step: AtomicUsize,
    /// When an answer last began, went on or ended: nanoseconds from `began`.
    changed: AtomicU64,
    /// Whether a write waits for the client.
    is_blocked: AtomicBool,
    has_requested: AtomicBool,
    /// Tells that the first request has come.
    requested: Notify,
    /// Tells that the connection should make room for another one.
    shed: Notify,
}

/// How long a connection that should end may stay without a change.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// If it owes its client nothing.
    pub(super) idle: Duration,
    /// If the client does not take its answers.
    pub(super) stalled: Duration,
}

/// The order in which idle connections make room: those without a request first, then the longest idle.
pub(super) type Rank = (bool, Instant);

impl Activity {
    /// Tracks a connection that begins now. `metrics` count why it is closed.
    pub(super) fn new(metrics: Option<Arc<Metrics>>) -> Activity {
        Activity(Arc::new(State {
            began: Instant::now(),
            metrics,
            open: AtomicUsize::new(0),
            computing: AtomicUsize::new(0),
            unwritten: Default::default(),
            step: AtomicUsize::new(0),
            changed: AtomicU64::new(0),
            is_blocked: AtomicBool::new(false),
            has_requested: AtomicBool::new(false),
            requested: Notify::new(),
            shed: Notify::new(),
        }))
    }

    /// Opens a request. It is open until the returned guard drops.
    pub(super) fn request(&self) -> OpenRequest {
        self.0.open.fetch_add(1, Ordering::AcqRel);
        self.0.computing.fetch_add(1, Ordering::AcqRel);
        if !self.0.has_requested.load(Ordering::Relaxed) && !self.0.has_requested.swap(true, Ordering::Relaxed) {
            self.0.requested.notify_one();
        }
        OpenRequest { activity: self.clone(), is_computing: true }
    }

    /// Counts a piece of an answer as unwritten until the returned guard drops.
    pub(super) fn unwritten(&self) -> Unwritten {
        let step = self.0.step.load(Ordering::Relaxed) % self.0.unwritten.len();
        self.0.unwritten[step].fetch_add(1, Ordering::AcqRel);
        Unwritten { activity: self.clone(), step }
    }

    /// Records a write that succeeded, or one that found the socket's buffer full.
    pub(super) fn wrote(&self, is_done: bool) {
        if self.0.is_blocked.load(Ordering::Relaxed) == is_done {
            self.0.is_blocked.store(!is_done, Ordering::Relaxed);
            self.change();
        }
    }

    /// Whether a request has arrived.
    pub(super) fn has_requested(&self) -> bool {
        self.0.has_requested.load(Ordering::Relaxed)
    }

    /// The rank among connections that may make room. `None` while a request is open or an answer is not written.
    pub(super) fn rank(&self) -> Option<Rank> {
        let is_idle = self.open() == 0 && !self.has_unwritten();
        is_idle.then(|| (self.has_requested(), self.changed()))
    }

    /// Asks the connection to make room.
    pub(super) fn ask_to_leave(&self) {
        self.0.shed.notify_one();
    }

    /// Waits until the connection is asked to make room and is idle.
    pub(super) async fn asked_to_leave(&self) {
        loop {
            self.0.shed.notified().await;
            if self.rank().is_some() {
                return;
            }
        }
    }

    /// Waits for the first request, at most for `period`.
    pub(super) async fn first_request(&self, period: Duration) {
        if !self.has_requested() {
            // Without a request the time is over, which is all the same to the caller.
            let _ = timeout(period, self.0.requested.notified()).await;
        }
    }

    /// Waits until a connection that takes no more requests has been without a change for longer than `patience`.
    ///
    /// A finished answer may still wait for its client to read or, over HTTP/2, to open its window.
    pub(super) async fn quiet(&self, patience: Patience) {
        loop {
            if self.0.computing.load(Ordering::Acquire) > 0 {
                sleep(patience.idle.min(patience.stalled)).await;
                continue;
            }
            let period = if self.owes() { patience.stalled } else { patience.idle };
            let left = period.saturating_sub(self.changed().elapsed());
            if left.is_zero() {
                return;
            }
            sleep(left).await;
        }
    }

    /// Waits until no request was open for `period`, from now on.
    pub(super) async fn idle(&self, period: Duration) {
        let began = Instant::now();
        loop {
            // If requests are open, the last one may end during this sleep. The next round then sleeps for the rest.
            let since = self.changed().max(began).elapsed();
            let left = if self.open() > 0 { period } else { period.saturating_sub(since) };
            if left.is_zero() {
                return;
            }
            sleep(left).await;
        }
    }

    /// Waits until a piece of an answer has been unwritten for one and a half to two times `timeout`: a stream that its
    /// client stalls is reset after `timeout`, and then holds none.
    ///
    /// It needs no list of pieces: each is counted in the step in which it came, and the count of an old step must be 0.
    pub(super) async fn stuck(&self, timeout: Duration) {
        let steps = self.0.unwritten.len();
        loop {
            sleep(timeout / STEPS as u32).await;
            let step = self.0.step.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
            if self.0.unwritten[step.wrapping_add(1) % steps].load(Ordering::Acquire) > 0 {
                return;
            }
        }
    }

    /// Whether an answer is not written yet.
    pub(super) fn owes(&self) -> bool {
        self.open() > 0 || self.has_unwritten() || self.0.is_blocked.load(Ordering::Relaxed)
    }

    /// Counts that the server closes the connection or resets a stream of it.
    pub(super) fn disconnects(&self, reason: Disconnect) {
        if let Some(metrics) = &self.0.metrics {
            metrics.disconnect(reason);
        }
    }

    fn open(&self) -> usize {
        self.0.open.load(Ordering::Acquire)
    }

    fn has_unwritten(&self) -> bool {
        self.0.unwritten.iter().any(|count| count.load(Ordering::Acquire) > 0)
    }

    fn changed(&self) -> Instant {
        self.0.began + Duration::from_nanos(self.0.changed.load(Ordering::Relaxed))
    }

    fn change(&self) {
        let nanoseconds = u64::try_from(self.0.began.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.0.changed.store(nanoseconds, Ordering::Relaxed);
    }
}

/// A request that is open until this drops. It accompanies the answer's body.
pub(super) struct OpenRequest {
    activity: Activity,
    is_computing: bool,
}

impl OpenRequest {
    /// Counts a piece of the answer as unwritten until the returned guard drops.
    pub(super) fn unwritten(&self) -> Unwritten {
        self.activity.unwritten()
    }

    /// Says whether the request waits for the server. A new one does.
    pub(super) fn computes(&mut self, is_computing: bool) {
        if is_computing == self.is_computing {
            return;
        }
        self.is_computing = is_computing;
        if is_computing {
            self.activity.0.computing.fetch_add(1, Ordering::AcqRel);
        } else {
            // First the time, so that the answer has all of its time from here.
            self.activity.change();
            self.activity.0.computing.fetch_sub(1, Ordering::AcqRel);
        }
    }
}

impl Drop for OpenRequest {
    fn drop(&mut self) {
        self.activity.change();
        if self.is_computing {
            self.activity.0.computing.fetch_sub(1, Ordering::AcqRel);
        }
        self.activity.0.open.fetch_sub(1, Ordering::AcqRel);
    }
}

/// A piece of an answer that is unwritten until this drops.
pub(super) struct Unwritten {
    activity: Activity,
    step: usize,
}

impl Drop for Unwritten {
    fn drop(&mut self) {
        self.activity.change();
        self.activity.0.unwritten[self.step].fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::{Activity, Patience};

    /// Longer than any of these tests waits.
    const LONG: Duration = Duration::from_secs(600);

    const NONE: Duration = Duration::ZERO;

    #[tokio::test]
    async fn a_connection_is_idle_once_its_answers_are_written() {
        let activity = Activity::new(None);
        let never_asked = activity.rank().unwrap();
        let request = activity.request();
        assert!(activity.rank().is_none() && activity.has_requested());
        let piece = request.unwritten();
        drop(request);
        assert!(activity.rank().is_none());
        drop(piece);
        assert!(activity.rank().unwrap() > never_asked);
    }

    #[tokio::test]
    async fn nothing_and_a_stalled_answer_are_waited_for_differently() {
        let activity = Activity::new(None);
        activity.quiet(Patience { idle: NONE, stalled: LONG }).await;
        let mut request = activity.request();
        let short = Duration::from_millis(1);
        let patience = Patience { idle: short, stalled: short };
        assert!(timeout(Duration::from_millis(20), activity.quiet(patience)).await.is_err(), "it still computes");
        request.computes(false);
        activity.quiet(patience).await;
        let patience = Patience { idle: NONE, stalled: LONG };
        assert!(timeout(Duration::from_millis(20), activity.quiet(patience)).await.is_err(), "the client may be slow");
        drop(request);
        activity.wrote(false);
        assert!(timeout(Duration::from_millis(20), activity.quiet(patience)).await.is_err(), "a write waits");
        activity.wrote(true);
        activity.quiet(patience).await;
    }

    #[tokio::test]
    async fn a_piece_that_stays_unwritten_is_found_and_one_that_goes_is_not() {
        let activity = Activity::new(None);
        let moving = async {
            loop {
                let piece = activity.unwritten();
                tokio::task::yield_now().await;
                drop(piece);
            }
        };
        let period = Duration::from_millis(10);
        tokio::select! {
            () = moving => {}
            // Both run in one task, so a piece goes before the next step begins.
            result = timeout(10 * period, activity.stuck(period)) => assert!(result.is_err()),
        }
        let _piece = activity.unwritten();
        activity.stuck(period).await;
    }

    #[tokio::test]
    async fn only_an_idle_connection_leaves() {
        let activity = Activity::new(None);
        let request = activity.request();
        activity.ask_to_leave();
        assert!(timeout(Duration::from_millis(20), activity.asked_to_leave()).await.is_err());
        drop(request);
        activity.ask_to_leave();
        activity.asked_to_leave().await;
    }
}
