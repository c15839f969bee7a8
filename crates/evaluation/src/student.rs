//! Student's t distribution, as far as 95 % intervals need it.

use std::f64::consts::PI;

/// Two-sided share of a distribution that an interval leaves out.
const OUTSIDE: f64 = 0.05;

/// The quantile of the normal distribution that goes with it.
const NORMAL: f64 = 1.959_963_984_540_054;

/// From here on the expansion around the normal quantile is exact to seven digits.
const MANY: f64 = 200.0;

/// How many standard errors to either side of a mean hold 95 % of Student's t distribution. Degrees of freedom need not be
/// whole; below 1, which no variance has, they count as 1.
pub fn t_reach(degrees: f64) -> f64 {
    let degrees = degrees.max(1.0);
    if degrees >= MANY {
        let z = NORMAL;
        let first = (z.powi(3) + z) / 4.0;
        let second = (5.0 * z.powi(5) + 16.0 * z.powi(3) + 3.0 * z) / 96.0;
        return z + first / degrees + second / (degrees * degrees);
    }
    // At one degree of freedom it is 12.7, and less at more.
    let (mut low, mut high) = (1.0, 16.0);
    for _ in 0..50 {
        let middle = f64::midpoint(low, high);
        if beyond(middle, degrees) > OUTSIDE { low = middle } else { high = middle }
    }
    f64::midpoint(low, high)
}

/// Probability that |T| > `t`.
fn beyond(t: f64, degrees: f64) -> f64 {
    beta_share(degrees / (degrees + t * t), degrees / 2.0, 0.5)
}

/// The regularised incomplete beta function, from its continued fraction on the side where that converges fast.
fn beta_share(x: f64, a: f64, b: f64) -> f64 {
    let scale = (ln_gamma(a + b) - ln_gamma(a) - ln_gamma(b) + a * x.ln() + b * (1.0 - x).ln()).exp();
    if x < (a + 1.0) / (a + b + 2.0) {
        scale * fraction(x, a, b) / a
    } else {
        1.0 - scale * fraction(1.0 - x, b, a) / b
    }
}

/// Lentz's evaluation of the continued fraction.
fn fraction(x: f64, a: f64, b: f64) -> f64 {
    let away_from_zero = |value: f64| if value.abs() < 1e-300 { 1e-300 } else { value };
    let mut c = 1.0;
    let mut d = 1.0 / away_from_zero(1.0 - (a + b) * x / (a + 1.0));
    let mut product = d;
    for step in 1..300 {
        let m = f64::from(step);
        let even = m * (b - m) * x / ((a + 2.0 * m - 1.0) * (a + 2.0 * m));
        let odd = -(a + m) * (a + b + m) * x / ((a + 2.0 * m) * (a + 2.0 * m + 1.0));
        let mut change = 1.0;
        for term in [even, odd] {
            d = 1.0 / away_from_zero(1.0 + term * d);
            c = away_from_zero(1.0 + term / c);
            change = d * c;
            product *= change;
        }
        if (change - 1.0).abs() < 1e-14 {
            break;
        }
    }
    product
}

/// Logarithm of the gamma function of a number above 0: Stirling's series, where it is exact.
fn ln_gamma(x: f64) -> f64 {
    // Γ(x) = Γ(x + n) / (x (x + 1) ... (x + n - 1))
    let (mut x, mut below) = (x, 0.0);
    while x < 10.0 {
        below += x.ln();
        x += 1.0;
    }
    let series = 1.0 / (12.0 * x) - 1.0 / (360.0 * x.powi(3)) + 1.0 / (1260.0 * x.powi(5)) - 1.0 / (1680.0 * x.powi(7));
    (x - 0.5) * x.ln() - x + (2.0 * PI).ln() / 2.0 + series - below
}
