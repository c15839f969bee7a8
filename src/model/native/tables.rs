use crate::domain::History;
use crate::model::{Weights, WeightsError};

/// Item and position embeddings.
pub(super) struct Tables {
    /// [N + 1, E]
    items: Vec<f32>,
    /// [max_len, E]
    positions: Vec<f32>,
    /// E
    width: usize,
}

impl Tables {
    /// `{part}.item_embedding` and `{part}.position_embedding`.
    pub(super) fn load(weights: &Weights, part: &str) -> Result<Tables, WeightsError> {
        let items = weights.get(&format!("{part}.item_embedding"))?;
        let positions = weights.get(&format!("{part}.position_embedding"))?;
        Ok(Tables {
            items: items.data.clone(),
            positions: positions.data.clone(),
            width: items.shape.last().copied().unwrap_or_default(),
        })
    }

    /// Item + position, the first `width` features of each: a row of `stride` a token, one history behind the other.
    /// Returns how many items each has.
    pub(super) fn embed(&self, histories: &[&History], width: usize, (out, stride): (&mut [f32], usize)) -> Vec<usize> {
        let max_len = self.positions.len() / self.width;
        let mut rows = out.chunks_mut(stride);
        let mut lengths = Vec::with_capacity(histories.len());
        for history in histories {
            // A history made for a longer model keeps its newest items, as it would at the door.
            let items = &history.items()[history.len().saturating_sub(max_len)..];
            let positions = self.positions.chunks(self.width).skip(max_len - items.len());
            for ((item, position), row) in items.iter().zip(positions).zip(&mut rows) {
                let item = &self.items[item.column() * self.width..][..width];
                for ((out, item), position) in row.iter_mut().zip(item).zip(position) {
                    *out = item + position;
                }
            }
            lengths.push(items.len());
        }
        lengths
    }

    pub(super) fn bytes(&self) -> usize {
        size_of::<f32>() * (self.items.len() + self.positions.len())
    }
}
