use super::simd::{Kernel, Level, Simd};
use canet_model::{Weights, WeightsError};

/// A layer norm over the first features of a row.
pub(crate) struct Norm {
    /// [D]
    gain: Vec<f32>,
    /// [D]
    bias: Vec<f32>,
    /// Added to the variance.
    epsilon: f32,
}

/// The residual connection and its layer norm: `x = LN(x + a y)`.
pub(crate) struct AddNorm {
    norm: Norm,
    /// a
    residual: f32,
}

/// The rows of a residual connection.
pub(crate) struct ResidualRows<'a> {
    /// The sublayer's input, which receives the norm of the sum.
    pub(crate) x: &'a mut [f32],
    /// The sublayer's output.
    pub(crate) y: &'a [f32],
    /// Distance of two rows of both.
    pub(crate) stride: usize,
}

impl Norm {
    /// Loads the norm of this name.
    pub(crate) fn load(weights: &Weights, name: &str, epsilon: f32) -> Result<Norm, WeightsError> {
        let values = |part: &str| weights.get(&format!("{name}.{part}")).map(|tensor| tensor.data.clone());
        Ok(Norm { gain: values("weight")?, bias: values("bias")?, epsilon })
    }

    /// `x = LN(x)` over the first `width` features of rows of `stride`.
    pub(crate) fn apply(&self, level: Level, width: usize, x: &mut [f32], stride: usize) {
        level.run(Apply { norm: self, width, x, stride });
    }

    pub(crate) fn bytes(&self) -> usize {
        size_of::<f32>() * (self.gain.len() + self.bias.len() + 1)
    }

    /// Normalises a row whose sum is known.
    #[inline(always)]
    fn of_row<S: Simd>(&self, simd: S, x: &mut [f32], sum: f32) {
        let width = x.len();
        let (gains, biases) = (&self.gain[..width], &self.bias[..width]);
        let mean = sum / width as f32;
        let variance = squares(simd, x, mean) / width as f32;
        let scale = 1.0 / (variance + self.epsilon).sqrt();
        let whole = width - width % S::LANES;
        let (means, scales) = (simd.splat(mean), simd.splat(scale));
        for at in (0..whole).step_by(S::LANES) {
            let centred = simd.mul(simd.sub(simd.load(&x[at..]), means), scales);
            simd.store(simd.fma(centred, simd.load(&gains[at..]), simd.load(&biases[at..])), &mut x[at..]);
        }
        for (x, (gain, bias)) in x.iter_mut().zip(gains.iter().zip(biases)).skip(whole) {
            *x = (*x - mean) * scale * gain + bias;
        }
    }
}

impl AddNorm {
    /// `block.{part}_norm` and `block.{part}_residual`.
    pub(crate) fn load(weights: &Weights, block: &str, part: &str, epsilon: f32) -> Result<AddNorm, WeightsError> {
        let residual = weights.get(&format!("{block}.{part}_residual"))?;
        Ok(AddNorm {
            norm: Norm::load(weights, &format!("{block}.{part}_norm"), epsilon)?,
            residual: residual.data.first().copied().unwrap_or_default(),
        })
    }

    /// `x = LN(x + a y)` over the first `width` features of the rows.
    pub(crate) fn apply(&self, level: Level, width: usize, rows: ResidualRows<'_>) {
        level.run(ApplyToSum { norm: self, width, rows });
    }

    pub(crate) fn bytes(&self) -> usize {
        self.norm.bytes() + size_of::<f32>()
    }
}

struct Apply<'a> {
    norm: &'a Norm,
    width: usize,
    x: &'a mut [f32],
    stride: usize,
}

impl Kernel for Apply<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        for x in self.x.chunks_mut(self.stride) {
            let x = &mut x[..self.width];
            let sum = sum(simd, x);
            self.norm.of_row(simd, x, sum);
        }
    }
}

struct ApplyToSum<'a> {
    norm: &'a AddNorm,
    width: usize,
    rows: ResidualRows<'a>,
}

impl Kernel for ApplyToSum<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let ApplyToSum { norm, width, rows: ResidualRows { x, y, stride } } = self;
        for (x, y) in x.chunks_mut(stride).zip(y.chunks(stride)) {
            let (x, y) = (&mut x[..width], &y[..width]);
            let sum = sum_of_residual(simd, x, y, norm.residual);
            norm.norm.of_row(simd, x, sum);
        }
    }
}

/// The sum of a row.
#[inline(always)]
fn sum<S: Simd>(simd: S, x: &[f32]) -> f32 {
    let whole = x.len() - x.len() % S::LANES;
    let mut sums = simd.splat(0.0);
    for x in x[..whole].chunks_exact(S::LANES) {
        sums = simd.add(sums, simd.load(x));
    }
    x[whole..].iter().fold(simd.sum_lanes(sums), |sum, value| sum + value)
}

/// Adds a y to x and returns the sum of x.
#[inline(always)]
fn sum_of_residual<S: Simd>(simd: S, x: &mut [f32], y: &[f32], a: f32) -> f32 {
    let whole = x.len() - x.len() % S::LANES;
    let (residual, mut sums) = (simd.splat(a), simd.splat(0.0));
    for at in (0..whole).step_by(S::LANES) {
        let value = simd.fma(simd.load(&y[at..]), residual, simd.load(&x[at..]));
        simd.store(value, &mut x[at..]);
        sums = simd.add(sums, value);
    }
    let mut sum = simd.sum_lanes(sums);
    for (x, y) in x.iter_mut().zip(y).skip(whole) {
        *x += a * y;
        sum += *x;
    }
    sum
}

/// The sum of squared distances from the mean.
#[inline(always)]
fn squares<S: Simd>(simd: S, x: &[f32], mean: f32) -> f32 {
    let whole = x.len() - x.len() % S::LANES;
    let (means, mut sums) = (simd.splat(mean), simd.splat(0.0));
    for at in (0..whole).step_by(S::LANES) {
        let distance = simd.sub(simd.load(&x[at..]), means);
        sums = simd.fma(distance, distance, sums);
    }
    x[whole..].iter().fold(simd.sum_lanes(sums), |sum, value| sum + (value - mean) * (value - mean))
}
