use std::ops::Range;

use super::buffer::Buffer;
use super::simd::{Rhs, bf16_pair};
use canet_model::{Precision, Weights, WeightsError};

/// Outputs in a panel: two of the widest vectors.
pub(crate) const PANEL: usize = 32;

/// Rounds up to a multiple of [`PANEL`]: the length of a row of outputs.
pub(crate) fn padded(width: usize) -> usize {
    width.next_multiple_of(PANEL)
}

/// What one stored value of a layer contains.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum WeightFormat {
    /// A float32.
    F32,
    /// A pair of bfloat16.
    Bf16Pairs,
    /// Four bytes.
    ByteQuads,
}

impl From<Precision> for WeightFormat {
    fn from(precision: Precision) -> WeightFormat {
        match precision {
            Precision::Fp32 => WeightFormat::F32,
            Precision::Bf16 => WeightFormat::Bf16Pairs,
        }
    }
}

impl WeightFormat {
    /// How many values hold `depth` inputs.
    pub(crate) fn words(self, depth: usize) -> usize {
        match self {
            WeightFormat::F32 => depth,
            WeightFormat::Bf16Pairs => depth.div_ceil(2),
            WeightFormat::ByteQuads => depth.div_ceil(4),
        }
    }
}

/// A linear layer `y = W x + b`, packed for the product. The outputs are padded with zeros to whole panels.
///
/// | format | layout | |
/// |---|---|---|
/// | float32 | `[outputs / 32][depth][32]` | |
/// | bfloat16 | `[outputs / 32][depth / 2][32][2]` | a pair is the bits of one value; an odd depth ends with a zero |
/// | bytes | `[outputs / 32][depth / 4][32][4]` | four bytes are the bits of one value |
///
/// The first outputs over the first inputs are the first rows of the first panels. So one pack serves every narrower
/// slice.
pub(crate) struct Panels {
    format: WeightFormat,
    weight: Buffer,
    /// One an output, padded with zeros: [outputs padded]
    bias: Buffer,
    outputs: usize,
    depth: usize,
}

/// Stored weights and the precision in which to pack them.
#[derive(Clone, Copy)]
pub(crate) struct Packer<'a> {
    pub(crate) weights: &'a Weights,
    pub(crate) precision: Precision,
}

impl Packer<'_> {
    /// Packs a whole layer.
    pub(crate) fn layer(&self, name: &str) -> Result<Panels, WeightsError> {
        let weight = self.weights.get(&format!("{name}.weight"))?;
        let [outputs, depth] = weight.shape[..] else { return Err(WeightsError::Missing(name.to_owned())) };
        self.pick(&[name], &(0..outputs).collect::<Vec<_>>(), depth)
    }

    /// Packs the `rows` of several layers, one layer above the other, over their first `depth` inputs.
    pub(crate) fn pick(&self, names: &[&str], rows: &[usize], depth: usize) -> Result<Panels, WeightsError> {
        let mut panels = Panels::zeros(self.precision.into(), names.len() * rows.len(), depth);
        for (layer, name) in names.iter().enumerate() {
            let weight = self.weights.get(&format!("{name}.weight"))?;
            let bias = self.weights.get(&format!("{name}.bias"))?;
            let stored = weight.shape.last().copied().unwrap_or_default();
            for (place, row) in rows.iter().enumerate() {
                panels.set(layer * rows.len() + place, &weight.data[row * stored..][..depth], bias.data[*row]);
            }
        }
        Ok(panels)
    }

    /// Packs the transpose of some `rows` of a layer's weights, without a bias: one output for each input of the layer.
    pub(crate) fn transposed(&self, name: &str, rows: Range<usize>) -> Result<Panels, WeightsError> {
        let weight = self.weights.get(&format!("{name}.weight"))?;
        let stored = weight.shape.last().copied().unwrap_or_default();
        let mut panels = Panels::zeros(self.precision.into(), stored, rows.len());
        for output in 0..stored {
            let column: Vec<f32> = rows.clone().map(|row| weight.data[row * stored + output]).collect();
            panels.set(output, &column, 0.0);
        }
        Ok(panels)
    }
}

impl Panels {
    /// A layer of zeros.
    pub(crate) fn zeros(format: WeightFormat, outputs: usize, depth: usize) -> Panels {
        let weight = Buffer::new(padded(outputs) * format.words(depth));
        Panels { format, weight, bias: Buffer::new(padded(outputs)), outputs, depth }
    }

    /// Stores an output's weights, as many as the depth, and its bias.
    fn set(&mut self, output: usize, weights: &[f32], bias: f32) {
        match self.format {
            WeightFormat::Bf16Pairs => self.set_words(
                output,
                weights.chunks(2).map(|pair| bf16_pair([pair[0], pair.get(1).copied().unwrap_or_default()])),
            ),
            WeightFormat::F32 | WeightFormat::ByteQuads => self.set_words(output, weights.iter().copied()),
        }
        self.bias[output] = bias;
    }

    /// Stores an output's weights, already in the layer's format.
    pub(crate) fn set_words(&mut self, output: usize, words: impl Iterator<Item = f32>) {
        let column = output / PANEL * self.format.words(self.depth) * PANEL + output % PANEL;
        self.weight[column..].iter_mut().step_by(PANEL).zip(words).for_each(|(place, word)| *place = word);
    }

    /// The same layer with a bias of zero.
    pub(crate) fn without_bias(&self) -> Panels {
        let Panels { format, outputs, depth, .. } = *self;
        Panels { format, weight: self.weight.clone(), bias: Buffer::new(self.bias.len()), outputs, depth }
    }

    /// The format of the weights, which a product's input must have too.
    pub(crate) fn format(&self) -> WeightFormat {
        self.format
    }

    /// The panels from output `first` on, for a tile, and their biases.
    pub(crate) fn from(&self, first: usize) -> (Rhs<'_>, &[f32]) {
        let panel = self.format.words(self.depth) * PANEL;
        (Rhs { data: &self.weight[first / PANEL * panel..], stride: PANEL, panel }, &self.bias[first..])
    }

    /// Number of outputs.
    pub(crate) fn outputs(&self) -> usize {
        self.outputs
    }

    /// Bytes of weights and biases.
    pub(crate) fn bytes(&self) -> usize {
        self.weight.bytes() + self.bias.bytes()
    }
}
