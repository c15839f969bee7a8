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

/// Most items found.
const LIMIT: usize = 20;

/// Longest text that is searched for, in characters.
const MAX_QUERY: usize = 256;

/// Most searches that run at a time; others wait where their clients can still withdraw them.
const AT_ONCE: usize = 2;

/// What searches need.
#[derive(Clone)]
pub(crate) struct Search {
    recommender: Arc<Recommender>,
    turns: Arc<Semaphore>,
}

impl Search {
    /// Searches what `recommender` serves.
    pub(crate) fn new(recommender: &Arc<Recommender>) -> Search {
        Search { recommender: Arc::clone(recommender), turns: Arc::new(Semaphore::new(AT_ONCE)) }
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

/// `GET /items?q=`: items by id or title.
///
/// # Errors
/// 422 without `q`, with a long one or with another parameter, 503 where no model is ready.
#[utoipa::path(
    get,
    path = "/items",
    operation_id = "items",
    tag = "Describe",
    summary = "Search the catalogue",
    description = "The item of this very id, then ids that begin so, then titles that have it in them, 20 at most.",
    params(("q" = String, Query, max_length = 256, description = "A part of a title or the beginning of an id")),
    responses((status = 200, description = "What was found", body = Found))
)]
pub(crate) async fn search(
    State(Search { recommender, turns }): State<Search>,
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
    // Who waits holds no generation: a reload frees the old one only when nobody does.
    let turn = turns.acquire_owned().await.map_err(|closed| failed(&closed))?;
    let generation = recommender.generation()?;
    // A large catalogue takes milliseconds to read through: not on a thread that answers requests.
    let searched = tokio::task::spawn_blocking(move || {
        // What runs goes on where its client leaves: the turn is over when it ends.
        let _turn = turn;
        let catalogue = generation.model.catalogue();
        let entry = |item| FoundItem { item: catalogue.id(item), title: catalogue.title(item) };
        Json(Found { items: find(catalogue, &q).into_iter().map(entry).collect() }).into_response()
    });
    searched.await.map_err(|panicked| failed(&panicked))
}

/// The item of this very id, then ids that begin so, then titles that have it in them in any case, each the most
/// popular first.
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
