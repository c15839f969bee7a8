use std::collections::BTreeMap;
use std::error::Error;

use canet_domain::{History, Ranked, Route, Selection, top_k};

use crate::{HistoryCache, RankedBatch};

/// One set of weights on one device. It runs any route.
///
/// Implementations do not compute padding, and run the last block for the last position only. An answer does not depend on
/// the other rows of the batch, up to float32 rounding.
pub trait Forward: Send + Sync {
    /// Router logits: one row a history, one column a route.
    ///
    /// # Errors
    /// [`ForwardError`] if the device fails.
    fn router_logits(&self, histories: &[&History]) -> Result<Rows, ForwardError>;

    /// Scores of the next item: one row a history, N + 1 columns. Column 0 is padding.
    ///
    /// # Errors
    /// [`ForwardError`] if the device fails.
    fn scores(&self, route: Route, histories: &[&History]) -> Result<Rows, ForwardError>;

    /// The best items of each row, best first, in the order of the rows. Rows may have different routes.
    ///
    /// The default picks them from the [scores](Self::scores), one batch a route. A forward that
    /// [shares layers](Self::shares_layers) runs the rows of one width together.
    ///
    /// # Errors
    /// [`ForwardError`] if the device fails.
    fn rank(&self, rows: &[(Route, Query<'_>)]) -> Result<Vec<Vec<Ranked>>, ForwardError> {
        in_groups(
            rows,
            |route| route,
            |route, rows| {
                let histories: Vec<&History> = rows.iter().map(|(_, query)| query.history).collect();
                let scores = self.scores(route, &histories)?;
                let ranked = rows.iter().zip(scores.iter()).map(|((_, query), row)| top_k(row, &query.selection));
                Ok(ranked.collect())
            },
        )
    }

    /// Like [`rank`](Self::rank), and reuses and keeps states of histories if there is a
    /// [cache](Self::history_cache) for them.
    ///
    /// # Errors
    /// [`ForwardError`] if the device fails.
    fn rank_reusing(&self, rows: &[(Route, Query<'_>)]) -> Result<RankedBatch, ForwardError> {
        Ok(RankedBatch { rankings: self.rank(rows)?, reused: Vec::new() })
    }

    /// The states that it keeps from one request to the next, if it keeps any.
    fn history_cache(&self) -> Option<&dyn HistoryCache> {
        None
    }

    /// Whether [`rank`](Self::rank) runs rows of one width through the same layers. Each row then leaves at its
    /// own depth, but every embedding is projected at the widest row's width, which wastes some work on narrower rows.
    fn shares_layers(&self) -> bool {
        false
    }

    /// Whether the first batch of each size may be slower, because kernels are chosen or compiled by shape.
    fn chooses_by_shape(&self) -> bool {
        true
    }

    /// The backend's name, as `--backend` spells it.
    fn backend(&self) -> &'static str;

    /// Bytes of its weights on the device.
    fn weight_bytes(&self) -> usize;
}

/// Answers rows in groups of equal keys. The answers are in the order of the rows.
pub fn in_groups<'a, K: Copy + Ord>(
    rows: &[(Route, Query<'a>)],
    key: impl Fn(Route) -> K,
    answer: impl Fn(K, &[(Route, Query<'a>)]) -> Result<Vec<Vec<Ranked>>, ForwardError>,
) -> Result<Vec<Vec<Ranked>>, ForwardError> {
    let mut groups: BTreeMap<K, Vec<usize>> = BTreeMap::new();
    for (place, (route, _)) in rows.iter().enumerate() {
        groups.entry(key(*route)).or_default().push(place);
    }
    let mut answers = vec![Vec::new(); rows.len()];
    for (key, places) in groups {
        let group: Vec<(Route, Query<'a>)> = places.iter().map(|place| rows[*place]).collect();
        for (place, ranked) in places.into_iter().zip(answer(key, &group)?) {
            answers[place] = ranked;
        }
    }
    Ok(answers)
}

/// A history, and the selection from its scores.
#[derive(Clone, Copy, Debug)]
pub struct Query<'a> {
    /// The history that the model reads.
    pub history: &'a History,
    /// The items that may be answered, and how many.
    pub selection: Selection<'a>,
}

/// A dense row-major matrix in host memory.
#[derive(Clone, Debug, PartialEq)]
pub struct Rows {
    columns: usize,
    data: Vec<f32>,
}

impl Rows {
    /// A matrix of `columns` columns.
    ///
    /// # Errors
    /// [`ForwardError::Shape`] if the values do not fill whole rows.
    pub fn new(columns: usize, data: Vec<f32>) -> Result<Rows, ForwardError> {
        if columns == 0 || !data.len().is_multiple_of(columns) {
            return Err(ForwardError::Shape { columns, values: data.len() });
        }
        Ok(Rows { columns, data })
    }

    /// The rows, in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &[f32]> {
        self.data.chunks_exact(self.columns)
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.data.len() / self.columns
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.data.is_empty()
    }

    /// Whether no value is NaN or infinite.
    pub fn is_finite(&self) -> bool {
        self.data.iter().all(|value| value.is_finite())
    }

    /// One row; `None` past the end.
    pub fn row(&self, index: usize) -> Option<&[f32]> {
        self.data.chunks_exact(self.columns).nth(index)
    }
}

/// Why a forward pass failed.
#[derive(Debug, thiserror::Error)]
pub enum ForwardError {
    /// The device or its library failed, for example because it is out of memory.
    #[error(transparent)]
    Device(Box<dyn Error + Send + Sync>),
    /// The model computed NaN or infinity.
    #[error("{0} are not finite: the model's weights are at fault; train it again with a lower learning rate")]
    NotFinite(&'static str),
    /// The values do not fill whole rows.
    #[error("{values} values do not fill rows of {columns}")]
    Shape {
        /// Values per row.
        columns: usize,
        /// Number of values.
        values: usize,
    },
}
