use std::fmt;

use serde::de::{Error, IgnoredAny, SeqAccess, Unexpected, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::openapi::batch_rows;
use super::problem::ProblemBody;
use super::validate::MAX_ROWS;

/// Items that are answered where the request does not say and the catalogue has as many.
const DEFAULT_K: usize = 10;

/// Patience of a client that does not say.
const DEFAULT_TIMEOUT_MS: u64 = 10_000;

/// A request for one ranking, as it is written in JSON.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RecommendRequest {
    /// What the user did, oldest first. Unknown items are dropped, then the last that the model reads are kept.
    #[schema(max_items = 100_000)]
    pub(crate) history: Vec<ItemId>,
    /// Most items to recommend.
    #[serde(default, deserialize_with = "some_integer")]
    #[schema(value_type = u64)]
    pub(crate) k: Option<u64>,
    /// Whether items of the history are left out.
    #[serde(default = "default_exclude_seen")]
    #[schema(default = default_exclude_seen)]
    pub(crate) exclude_seen: bool,
    /// Items to leave out.
    #[serde(default)]
    #[schema(max_items = 100_000)]
    pub(crate) exclude: Vec<ItemId>,
    /// Items to choose from; every item where it is `null`.
    #[serde(default)]
    #[schema(max_items = 100_000)]
    pub(crate) candidates: Option<Vec<ItemId>>,
    /// The route to run: `auto` leaves it to the router.
    #[serde(default = "default_route")]
    #[schema(default = default_route)]
    pub(crate) route: String,
    /// Share of the full model's FLOPs to spend; without one, the server's. Between the budgets that `/model` lists it is
    /// interpolated, outside them the nearest one holds.
    #[serde(default)]
    #[schema(exclusive_minimum = 0.0, maximum = 1.0)]
    pub(crate) budget: Option<f64>,
    /// How long the client waits.
    #[serde(default = "default_timeout_ms", deserialize_with = "integer")]
    #[schema(default = default_timeout_ms, minimum = 1, maximum = 60_000)]
    pub(crate) timeout_ms: u64,
}

impl RecommendRequest {
    /// What a request of a history alone asks for.
    pub(crate) fn new(history: Vec<ItemId>) -> RecommendRequest {
        RecommendRequest {
            history,
            k: None,
            exclude_seen: default_exclude_seen(),
            exclude: Vec::new(),
            candidates: None,
            route: default_route(),
            budget: None,
            timeout_ms: default_timeout_ms(),
        }
    }

    /// How many of `items` it asks for.
    pub(crate) fn k(&self, items: usize) -> u64 {
        self.k.unwrap_or_else(|| default_k(items))
    }
}

/// Items that are answered of a catalogue of `items` where the request does not say.
pub(crate) fn default_k(items: usize) -> u64 {
    DEFAULT_K.min(items) as u64
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

/// A whole number, written as JSON has it: `10`, `10.0` and `1e1` are the same one.
pub(crate) fn integer<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    deserializer.deserialize_any(IntegerVisitor)
}

/// The same where the field may be missing, but not `null`.
fn some_integer<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    integer(deserializer).map(Some)
}

/// The same, or `null`.
pub(crate) fn optional_integer<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    #[derive(Deserialize)]
    struct Integer(#[serde(deserialize_with = "integer")] u64);
    Ok(Option::<Integer>::deserialize(deserializer)?.map(|Integer(number)| number))
}

struct IntegerVisitor;

impl Visitor<'_> for IntegerVisitor {
    type Value = u64;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a whole number from 0 up")
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<u64, E> {
        Ok(number)
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<u64, E> {
        // Both bounds are numbers of f64, and below 2^64 the cast is exact.
        let whole = number.fract() == 0.0 && (0.0..u64::MAX as f64).contains(&number);
        if whole { Ok(number as u64) } else { Err(E::invalid_value(Unexpected::Float(number), &self)) }
    }
}

/// Several requests in one call; each is read on its own, so that one that is wrong does not spoil the others.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct BatchRequest<'a> {
    /// Each as of `/recommend`; whatever is not gets a problem in its place of the answer.
    #[serde(borrow)]
    #[schema(schema_with = batch_rows)]
    pub(crate) requests: Rows<'a>,
}

/// The rows of a batch as they are written. Of those that are too many nothing but their number is kept.
#[derive(Debug, Default)]
pub(crate) struct Rows<'a> {
    pub(crate) kept: Vec<&'a RawValue>,
    pub(crate) count: usize,
}

impl<'de: 'a, 'a> Deserialize<'de> for Rows<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Rows<'a>, D::Error> {
        deserializer.deserialize_seq(RowsVisitor)
    }
}

struct RowsVisitor;

impl<'de> Visitor<'de> for RowsVisitor {
    type Value = Rows<'de>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a sequence")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Rows<'de>, A::Error> {
        let mut rows = Rows::default();
        loop {
            let row = if rows.count < MAX_ROWS {
                sequence.next_element()?.map(|row| rows.kept.push(row))
            } else {
                sequence.next_element()?.map(|IgnoredAny| ())
            };
            if row.is_none() {
                return Ok(rows);
            }
            rows.count += 1;
        }
    }
}

/// An external item id: a string, or a number taken as its decimal string.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ItemId(pub(crate) Box<str>);

impl ToSchema for ItemId {}

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
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Recommendation<'a> {
    /// The best first; fewer than `k` where no more are allowed.
    pub(crate) items: Vec<RankedItem<'a>>,
    pub(crate) route: RouteTaken<'a>,
    pub(crate) compute: Compute,
    pub(crate) model: ModelName<'a>,
    pub(crate) history: HistoryUsed,
}

/// One recommended item.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct RankedItem<'a> {
    /// External id.
    pub(crate) item: &'a str,
    /// The model's score as it is, or the item's popularity on a cold start.
    #[schema(value_type = f64)]
    pub(crate) score: Score,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) title: Option<&'a str>,
}

/// What ranked an item.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(untagged)]
pub(crate) enum Score {
    /// The model's, not rounded.
    Logit(f32),
    /// Interactions in the training data.
    Popularity(u64),
}

/// Which route ran, and why.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct RouteTaken<'a> {
    /// `null` where none ran.
    #[schema(required)]
    pub(crate) name: Option<&'a str>,
    /// Who chose it: the router, the load that the server is under, the request, or nobody (cold start).
    pub(crate) reason: &'static str,
    /// The router's probability of the route; `null` where the router did not run.
    #[schema(required)]
    pub(crate) confidence: Option<f32>,
}

/// What the answer cost, and what the full model would have cost.
#[derive(Clone, Copy, Debug, Default, Serialize, ToSchema)]
pub(crate) struct Compute {
    /// Of the router, where it ran, and of the route: multiply-adds count as 2.
    pub(crate) flops: u64,
    /// Of the full model alone.
    pub(crate) full_flops: u64,
    /// 1 - flops / full_flops: below 0 where the router came on top of the full model.
    pub(crate) saved: f64,
}

impl Compute {
    /// Saved is 1 - flops / full: below 0 where the router came on top of the full slice, 0 where nothing ran.
    pub(crate) fn new(flops: u64, full_flops: u64) -> Compute {
        let saved = if full_flops == 0 { 0.0 } else { 1.0 - flops as f64 / full_flops as f64 };
        Compute { flops, full_flops, saved }
    }
}

/// The checkpoint that answered.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ModelName<'a> {
    /// Its directory's name.
    pub(crate) name: &'a str,
    pub(crate) version: u64,
}

/// What was read of the history.
#[derive(Debug, Default, Serialize, ToSchema)]
pub(crate) struct HistoryUsed {
    /// Items that the model read.
    pub(crate) used: usize,
    /// Ids that the model does not know, as they were sent.
    #[schema(value_type = Vec<String>)]
    pub(crate) unknown: Vec<Box<str>>,
}

/// One place of a batch's answer.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum BatchResult<'a> {
    Recommendation(&'a Recommendation<'a>),
    Problem(ProblemBody<'a>),
}

/// The answer to a batch, in the order of its requests.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct BatchAnswer<'a> {
    pub(crate) results: Vec<BatchResult<'a>>,
}
