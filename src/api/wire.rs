use std::fmt;

use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use super::problem::ProblemBody;

/// Items that are answered where the request does not say.
const DEFAULT_K: u64 = 10;

/// Patience of a client that does not say.
const DEFAULT_TIMEOUT_MS: u64 = 10_000;

/// A request for one ranking, as it is written in JSON.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RecommendRequest {
    /// What the user did, oldest first.
    pub(super) history: Vec<ItemId>,
    #[serde(default = "default_k")]
    pub(super) k: u64,
    #[serde(default = "default_exclude_seen")]
    pub(super) exclude_seen: bool,
    #[serde(default)]
    pub(super) exclude: Vec<ItemId>,
    #[serde(default)]
    pub(super) candidates: Option<Vec<ItemId>>,
    #[serde(default = "default_route")]
    pub(super) route: String,
    /// Share of the full model's FLOPs to spend; without one, the server's.
    #[serde(default)]
    pub(super) budget: Option<f64>,
    #[serde(default = "default_timeout_ms")]
    pub(super) timeout_ms: u64,
}

impl RecommendRequest {
    /// What a request of a history alone asks for.
    pub(super) fn new(history: Vec<ItemId>) -> RecommendRequest {
        RecommendRequest {
            history,
            k: default_k(),
            exclude_seen: default_exclude_seen(),
            exclude: Vec::new(),
            candidates: None,
            route: default_route(),
            budget: None,
            timeout_ms: default_timeout_ms(),
        }
    }
}

fn default_k() -> u64 {
    DEFAULT_K
}

fn default_exclude_seen() -> bool {
    true
}

fn default_route() -> String {
    "auto".to_owned()
}

fn default_timeout_ms() -> u64 {
    DEFAULT_TIMEOUT_MS
}

/// Several requests in one call; each is read on its own, so that one that is wrong does not spoil the others.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct BatchRequest {
    pub(super) requests: Vec<serde_json::Value>,
}

/// An external item id: a string, or a number taken as its decimal string.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ItemId(pub(super) Box<str>);

impl<'de> Deserialize<'de> for ItemId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<ItemId, D::Error> {
        deserializer.deserialize_any(ItemIdVisitor)
    }
}

struct ItemIdVisitor;

impl Visitor<'_> for ItemIdVisitor {
    type Value = ItemId;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an item id (a string or a number)")
    }

    fn visit_str<E: Error>(self, id: &str) -> Result<ItemId, E> {
        Ok(ItemId(id.into()))
    }

    fn visit_u64<E: Error>(self, id: u64) -> Result<ItemId, E> {
        Ok(ItemId(id.to_string().into()))
    }

    fn visit_i64<E: Error>(self, id: i64) -> Result<ItemId, E> {
        Ok(ItemId(id.to_string().into()))
    }

    fn visit_f64<E: Error>(self, id: f64) -> Result<ItemId, E> {
        Ok(ItemId(id.to_string().into()))
    }
}

/// The answer to one request.
#[derive(Debug, Serialize)]
pub(super) struct Recommendation<'a> {
    pub(super) items: Vec<RankedItem<'a>>,
    pub(super) route: RouteTaken<'a>,
    pub(super) compute: Compute,
    pub(super) model: ModelName<'a>,
    pub(super) history: HistoryUsed,
}

/// One recommended item.
#[derive(Debug, Serialize)]
pub(super) struct RankedItem<'a> {
    pub(super) item: &'a str,
    /// The model's score as it is, or the item's popularity on a cold start.
    pub(super) score: Score,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) title: Option<&'a str>,
}

/// What ranked an item.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(untagged)]
pub(super) enum Score {
    /// The model's, not rounded.
    Logit(f32),
    /// Interactions in the training data.
    Popularity(u64),
}

/// Which route ran, and why.
#[derive(Debug, Serialize)]
pub(super) struct RouteTaken<'a> {
    /// `null` where none ran.
    pub(super) name: Option<&'a str>,
    pub(super) reason: &'static str,
    /// The router's probability of the route; `null` where the router did not run.
    pub(super) confidence: Option<f32>,
}

/// What the answer cost, and what the full model would have cost.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(super) struct Compute {
    pub(super) flops: u64,
    pub(super) full_flops: u64,
    pub(super) saved: f64,
}

impl Compute {
    /// Saved is 1 - flops / full: below 0 where the router came on top of the full slice, 0 where nothing ran.
    pub(super) fn new(flops: u64, full_flops: u64) -> Compute {
        let saved = if full_flops == 0 { 0.0 } else { 1.0 - flops as f64 / full_flops as f64 };
        Compute { flops, full_flops, saved }
    }
}

/// The checkpoint that answered.
#[derive(Debug, Serialize)]
pub(super) struct ModelName<'a> {
    pub(super) name: &'a str,
    pub(super) version: u64,
}

/// What was read of the history.
#[derive(Debug, Default, Serialize)]
pub(super) struct HistoryUsed {
    pub(super) used: usize,
    /// Ids that the model does not know, as they were sent.
    pub(super) unknown: Vec<Box<str>>,
}

/// One place of a batch's answer.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(super) enum BatchResult<'a> {
    Recommendation(&'a Recommendation<'a>),
    Problem(ProblemBody<'a>),
}

/// The answer to a batch, in the order of its requests.
#[derive(Debug, Serialize)]
pub(super) struct BatchAnswer<'a> {
    pub(super) results: Vec<BatchResult<'a>>,
}
