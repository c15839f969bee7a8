use std::ops::Range;

use super::buffer::Buffer;
use super::simd::{Right, pair_of};
use canet_model::{Precision, Weights, WeightsError};

/// Outputs in a panel: two of the widest vectors.
pub(crate) const PANEL: usize = 32;

/// The next multiple of [`PANEL`]: what a row of outputs takes.
pub(crate) fn padded(width: usize) -> usize {
    width.next_multiple_of(PANEL)
}

/// What the values of a layer are.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Numbers {
    /// Each is a float32.
    Singles,
    /// Each is a pair of bfloat16.
    Pairs,
    /// Each is four bytes.
    Bytes,
}

impl From<Precision> for Numbers {
    fn from(precision: Precision) -> Numbers {
        match precision {
            Precision::Fp32 => Numbers::Singles,
            Precision::Bf16 => Numbers::Pairs,
        }
    }
}

impl Numbers {
    /// How many values hold `depth` inputs.
    pub(crate) fn words(self, depth: usize) -> usize {
        match self {
            Numbers::Singles => depth,
            Numbers::Pairs => depth.div_ceil(2),
            Numbers::Bytes => depth.div_ceil(4),
        }
    }
}

/// A linear layer `y = W x + b`, stored for the product: `[outputs / 32][depth][32]`, zeros beyond the outputs; in
/// bfloat16 `[outputs / 32][depth / 2][32][2]`, where a pair is the bits of one value, and an odd depth's last pair ends
/// with a zero; in bytes `[outputs / 32][depth / 4][32][4]`, four of them the bits of one value.
///
/// The first outputs over the first inputs are the first rows of the first panels: every narrower slice is a prefix
/// of this one pack.
pub(crate) struct Panels {
    numbers: Numbers,
    weight: Buffer,
    /// One an output, zeros beyond: [outputs padded]
    bias: Buffer,
    outputs: usize,
    depth: usize,
}

/// Stored weights, and in which numbers they are packed.
#[derive(Clone, Copy)]
pub(crate) struct Packer<'a> {
    pub(crate) weights: &'a Weights,
    pub(crate) precision: Precision,
}

impl Packer<'_> {
    /// A stored layer, whole.
    pub(crate) fn layer(&self, name: &str) -> Result<Panels, WeightsError> {
        let weight = self.weights.get(&format!("{name}.weight"))?;
        let [outputs, depth] = weight.shape[..] else { return Err(WeightsError::Missing(name.to_owned())) };
        self.pick(&[name], &(0..outputs).collect::<Vec<_>>(), depth)
    }

    /// The `rows` of several stored layers under each other, over their first `depth` inputs.
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

    /// Some `rows` of a stored layer's weights the other way round: an output for each of its inputs, without a bias.
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
    pub(crate) fn zeros(numbers: Numbers, outputs: usize, depth: usize) -> Panels {
        let weight = Buffer::new(padded(outputs) * numbers.words(depth));
        Panels { numbers, weight, bias: Buffer::new(padded(outputs)), outputs, depth }
    }

    /// Stores an output's weights, as many as the depth, and its bias.
    fn set(&mut self, output: usize, weights: &[f32], bias: f32) {
        match self.numbers {
            Numbers::Pairs => self.set_words(
                output,
                weights.chunks(2).map(|pair| pair_of([pair[0], pair.get(1).copied().unwrap_or_default()])),
            ),
            Numbers::Singles | Numbers::Bytes => self.set_words(output, weights.iter().copied()),
        }
        self.bias[output] = bias;
    }

    /// Stores an output's weights as they are in the panels.
    pub(crate) fn set_words(&mut self, output: usize, words: impl Iterator<Item = f32>) {
        let column = output / PANEL * self.numbers.words(self.depth) * PANEL + output % PANEL;
        self.weight[column..].iter_mut().step_by(PANEL).zip(words).for_each(|(place, word)| *place = word);
    }

    /// The same layer with zeros for its bias.
    pub(crate) fn without_bias(&self) -> Panels {
        let Panels { numbers, outputs, depth, .. } = *self;
        Panels { numbers, weight: self.weight.clone(), bias: Buffer::new(self.bias.len()), outputs, depth }
    }

    /// What the weights are, and so what a product's input has to be.
    pub(crate) fn numbers(&self) -> Numbers {
        self.numbers
    }

    /// The panels from the one of output `first` on, for a tile.
    pub(crate) fn from(&self, first: usize) -> (Right<'_>, &[f32]) {
        let panel = self.numbers.words(self.depth) * PANEL;
        (Right { data: &self.weight[first / PANEL * panel..], stride: PANEL, panel }, &self.bias[first..])
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
