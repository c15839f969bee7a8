use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::{oneshot, watch};

use super::admission::Admission;
use super::degrade::Degrade;
use super::executor::{Executor, LaneKey, Routed, give_up};
use super::generation::Current;
use super::life::Life;
use super::queue::Queue;
use super::row::{Answer, Request, Row};
use super::shadow::Shadow;
use super::{Generation, Refusal, Timings, Unready, replies};
use crate::metrics::{Metrics, Rejected, Stage};
use canet_domain::Reason;

/// Rows older than this are passed by no newcomer, whatever its deadline: the starvation bound of [`Lanes`](super::Lanes).
const PATIENCE: Duration = Duration::from_millis(250);

/// Bounds of the executors.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Threads that run batches, at least 1; above 1 they share a CPU.
    pub executors: usize,
    /// Most rows a batch, at least 1.
    pub max_batch: usize,
    /// Most predicted time of the work that waits for the device.
    pub queue_limit: Duration,
    /// Whether rows move to cheaper routes under pressure, before any is refused.
    pub degrade: bool,
}

/// The door to the executors: every transport asks for its rankings here.
///
/// Their threads end when the `Recommender` is dropped and every accepted row is answered. A panic in one of them ends
/// all, and so do many failed batches in a row: only a restart helps.
pub struct Recommender {
    current: Current,
    admission: Admission<LaneKey>,
    queue: Arc<Queue<Row, LaneKey, Routed>>,
    metrics: Arc<Metrics>,
    /// Rows that run at a time.
    running: usize,
    draining: AtomicBool,
    life: Arc<Life>,
    shadow: OnceLock<Shadow>,
}

impl Recommender {
    /// Starts the threads that own the device, and on the current tokio runtime the task that delivers its answers.
    ///
    /// # Errors
    /// [`io::Error`] where no thread can be started.
    pub fn start(limits: Limits, metrics: Arc<Metrics>) -> io::Result<(Arc<Recommender>, Vec<JoinHandle<()>>)> {
        let queue = Arc::new(Queue::new(PATIENCE));
        let (outcomes, delivering) = tokio::sync::mpsc::unbounded_channel();
        let admission = Admission::new(limits.queue_limit, limits.max_batch).shared_by(limits.executors);
        let degrade = limits.degrade.then(|| Arc::new(Mutex::new(Degrade::new(Instant::now()))));
        let life = Arc::new(Life::default());
        let recommender = Recommender {
            current: Current::default(),
            admission: admission.clone(),
            queue: Arc::clone(&queue),
            metrics: Arc::clone(&metrics),
            running: limits.max_batch.max(1).saturating_mul(limits.executors.max(1)),
            draining: AtomicBool::new(false),
            life: Arc::clone(&life),
            shadow: OnceLock::new(),
        };
        let mut threads = Vec::new();
        for place in 0..limits.executors.max(1) {
            let executor = Executor {
                queue: Arc::clone(&queue),
                admission: admission.clone(),
                degrade: degrade.clone(),
                last_batch: Duration::ZERO,
                max_batch: limits.max_batch.max(1),
                metrics: Arc::clone(&metrics),
                outcomes: outcomes.clone(),
                life: Arc::clone(&life),
            };
            let death = Death { queue: Arc::clone(&queue), life: Arc::clone(&life) };
            let thread = std::thread::Builder::new().name(format!("executor-{place}"));
            threads.push(thread.spawn(move || {
                // Dropped after the executor, so that by then every row that it held has its answer.
                let _death = death;
                executor.run();
            })?);
        }
        tokio::spawn(replies::deliver(delivering));
        Ok((Arc::new(recommender), threads))
    }

    /// Swaps a generation in: new rows are validated against it and run on it. Returns the one that served before,
    /// which rows may still hold.
    pub fn serve(&self, generation: Generation) -> Option<Arc<Generation>> {
        self.metrics.serving(generation.model.name(), generation.model.version(), generation.model.digest());
        let Timings { router, routes } = &generation.timings;
        match self.current.get() {
            // Loaded beside live batches it was not timed: what those took says more.
            Some(live) if routes.is_empty() => self.admission.adopt(&LaneKey::counterparts(&live, &generation)),
            _ => {
                let lanes = routes.iter().map(|(route, ran)| (LaneKey::of(&generation, *route), *ran));
                self.admission.calibrate(&lanes.collect::<Vec<_>>(), router);
            }
        }
        let before = self.current.swap(Arc::new(generation));
        self.life.changed();
        before
    }

    /// Compares `share` of the answered requests with the full model from here on, while the device is idle. It is set
    /// once: what is set stays.
    ///
    /// # Errors
    /// [`io::Error`] where no thread can be started.
    pub fn compare_with_full(&self, share: f64) -> io::Result<()> {
        let shadow = Shadow::start(share, Arc::clone(&self.metrics))?;
        // The second of two drops here and ends its thread.
        let _ = self.shadow.set(shadow);
        Ok(())
    }

    /// The generation that was swapped in last, whether or not it can be run.
    pub(crate) fn current(&self) -> Option<Arc<Generation>> {
        self.current.get()
    }

    /// The generation to validate `rows` requests against. A refusal is counted.
    ///
    /// # Errors
    /// [`Unready`] where no model is loaded or the executor has died.
    pub fn pin(&self, rows: usize) -> Result<Arc<Generation>, Unready> {
        self.generation().inspect_err(|_| self.metrics.rejected(Rejected::Unavailable, rows))
    }

    /// The generation that serves.
    ///
    /// # Errors
    /// [`Unready`] where no model is loaded or the executor has died.
    pub fn generation(&self) -> Result<Arc<Generation>, Unready> {
        if !self.is_alive() {
            return Err(Unready::Dead);
        }
        self.current.get().ok_or(Unready::Loading)
    }

    /// Whether the executors run; where they do not, only a restart helps.
    pub fn is_alive(&self) -> bool {
        self.life.is_alive()
    }

    /// Waits until the executors are dead, which may be never.
    pub async fn died(&self) {
        let mut changes = self.changes();
        // The sender is ours, so that it is there as long as this waits.
        while self.is_alive() && changes.changed().await.is_ok() {}
    }

    /// Whether new requests should be sent here.
    ///
    /// # Errors
    /// [`Unready`] says why not. While draining, what still comes is answered all the same.
    pub fn ready(&self) -> Result<(), Unready> {
        if self.is_draining() {
            return Err(Unready::Draining);
        }
        self.generation().map(drop)
    }

    /// Tells whoever asks for readiness to send requests elsewhere.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Release);
        self.life.changed();
    }

    /// Hears of it whenever [`ready`](Recommender::ready) may answer otherwise than before.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.life.changes()
    }

    /// Runs one request through the executor.
    ///
    /// Answered no later than its deadline, whatever the device does. Dropping the future withdraws the row: it does
    /// not run unless it runs already.
    ///
    /// # Errors
    /// [`Refusal`], each counted here and nowhere else.
    pub async fn rank(&self, generation: Arc<Generation>, request: Request) -> Result<Answer, Refusal> {
        let due = request.due;
        let shadow = self.shadow.get();
        let _live = shadow.map(Shadow::live);
        let sampled = shadow.filter(|shadow| shadow.samples()).map(|shadow| (shadow, request.clone()));
        let mut outcome = Counted { metrics: &self.metrics, rejected: Some(Rejected::Cancelled) };
        let answer = self.submit(Arc::clone(&generation), request).await;
        outcome.rejected = answer.as_ref().err().map(Refusal::rejected);
        drop(outcome);
        let answer = answer?;
        let series = generation.series.route(answer.routing.route);
        series.answered(answer.routing.reason, due.arrived.elapsed());
        if answer.routing.reason == Reason::Degraded {
            self.metrics.degraded();
        }
        generation.series.lane(generation.lane(answer.routing.route)).waited(answer.times.queue);
        self.metrics.stage(Stage::Queue, answer.times.queue);
        if answer.routing.confidence.is_some() {
            self.metrics.stage(Stage::Router, answer.times.router);
        }
        self.metrics.stage(Stage::Forward, answer.times.forward);
        if let Some((shadow, request)) = sampled {
            shadow.compare(request, answer.routing.route, &generation);
        }
        Ok(answer)
    }

    async fn submit(&self, generation: Arc<Generation>, request: Request) -> Result<Answer, Refusal> {
        let permit = self.admission.admit(request.need(&generation))?;
        let deadline = request.due.deadline;
        let (reply, answer) = oneshot::channel();
        self.queue.send(Row { request, generation, reply, permit }).map_err(|_| Unready::Dead)?;
        match tokio::time::timeout_at(deadline.into(), answer).await {
            Ok(Ok(outcome)) => outcome,
            // The row was dropped without a word: the executor panicked.
            Ok(Err(_)) => Err(Refusal::Internal),
            Err(_) => Err(Refusal::DeadlineExceeded),
        }
    }

    /// Whether the server is about to stop.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    /// How many rows a call should have in the queue at a time where one that is refused fails it whole: enough to fill
    /// the executors' batches, and no more than an idle server lets in.
    pub fn rows_at_once(&self, generation: &Generation) -> usize {
        let full = generation.model.shape().full_flops(generation.model.space(), generation.max_len());
        self.admission.fitting(full).min(self.running)
    }

    /// Rows that wait for the device.
    pub fn queued(&self) -> usize {
        self.admission.queued()
    }

    /// The metrics that rows are counted in.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }
}

impl Refusal {
    /// How `rejected_total` counts it.
    fn rejected(&self) -> Rejected {
        match self {
            Refusal::Overloaded(_) => Rejected::Overloaded,
            Refusal::DeadlineExceeded => Rejected::Deadline,
            Refusal::Unavailable(_) => Rejected::Unavailable,
            Refusal::Internal => Rejected::Failed,
        }
    }
}

/// Counts how a row ended when it drops: a future that is dropped before it ends was cancelled, by its client or by
/// another row's failure where that is the whole call's.
struct Counted<'a> {
    metrics: &'a Metrics,
    rejected: Option<Rejected>,
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        if let Some(reason) = self.rejected {
            self.metrics.rejected(reason, 1);
        }
    }
}

impl Drop for Recommender {
    fn drop(&mut self) {
        self.queue.close();
    }
}

/// Marks the executors as dead when a thread of theirs ends; where it is by a panic, what waits is given up.
struct Death {
    queue: Arc<Queue<Row, LaneKey, Routed>>,
    life: Arc<Life>,
}

impl Drop for Death {
    fn drop(&mut self) {
        if std::thread::panicking() {
            tracing::error!("a thread that runs the model has panicked: restart the server");
            give_up(&self.queue);
        }
        self.life.end();
    }
}
