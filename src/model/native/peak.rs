use std::hint::black_box;
use std::time::{Duration, Instant};

use super::simd::{Kernel, Level, Simd};

/// Sums that do not wait for each other: more than a core's multiply-adds in flight.
const SUMS: usize = 12;

/// Multiply-adds of each sum between two looks at the clock.
const ROUNDS: usize = 20_000;

/// Floating-point operations a second of one core that multiplies and adds in registers alone, a multiply-add counted
/// as 2: what no product of matrices can exceed. The best of what was seen within `time`.
pub fn fma_peak(level: Level, time: Duration) -> f64 {
    let (started, mut best) = (Instant::now(), 0.0_f64);
    while started.elapsed() < time {
        let round = Instant::now();
        let lanes = black_box(level.run(MultiplyAdd { factor: black_box(0.999_9), term: black_box(1e-6) }));
        best = best.max((2 * lanes * SUMS * ROUNDS) as f64 / round.elapsed().as_secs_f64());
    }
    best
}

struct MultiplyAdd {
    factor: f32,
    term: f32,
}

impl Kernel for MultiplyAdd {
    /// Lanes of a vector.
    type Output = usize;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> usize {
        let (factor, mut sums) = (simd.splat(self.factor), [simd.splat(self.term); SUMS]);
        for _ in 0..ROUNDS {
            for sum in &mut sums {
                *sum = simd.fma(*sum, factor, factor);
            }
        }
        for sum in sums {
            black_box(simd.sum(sum));
        }
        S::LANES
    }
}
