use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use serde_json::value::RawValue;

use super::allowance::Allowance;
use super::answer_json::JsonAnswer;
use super::answer_size::AnswerForm;
use super::body_turn::BodyTurn;
use super::call::{Call, pin};
use super::deadline::Arrival;
use super::observe::CallId;
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
    let (answers, id) = (Allowance::answers(request.extensions()), CallId::of(request.extensions()));
    let bytes = body::read_json(request).await?;
    let arrival = Arrival::now();
    let turn = BodyTurn::to_parse(bytes.len()).await;
    let request = turn.run(|| body::parse_with_ids(&bytes))?;
    let serving = pin(&recommender, 1)?;
    let call = Call { recommender: &recommender, serving: &serving, arrival, id: id.as_ref() };
    let accepted = turn.run(|| call.accept(request))?;
    drop(turn);
    let (answered, reservation) = call.answer_one(accepted, &answers, AnswerForm::Json).await?;
    let mut json = JsonAnswer::new(reservation);
    let _permit = json.build_permit().await;
    json.recommendation(&answered.recommendation).await?;
    Ok(respond(json.finish()?, answered.times))
}

/// `POST /recommend/batch`: answers each request alone, in the order of the call.
///
/// # Errors
/// Problems of the body, 429 if there is no room for the answer, or 503 if no model is ready.
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
    let (answers, id) = (Allowance::answers(request.extensions()), CallId::of(request.extensions()));
    let bytes = body::read_json(request).await?;
    let arrival = Arrival::now();
    let turn = BodyTurn::to_parse(bytes.len()).await;
    let BatchRequest { requests } = turn.run(|| body::parse(&bytes))?;
    drop(turn);
    let serving = pin(&recommender, requests.count)?;
    let call = Call { recommender: &recommender, serving: &serving, arrival, id: id.as_ref() };
    let parse = async |part: &RawValue| {
        let turn = BodyTurn::to_parse(part.get().len()).await;
        turn.run(|| body::parse_part(part))
    };
    let rows = call.accept_all(requests.kept.into_iter().map(parse)).await;
    let mut json = JsonAnswer::new(call.reserve(&rows, &answers, AnswerForm::Json)?);
    let outcomes = call.answer_all(rows).await;

    let results = outcomes.0.iter().map(|outcome| match outcome {
        Ok(answered) => BatchResult::Recommendation(&answered.recommendation),
        Err(problem) => BatchResult::Problem(problem.body()),
    });
    let _permit = json.build_permit().await;
    json.batch(&BatchAnswer { results: results.collect() }).await?;
    let mut response = respond(json.finish()?, outcomes.times());
    if let Some(seconds) = outcomes.retry_after() {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    Ok(response)
}

fn respond(body: Bytes, times: Times) -> Response {
    let mut response = ([(header::CONTENT_TYPE, "application/json")], body).into_response();
    response.extensions_mut().insert(times);
    response
}
