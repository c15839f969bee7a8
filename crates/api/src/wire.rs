use std::fmt;
use std::sync::Arc;

use serde::de::{Error, IgnoredAny, SeqAccess, Unexpected, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;
use utoipa::openapi::schema::{AnyOfBuilder, ArrayBuilder, ObjectBuilder, Schema, SchemaType, Type};
use utoipa::openapi::{Ref, RefOr};
use utoipa::{PartialSchema, ToSchema};

use super::limits::{MAX_ROWS, MAX_USER};
use super::problem::ProblemBody;
use super::restriction::{has_quotas, keeps_fewer};
use canet_catalogue::{FilterExpression, MaxPer};
use canet_domain::{Catalogue, Item, Ranked};
use canet_serving::CatalogueView;

/// Default `k`, if the catalogue has as many items.
const DEFAULT_K: usize = 10;

/// Default `timeout_ms`.
const DEFAULT_TIMEOUT_MS: u64 = 10_000;

/// A request for one ranking. `null` for an optional field means that it is not given.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RecommendRequest {
    /// The user's items, oldest first. The server drops unknown items, then keeps the newest that the model reads.
    #[schema(max_items = 100_000)]
    pub(crate) history: Vec<ExternalId>,
    /// How many known items of the user, older than those of `history`, the client left out. The server then reads the same
    /// items as if it had got all, and may reuse what it computed for the user's last request. The default is 0.
    #[serde(default, deserialize_with = "optional_integer")]
    #[schema(maximum = 1_000_000_000)]
    pub(crate) history_start: Option<u64>,
    /// How many items to recommend.
    #[serde(default, deserialize_with = "optional_integer")]
    pub(crate) k: Option<u64>,
    /// Whether to leave out items of the history. The default is the checkpoint's.
    #[serde(default)]
    pub(crate) exclude_seen: Option<bool>,
    /// Items to leave out.
    #[serde(default, deserialize_with = "or_default")]
    #[schema(value_type = Option<Vec<ExternalId>>, max_items = 100_000)]
    pub(crate) exclude: Vec<ExternalId>,
    /// Items to choose from. `null` means every item.
    #[serde(default)]
    #[schema(max_items = 100_000)]
    pub(crate) candidates: Option<Vec<ExternalId>>,
    /// The route to run. `auto` leaves the choice to the server: to its router, or to the route that it runs for all
    /// requests.
    #[serde(default = "default_route", deserialize_with = "route")]
    #[schema(value_type = Option<String>, default = default_route)]
    pub(crate) route: String,
    /// Share of the full model's FLOPs to spend. The default is the server's budget. The server interpolates between the
    /// budgets that `/model` lists; beyond them it takes the nearest one.
    #[serde(default)]
    #[schema(exclusive_minimum = 0.0, maximum = 1.0)]
    pub(crate) budget: Option<f64>,
    /// How long the client waits, in milliseconds.
    #[serde(default = "default_timeout_ms", deserialize_with = "timeout_ms")]
    #[schema(value_type = Option<u64>, default = default_timeout_ms, minimum = 1, maximum = 60_000)]
    pub(crate) timeout_ms: u64,
    /// An opaque id of the user, at most 256 bytes. It decides whether a candidate version answers, and changes no ranking
    /// otherwise. Answers to one user can be compared with what that user does next. An empty id means that it is not given.
    #[serde(default, deserialize_with = "user")]
    #[schema(schema_with = user_schema)]
    pub(crate) user: Option<UserId>,
    /// The items to keep, by keys of the catalogue file: those with any of the values of every key. `not` has a filter, or a
    /// list of filters, that must not keep an item.
    #[serde(default)]
    #[schema(schema_with = filter_schema)]
    pub(crate) filter: Option<FilterExpression>,
    /// The most items to recommend of each value of a key of the catalogue file. From the best item down, an item is left out if
    /// one of its values has as many.
    #[serde(default)]
    #[schema(schema_with = max_per_schema)]
    pub(crate) max_per: Option<MaxPer>,
}

impl RecommendRequest {
    /// A request with a history and defaults.
    pub(crate) fn new(history: Vec<ExternalId>) -> RecommendRequest {
        RecommendRequest {
            history,
            history_start: None,
            k: None,
            exclude_seen: None,
            exclude: Vec::new(),
            candidates: None,
            route: default_route(),
            budget: None,
            timeout_ms: default_timeout_ms(),
            user: None,
            filter: None,
            max_per: None,
        }
    }

    /// Its `k` for a catalogue of `items`.
    pub(crate) fn k(&self, items: usize) -> u64 {
        self.k.unwrap_or_else(|| default_k(items))
    }

    /// Whether the request narrows the choice by candidates, a filter or quotas. What the user does next then does not judge
    /// the answer.
    pub(crate) fn narrows(&self) -> bool {
        let RecommendRequest {
            candidates,
            filter,
            max_per,
            // These do not narrow it: `exclude` names items that the user is not to get.
            history: _,
            history_start: _,
            k: _,
            exclude_seen: _,
            exclude: _,
            route: _,
            budget: _,
            timeout_ms: _,
            user: _,
        } = self;
        candidates.is_some() || keeps_fewer(filter.as_ref()) || has_quotas(max_per.as_ref())
    }
}

/// The default `k` for a catalogue of `items`.
pub(crate) fn default_k(items: usize) -> u64 {
    DEFAULT_K.min(items) as u64
}

fn default_route() -> String {
    "auto".to_owned()
}

fn default_timeout_ms() -> u64 {
    DEFAULT_TIMEOUT_MS
}

/// Reads a value, or `null` as the type's default.
pub(crate) fn or_default<'de, T, D>(deserializer: D) -> Result<T, D::Error>
where
    T: Deserialize<'de> + Default,
    D: Deserializer<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

fn route<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_else(default_route))
}

/// Reads a user's id. An empty one and `null` mean that it is not given.
fn user<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<UserId>, D::Error> {
    Ok(Option::<ExternalId>::deserialize(deserializer)?.and_then(|ExternalId(id)| UserId::given(id)))
}

fn timeout_ms<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    Ok(optional_integer(deserializer)?.unwrap_or_else(default_timeout_ms))
}

/// Reads a whole number. In JSON `10`, `10.0` and `1e1` are the same number.
fn integer<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    deserializer.deserialize_any(IntegerVisitor)
}

/// Reads a whole number or `null`.
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
        // `u64::MAX as f64` is 2^64. Below it the cast is exact.
        let whole = number.fract() == 0.0 && (0.0..u64::MAX as f64).contains(&number);
        if whole { Ok(number as u64) } else { Err(E::invalid_value(Unexpected::Float(number), &self)) }
    }
}

/// Several requests in one call. Each is read alone, so that a wrong one does not affect the others.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct BatchRequest<'a> {
    /// Each as for `/recommend`. A wrong one gets a problem in its place of the answer.
    #[serde(borrow)]
    #[schema(schema_with = batch_rows)]
    pub(crate) requests: BatchRows<'a>,
}

/// The unparsed requests of a batch. Those beyond [`MAX_ROWS`] are counted, but not kept.
#[derive(Debug, Default)]
pub(crate) struct BatchRows<'a> {
    pub(crate) kept: Vec<&'a RawValue>,
    pub(crate) count: usize,
}

impl<'de: 'a, 'a> Deserialize<'de> for BatchRows<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<BatchRows<'a>, D::Error> {
        deserializer.deserialize_seq(BatchRowsVisitor)
    }
}

/// The bound counts bytes, but `maxLength` counts characters. A character has at most 4 bytes.
fn user_schema() -> AnyOfBuilder {
    let text = || ObjectBuilder::new().schema_type(Type::String);
    AnyOfBuilder::new()
        .item(text().max_length(Some(MAX_USER / 4)))
        .item(text().max_length(Some(MAX_USER)).pattern(Some("^[\\x00-\\x7f]*$")))
        .item(ObjectBuilder::new().schema_type(SchemaType::from_iter([Type::Integer, Type::Null])))
        .description(Some(
            "An opaque id of the user, at most 256 bytes. It decides whether a candidate version answers, and changes no \
             ranking otherwise. Answers to one user can be compared with what that user does next. An empty id means that it is \
             not given.",
        ))
}

fn filter_schema() -> ObjectBuilder {
    ObjectBuilder::new().schema_type(SchemaType::from_iter([Type::Object, Type::Null])).description(Some(
        "The items to keep, by keys of the catalogue file: those with any of the values of every key. `not` has a filter, or a \
         list of filters, that must not keep an item. Of a key with very many values, only some are listed here.",
    ))
}

fn max_per_schema() -> ObjectBuilder {
    ObjectBuilder::new().schema_type(SchemaType::from_iter([Type::Object, Type::Null])).description(Some(
        "The most items to recommend of each value of a key of the catalogue file. From the best item down, an item is left \
         out if one of its values has as many.",
    ))
}

/// Any value is a valid row: a wrong one fails alone.
fn batch_rows() -> ArrayBuilder {
    let row = AnyOfBuilder::new()
        .item(Ref::from_schema_name("RecommendRequest"))
        .item(ObjectBuilder::new().schema_type(SchemaType::AnyValue));
    ArrayBuilder::new().items(row).max_items(Some(MAX_ROWS))
}

struct BatchRowsVisitor;

impl<'de> Visitor<'de> for BatchRowsVisitor {
    type Value = BatchRows<'de>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<BatchRows<'de>, A::Error> {
        let mut rows = BatchRows::default();
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

/// An id of the caller's, of an item or of a user: a string, or an integer that stands for its digits.
/// [`exact`](super::exact) reads integers of any length.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ExternalId(pub(crate) Box<str>);

impl ToSchema for ExternalId {}

impl PartialSchema for ExternalId {
    fn schema() -> RefOr<Schema> {
        let id =
            ObjectBuilder::new().schema_type(SchemaType::from_iter([Type::String, Type::Integer])).description(Some(
                "An id of an item or a user. An integer stands for its digits as sent, without fraction and exponent.",
            ));
        id.into()
    }
}

impl<'de> Deserialize<'de> for ExternalId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<ExternalId, D::Error> {
        deserializer.deserialize_any(ExternalIdVisitor)
    }
}

struct ExternalIdVisitor;

impl Visitor<'_> for ExternalIdVisitor {
    type Value = ExternalId;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an id (a string or an integer)")
    }

    fn visit_str<E: Error>(self, id: &str) -> Result<ExternalId, E> {
        Ok(ExternalId(id.into()))
    }

    fn visit_u64<E: Error>(self, id: u64) -> Result<ExternalId, E> {
        Ok(ExternalId(id.to_string().into()))
    }

    fn visit_i64<E: Error>(self, id: i64) -> Result<ExternalId, E> {
        Ok(ExternalId(id.to_string().into()))
    }
}

/// The id of a request's user. It is never empty: an empty id means that the request names no user.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct UserId(Box<str>);

impl UserId {
    /// The id that a client gave, as it was sent. `None` if it is empty.
    pub(crate) fn given(id: impl Into<Box<str>>) -> Option<UserId> {
        let id = id.into();
        if id.is_empty() { None } else { Some(UserId(id)) }
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

/// The answer to one request.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Recommendation<'a> {
    /// The best first. There are fewer than `k` if the request excludes the rest.
    #[schema(value_type = Vec<RankedItem>)]
    pub(crate) items: RankedItems<'a>,
    pub(crate) route: RouteTaken<'a>,
    pub(crate) compute: Compute,
    pub(crate) model: ModelName<'a>,
    pub(crate) history: HistoryUsed,
}

/// The fields of a [`Recommendation`] behind its items, in their order.
#[derive(Serialize)]
pub(crate) struct AfterItems<'a> {
    route: &'a RouteTaken<'a>,
    compute: &'a Compute,
    model: &'a ModelName<'a>,
    history: &'a HistoryUsed,
}

impl Recommendation<'_> {
    /// What is written after the items.
    pub(crate) fn after_items(&self) -> AfterItems<'_> {
        let Recommendation { items: _, route, compute, model, history } = self;
        AfterItems { route, compute, model, history }
    }
}

/// A ranking, the best item first. Items stay dense until they are written: a large answer then takes a sixth of the memory.
#[derive(Debug)]
pub(crate) struct RankedItems<'a> {
    catalogue: &'a Catalogue,
    /// The catalogue file, whose titles win.
    view: Option<Arc<CatalogueView>>,
    best: Best,
}

/// The items of a ranking, and what ranked them.
#[derive(Debug)]
pub(crate) enum Best {
    ByScore(Vec<Ranked>),
    ByPopularity(Vec<Item>),
}

impl<'a> RankedItems<'a> {
    /// A ranking of items of `catalogue`.
    pub(crate) fn new(catalogue: &'a Catalogue, best: Best) -> RankedItems<'a> {
        RankedItems { catalogue, view: None, best }
    }

    /// The same with the titles of a catalogue file.
    pub(crate) fn with_view(self, view: Option<Arc<CatalogueView>>) -> RankedItems<'a> {
        RankedItems { view, ..self }
    }

    pub(crate) fn len(&self) -> usize {
        match &self.best {
            Best::ByScore(best) => best.len(),
            Best::ByPopularity(best) => best.len(),
        }
    }

    /// The items as clients see them.
    pub(crate) fn iter(&self) -> impl Iterator<Item = RankedItem<'_>> {
        let (catalogue, view) = (self.catalogue, self.view.as_deref());
        self.dense().map(move |(item, score)| RankedItem {
            item: catalogue.id(item),
            score,
            title: CatalogueView::title(view, catalogue, item),
        })
    }

    /// The external ids.
    pub(crate) fn ids(&self) -> impl Iterator<Item = &'a str> {
        let catalogue = self.catalogue;
        self.dense().map(move |(item, _)| catalogue.id(item))
    }

    /// The numbers that the items are ranked by.
    pub(crate) fn scores(&self) -> impl Iterator<Item = Score> {
        self.dense().map(|(_, score)| score)
    }

    fn dense(&self) -> impl Iterator<Item = (Item, Score)> {
        (0..self.len()).map(|place| match &self.best {
            Best::ByScore(best) => (best[place].item, Score::Logit(best[place].score)),
            Best::ByPopularity(best) => {
                let item = best[place];
                (item, Score::Popularity(self.catalogue.popularity()[item.column() - 1]))
            }
        })
    }
}

impl Serialize for RankedItems<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter())
    }
}

/// One recommended item.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct RankedItem<'a> {
    /// External id.
    pub(crate) item: &'a str,
    /// The model's score, not rounded. On a cold start, the item's popularity.
    #[schema(value_type = f64)]
    pub(crate) score: Score,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) title: Option<&'a str>,
}

/// The number that an item is ranked by.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(untagged)]
pub(crate) enum Score {
    /// The model's score, not rounded.
    Logit(f32),
    /// The item's interactions in the training data.
    Popularity(u64),
}

/// The route that ran, and why.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct RouteTaken<'a> {
    /// `null` if none ran.
    #[schema(required)]
    pub(crate) name: Option<&'a str>,
    /// Why this route: the router, the server's load, the server's configuration or the request chose it, or a cold start
    /// needed none.
    pub(crate) reason: &'static str,
    /// The router's probability of the route. `null` if the router did not run.
    #[schema(required)]
    pub(crate) confidence: Option<f32>,
}

/// The cost of the answer, and of the full model for the same request. A multiply-add counts as 2 FLOPs.
#[derive(Clone, Copy, Debug, Default, Serialize, ToSchema)]
pub(crate) struct Compute {
    /// FLOPs of the route, twice if it ran a second time to fill `max_per`, and of the router if it ran. They do not depend on
    /// what the server kept from earlier requests.
    pub(crate) flops: u64,
    /// FLOPs of the full model, without a router.
    pub(crate) full_flops: u64,
    /// 1 - flops / full_flops. Negative if more than the full model ran. 0 if nothing ran.
    pub(crate) saved: f64,
    /// The part of `flops` that was not computed, because the server kept the results of an earlier request.
    pub(crate) reused: u64,
}

impl Compute {
    pub(crate) fn new(flops: u64, full_flops: u64) -> Compute {
        let saved = if full_flops == 0 { 0.0 } else { 1.0 - flops as f64 / full_flops as f64 };
        Compute { flops, full_flops, saved, reused: 0 }
    }

    /// The same, with a part that was not computed.
    pub(crate) fn reusing(self, reused: u64) -> Compute {
        Compute { reused, ..self }
    }
}

/// The checkpoint that answered.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ModelName<'a> {
    /// The name of its directory.
    pub(crate) name: &'a str,
    pub(crate) version: u64,
}

/// The part of the history that the model read.
#[derive(Debug, Default, Serialize, ToSchema)]
pub(crate) struct HistoryUsed {
    /// How many items the model read.
    pub(crate) used: usize,
    /// Ids that the model does not know, as the request had them.
    #[schema(value_type = Vec<String>)]
    pub(crate) unknown: Vec<Box<str>>,
}

/// The answer to one request of a batch.
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

#[cfg(test)]
mod tests;
