use super::buffer::Buffer;
use super::simd::Right;
use crate::model::{Weights, WeightsError};

/// Outputs in a panel: two of the widest vectors.
pub(super) const PANEL: usize = 32;

/// The next multiple of [`PANEL`]: what a row of outputs takes.
pub(super) fn padded(width: usize) -> usize {
    width.next_multiple_of(PANEL)
}

/// A linear layer `y = W x + b`, stored for the product: `[outputs / 32][depth][32]`, zeros beyond the outputs.
///
/// The first outputs over the first inputs are the first rows of the first panels: every narrower slice is a prefix
/// of this one pack.
pub(super) struct Panels {
    weight: Buffer,
    /// One an output, zeros beyond: [outputs padded]
    bias: Buffer,
    outputs: usize,
    depth: usize,
}

impl Panels {
    /// A layer of zeros.
    pub(super) fn zeros(outputs: usize, depth: usize) -> Panels {
        let weight = Buffer::new(padded(outputs) * depth);
        Panels { weight, bias: Buffer::new(padded(outputs)), outputs, depth }
    }

    /// A stored layer, whole.
    pub(super) fn load(weights: &Weights, name: &str) -> Result<Panels, WeightsError> {
        let weight = weights.get(&format!("{name}.weight"))?;
        let [outputs, depth] = weight.shape[..] else { return Err(WeightsError::Missing(name.to_owned())) };
        Panels::pick(weights, &[name], &(0..outputs).collect::<Vec<_>>(), depth)
    }

    /// The `rows` of several stored layers under each other, over their first `depth` inputs.
    pub(super) fn pick(
        weights: &Weights,
        names: &[&str],
        rows: &[usize],
        depth: usize,
    ) -> Result<Panels, WeightsError> {
        let mut panels = Panels::zeros(names.len() * rows.len(), depth);
        for (layer, name) in names.iter().enumerate() {
            let weight = weights.get(&format!("{name}.weight"))?;
            let bias = weights.get(&format!("{name}.bias"))?;
            let stored = weight.shape.last().copied().unwrap_or_default();
            for (place, row) in rows.iter().enumerate() {
                let output = layer * rows.len() + place;
                let column = output / PANEL * depth * PANEL + output % PANEL;
                for (input, value) in weight.data[row * stored..][..depth].iter().enumerate() {
                    panels.weight[column + input * PANEL] = *value;
                }
                panels.bias[output] = bias.data[*row];
            }
        }
        Ok(panels)
    }

    /// The panels from the one of output `first` on, for a tile.
    pub(super) fn from(&self, first: usize) -> (Right<'_>, &[f32]) {
        let panel = self.depth * PANEL;
        (Right { data: &self.weight[first / PANEL * panel..], stride: PANEL, panel }, &self.bias[first..])
    }

    /// Number of outputs.
    pub(super) fn outputs(&self) -> usize {
        self.outputs
    }

    /// Bytes of weights and biases.
    pub(super) fn bytes(&self) -> usize {
        self.weight.bytes() + self.bias.bytes()
    }
}
