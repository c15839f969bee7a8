use super::model::Signature;
use super::tensor::{Contents, DataType, Output};
use crate::wire::{Recommendation, Score};

/// The score of a place that no item is left for: the lowest number that JSON and every client can hold.
const NO_ITEM: f32 = f32::MIN;

/// The route of a row that popularity ranked.
const COLD_START: &str = "cold_start";

/// What can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OutputName {
    Items,
    Scores,
    Route,
}

impl OutputName {
    pub(super) const ALL: [OutputName; 3] = [OutputName::Items, OutputName::Scores, OutputName::Route];

    /// What the model's metadata say of it.
    pub(super) fn signature(self) -> Signature {
        let (name, data_type, shape): (_, _, &[i64]) = match self {
            OutputName::Items => ("items", DataType::Bytes, &[-1, -1]),
            OutputName::Scores => ("scores", DataType::Fp32, &[-1, -1]),
            OutputName::Route => ("route", DataType::Bytes, &[-1]),
        };
        Signature { name, data_type, shape }
    }

    /// The tensor of these rows. Where a row has fewer than `k` items its rest has the empty id, which no item has.
    pub(super) fn of(self, rows: &[Recommendation<'_>], k: usize) -> Output {
        let (shape, contents) = match self {
            OutputName::Items => {
                let ids = |row: &Recommendation<'_>| -> Vec<String> {
                    row.items.iter().map(|item| item.item.to_owned()).collect()
                };
                (vec![rows.len(), k], Contents::Bytes(filled(rows, k, ids, String::new())))
            }
            OutputName::Scores => {
                let scores = |row: &Recommendation<'_>| -> Vec<f32> {
                    row.items.iter().map(|item| as_number(item.score)).collect()
                };
                (vec![rows.len(), k], Contents::Fp32(filled(rows, k, scores, NO_ITEM)))
            }
            OutputName::Route => {
                let route = |row: &Recommendation<'_>| row.route.name.unwrap_or(COLD_START).to_owned();
                (vec![rows.len()], Contents::Bytes(rows.iter().map(route).collect()))
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

/// Rows of `k` values each.
fn filled<'a, T: Clone>(
    rows: &'a [Recommendation<'a>],
    k: usize,
    values: impl Fn(&'a Recommendation<'a>) -> Vec<T>,
    rest: T,
) -> Vec<T> {
    rows.iter().flat_map(|row| values(row).into_iter().chain(std::iter::repeat(rest.clone())).take(k)).collect()
}
