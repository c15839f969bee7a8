use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::call::{Call, pin};
use super::deadline::Arrival;
use super::wire::{BatchAnswer, BatchRequest, BatchResult, RecommendRequest, Recommendation};
use super::{Problem, body};
use canet_serving::{Recommender, Times};

/// `POST /recommend`.
///
/// # Errors
/// Problems of the body, 422, 429, 503 or 504.
#[utoipa::path(
    post,
    path = "/recommend",
    operation_id = "recommend",
    tag = "Recommend",
    summary = "Recommend",
    description = "Ranks the catalogue for one history. Without a known item in the history it ranks by popularity.",
    request_body = RecommendRequest,
    responses((status = 200, description = "The ranking", body = Recommendation))
)]
pub(crate) async fn one(State(recommender): State<Arc<Recommender>>, request: Request) -> Result<Response, Problem> {
    let bytes = body::read_json(request).await?;
    let arrival = Arrival::now();
    let request = body::parse_with_ids(&bytes)?;
    let generation = pin(&recommender, 1)?;
    let answered = Call::new(&recommender, &generation, arrival).answer_one(request).await?;
    respond(&answered.recommendation, answered.times)
}

/// `POST /recommend/batch`: answers each request alone, in the order of the call.
///
/// # Errors
/// Problems of the body, or 503 if no model is ready.
#[utoipa::path(
    post,
    path = "/recommend/batch",
    operation_id = "recommend_batch",
    tag = "Recommend",
    summary = "Recommend for many",
    description = "Answers each request alone, in the order of the call.",
    request_body = BatchRequest,
    responses((status = 200, description = "A ranking or a problem for each request", body = BatchAnswer))
)]
pub(crate) async fn many(State(recommender): State<Arc<Recommender>>, request: Request) -> Result<Response, Problem> {
    let bytes = body::read_json(request).await?;
    let arrival = Arrival::now();
    let BatchRequest { requests } = body::parse(&bytes)?;
    let generation = pin(&recommender, requests.count)?;
    let call = Call::new(&recommender, &generation, arrival);
    let outcomes = call.answer_all(requests.kept.into_iter().map(body::parse_part)).await;

    let results = outcomes.0.iter().map(|outcome| match outcome {
        Ok(answered) => BatchResult::Recommendation(&answered.recommendation),
        Err(problem) => BatchResult::Problem(problem.body()),
    });
    let mut response = respond(&BatchAnswer { results: results.collect() }, outcomes.times())?;
    if let Some(seconds) = outcomes.retry_after() {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    Ok(response)
}

/// Initial capacity of an answer: enough for ten items with titles.
const ANSWER_BYTES: usize = 1 << 10;

/// Writes the answer in the request's task, so that the executor threads do not.
fn respond(answer: &impl Serialize, times: Times) -> Result<Response, Problem> {
    let mut body = Vec::with_capacity(ANSWER_BYTES);
    serde_json::to_writer(&mut body, answer).map_err(Problem::unwritable)?;
    let mut response = ([(header::CONTENT_TYPE, "application/json")], body).into_response();
    response.extensions_mut().insert(times);
    Ok(response)
}
