use std::error::Error;
use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use tokio::sync::Semaphore;
use utoipa::ToSchema;

use super::{Code, Problem};
use canet_domain::{Catalogue, Item};
use canet_serving::Recommender;

/// Most items in an answer.
const LIMIT: usize = 20;

/// Longest query in characters.
const MAX_QUERY: usize = 256;

/// Most searches that run at one time. The others wait, and stop waiting if their client leaves.
const MAX_RUNNING: usize = 2;

/// The state of the search endpoint.
#[derive(Clone)]
pub(crate) struct Search {
    recommender: Arc<Recommender>,
    running: Arc<Semaphore>,
}

impl Search {
    /// Searches the catalogue that `recommender` serves.
    pub(crate) fn new(recommender: &Arc<Recommender>) -> Search {
        Search { recommender: Arc::clone(recommender), running: Arc::new(Semaphore::new(MAX_RUNNING)) }
    }
}

#[derive(Serialize, ToSchema)]
pub(crate) struct Found<'a> {
    items: Vec<FoundItem<'a>>,
}

#[derive(Serialize, ToSchema)]
struct FoundItem<'a> {
    item: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    title: Option<&'a str>,
}

/// `GET /items?q=` finds items by id or title.
///
/// # Errors
/// 422 if `q` is missing or too long, or if there is another parameter. 503 if no model is ready.
#[utoipa::path(
    get,
    path = "/items",
    operation_id = "items",
    tag = "Describe",
    summary = "Search the catalogue",
    description = "At most 20 items: the one with this id, then ids that begin with `q`, then titles that contain it.",
    params(("q" = String, Query, max_length = 256, description = "Part of a title, or the beginning of an id")),
    responses((status = 200, description = "The items", body = Found))
)]
pub(crate) async fn search(
    State(Search { recommender, running }): State<Search>,
    parameters: Result<Query<Vec<(String, String)>>, QueryRejection>,
) -> Result<Response, Problem> {
    let Query(parameters) =
        parameters.map_err(|rejection| Problem::new(Code::InvalidRequest, rejection.body_text()))?;
    let mut q = None;
    for (name, value) in parameters {
        if name != "q" {
            let detail = format!("there is no parameter {name:?}: use `q`");
            return Err(Problem::invalid(name, detail));
        }
        q = Some(value);
    }
    let q = q.ok_or_else(|| Problem::invalid("q", "`q` is missing: give a part of a title or of an id"))?;
    if q.chars().count() > MAX_QUERY {
        return Err(Problem::invalid("q", format!("`q` is longer than {MAX_QUERY} characters")));
    }
    let failed = |error: &dyn Error| {
        tracing::error!(%error, "a search failed");
        Problem::new(Code::Internal, "the search failed")
    };
    // A waiting search must not hold a generation, because a reload frees the old one only when nothing does.
    let permit = running.acquire_owned().await.map_err(|closed| failed(&closed))?;
    let generation = recommender.generation()?;
    // Scanning a large catalogue takes milliseconds, which would block a thread that answers requests.
    let searched = tokio::task::spawn_blocking(move || {
        // The scan goes on if its client leaves, so it keeps the permit until it ends.
        let _permit = permit;
        let catalogue = generation.model.catalogue();
        let entry = |item| FoundItem { item: catalogue.id(item), title: catalogue.title(item) };
        Json(Found { items: find(catalogue, &q).into_iter().map(entry).collect() }).into_response()
    });
    searched.await.map_err(|panicked| failed(&panicked))
}

/// The item with this id, then ids that begin with `q`, then titles that contain it in any case. Each group has the most
/// popular items first.
fn find(catalogue: &Catalogue, q: &str) -> Vec<Item> {
    let exact = catalogue.item(q);
    let (mut by_id, mut by_title) = (Vec::new(), Vec::new());
    let lower = q.to_lowercase();
    for item in catalogue.by_popularity().iter().copied().filter(|item| Some(*item) != exact) {
        if catalogue.id(item).starts_with(q) {
            by_id.push(item);
        } else if by_title.len() < LIMIT
            && catalogue.title(item).is_some_and(|title| title.to_lowercase().contains(&lower))
        {
            by_title.push(item);
        }
        if by_id.len() == LIMIT {
            break;
        }
    }
    exact.into_iter().chain(by_id).chain(by_title).take(LIMIT).collect()
}
