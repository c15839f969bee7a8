use std::error::Error;
use std::sync::Arc;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, Request, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use tokio::sync::Semaphore;
use utoipa::ToSchema;

use super::allowance::Allowance;
use super::title_index::TitleIndex;
use super::{Code, Problem};
use canet_domain::{Catalogue, Item};
use canet_serving::{CatalogueRevision, CatalogueView, Generation, GenerationId, Recommender};
use parking_lot::Mutex;

/// Most items in an answer.
const LIMIT: usize = 20;

/// Longest query in characters.
const MAX_QUERY: usize = 256;

/// Most searches that run at one time. The others wait, and stop waiting if their client leaves.
const MAX_RUNNING: usize = 2;

/// Most searches that wait. Further ones are refused.
const MAX_WAITING: usize = 32;

/// The state of the search endpoint.
#[derive(Clone)]
pub(crate) struct Search {
    recommender: Arc<Recommender>,
    /// A permit for each search that runs or waits.
    admitted: Arc<Semaphore>,
    running: Arc<Semaphore>,
    titles: Arc<Titles>,
}

impl Search {
    /// Searches the catalogue that `recommender` serves.
    pub(crate) fn new(recommender: &Arc<Recommender>) -> Search {
        Search {
            recommender: Arc::clone(recommender),
            admitted: Arc::new(Semaphore::new(MAX_RUNNING + MAX_WAITING)),
            running: Arc::new(Semaphore::new(MAX_RUNNING)),
            titles: Arc::default(),
        }
    }
}

/// The index of the titles of one generation and one catalogue file. The first search on them builds it, so that a server
/// without searches has none.
#[derive(Default)]
struct Titles(Mutex<Option<(TitlesId, Arc<TitleIndex>)>>);

/// What has the titles.
type TitlesId = (GenerationId, Option<CatalogueRevision>);

impl Titles {
    fn of(&self, generation: &Generation, view: Option<&CatalogueView>) -> Arc<TitleIndex> {
        let wanted = (generation.id, view.map(|view| view.revision));
        let mut titles = self.0.lock();
        match &*titles {
            Some((id, index)) if *id == wanted => Arc::clone(index),
            _ => {
                // The old one goes first: two would double the memory.
                *titles = None;
                let catalogue = generation.model.catalogue();
                let title = |item| CatalogueView::title(view, catalogue, item);
                let index = Arc::new(TitleIndex::new(catalogue, title));
                *titles = Some((wanted, Arc::clone(&index)));
                index
            }
        }
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
/// 422 if `q` is missing, repeated or too long, or if there is another parameter. 429 if too many searches wait, or if there
/// is no room for the answer. 503 if no model is ready.
#[utoipa::path(
    get,
    path = "/items",
    operation_id = "items",
    tag = "Describe",
    summary = "Search the catalogue",
    description = "At most 20 items: the one with this id, then ids that begin with `q`, then titles that contain it. Hidden items are found too.",
    params(("q" = String, Query, max_length = 256, description = "Part of a title, or the beginning of an id")),
    responses((status = 200, description = "The items", body = Found))
)]
pub(crate) async fn search(
    State(Search { recommender, admitted, running, titles }): State<Search>,
    parameters: Result<Query<Vec<(String, String)>>, QueryRejection>,
    request: Request,
) -> Result<Response, Problem> {
    let Query(parameters) =
        parameters.map_err(|rejection| Problem::new(Code::InvalidRequest, rejection.body_text()))?;
    let mut q = None;
    for (name, value) in parameters {
        if name != "q" {
            let detail = format!("there is no parameter {name:?}: use `q`");
            return Err(Problem::invalid(name, detail));
        }
        if q.replace(value).is_some() {
            return Err(Problem::invalid("q", "`q` is given twice: give one part of a title or of an id"));
        }
    }
    let q = q.ok_or_else(|| Problem::invalid("q", "`q` is missing: give a part of a title or of an id"))?;
    if q.chars().count() > MAX_QUERY {
        return Err(Problem::invalid("q", format!("`q` is longer than {MAX_QUERY} characters")));
    }
    let failed = |error: &dyn Error| {
        tracing::error!(%error, "a search failed");
        Problem::new(Code::Internal, "the search failed")
    };
    let Ok(_admitted) = admitted.try_acquire() else { return Err(too_many()) };
    // A waiting search must not hold a generation, because a reload frees the old one only when nothing does.
    let permit = running.acquire_owned().await.map_err(|closed| failed(&closed))?;
    let generation = recommender.generation()?;
    // Scanning a large catalogue takes milliseconds, which would block a thread that answers requests.
    let searched = tokio::task::spawn_blocking(move || {
        // The scan goes on if its client leaves, so it keeps the permit until it ends.
        let _permit = permit;
        let view = generation.catalogue_view();
        let (catalogue, view) = (generation.model.catalogue(), view.as_deref());
        let index = titles.of(&generation, view);
        let entry = |item| FoundItem { item: catalogue.id(item), title: CatalogueView::title(view, catalogue, item) };
        serde_json::to_vec(&Found { items: find(catalogue, &index, &q).into_iter().map(entry).collect() })
    });
    let json = searched.await.map_err(|panicked| failed(&panicked))?.map_err(Problem::unwritable)?;
    let body = Allowance::answers(request.extensions()).hold(json)?;
    Ok(([(header::CONTENT_TYPE, "application/json")], body).into_response())
}

/// Refuses a search while as many as may wait do.
fn too_many() -> Problem {
    let detail = format!("{MAX_WAITING} searches wait, which is the limit: try again later");
    Problem::new(Code::Overloaded, detail)
}

/// The item with this id, then ids that begin with `q`, then titles that contain it in any case. Each group has the most
/// popular items first.
fn find(catalogue: &Catalogue, index: &TitleIndex, q: &str) -> Vec<Item> {
    let exact = catalogue.item(q);
    let begins = |item: &Item| Some(*item) != exact && catalogue.id(*item).starts_with(q);
    let by_id = catalogue.by_popularity().iter().copied().filter(begins);
    let mut found: Vec<Item> = exact.into_iter().chain(by_id).take(LIMIT).collect();
    let others = index.find(catalogue, q).filter(|item| Some(*item) != exact && !begins(item));
    found.extend(others.take(LIMIT - found.len()));
    found
}

#[cfg(test)]
mod tests {
    use canet_domain::Catalogue;

    use super::{LIMIT, find};
    use crate::title_index::TitleIndex;

    #[test]
    fn the_id_itself_comes_first_then_longer_ids_then_titles() {
        let ids = ["7", "70", "8", "71", "9"];
        let titles = [("8", "Seven 7"), ("71", "7"), ("9", "Se7en")].map(|(id, title)| (id.into(), title.into()));
        let catalogue = Catalogue::new(ids.map(Into::into).to_vec(), vec![1, 2, 3, 4, 5]).unwrap().with_titles(titles);
        let index = TitleIndex::new(&catalogue, |item| catalogue.title(item));
        let found =
            |q: &str| find(&catalogue, &index, q).into_iter().map(|item| catalogue.id(item)).collect::<Vec<_>>();
        assert_eq!(found("7"), ["7", "71", "70", "9", "8"]);
        assert_eq!(found("SEVEN"), ["8"]);
        assert_eq!(found(""), ["9", "71", "8", "70", "7"]);
        assert_eq!(found("none"), [""; 0]);
    }

    #[test]
    fn no_more_are_found_than_fit_an_answer() {
        let ids: Vec<Box<str>> = (0..100).map(|id| format!("film {id}").into()).collect();
        let titles: Vec<(Box<str>, Box<str>)> = ids.iter().map(|id| (id.clone(), "A film".into())).collect();
        let catalogue = Catalogue::new(ids, vec![0; 100]).unwrap().with_titles(titles);
        let index = TitleIndex::new(&catalogue, |item| catalogue.title(item));
        for q in ["", "film", "film 1", "a film", "m"] {
            let found = find(&catalogue, &index, q);
            assert_eq!(found.len(), if q == "film 1" { 11 } else { LIMIT }, "{q}");
        }
    }
}
