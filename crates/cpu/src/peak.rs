use std::hint::black_box;
use std::time::{Duration, Instant};

use super::buffer::Buffer;
use super::panels::Panels;
use super::product::Product;
use super::simd::{Kernel, Left, Level, Simd};
use canet_model::Precision;

/// Sums that do not wait for each other: more than a core's multiply-adds in flight.
const SUMS: usize = 12;

/// Multiply-adds of each sum between two looks at the clock.
const ROUNDS: usize = 20_000;

/// Floating-point operations a second of one core that multiplies and adds in registers alone, a multiply-add counted
/// as 2: what no product of matrices can exceed. The best of what was seen within `time`.
pub fn fma_peak(level: Level, time: Duration) -> f64 {
    best_rate(time, || {
        let lanes = level.run(MultiplyAdd { factor: black_box(0.999_9), term: black_box(1e-6) });
        2 * lanes * SUMS * ROUNDS
    })
}

/// Floating-point operations a second of one core that multiplies matrices which suit it: 56 rows with 512 x 512
/// weights, which the second cache holds. The best of what was seen within `time`.
pub fn gemm_peak(level: Level, precision: Precision, time: Duration) -> f64 {
    const SIZE: usize = 512;
    const ROWS: usize = 56;
    let (layer, input, mut out) =
        (Panels::zeros(precision.into(), SIZE, SIZE), vec![0.5; ROWS * SIZE], vec![0.0; ROWS * SIZE]);
    best_rate(time, || {
        let product = Product::new(&layer, [SIZE; 2], Left { data: &input, stride: SIZE }, ROWS);
        product.into(level, black_box(&mut out), SIZE);
        2 * ROWS * SIZE * SIZE
    })
}

/// Bytes a second that one thread reads out of `bytes` of memory, more than caches hold: the best of what was seen within
/// `time`. Nothing that reads a table of that size once can be faster.
pub fn read_peak(level: Level, bytes: usize, time: Duration) -> f64 {
    let mut table = Buffer::new(bytes / size_of::<f32>());
    // Pages that nobody has written to are all one page of zeros.
    table.fill(1.0);
    best_rate(time, || {
        black_box(level.run(Read { table: &table }));
        bytes
    })
}

/// The best rate of something that says how many operations it did.
fn best_rate(time: Duration, mut work: impl FnMut() -> usize) -> f64 {
    let (started, mut best) = (Instant::now(), 0.0_f64);
    while started.elapsed() < time {
        let round = Instant::now();
        let operations = work();
        best = best.max(operations as f64 / round.elapsed().as_secs_f64());
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

struct Read<'a> {
    table: &'a [f32],
}

/// Vectors that are read side by side, and how many values ahead the cache is told of them.
const BESIDE: usize = 8;
const AHEAD: usize = 1024;

impl Kernel for Read<'_> {
    type Output = f32;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> f32 {
        let mut greatest = [simd.splat(0.0); BESIDE];
        for (place, values) in self.table.chunks_exact(BESIDE * S::LANES).enumerate() {
            let ahead = place.wrapping_mul(BESIDE * S::LANES).wrapping_add(AHEAD);
            for (vector, greatest) in greatest.iter_mut().enumerate() {
                simd.prefetch(self.table, ahead.wrapping_add(vector * S::LANES));
                *greatest = simd.max(*greatest, simd.load(&values[vector * S::LANES..]));
            }
        }
        greatest.into_iter().map(|greatest| simd.greatest(greatest)).fold(0.0, f32::max)
    }
}
