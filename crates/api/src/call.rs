use std::cmp::Reverse;
use std::sync::Arc;

use futures_util::future::join_all;
use tracing::Span;

use super::Problem;
use super::deadline::Arrival;
use super::limits::check_rows;
use super::validate::{Accepted, ColdStart, Work, accept, check_sum};
use super::wire::{Compute, HistoryUsed, ModelName, RankedItem, RecommendRequest, Recommendation, RouteTaken, Score};
use canet_domain::{Item, Reason};
use canet_serving::{Answer, Generation, Recommender, Times};

/// One call on any transport. The generation that it pinned answers all its requests.
///
/// Each transport reads its own messages into [`RecommendRequest`]s and writes [`Recommendation`]s and [`Problem`]s. The
/// steps between are the same for all and stand here.
pub(crate) struct Call<'a> {
    recommender: &'a Recommender,
    generation: &'a Arc<Generation>,
    arrival: Arrival,
}

/// An answer, and the time that each stage took.
pub(crate) struct Answered<'a> {
    pub(crate) recommendation: Recommendation<'a>,
    pub(crate) times: Times,
}

/// The outcomes of a batch, in the order of its requests.
pub(crate) struct Outcomes<'a>(pub(crate) Vec<Result<Answered<'a>, Problem>>);

impl<'a> Call<'a> {
    /// A call that arrived at `arrival`.
    pub(crate) fn new(recommender: &'a Recommender, generation: &'a Arc<Generation>, arrival: Arrival) -> Call<'a> {
        Call { recommender, generation, arrival }
    }

    /// Answers the only request of a call and records the route in the call's span.
    ///
    /// # Errors
    /// 422 with the wrong field, or the recommender's refusal.
    pub(crate) async fn answer_one(&self, request: RecommendRequest) -> Result<Answered<'a>, Problem> {
        let answered = self.answer(request).await?;
        Span::current().record("route", answered.recommendation.route.name.unwrap_or("none"));
        Ok(answered)
    }

    /// Answers one request.
    ///
    /// # Errors
    /// As [`answer_one`](Call::answer_one).
    pub(crate) async fn answer(&self, request: RecommendRequest) -> Result<Answered<'a>, Problem> {
        let Accepted { work, history } = accept(request, self.generation, self.arrival)?;
        match work {
            Work::Rank(request) => {
                let answer = self.recommender.rank(Arc::clone(self.generation), request).await?;
                Ok(Answered { times: answer.times, recommendation: ranked(self.generation, &answer, history) })
            }
            Work::ColdStart(cold) => {
                self.recommender.metrics().cold_start();
                let recommendation = popular(self.generation, &cold, history);
                Ok(Answered { times: Times::default(), recommendation })
            }
        }
    }

    /// Answers a request that may have failed an earlier check.
    ///
    /// # Errors
    /// That failure, or as [`answer_one`](Call::answer_one).
    pub(crate) async fn answer_checked(
        &self,
        request: Result<RecommendRequest, Problem>,
    ) -> Result<Answered<'a>, Problem> {
        self.answer(request?).await
    }

    /// Answers a batch. Each request is admitted alone, so that a wrong one does not affect the others.
    pub(crate) async fn answer_all(
        &self,
        requests: impl IntoIterator<Item = Result<RecommendRequest, Problem>>,
    ) -> Outcomes<'a> {
        let (items, mut ranked) = (self.generation.model.catalogue().len(), 0);
        let mut check = |request| check_sum(request, items, &mut ranked);
        let bounded = requests.into_iter().map(|request| request.and_then(&mut check));
        Outcomes(join_all(bounded.map(|request| self.answer_checked(request))).await)
    }
}

/// Pins the generation that will answer a call of `rows` requests.
///
/// # Errors
/// 422 if they are too many, 503 if no model is ready.
pub(crate) fn pin(recommender: &Recommender, rows: usize) -> Result<Arc<Generation>, Problem> {
    check_rows(rows)?;
    Ok(recommender.pin(rows)?)
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

fn ranked<'a>(generation: &'a Generation, answer: &Answer, history: HistoryUsed) -> Recommendation<'a> {
    let routing = &answer.routing;
    let items = answer.ranked.iter().map(|ranked| item(generation, ranked.item, Score::Logit(ranked.score)));
    Recommendation {
        items: items.collect(),
        route: RouteTaken {
            name: Some(generation.model.space().name(routing.route)),
            reason: routing.reason.name(),
            confidence: routing.confidence,
        },
        compute: Compute::new(routing.slice_flops + routing.router_flops, routing.full_flops),
        model: model(generation),
        history,
    }
}

fn popular<'a>(generation: &'a Generation, cold: &ColdStart, history: HistoryUsed) -> Recommendation<'a> {
    let catalogue = generation.model.catalogue();
    let allowed = |item: &Item| !cold.excluded.contains(item);
    let count = |item: Item| catalogue.popularity()[item.column() - 1];
    let best: Vec<Item> = match &cold.candidates {
        None => catalogue.by_popularity().iter().copied().filter(allowed).take(cold.k).collect(),
        // Candidates are few compared with the catalogue. A scan by popularity could go through all of it.
        Some(candidates) => {
            let mut best: Vec<Item> = candidates.iter().copied().filter(allowed).collect();
            best.sort_unstable_by_key(|item| (Reverse(count(*item)), *item));
            best.truncate(cold.k);
            best
        }
    };
    Recommendation {
        items: best.into_iter().map(|best| item(generation, best, Score::Popularity(count(best)))).collect(),
        route: RouteTaken { name: None, reason: Reason::ColdStart.name(), confidence: None },
        compute: Compute::default(),
        model: model(generation),
        history,
    }
}

fn item(generation: &Generation, item: Item, score: Score) -> RankedItem<'_> {
    let catalogue = generation.model.catalogue();
    RankedItem { item: catalogue.id(item), score, title: catalogue.title(item) }
}

fn model(generation: &Generation) -> ModelName<'_> {
    ModelName { name: generation.model.name(), version: generation.model.version() }
}
