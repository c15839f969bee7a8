use std::borrow::Cow;

use serde::Deserialize;

/// The fields of a response to `POST /recommend` that the table prints. Unknown fields of newer servers are ignored.
#[derive(Deserialize)]
pub(super) struct RecommendResponse<'a> {
    #[serde(borrow)]
    pub(super) items: Vec<Item<'a>>,
    #[serde(borrow)]
    pub(super) route: Route<'a>,
    pub(super) compute: Compute,
    #[serde(borrow)]
    pub(super) model: Model<'a>,
    #[serde(borrow)]
    pub(super) history: History<'a>,
}

#[derive(Deserialize)]
pub(super) struct Item<'a> {
    #[serde(borrow)]
    pub(super) item: Cow<'a, str>,
    /// A count of interactions if popularity ranked the item.
    pub(super) score: serde_json::Number,
    #[serde(borrow)]
    pub(super) title: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
pub(super) struct Route<'a> {
    #[serde(borrow)]
    pub(super) name: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub(super) reason: Cow<'a, str>,
    pub(super) confidence: Option<f64>,
}

#[derive(Deserialize)]
pub(super) struct Compute {
    pub(super) flops: u64,
    pub(super) full_flops: u64,
    pub(super) saved: f64,
}

#[derive(Deserialize)]
pub(super) struct Model<'a> {
    #[serde(borrow)]
    pub(super) name: Cow<'a, str>,
    pub(super) version: u64,
}

#[derive(Deserialize)]
pub(super) struct History<'a> {
    pub(super) used: usize,
    #[serde(borrow)]
    pub(super) unknown: Vec<Cow<'a, str>>,
}
