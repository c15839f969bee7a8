use super::simd::{Kernel, Level, Simd};
use crate::model::{Weights, WeightsError};

/// Added to the variance.
const EPSILON: f32 = 1e-5;

/// ReZero and layer norm in one: `x = LN(x + a y)` over the first features.
pub(super) struct Norm {
    /// [D]
    gain: Vec<f32>,
    /// [D]
    bias: Vec<f32>,
    /// a
    residual: f32,
}

impl Norm {
    /// `block.{part}_norm` and `block.{part}_residual`.
    pub(super) fn load(weights: &Weights, block: &str, part: &str) -> Result<Norm, WeightsError> {
        let values = |name: String| weights.get(&name).map(|tensor| tensor.data.clone());
        Ok(Norm {
            gain: values(format!("{block}.{part}_norm.weight"))?,
            bias: values(format!("{block}.{part}_norm.bias"))?,
            residual: values(format!("{block}.{part}_residual"))?.first().copied().unwrap_or_default(),
        })
    }

    /// Over rows of `width` features: `x` becomes the norm, `y` is what the sublayer gave. Both have rows of `stride`.
    pub(super) fn add(&self, level: Level, width: usize, [x, y]: [&mut [f32]; 2], stride: usize) {
        let (gain, bias) = (&self.gain[..width], &self.bias[..width]);
        level.run(Add { gain, bias, residual: self.residual, x, y, stride });
    }

    pub(super) fn bytes(&self) -> usize {
        size_of::<f32>() * (self.gain.len() + self.bias.len() + 1)
    }
}

struct Add<'a> {
    gain: &'a [f32],
    bias: &'a [f32],
    residual: f32,
    x: &'a mut [f32],
    y: &'a [f32],
    stride: usize,
}

impl Kernel for Add<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let width = self.gain.len();
        for (x, y) in self.x.chunks_mut(self.stride).zip(self.y.chunks(self.stride)) {
            let (x, y) = (&mut x[..width], &y[..width]);
            let mean = sum_of_residual(simd, x, y, self.residual) / width as f32;
            let variance = squares(simd, x, mean) / width as f32;
            let scale = 1.0 / (variance + EPSILON).sqrt();
            let whole = width - width % S::LANES;
            let (means, scales) = (simd.splat(mean), simd.splat(scale));
            for at in (0..whole).step_by(S::LANES) {
                let centred = simd.mul(simd.sub(simd.load(&x[at..]), means), scales);
                simd.store(simd.fma(centred, simd.load(&self.gain[at..]), simd.load(&self.bias[at..])), &mut x[at..]);
            }
            let affine = self.gain.iter().zip(self.bias);
            for (x, (gain, bias)) in x.iter_mut().zip(affine).skip(whole) {
                *x = (*x - mean) * scale * gain + bias;
            }
        }
    }
}

/// x = x + a y, and its sum.
#[inline(always)]
fn sum_of_residual<S: Simd>(simd: S, x: &mut [f32], y: &[f32], a: f32) -> f32 {
    let whole = x.len() - x.len() % S::LANES;
    let (residual, mut sums) = (simd.splat(a), simd.splat(0.0));
    for at in (0..whole).step_by(S::LANES) {
        let value = simd.fma(simd.load(&y[at..]), residual, simd.load(&x[at..]));
        simd.store(value, &mut x[at..]);
        sums = simd.add(sums, value);
    }
    let mut sum = simd.sum(sums);
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
    x[whole..].iter().fold(simd.sum(sums), |sum, value| sum + (value - mean) * (value - mean))
}
