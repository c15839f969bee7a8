//! Critical values of Student's t distribution for 95 % confidence intervals.

use std::f64::consts::PI;

/// Probability outside a two-sided 95 % interval.
const ALPHA: f64 = 0.05;

/// The two-sided 95 % critical value of the normal distribution.
const Z_CRITICAL: f64 = 1.959_963_984_540_054;

/// From these degrees of freedom on, the expansion around the normal distribution is exact to seven digits.
const NEARLY_NORMAL: f64 = 200.0;

/// Two-sided 95 % critical value of Student's t distribution: a 95 % interval of a mean reaches this many standard
/// errors to either side.
///
/// The degrees of freedom need not be whole. Values below 1 count as 1, because a variance needs two observations.
/// Below 200 degrees of freedom the value comes from bisecting the distribution function. From 200 on it comes from
/// the asymptotic expansion around the normal distribution (Abramowitz and Stegun, 26.7.5).
pub fn t_critical(degrees_of_freedom: f64) -> f64 {
    let degrees = degrees_of_freedom.max(1.0);
    if degrees >= NEARLY_NORMAL {
        let z = Z_CRITICAL;
        let first = (z.powi(3) + z) / 4.0;
        let second = (5.0 * z.powi(5) + 16.0 * z.powi(3) + 3.0 * z) / 96.0;
        return z + first / degrees + second / (degrees * degrees);
    }
    // The value is 12.7 at one degree of freedom and falls with more.
    let (mut low, mut high) = (1.0, 16.0);
    for _ in 0..50 {
        let middle = f64::midpoint(low, high);
        if two_sided_tail(middle, degrees) > ALPHA { low = middle } else { high = middle }
    }
    f64::midpoint(low, high)
}

/// Probability that |T| > `t`.
fn two_sided_tail(t: f64, degrees: f64) -> f64 {
    regularized_beta(degrees / (degrees + t * t), degrees / 2.0, 0.5)
}

/// The regularized incomplete beta function I_x(a, b).
///
/// The continued fraction converges fast for x < (a + 1) / (a + b + 2). For larger x the symmetry
/// I_x(a, b) = 1 - I_(1 - x)(b, a) applies.
fn regularized_beta(x: f64, a: f64, b: f64) -> f64 {
    let scale = (ln_gamma(a + b) - ln_gamma(a) - ln_gamma(b) + a * x.ln() + b * (1.0 - x).ln()).exp();
    if x < (a + 1.0) / (a + b + 2.0) {
        scale * beta_continued_fraction(x, a, b) / a
    } else {
        1.0 - scale * beta_continued_fraction(1.0 - x, b, a) / b
    }
}

/// The continued fraction of the incomplete beta function (Abramowitz and Stegun, 26.5.8), by the modified Lentz
/// algorithm (Press et al., *Numerical Recipes*, section 5.2).
fn beta_continued_fraction(x: f64, a: f64, b: f64) -> f64 {
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

/// Logarithm of the gamma function for positive `x`, by Stirling's series.
///
/// From 10 on, the omitted terms are below 1e-12. The recurrence Γ(x) = Γ(x + n) / (x (x + 1) ... (x + n - 1))
/// moves a smaller `x` there.
fn ln_gamma(x: f64) -> f64 {
    let (mut x, mut below) = (x, 0.0);
    while x < 10.0 {
        below += x.ln();
        x += 1.0;
    }
    let series = 1.0 / (12.0 * x) - 1.0 / (360.0 * x.powi(3)) + 1.0 / (1260.0 * x.powi(5)) - 1.0 / (1680.0 * x.powi(7));
    (x - 0.5) * x.ln() - x + (2.0 * PI).ln() / 2.0 + series - below
}

#[cfg(test)]
mod tests {
    use super::t_critical;

    #[test]
    fn critical_values_match_printed_tables() {
        for (degrees, expected) in [
            (1.0, 12.706_205),
            (1.5, 6.016_663),
            (2.0, 4.302_653),
            (3.0, 3.182_446),
            (4.0, 2.776_445),
            (10.0, 2.228_139),
            (30.0, 2.042_272),
            (100.0, 1.983_972),
            (199.0, 1.971_957),
            (200.0, 1.971_896),
            (1000.0, 1.962_339),
            (f64::INFINITY, 1.959_964),
        ] {
            let found = t_critical(degrees);
            assert!((found - expected).abs() < 2e-6, "{degrees} degrees: {found} is not {expected}");
        }
        assert_eq!(t_critical(0.3), t_critical(1.0));
    }

    #[test]
    fn critical_values_fall_with_the_degrees_of_freedom() {
        // The range includes the change of method at 200.
        let found: Vec<f64> = (10..3000).map(|tenths| t_critical(f64::from(tenths) / 10.0)).collect();
        assert!(found.windows(2).all(|pair| pair[0] > pair[1]));
    }
}
