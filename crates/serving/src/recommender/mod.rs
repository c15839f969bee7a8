use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Instant;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot, watch};

use crate::answer_log::AnswerLog;
use crate::executor::{Executor, RowScheduler, deliver};
use crate::exploration::Exploration;
use crate::health::Health;
use crate::judge::Judge;
use crate::metrics::Metrics;
use crate::outcome::{self, RowOutcome};
use crate::row::{Answer, Request, Row};
use crate::scheduler::Limits;
use crate::serving::Current;
use crate::shadow::Shadow;
use crate::{CatalogueFile, Due, Generation, Refusal, Serving, Unready};

mod answer_ticket;
mod generations;

pub use answer_ticket::AnswerTicket;
pub(crate) use generations::EndedCandidate;

/// Ranks requests on the generation that serves; every transport asks it.
///
/// The executors' threads end when the `Recommender` is dropped and every accepted row is answered. A panic in one of
/// them ends the service, and so do many failed batches in a row: then only a restart helps.
pub struct Recommender {
    current: Current,
    scheduler: Arc<RowScheduler>,
    metrics: Arc<Metrics>,
    /// The most rows that run at a time.
    max_running: usize,
    draining: AtomicBool,
    health: Arc<Health>,
    shadow: Option<Shadow>,
    exploration: Option<Exploration>,
    judge: Option<Judge>,
    answer_log: Option<AnswerLog>,
    catalogue: Option<Arc<CatalogueFile>>,
    /// A permit for each large answer that may be built at a time.
    build_permits: Arc<Semaphore>,
}

/// What a [`Recommender`] does besides ranking. The default is nothing.
#[derive(Default)]
pub struct RecommenderOptions {
    /// The share of the answered requests to compare with the full model while the device is idle.
    pub shadow_share: Option<f64>,
    /// The rows that run over a random route.
    pub exploration: Option<Exploration>,
    /// Bytes of memory for judging answers by what users do next.
    pub judge_memory: Option<usize>,
    /// Where answers are logged.
    pub answer_log: Option<AnswerLog>,
    /// The catalogue file that answers follow.
    pub catalogue: Option<Arc<CatalogueFile>>,
}

impl Recommender {
    /// Starts the threads that own the device, and on the current tokio runtime the task that delivers their answers. Returns
    /// the handles of these threads.
    ///
    /// # Errors
    /// [`io::Error`] if a thread cannot be started.
    pub fn start(
        limits: Limits,
        options: RecommenderOptions,
        metrics: Arc<Metrics>,
    ) -> io::Result<(Arc<Recommender>, Vec<JoinHandle<()>>)> {
        let RecommenderOptions { shadow_share, exploration, judge_memory, answer_log, catalogue } = options;
        let scheduler = Arc::new(RowScheduler::new(limits));
        let (outcomes, delivering) = tokio::sync::mpsc::unbounded_channel();
        let health = Arc::new(Health::default());
        let (executors, max_batch) = (limits.executors.max(1), limits.max_batch.max(1));
        let recommender = Recommender {
            current: Current::default(),
            scheduler: Arc::clone(&scheduler),
            metrics: Arc::clone(&metrics),
            max_running: max_batch.saturating_mul(executors),
            draining: AtomicBool::new(false),
            health: Arc::clone(&health),
            shadow: shadow_share.map(|share| Shadow::start(share, Arc::clone(&metrics))).transpose()?,
            exploration,
            judge: judge_memory.map(|bytes| Judge::new(bytes, Arc::clone(&metrics))),
            answer_log,
            catalogue,
            build_permits: Arc::new(Semaphore::new(tokio::runtime::Handle::current().metrics().num_workers())),
        };
        let mut threads = Vec::new();
        for index in 0..executors {
            let executor = Executor {
                index,
                scheduler: Arc::clone(&scheduler),
                max_batch,
                metrics: Arc::clone(&metrics),
                outcomes: outcomes.clone(),
                health: Arc::clone(&health),
            };
            let guard = ThreadGuard { scheduler: Arc::clone(&scheduler), health: Arc::clone(&health) };
            let thread = std::thread::Builder::new().name(format!("executor-{index}"));
            threads.push(thread.spawn(move || {
                // It drops after the executor, so that every row of the executor has its answer by then.
                let _guard = guard;
                executor.run();
            })?);
        }
        tokio::spawn(deliver(delivering));
        Ok((Arc::new(recommender), threads))
    }

    /// Judges answers, if the server does.
    pub fn judge(&self) -> Option<&Judge> {
        self.judge.as_ref()
    }

    /// The answer log, if there is one.
    pub fn answer_log(&self) -> Option<&AnswerLog> {
        self.answer_log.as_ref()
    }

    /// The generations that were swapped in last, even if they cannot run.
    pub(crate) fn current(&self) -> Option<Serving> {
        self.current.get()
    }

    /// The generations to validate `rows` requests against. If there is none, counts the rows as refused.
    ///
    /// # Errors
    /// [`Unready`] if no model is loaded or an executor has died.
    pub fn pin(&self, rows: usize) -> Result<Serving, Unready> {
        self.serving().inspect_err(|unready| outcome::count(&self.metrics, &Refusal::from(*unready), rows))
    }

    /// The generations that serve.
    ///
    /// # Errors
    /// [`Unready`] if no model is loaded or an executor has died.
    pub fn serving(&self) -> Result<Serving, Unready> {
        if !self.is_alive() {
            return Err(Unready::Dead);
        }
        self.current.get().ok_or(Unready::Loading)
    }

    /// The live generation.
    ///
    /// # Errors
    /// [`Unready`] if no model is loaded or an executor has died.
    pub fn generation(&self) -> Result<Arc<Generation>, Unready> {
        if !self.is_alive() {
            return Err(Unready::Dead);
        }
        self.current.live().ok_or(Unready::Loading)
    }

    /// Whether the executors run; if not, only a restart helps.
    pub fn is_alive(&self) -> bool {
        self.health.is_alive()
    }

    /// Waits until the executors are dead, perhaps for ever.
    pub async fn died(&self) {
        let mut changes = self.changes();
        // The sender lives in `self`, so it exists as long as this waits.
        while self.is_alive() && changes.changed().await.is_ok() {}
    }

    /// Whether new requests should be sent here.
    ///
    /// # Errors
    /// [`Unready`] says why not. While draining, the server still answers requests that arrive.
    pub fn ready(&self) -> Result<(), Unready> {
        if self.is_draining() {
            return Err(Unready::Draining);
        }
        self.generation().map(drop)
    }

    /// From now on reports that the server is not ready, so that clients send requests elsewhere.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Release);
        self.health.changed();
    }

    /// Subscribes to changes of [`ready`](Recommender::ready).
    pub fn changes(&self) -> watch::Receiver<()> {
        self.health.changes()
    }

    /// Runs one request on its generation.
    ///
    /// The answer comes no later than the request's deadline, whatever the device does. Dropping the future cancels the
    /// row: it does not run unless it runs already.
    ///
    /// # Errors
    /// [`Refusal`]. Every outcome is counted.
    pub async fn rank(&self, generation: Arc<Generation>, request: Request) -> Result<Answer, Refusal> {
        let arrived = request.due.arrived;
        let shadow = self.shadow.as_ref();
        let _live = shadow.map(Shadow::live);
        let sampled = shadow.filter(|shadow| shadow.samples()).map(|shadow| (shadow, request.clone()));
        let outcome = RowOutcome::new(&self.metrics, &generation);
        let answer = match self.submit(Arc::clone(&generation), request).await {
            Ok(answer) => answer,
            Err(refusal) => {
                outcome.refused(&refusal);
                return Err(refusal);
            }
        };
        outcome.answered(arrived, &answer);
        if let Some((shadow, request)) = sampled {
            shadow.compare(request, answer.routing.route, &generation);
        }
        Ok(answer)
    }

    /// Counts a row that never entered the queue, because its client left or another row failed its call.
    pub fn cancelled(&self, generation: &Arc<Generation>) {
        drop(RowOutcome::new(&self.metrics, generation));
    }

    async fn submit(&self, generation: Arc<Generation>, request: Request) -> Result<Answer, Refusal> {
        // A call may hold its later rows back. They enter the queue now, whenever the call arrived.
        let due = Due { arrived: Instant::now(), ..request.due };
        if due.deadline <= due.arrived {
            // Many rows that are too late would fill the queue until an executor looks at them.
            return Err(Refusal::DeadlineExceeded);
        }
        let (reply, answer) = oneshot::channel();
        let needs_router = request.route.is_none() && generation.fixed_route.is_none();
        let explores = self.exploration.as_ref().filter(|_| needs_router).and_then(Exploration::draw);
        let arrival = Row { request, generation, explores, reply }.arrive(|| self.scheduler.degrade_level());
        self.scheduler.admit(due, arrival).map_err(|rejected| rejected.reason)?;
        match tokio::time::timeout_at(due.deadline.into(), answer).await {
            Ok(Ok(outcome)) => outcome,
            // The row was dropped without an outcome: its executor panicked, or the service has ended.
            Ok(Err(_)) => Err(Refusal::Internal),
            Err(_) => Err(Refusal::DeadlineExceeded),
        }
    }

    /// Waits until the caller may keep a thread of the runtime busy for milliseconds, which lasts as long as the returned permit.
    /// As many may at a time as the runtime has threads. Large answers share these permits ([`AnswerTicket::build_permit`]).
    ///
    /// # Errors
    /// [`Refusal::DeadlineExceeded`] if it does not come to that in time. The row is counted as refused.
    pub async fn build_permit(&self, due: Due) -> Result<Option<OwnedSemaphorePermit>, Refusal> {
        let permit = Arc::clone(&self.build_permits).acquire_owned();
        match tokio::time::timeout_at(due.deadline.into(), permit).await {
            // Nothing closes the semaphore.
            Ok(permit) => Ok(permit.ok()),
            Err(_) => {
                outcome::count(&self.metrics, &Refusal::DeadlineExceeded, 1);
                Err(Refusal::DeadlineExceeded)
            }
        }
    }

    /// Takes the building of a call's large answer into the queue. `rows` is how many rows the call has, and `bytes` the
    /// size that its answer may reach.
    ///
    /// # Errors
    /// [`Refusal::Overloaded`] if too much work waits. The rows are counted as refused.
    pub fn admit_answer(&self, rows: usize, bytes: usize) -> Result<AnswerTicket, Refusal> {
        let admitted = self.scheduler.lock().admit_answer(bytes);
        match admitted {
            Ok(predicted) => {
                let (scheduler, build_permits) = (Arc::clone(&self.scheduler), Arc::clone(&self.build_permits));
                Ok(AnswerTicket { scheduler, build_permits, bytes, predicted, took: None })
            }
            Err(full) => {
                let refusal = Refusal::Overloaded(full);
                outcome::count(&self.metrics, &refusal, rows);
                Err(refusal)
            }
        }
    }

    /// Whether the server is about to stop.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    /// How many of its rows a call should have in the queue at a time. That many fill the executors' batches and the next ones,
    /// and an idle server refuses none of them.
    pub fn rows_at_once(&self, generation: &Generation) -> usize {
        let full = generation.model.shape().full_flops(generation.model.space(), generation.max_len());
        self.scheduler.lock().fitting(full).min(self.max_running.saturating_mul(2))
    }

    /// How many rows wait for the device.
    pub fn queued(&self) -> usize {
        self.scheduler.lock().queued()
    }

    /// The metrics that count the rows.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }
}

impl Drop for Recommender {
    fn drop(&mut self) {
        self.scheduler.close();
    }
}

/// Ends the service when a thread of the executors ends. If the thread panicked, also drops the rows that wait.
struct ThreadGuard {
    scheduler: Arc<RowScheduler>,
    health: Arc<Health>,
}

impl Drop for ThreadGuard {
    fn drop(&mut self) {
        if std::thread::panicking() {
            tracing::error!("a thread that runs the model has panicked: restart the server");
            // Closed replies tell the clients.
            drop(self.scheduler.abandon());
        }
        self.health.end();
    }
}
