use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot, watch};

use super::answer_log::AnswerLog;
use super::executor::{Executor, RowScheduler, deliver};
use super::exploration::Exploration;
use super::health::Health;
use super::judge::Judge;
use super::outcome::{self, RowOutcome};
use super::row::{Answer, LaneKey, Request, Row};
use super::scheduler::Limits;
use super::serving::Current;
use super::shadow::Shadow;
use super::{Candidate, CatalogueFile, Conflict, Generation, GenerationId, Refusal, Serving, Split, Unready};
use crate::metrics::Metrics;

/// Ranks requests on the generation that serves; every transport asks it.
///
/// The executors' threads end when the `Recommender` is dropped and every accepted row is answered. A panic in one of
/// them ends the service, and so do many failed batches in a row: then only a restart helps.
pub struct Recommender {
    current: Current,
    scheduler: Arc<RowScheduler>,
    metrics: Arc<Metrics>,
    /// The most rows that run at a time.
    running: usize,
    draining: AtomicBool,
    health: Arc<Health>,
    shadow: OnceLock<Shadow>,
    exploration: OnceLock<Exploration>,
    judge: OnceLock<Judge>,
    answer_log: OnceLock<AnswerLog>,
    catalogue: OnceLock<Arc<CatalogueFile>>,
    /// A permit for each large answer that may be built at a time.
    builders: Arc<Semaphore>,
}

impl Recommender {
    /// Starts the threads that own the device, and on the current tokio runtime the task that delivers their answers.
    ///
    /// # Errors
    /// [`io::Error`] if a thread cannot be started.
    pub fn start(limits: Limits, metrics: Arc<Metrics>) -> io::Result<(Arc<Recommender>, Vec<JoinHandle<()>>)> {
        let scheduler = Arc::new(RowScheduler::new(limits));
        let (outcomes, delivering) = tokio::sync::mpsc::unbounded_channel();
        let health = Arc::new(Health::default());
        let (executors, max_batch) = (limits.executors.max(1), limits.max_batch.max(1));
        let recommender = Recommender {
            current: Current::default(),
            scheduler: Arc::clone(&scheduler),
            metrics: Arc::clone(&metrics),
            running: max_batch.saturating_mul(executors),
            draining: AtomicBool::new(false),
            health: Arc::clone(&health),
            shadow: OnceLock::new(),
            exploration: OnceLock::new(),
            judge: OnceLock::new(),
            answer_log: OnceLock::new(),
            catalogue: OnceLock::new(),
            builders: Arc::new(Semaphore::new(tokio::runtime::Handle::current().metrics().num_workers())),
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

    /// Swaps a live generation in: new rows are validated against it and run on it. The candidate stays. Returns the
    /// generation that was live before, which rows may still hold.
    pub fn serve(&self, generation: Generation) -> Option<Arc<Generation>> {
        self.give_catalogue(&generation);
        self.change(|before| {
            let candidate = before.as_ref().and_then(|before| before.candidate.clone());
            let next = Serving { live: Arc::new(generation), candidate };
            self.predict_costs(before.as_ref(), &next, &[&next.live]);
            (Some(next), before.map(|before| before.live))
        })
    }

    /// Starts with a live generation and a candidate, if there is one, so that no request finds one without the other.
    pub(crate) fn begin(&self, live: Generation, candidate: Option<(Generation, f64)>) {
        [Some(&live), candidate.as_ref().map(|(candidate, _)| candidate)]
            .into_iter()
            .flatten()
            .for_each(|generation| self.give_catalogue(generation));
        self.change(|before| {
            let candidate = candidate.map(|(generation, share)| candidate_of(generation, share));
            let next = Serving { live: Arc::new(live), candidate };
            let new: Vec<&Arc<Generation>> = next.generations().collect();
            self.predict_costs(before.as_ref(), &next, &new);
            (Some(next), ())
        });
    }

    /// From now on `candidate` answers `share` of the users, in place of the candidate before.
    ///
    /// # Errors
    /// [`Unready`] if no live generation serves.
    pub fn offer(&self, candidate: Generation, share: f64) -> Result<(), Unready> {
        self.give_catalogue(&candidate);
        self.change(|before| {
            let Some(before) = before else { return (None, Err(Unready::Loading)) };
            let candidate = candidate_of(candidate, share);
            let next = Serving { live: Arc::clone(&before.live), candidate: Some(candidate) };
            self.predict_costs(
                Some(&before),
                &next,
                &next.candidate.iter().map(|new| &new.generation).collect::<Vec<_>>(),
            );
            (Some(next), Ok(()))
        })
    }

    /// From now on the candidate answers another share of the users.
    ///
    /// # Errors
    /// [`Conflict`] if version `version` is not the candidate.
    pub(crate) fn change_share(&self, version: u64, share: f64) -> Result<Arc<Generation>, Conflict> {
        self.change(|before| match take_candidate(before, Some(version)) {
            Ok((live, candidate)) => {
                let generation = Arc::clone(&candidate.generation);
                let candidate = Candidate { split: candidate.split.with_share(share), ..candidate };
                (Some(Serving { live, candidate: Some(candidate) }), Ok(generation))
            }
            Err(conflict) => (None, Err(conflict)),
        })
    }

    /// Makes the candidate the live generation. Returns it, and the generation that was live before.
    ///
    /// # Errors
    /// [`Conflict`] if there is no candidate, or if `version` names another.
    pub(crate) fn promote(&self, version: Option<u64>) -> Result<(Arc<Generation>, Arc<Generation>), Conflict> {
        self.change(|before| match take_candidate(before, version) {
            Ok((live, Candidate { generation, .. })) => {
                (Some(Serving::only(Arc::clone(&generation))), Ok((generation, live)))
            }
            Err(conflict) => (None, Err(conflict)),
        })
    }

    /// Ends the candidate. Returns the live generation, which now answers everybody, and the one that was the candidate.
    ///
    /// # Errors
    /// [`Conflict`] if there is no candidate, or if `version` names another.
    pub(crate) fn withdraw(&self, version: Option<u64>) -> Result<(Arc<Generation>, Arc<Generation>), Conflict> {
        self.change(|before| match take_candidate(before, version) {
            Ok((live, Candidate { generation, .. })) => {
                (Some(Serving::only(Arc::clone(&live))), Ok((live, generation)))
            }
            Err(conflict) => (None, Err(conflict)),
        })
    }

    /// Changes what serves, and tells the metrics and whoever follows readiness.
    fn change<T>(&self, change: impl FnOnce(Option<Serving>) -> (Option<Serving>, T)) -> T {
        let catalogue = self.catalogue.get();
        // Until the swap nobody replaces the contents that the generations have.
        let contents = catalogue.map(|file| file.hold());
        let (result, left) = self.current.change(|before| {
            let was_live = before.as_ref().map(|before| before.live.id);
            let mut left: Vec<Arc<Generation>> = before.iter().flat_map(Serving::generations).cloned().collect();
            let (next, result) = change(before);
            match &next {
                Some(next) => left.retain(|before| next.generations().all(|kept| kept.id != before.id)),
                None => left.clear(),
            }
            if let Some((next, contents)) = next.as_ref().zip(contents.as_ref()) {
                next.generations().for_each(|generation| contents.give_to(generation));
            }
            if let Some(Serving { live, candidate }) = &next {
                if let Some((file, view)) = catalogue.zip(live.catalogue_view()).filter(|_| was_live != Some(live.id)) {
                    file.serves(&view);
                }
                self.metrics.serving(live.model.name(), live.model.version(), live.model.digest());
                self.metrics.candidate(candidate.as_ref().map(|Candidate { generation, split }| {
                    (generation.model.version(), generation.model.digest(), split.share())
                }));
            }
            (next, (result, left))
        });
        left.iter().for_each(|left| left.close_history_cache());
        self.health.changed();
        result
    }

    /// Predicts the costs of the lanes of `new` generations of `next`.
    fn predict_costs(&self, before: Option<&Serving>, next: &Serving, new: &[&Arc<Generation>]) {
        match before {
            // A generation that was loaded beside live batches is not timed: the live batches are the better timings.
            Some(before) if new.iter().all(|new| new.timings.routes.is_empty()) => {
                let live = &before.live;
                let pairs: Vec<_> = new.iter().flat_map(|new| LaneKey::counterparts(live, new)).collect();
                // The rows of a generation that leaves still run.
                let kept: Vec<GenerationId> =
                    before.generations().chain(next.generations()).map(|kept| kept.id).collect();
                self.scheduler.lock().adopt(&pairs, |lane| kept.contains(&lane.generation));
            }
            _ => {
                let routes = new
                    .iter()
                    .flat_map(|new| new.timings.routes.iter().map(|(route, ran)| (LaneKey::of(new, *route), *ran)));
                let router: Vec<_> = new.iter().flat_map(|new| new.timings.router.iter().copied()).collect();
                self.scheduler.lock().calibrate(&routes.collect::<Vec<_>>(), &router);
            }
        }
    }

    /// From now on compares `share` of the answered requests with the full model while the device is idle. Only the
    /// first call has an effect.
    ///
    /// # Errors
    /// [`io::Error`] if no thread can be started.
    pub fn compare_with_full(&self, share: f64) -> io::Result<()> {
        let shadow = Shadow::start(share, Arc::clone(&self.metrics))?;
        // A second one drops here and ends its thread.
        let _ = self.shadow.set(shadow);
        Ok(())
    }

    /// From now on runs `share` of the rows that the router would route over a random route. Only the first call has an effect.
    /// `seed` makes the choice of rows and routes repeatable.
    pub fn explore(&self, share: f64, seed: u64) {
        // A second one drops here.
        let _ = self.exploration.set(Exploration::new(share, seed));
    }

    /// From now on judges answers by what users do next, with at most `bytes` of memory. Only the first call has an effect.
    pub fn judge_with(&self, bytes: usize) {
        let _ = self.judge.set(Judge::new(bytes, Arc::clone(&self.metrics)));
    }

    /// Judges answers, if the server does.
    pub fn judge(&self) -> Option<&Judge> {
        self.judge.get()
    }

    /// From now on writes answers to `log`. Only the first call has an effect.
    pub fn log_answers(&self, log: AnswerLog) {
        let _ = self.answer_log.set(log);
    }

    /// The answer log, if there is one.
    pub fn answer_log(&self) -> Option<&AnswerLog> {
        self.answer_log.get()
    }

    /// From now on answers follow this catalogue file. Call it before the first generation is swapped in. Only the first call
    /// has an effect.
    pub fn follow_catalogue(&self, file: Arc<CatalogueFile>) {
        let _ = self.catalogue.set(file);
    }

    /// Gives a generation the catalogue file, before a swap that would hold up others meanwhile.
    fn give_catalogue(&self, generation: &Generation) {
        if let Some(file) = self.catalogue.get() {
            file.hold().give_to(generation);
        }
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
        let shadow = self.shadow.get();
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

    async fn submit(&self, generation: Arc<Generation>, request: Request) -> Result<Answer, Refusal> {
        let due = request.due;
        let (reply, answer) = oneshot::channel();
        let is_routed = request.route.is_none() && generation.fixed_route.is_none();
        let explores = self.exploration.get().filter(|_| is_routed).and_then(Exploration::draw);
        let arrival = Row { request, generation, explores, reply }.arrive(|| self.scheduler.degrade_level());
        self.scheduler.admit(due, arrival).map_err(|rejected| rejected.reason)?;
        match tokio::time::timeout_at(due.deadline.into(), answer).await {
            Ok(Ok(outcome)) => outcome,
            // The row was dropped without an outcome: its executor panicked, or the service has ended.
            Ok(Err(_)) => Err(Refusal::Internal),
            Err(_) => Err(Refusal::DeadlineExceeded),
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
                let (scheduler, builders) = (Arc::clone(&self.scheduler), Arc::clone(&self.builders));
                Ok(AnswerTicket { scheduler, builders, bytes, predicted, took: None })
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

    /// How many rows a call should have in the queue at a time if one refused row fails the whole call. That many fill
    /// the executors' batches, and an idle server refuses none of them.
    pub fn rows_at_once(&self, generation: &Generation) -> usize {
        let full = generation.model.shape().full_flops(generation.model.space(), generation.max_len());
        self.scheduler.lock().fitting(full).min(self.running)
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

fn candidate_of(generation: Generation, share: f64) -> Candidate {
    let split = Split::new(generation.model.name(), generation.model.version(), share);
    Candidate { generation: Arc::new(generation), split }
}

/// The live generation and the candidate.
///
/// # Errors
/// [`Conflict`] if there is no candidate, or if `version` names another.
fn take_candidate(serving: Option<Serving>, version: Option<u64>) -> Result<(Arc<Generation>, Candidate), Conflict> {
    let Some(Serving { live, candidate: Some(candidate) }) = serving else { return Err(Conflict::NoCandidate) };
    let running = candidate.generation.model.version();
    match version {
        Some(asked) if asked != running => Err(Conflict::OtherCandidate { running, asked }),
        _ => Ok((live, candidate)),
    }
}

impl Drop for Recommender {
    fn drop(&mut self) {
        self.scheduler.close();
    }
}

/// A large answer's place in the queue, which it holds until this drops.
pub struct AnswerTicket {
    scheduler: Arc<RowScheduler>,
    builders: Arc<Semaphore>,
    bytes: usize,
    predicted: Duration,
    took: Option<Duration>,
}

impl AnswerTicket {
    /// Waits until this answer may be built, which lasts as long as the returned permit. As many large answers are built at a
    /// time as the runtime has threads: more would only make small answers wait longer between them.
    pub async fn turn(&self) -> Option<OwnedSemaphorePermit> {
        // Nothing closes the semaphore.
        Arc::clone(&self.builders).acquire_owned().await.ok()
    }

    /// The answer is built. `took` leaves out the time in which other tasks had the thread.
    pub fn built(mut self, took: Duration) {
        self.took = Some(took);
    }
}

impl Drop for AnswerTicket {
    fn drop(&mut self) {
        self.scheduler.lock().built(self.predicted, self.took.map(|took| (self.bytes, took)));
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
