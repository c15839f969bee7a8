use std::sync::Arc;

use super::tensor::{Contents, DataType, Output};
use crate::wire::{Recommendation, Score};
use crate::{Code, Problem};
use canet_serving::Serving;

/// A tensor in the model's metadata. The size -1 means any.
pub(super) struct Signature {
    pub(super) name: &'static str,
    pub(super) data_type: DataType,
    pub(super) shape: &'static [i64],
}

/// The input tensors. `history` may also hold dense ids, but metadata has one type for each tensor.
pub(super) const INPUTS: [Signature; 4] = [
    Signature { name: "history", data_type: DataType::Bytes, shape: &[-1] },
    Signature { name: "k", data_type: DataType::Int64, shape: &[1] },
    Signature { name: "history_start", data_type: DataType::Int64, shape: &[-1] },
    Signature { name: "user", data_type: DataType::Bytes, shape: &[-1] },
];

/// The name of the server and of its platform.
pub(super) const SERVER: &str = "canet";

pub(super) const SERVER_VERSION: &str = env!("CARGO_PKG_VERSION");

/// Checks that the model that a probe names serves. Probes need no key, so the error does not tell which model does.
///
/// # Errors
/// 404 if it is another.
pub(super) fn check_probed(serving: Serving, name: &str, version: &str) -> Result<(), Problem> {
    named(serving, name, version).map(drop).map_err(|problem| {
        let detail = if version.is_empty() {
            format!("the model {name:?} does not serve")
        } else {
            format!("version {version:?} of a model {name:?} does not serve")
        };
        Problem::new(problem.code, detail)
    })
}

/// The generations of the model that a client names. An empty version means all that serve, a version means the one of that
/// number.
///
/// # Errors
/// 404 if another model or version serves.
pub(super) fn named(serving: Serving, name: &str, version: &str) -> Result<Serving, Problem> {
    let model = serving.live.model.name();
    if name != model {
        return Err(Problem::new(Code::NotFound, format!("there is no model {name:?}: the server has {model:?}")));
    }
    if version.is_empty() {
        return Ok(serving);
    }
    let named = serving.generations().find(|generation| generation.model.version().to_string() == version);
    named.map(|generation| Serving::only(Arc::clone(generation))).ok_or_else(|| {
        let serve = versions(&serving).join(" and ");
        let verb = if serving.candidate.is_some() { "do" } else { "does" };
        Problem::new(Code::NotFound, format!("version {version:?} of {name:?} does not serve: version {serve} {verb}"))
    })
}

/// The versions that serve, the live one first.
pub(super) fn versions(serving: &Serving) -> Vec<String> {
    serving.generations().map(|generation| generation.model.version().to_string()).collect()
}

/// The score of a place without an item: the lowest number that JSON and every client can hold.
const NO_ITEM: f32 = f32::MIN;

/// The route of a row that popularity ranked.
const COLD_START: &str = "cold_start";

/// The output tensors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OutputName {
    Items,
    Scores,
    Route,
}

impl OutputName {
    pub(super) const ALL: [OutputName; 3] = [OutputName::Items, OutputName::Scores, OutputName::Route];

    /// Its entry in the model's metadata.
    pub(super) fn signature(self) -> Signature {
        let (name, data_type, shape): (_, _, &[i64]) = match self {
            OutputName::Items => ("items", DataType::Bytes, &[-1, -1]),
            OutputName::Scores => ("scores", DataType::Fp32, &[-1, -1]),
            OutputName::Route => ("route", DataType::Bytes, &[-1]),
        };
        Signature { name, data_type, shape }
    }

    /// The tensor for these rows. A row with fewer than `k` items is padded with empty ids, which no item has.
    pub(super) fn tensor<'a>(self, rows: &'a [Recommendation<'a>], k: usize) -> Output<'a> {
        let (shape, contents) = match self {
            OutputName::Items => {
                let ids = |row: &'a Recommendation<'a>| row.items.ids();
                (vec![rows.len(), k], Contents::Bytes(padded(rows, k, ids, "")))
            }
            OutputName::Scores => {
                let scores = |row: &'a Recommendation<'a>| row.items.scores().map(as_number);
                (vec![rows.len(), k], Contents::Fp32(padded(rows, k, scores, NO_ITEM)))
            }
            OutputName::Route => {
                let routes = rows.iter().map(|row| row.route.name.unwrap_or(COLD_START));
                (vec![rows.len()], Contents::Bytes(routes.collect()))
            }
        };
        Output { name: self.signature().name, shape, contents }
    }
}

fn as_number(score: Score) -> f32 {
    match score {
        Score::Logit(score) => score,
        Score::Popularity(count) => count as f32,
    }
}

/// Concatenates the rows, each padded to `k` values.
fn padded<'a, T: Copy, V: Iterator<Item = T>>(
    rows: &'a [Recommendation<'a>],
    k: usize,
    values: impl Fn(&'a Recommendation<'a>) -> V,
    padding: T,
) -> Vec<T> {
    let mut all = Vec::with_capacity(rows.len() * k);
    for row in rows {
        let end = all.len() + k;
        all.extend(values(row).take(k));
        all.resize(end, padding);
    }
    all
}
