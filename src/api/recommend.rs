use std::sync::Arc;
use std::time::Instant;

use axum::extract::{Request, State};
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use futures_util::future::join_all;
use serde::Serialize;

use super::validate::{Accepted, ColdStart, Work, accept};
use super::wire::{
    BatchAnswer, BatchRequest, BatchResult, Compute, HistoryUsed, ModelName, RankedItem, RecommendRequest,
    Recommendation, RouteTaken, Score,
};
use super::{Code, Problem, body};
use crate::domain::{Item, Reason};
use crate::serving::{Answer, Generation, Recommender, Times};

/// Most requests a batch.
pub(super) const MAX_BATCH_REQUESTS: usize = 1024;

/// `POST /recommend`.
///
/// # Errors
/// Every [`Code`] but those of the path.
#[utoipa::path(
    post,
    path = "/recommend",
    operation_id = "recommend",
    tag = "Recommend",
    summary = "Recommend",
    description = "Ranks the catalogue for one history. A history without a known item is answered by popularity.",
    request_body = RecommendRequest,
    responses((status = 200, description = "The ranking", body = Recommendation))
)]
pub(super) async fn one(State(recommender): State<Arc<Recommender>>, request: Request) -> Result<Response, Problem> {
    let bytes = body::read_json(request).await?;
    let arrived = Instant::now();
    let wire = body::parse(&bytes)?;
    let generation = recommender.pin(1)?;
    let answered = answer(&recommender, &generation, accept(wire, &generation, arrived)?).await?;
    tracing::Span::current().record("route", answered.recommendation.route.name.unwrap_or("none"));
    respond(&answered.recommendation, answered.times)
}

/// `POST /recommend/batch`: every request is admitted and answered on its own, in the order of the call.
///
/// # Errors
/// Where the call as a whole cannot be read or no model is ready.
#[utoipa::path(
    post,
    path = "/recommend/batch",
    operation_id = "recommend_batch",
    tag = "Recommend",
    summary = "Recommend for many",
    description = "Every request is admitted and answered on its own, in the order of the call.",
    request_body = BatchRequest,
    responses((status = 200, description = "A ranking or a problem for each request", body = BatchAnswer))
)]
pub(super) async fn many(State(recommender): State<Arc<Recommender>>, request: Request) -> Result<Response, Problem> {
    let bytes = body::read_json(request).await?;
    let arrived = Instant::now();
    let BatchRequest { requests } = body::parse(&bytes)?;
    if requests.len() > MAX_BATCH_REQUESTS {
        let detail = format!("{} requests are too many for one call: at most {MAX_BATCH_REQUESTS}", requests.len());
        return Err(Problem::invalid("requests", detail));
    }
    let generation = recommender.pin(requests.len())?;
    let row = async |request| {
        let accepted = body::convert(request).and_then(|wire| accept(wire, &generation, arrived))?;
        answer(&recommender, &generation, accepted).await
    };
    let outcomes: Vec<Result<Answered<'_>, Problem>> = join_all(requests.into_iter().map(row)).await;

    let retry_after = outcomes.iter().filter_map(|outcome| outcome.as_ref().err()?.retry_after).max();
    let times = outcomes.iter().flatten().map(|answered| answered.times).fold(Times::default(), slowest);
    let results = outcomes.iter().map(|outcome| match outcome {
        Ok(answered) => BatchResult::Recommendation(&answered.recommendation),
        Err(problem) => BatchResult::Problem(problem.body()),
    });
    let mut response = respond(&BatchAnswer { results: results.collect() }, times)?;
    if let Some(seconds) = retry_after {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    Ok(response)
}

/// An answer, and where its time went.
struct Answered<'a> {
    recommendation: Recommendation<'a>,
    times: Times,
}

async fn answer<'a>(
    recommender: &Recommender,
    generation: &'a Arc<Generation>,
    accepted: Accepted,
) -> Result<Answered<'a>, Problem> {
    match accepted.work {
        Work::Rank(request) => {
            let answer = recommender.rank(Arc::clone(generation), request).await?;
            Ok(Answered { times: answer.times, recommendation: ranked(generation, &answer, accepted.history) })
        }
        Work::ColdStart(cold) => {
            recommender.metrics().cold_start();
            let recommendation = popular(generation, &cold, accepted.history);
            Ok(Answered { times: Times::default(), recommendation })
        }
    }
}

fn ranked<'a>(generation: &'a Generation, answer: &Answer, history: HistoryUsed) -> Recommendation<'a> {
    let routing = &answer.routing;
    let items = answer.ranked.iter().map(|ranked| item(generation, ranked.item, Score::Logit(ranked.score)));
    Recommendation {
        items: items.collect(),
        route: RouteTaken {
            name: Some(generation.space.name(routing.route)),
            reason: routing.reason.name(),
            confidence: routing.confidence,
        },
        compute: Compute::new(routing.slice_flops + routing.router_flops, routing.full_flops),
        model: model(generation),
        history,
    }
}

fn popular<'a>(generation: &'a Generation, cold: &ColdStart, history: HistoryUsed) -> Recommendation<'a> {
    let allowed = |item: &Item| {
        !cold.excluded.contains(item) && cold.candidates.as_ref().is_none_or(|candidates| candidates.contains(item))
    };
    let Generation { catalogue, .. } = generation;
    let best = catalogue.by_popularity().iter().copied().filter(allowed).take(cold.k);
    let counts = catalogue.popularity();
    Recommendation {
        items: best.map(|best| item(generation, best, Score::Popularity(counts[best.column() - 1]))).collect(),
        route: RouteTaken { name: None, reason: Reason::ColdStart.name(), confidence: None },
        compute: Compute::default(),
        model: model(generation),
        history,
    }
}

fn item(generation: &Generation, item: Item, score: Score) -> RankedItem<'_> {
    RankedItem { item: generation.catalogue.id(item), score, title: generation.catalogue.title(item) }
}

fn model(generation: &Generation) -> ModelName<'_> {
    ModelName { name: &generation.name, version: generation.version }
}

/// The longest of each stage: a batch has waited for its slowest row.
fn slowest(a: Times, b: Times) -> Times {
    Times { queue: a.queue.max(b.queue), router: a.router.max(b.router), forward: a.forward.max(b.forward) }
}

/// The body is built here, in the task of the request, and not by the thread that owns the device.
fn respond(answer: &impl Serialize, times: Times) -> Result<Response, Problem> {
    let body = serde_json::to_vec(answer).map_err(|error| {
        tracing::error!(%error, "an answer could not be written as JSON");
        Problem::new(Code::Internal, "the answer could not be written")
    })?;
    let mut response = ([(header::CONTENT_TYPE, "application/json")], body).into_response();
    response.extensions_mut().insert(times);
    Ok(response)
}
