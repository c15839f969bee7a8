use std::sync::Arc;

use futures_util::stream::{self, Stream, StreamExt};
use tracing::Span;

use super::Problem;
use super::answer_budget::AnswerShare;
use super::answer_record::{self, Asked};
use super::answer_size::AnswerForm;
use super::deadline::Arrival;
use super::limits::check_rows;
use super::observe::CallId;
use super::reservation::Reservation;
use super::turns::Turns;
use super::validate::{Accepted, Work, accept, check_sum};
use super::wire::{
    Best, Compute, HistoryUsed, ModelName, RankedItems, RecommendRequest, Recommendation, RouteTaken, UserId,
};
use canet_catalogue::{ColdStart, most_popular};
use canet_domain::Reason;
use canet_serving::{Answer, CatalogueView, Generation, JUDGED, Recommender, Serving, Times, UserAnswer, UserRequest};

/// One call on any transport. The generations that it pinned answer all its requests, each that of its side.
///
/// Each transport reads its own messages into [`RecommendRequest`]s and writes [`Recommendation`]s and [`Problem`]s. The
/// steps between are the same for all and stand here: check the requests, reserve the room for the answer, rank.
#[derive(Clone, Copy)]
pub(crate) struct Call<'a> {
    pub(crate) recommender: &'a Recommender,
    pub(crate) serving: &'a Serving,
    pub(crate) arrival: Arrival,
    /// `None` if nobody asks for it.
    pub(crate) id: Option<&'a CallId>,
}

/// An answer, and the time that each stage took.
pub(crate) struct Answered<'a> {
    pub(crate) recommendation: Recommendation<'a>,
    pub(crate) times: Times,
}

/// The requests of a call after the checks, in their order.
pub(crate) type Checked = Vec<Result<Accepted, Problem>>;

/// The outcomes of a batch, in the order of its requests.
pub(crate) struct Outcomes<'a>(pub(crate) Vec<Result<Answered<'a>, Problem>>);

impl<'a> Call<'a> {
    /// Answers the only request of a call and records the route in the call's span. `answers` and `form` say where and how
    /// the answer will be written.
    ///
    /// # Errors
    /// 429 if there is no room for the answer, or the recommender's refusal.
    pub(crate) async fn answer_one(
        &self,
        accepted: Accepted,
        answers: &AnswerShare,
        form: AnswerForm,
    ) -> Result<(Answered<'a>, Reservation), Problem> {
        let size = form.row(self.serving.generation(accepted.side), &accepted);
        let reservation = Reservation::new(self.recommender, answers, size)?;
        let answered = self.answer(accepted).await?;
        Span::current().record("route", answered.recommendation.route.name.unwrap_or("none"));
        Ok((answered, reservation))
    }

    /// Checks one request.
    ///
    /// # Errors
    /// 422 with the wrong field.
    pub(crate) fn accept(&self, request: RecommendRequest) -> Result<Accepted, Problem> {
        let visit = self.recommender.judge().zip(request.user.as_ref()).map(|(judge, user)| {
            let history = request.history.iter().map(|id| &*id.0);
            judge.visit(UserRequest { user: user.as_str(), history })
        });
        Ok(Accepted { visit, ..accept(request, self.serving, self.arrival)? })
    }

    /// Checks the requests of a batch, each alone, so that a wrong one does not affect the others. They are checked in turns
    /// with other tasks, because it takes long to suggest values for an unknown one.
    pub(crate) async fn accept_all<R>(&self, requests: impl Iterator<Item = R>) -> Checked
    where
        R: Future<Output = Result<RecommendRequest, Problem>>,
    {
        let (items, mut ranked) = (self.items(), 0);
        let mut check = |request| check_sum(request, items, &mut ranked);
        let mut accept = |(place, request): (usize, Result<RecommendRequest, Problem>)| {
            Ok(Accepted { place, ..self.accept(check(request?)?)? })
        };
        let (mut checked, mut turns) = (Vec::with_capacity(requests.size_hint().0), Turns::default());
        turns.begin();
        for (place, request) in requests.enumerate() {
            checked.push(accept((place, request.await)));
            turns.long_step().await;
        }
        checked
    }

    /// Reserves the room for the answer to a batch.
    ///
    /// # Errors
    /// 429 if there is none. That concerns the whole call, because its rows share one answer.
    pub(crate) fn reserve(
        &self,
        rows: &Checked,
        answers: &AnswerShare,
        form: AnswerForm,
    ) -> Result<Reservation, Problem> {
        Reservation::new(self.recommender, answers, form.answer(self.serving, rows))
    }

    /// Items of the largest catalogue that answers a request.
    fn items(&self) -> usize {
        self.serving.generations().map(|generation| generation.model.catalogue().len()).max().unwrap_or_default()
    }

    /// Answers one request.
    ///
    /// # Errors
    /// The recommender's refusal.
    pub(crate) async fn answer(
        &self,
        Accepted { side, work, view, history, known, budget, user, visit, place, narrowed }: Accepted,
    ) -> Result<Answered<'a>, Problem> {
        let generation = self.serving.generation(side);
        let k = match &work {
            Work::Rank(request) => request.k,
            Work::ColdStart(cold, _) => cold.k,
        };
        let answered = match work {
            Work::Rank(request) => {
                let answer = self.recommender.rank(Arc::clone(generation), request).await?;
                if let Some((judge, visit)) = self.recommender.judge().zip(visit) {
                    let (unknown, judgeable) = (&history.unknown, k >= JUDGED && !narrowed);
                    let answer = UserAnswer { generation, answer: &answer, unknown, judgeable };
                    judge.answered(&visit, &answer);
                }
                Answered { times: answer.times, recommendation: ranked(generation, view, answer, history) }
            }
            Work::ColdStart(cold, due) => {
                // Popularity within a filter takes long in a large catalogue. As for large answers, few work at a time, and other tasks
                // run between the rows of a call.
                let _permit = if narrowed { self.recommender.build_permit(due).await? } else { None };
                self.recommender.metrics().cold_start();
                let recommendation = popular(generation, view, &cold, history);
                if narrowed {
                    tokio::task::yield_now().await;
                }
                Answered { times: Times::default(), recommendation }
            }
        };
        self.recommender.metrics().history_items(known, answered.recommendation.history.unknown.len());
        if let Some(log) = self.recommender.answer_log() {
            let user = user.as_ref().map(UserId::as_str);
            let asked = Asked { id: self.id, place, user, k, budget, narrowed, arrived: self.arrival.arrived };
            answer_record::write(log, &asked, &answered.recommendation, answered.times);
        }
        Ok(answered)
    }

    /// Answers a request that may have failed a check.
    ///
    /// # Errors
    /// That failure, or as [`answer`](Call::answer).
    pub(crate) async fn answer_checked(&self, request: Result<Accepted, Problem>) -> Result<Answered<'a>, Problem> {
        self.answer(request?).await
    }

    /// Answers requests in their order, each alone. Not all enter the queue at once: a large call would exceed the queue's limit on
    /// every server, however idle.
    pub(crate) fn answers(
        &self,
        requests: impl Iterator<Item = Result<Accepted, Problem>>,
    ) -> impl Stream<Item = Result<Answered<'a>, Problem>> {
        let rows = HeldBack { rows: requests, recommender: self.recommender, serving: self.serving };
        stream::iter(rows.map(move |request| self.answer_checked(request))).buffered(self.rows_at_once())
    }

    /// How many of its rows a call has in the queue at a time.
    pub(crate) fn rows_at_once(&self) -> usize {
        self.recommender.rows_at_once(&self.serving.live)
    }

    /// Answers a batch.
    pub(crate) async fn answer_all(&self, rows: Checked) -> Outcomes<'a> {
        Outcomes(self.answers(rows.into_iter()).collect().await)
    }
}

/// Pins the generations that will answer a call of `rows` requests.
///
/// # Errors
/// 422 if they are too many, 503 if no model is ready.
pub(crate) fn pin(recommender: &Recommender, rows: usize) -> Result<Serving, Problem> {
    check_rows(rows)?;
    Ok(recommender.pin(rows)?)
}

/// The rows of a call that have not begun. Those that are left when this drops are cancelled: the client left, or another
/// row failed the call.
struct HeldBack<'a, R: Iterator<Item = Result<Accepted, Problem>>> {
    rows: R,
    recommender: &'a Recommender,
    serving: &'a Serving,
}

impl<R: Iterator<Item = Result<Accepted, Problem>>> Iterator for HeldBack<'_, R> {
    type Item = Result<Accepted, Problem>;

    fn next(&mut self) -> Option<Self::Item> {
        self.rows.next()
    }
}

impl<R: Iterator<Item = Result<Accepted, Problem>>> Drop for HeldBack<'_, R> {
    fn drop(&mut self) {
        // Rows that failed a check have been counted by then.
        for accepted in self.rows.by_ref().flatten() {
            self.recommender.cancelled(self.serving.generation(accepted.side));
        }
    }
}

impl Outcomes<'_> {
    /// The time that each stage took.
    pub(crate) fn times(&self) -> Times {
        slowest(self.0.iter().flatten().map(|answered| answered.times))
    }

    /// Seconds after which the whole batch may succeed. `None` if waiting does not help.
    pub(crate) fn retry_after(&self) -> Option<u64> {
        self.0.iter().filter_map(|outcome| outcome.as_ref().err()?.retry_after).max()
    }
}

/// The longest time of each stage, because a batch waits for its slowest row.
pub(crate) fn slowest(times: impl Iterator<Item = Times>) -> Times {
    times.fold(Times::default(), |a, b| Times {
        queue: a.queue.max(b.queue),
        router: a.router.max(b.router),
        forward: a.forward.max(b.forward),
    })
}

fn ranked<'a>(
    generation: &'a Generation,
    view: Option<Arc<CatalogueView>>,
    answer: Answer,
    history: HistoryUsed,
) -> Recommendation<'a> {
    let Answer { ranked, routing, reused, second_run, times: _ } = answer;
    let flops = routing.slice_flops + second_run + routing.router_flops;
    Recommendation {
        items: RankedItems::new(generation.model.catalogue(), Best::ByScore(ranked)).with_view(view),
        route: RouteTaken {
            name: Some(generation.model.space().name(routing.route)),
            reason: routing.reason.name(),
            confidence: routing.confidence,
        },
        compute: Compute::new(flops, routing.full_flops).reusing(reused),
        model: model(generation),
        history,
    }
}

fn popular<'a>(
    generation: &'a Generation,
    view: Option<Arc<CatalogueView>>,
    cold: &ColdStart,
    history: HistoryUsed,
) -> Recommendation<'a> {
    let catalogue = generation.model.catalogue();
    let best = most_popular(catalogue, cold);
    Recommendation {
        items: RankedItems::new(catalogue, Best::ByPopularity(best)).with_view(view),
        route: RouteTaken { name: None, reason: Reason::ColdStart.name(), confidence: None },
        compute: Compute::default(),
        model: model(generation),
        history,
    }
}

fn model(generation: &Generation) -> ModelName<'_> {
    ModelName { name: generation.model.name(), version: generation.model.version() }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::future::{Future, ready};
    use std::pin::pin;
    use std::task::{Context, Waker};

    use serde_json::json;

    use super::Call;
    use crate::Code;
    use crate::deadline::Arrival;
    use crate::testing::Fixture;
    use crate::wire::{ExternalId, RecommendRequest};

    #[tokio::test]
    async fn other_tasks_run_between_narrowed_cold_starts() {
        let fixture = Fixture::new();
        fixture.reloader.reload(None).await.unwrap();
        let serving = fixture.recommender.serving().unwrap();
        let known = ExternalId(serving.live.model.catalogue().ids()[0].clone());
        let call = Call { recommender: &fixture.recommender, serving: &serving, arrival: Arrival::now(), id: None };
        let request =
            || Ok(RecommendRequest { candidates: Some(vec![known.clone()]), ..RecommendRequest::new(Vec::new()) });
        let rows = call.accept_all((0..5).map(|_| ready(request()))).await;
        let others = Cell::new(0);
        let answering = async {
            let outcomes = call.answer_all(rows).await;
            assert!(others.get() >= 4, "other tasks ran {} times", others.get());
            assert!(outcomes.0.iter().all(|outcome| outcome.as_ref().unwrap().recommendation.items.len() == 1));
        };
        let other = async {
            for _ in 0..10 {
                others.set(others.get() + 1);
                tokio::task::yield_now().await;
            }
        };
        tokio::join!(answering, other);
    }

    #[tokio::test]
    async fn every_row_of_a_call_that_its_client_leaves_is_cancelled_and_counted_once() {
        let fixture = Fixture::new();
        fixture.reloader.reload(None).await.unwrap();
        let serving = fixture.recommender.serving().unwrap();
        let known = ExternalId(serving.live.model.catalogue().ids()[0].clone());
        let call = Call { recommender: &fixture.recommender, serving: &serving, arrival: Arrival::now(), id: None };
        let rows = call.accept_all((0..100).map(|_| ready(Ok(RecommendRequest::new(vec![known.clone()]))))).await;
        assert!(call.rows_at_once() < 100);
        {
            let mut answering = pin!(call.answer_all(rows));
            assert!(answering.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        }
        let metrics = fixture.recommender.metrics().render().unwrap();
        for series in ["rejected_total{reason=\"cancelled\"} 100", "history_items_total{known=\"true\"} 0"] {
            assert!(metrics.contains(&format!("canet_{series}\n")), "{series}: {metrics}");
        }
    }

    #[tokio::test]
    async fn a_narrowed_cold_start_that_waits_beyond_its_deadline_is_refused() {
        let fixture = Fixture::new();
        fixture.reloader.reload(None).await.unwrap();
        let serving = fixture.recommender.serving().unwrap();
        let call = Call { recommender: &fixture.recommender, serving: &serving, arrival: Arrival::now(), id: None };
        let answered = async |request: serde_json::Value| {
            let accepted = call.accept(serde_json::from_value(request).unwrap()).unwrap();
            call.answer(accepted).await.map(drop).map_err(|problem| problem.code)
        };
        // The runtime has one thread, which another answer has.
        let busy = fixture.recommender.build_permit(Arrival::now().due(60_000)).await.unwrap();
        let late = json!({"history": [], "candidates": ["x"], "timeout_ms": 1});
        assert_eq!(answered(late).await, Err(Code::DeadlineExceeded));
        let metrics = fixture.recommender.metrics().render().unwrap();
        assert!(metrics.contains("canet_rejected_total{reason=\"deadline\"} 1\n"), "{metrics}");
        // An empty filter and empty quotas narrow nothing.
        let wide = json!({"history": [], "filter": {}, "max_per": {}, "timeout_ms": 60_000});
        assert_eq!(answered(wide).await, Ok(()));
        drop(busy);
        assert_eq!(answered(json!({"history": [], "candidates": ["x"], "timeout_ms": 60_000})).await, Ok(()));
    }
}
