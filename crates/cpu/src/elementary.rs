//! Elementary functions of vectors.

use super::simd::Simd;

/// eˣ for x up to 0, to two units in the last place. Below -87.3 it is 1.2e-38. NaN stays NaN.
///
/// x = n ln 2 + r with |r| at most half of ln 2. A polynomial computes eʳ, with the coefficients of the Cephes
/// library's `expf`.
#[inline(always)]
pub(crate) fn exp<S: Simd>(simd: S, x: S::Vector) -> S::Vector {
    // Of NaN and a number, every level takes the second operand.
    let x = simd.max(simd.splat(-87.3), x);
    let n = simd.round(simd.mul(x, simd.splat(std::f32::consts::LOG2_E)));
    // ln 2 in two parts. The first has so few bits that its product with n is exact.
    let r = simd.fma(n, simd.splat(-0.693_359_4), x);
    let r = simd.fma(n, simd.splat(2.121_944_4e-4), r);
    let polynomial =
        horner(simd, r, [1.987_569_1e-4, 1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5]);
    let fraction = simd.add(simd.fma(simd.mul(polynomial, r), r, r), simd.splat(1.0));
    simd.mul(fraction, simd.exp2(n))
}

/// Exact GELU, `x/2 (1 + erf(x/√2))`. The error is below 5e-7 of x, or below 5e-7 if |x| is less than 1.
#[inline(always)]
pub(crate) fn gelu<S: Simd>(simd: S, x: S::Vector) -> S::Vector {
    if S::HAS_TABLE_LOOKUP { gelu_by_table(simd, x) } else { gelu_by_quotient(simd, x) }
}

/// `x/2 + |x| G(|x|)` with G(a) = erf(a/√2) / 2. G is a cubic in each of 32 segments, whose coefficients come from
/// tables in registers.
#[inline(always)]
fn gelu_by_table<S: Simd>(simd: S, x: S::Vector) -> S::Vector {
    // Adding 1.5·2²³ rounds a value to a whole number, which is then in its lowest bits.
    let whole = simd.splat(12_582_912.0);
    let size = simd.abs(x);
    let a = simd.min(size, simd.splat(LAST_PLACE));
    let place = simd.fma(a, simd.splat((1.0 / SEGMENT) as f32), whole);
    let r = simd.fma(simd.sub(place, whole), simd.splat(-SEGMENT as f32), a);
    let [c0, c1, c2, c3] = &GELU_TABLE;
    let sum = simd.fma(simd.table_lookup(c3, place), r, simd.table_lookup(c2, place));
    let sum = simd.fma(sum, r, simd.table_lookup(c1, place));
    let sum = simd.fma(sum, r, simd.table_lookup(c0, place));
    simd.fma(size, sum, simd.mul(x, simd.splat(0.5)))
}

/// Distance of the middles of two segments. The first middle is 0.
const SEGMENT: f64 = 11.0 / 64.0;

/// A place within the last segment. From 5.4 on G is 0.5 in float32.
const LAST_PLACE: f32 = (31.45 * SEGMENT) as f32;

/// The coefficients of G in each segment, by powers of the distance from its middle. The error is 2e-7.
const GELU_TABLE: [[f32; 32]; 4] = gelu_table();

/// Each segment interpolates G at the four Chebyshev points ±p and ±q.
const fn gelu_table() -> [[f32; 32]; 4] {
    let mut segments = [[0.0; 32]; 4];
    // Half a segment times the cosines of π/8 and 3π/8.
    let [p, q] = [0.5 * SEGMENT * 0.923_879_532_511_286_7, 0.5 * SEGMENT * 0.382_683_432_365_089_8];
    let mut segment = 0;
    while segment < 32 {
        let middle = segment as f64 * SEGMENT;
        let [above_p, below_p] = [half_erf(middle + p), half_erf(middle - p)];
        let [above_q, below_q] = [half_erf(middle + q), half_erf(middle - q)];
        let [even_p, even_q] = [(above_p + below_p) / 2.0, (above_q + below_q) / 2.0];
        let [odd_p, odd_q] = [(above_p - below_p) / (2.0 * p), (above_q - below_q) / (2.0 * q)];
        let [c2, c3] = [(even_p - even_q) / (p * p - q * q), (odd_p - odd_q) / (p * p - q * q)];
        segments[0][segment] = (even_p - c2 * p * p) as f32;
        segments[1][segment] = (odd_p - c3 * p * p) as f32;
        segments[2][segment] = c2 as f32;
        segments[3][segment] = c3 as f32;
        segment += 1;
    }
    segments
}

/// `erf(a/√2) / 2` by its power series, to 1e-9 for |a| up to 5.5.
const fn half_erf(a: f64) -> f64 {
    let [mut sum, mut power] = [0.0, a];
    let mut term = 0;
    while term < 100 {
        sum += power / (2 * term + 1) as f64;
        term += 1;
        power *= -a * a / (2 * term) as f64;
    }
    // √(2π)
    sum / 2.506_628_274_631_000_5
}

/// erf(z) = z P(z²) / Q(z²) for |z| up to 4, where it reaches 1 in float32. The coefficients are those of Eigen's
/// `erf`.
#[inline(always)]
fn gelu_by_quotient<S: Simd>(simd: S, x: S::Vector) -> S::Vector {
    let z = simd.mul(x, simd.splat(std::f32::consts::FRAC_1_SQRT_2));
    let z = simd.min(simd.max(z, simd.splat(-4.0)), simd.splat(4.0));
    let square = simd.mul(z, z);
    let above = horner(
        simd,
        square,
        [-2.726_142_3e-10, 2.770_681_4e-8, -2.101_024e-6, -5.692_506_5e-5, -7.349_906e-4, -2.954_6e-3, -1.609_603_3e-2],
    );
    let below = horner(simd, square, [-1.456_607_2e-5, -2.133_740_6e-4, -1.682_827e-3, -7.373_329_3e-3, -1.426_474e-2]);
    let erf = simd.mul(simd.mul(z, above), simd.reciprocal(below));
    let half = simd.mul(x, simd.splat(0.5));
    simd.fma(half, erf, half)
}

/// A polynomial with its highest coefficient first.
#[inline(always)]
fn horner<S: Simd, const N: usize>(simd: S, x: S::Vector, coefficients: [f32; N]) -> S::Vector {
    let mut sum = simd.splat(coefficients[0]);
    for coefficient in &coefficients[1..] {
        sum = simd.fma(sum, x, simd.splat(*coefficient));
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::super::simd::{Kernel, Level, Simd};
    use super::{exp, gelu};

    /// Evaluates a function at 4096 places.
    struct Values {
        gelu: bool,
        from: f32,
        step: f32,
    }

    impl Kernel for Values {
        type Output = Vec<(f32, f32)>;

        #[inline(always)]
        fn run<S: Simd>(self, simd: S) -> Vec<(f32, f32)> {
            let places: Vec<f32> = (0..4096).map(|place| self.from + self.step * place as f32).collect();
            let mut found = places.clone();
            for lanes in found.chunks_exact_mut(S::LANES) {
                let x = simd.load(lanes);
                simd.store(if self.gelu { gelu(simd, x) } else { exp(simd, x) }, lanes);
            }
            places.into_iter().zip(found).collect()
        }
    }

    /// The error function by Simpson's rule, in float64.
    fn erf(z: f64) -> f64 {
        let (steps, end) = (2000, z.clamp(-7.0, 7.0));
        let (width, f) = (end / f64::from(steps), |x: f64| (-x * x).exp());
        let inner = |step: i32| if step % 2 == 1 { 4.0 } else { 2.0 } * f(width * f64::from(step));
        let sum = f(0.0) + f(end) + (1..steps).map(inner).sum::<f64>();
        sum * width / 3.0 * 2.0 / std::f64::consts::PI.sqrt()
    }

    #[test]
    fn gelu_is_the_exact_one() {
        for level in Level::available() {
            for (x, found) in level.run(Values { gelu: true, from: -12.0, step: 24.0 / 4095.0 }) {
                let x = f64::from(x);
                let expected = 0.5 * x * (1.0 + erf(x / std::f64::consts::SQRT_2));
                let error = (f64::from(found) - expected).abs() / x.abs().max(1.0);
                assert!(error < 5e-7, "{level}: gelu({x}) is {expected}, not {found}");
            }
        }
    }

    #[test]
    fn exp_is_right_to_two_units_in_the_last_place() {
        for level in Level::available() {
            for (x, found) in level.run(Values { gelu: false, from: -87.0, step: 87.0 / 4095.0 }) {
                let expected = f64::from(x).exp();
                assert!(
                    (f64::from(found) / expected - 1.0).abs() < 2.5e-7,
                    "{level}: exp({x}) is {expected}, not {found}"
                );
            }
        }
        let far = Values { gelu: false, from: -1e30, step: 0.0 };
        assert!(Level::best().run(far).first().unwrap().1 < 1.3e-38);
        for level in Level::available() {
            let nan = Values { gelu: false, from: f32::NAN, step: 0.0 };
            assert!(level.run(nan).iter().all(|(_, found)| found.is_nan()), "{level}");
        }
    }
}
