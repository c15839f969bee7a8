use std::hint::black_box;
use std::time::{Duration, Instant};

use super::buffer::Buffer;
use super::panels::Panels;
use super::product::{Product, Shape};
use super::simd::{Kernel, Level, RowMajor, Simd};
use canet_model::Precision;

/// Independent sums: more than a core has multiply-adds in flight.
const SUMS: usize = 12;

/// Multiply-adds of each sum between two readings of the clock.
const ROUNDS: usize = 20_000;

/// Floating-point operations a second of one core that multiplies and adds in registers alone. A multiply-add counts as
/// 2. No matrix product can be faster. Returns the best rate within `time`.
pub fn fma_peak(level: Level, time: Duration) -> f64 {
    best_rate(time, || {
        let lanes = level.run(MultiplyAdd { factor: black_box(0.999_9), term: black_box(1e-6) });
        2 * lanes * SUMS * ROUNDS
    })
}

/// Floating-point operations a second of one core on a matrix product that suits it: 56 rows times weights of 512 x
/// 512, which the second-level cache holds. Returns the best rate within `time`.
pub fn gemm_peak(level: Level, precision: Precision, time: Duration) -> f64 {
    const SIZE: usize = 512;
    const ROWS: usize = 56;
    let (layer, input, mut out) =
        (Panels::zeros(precision.into(), SIZE, SIZE), vec![0.5; ROWS * SIZE], vec![0.0; ROWS * SIZE]);
    best_rate(time, || {
        let input = RowMajor { data: &input, stride: SIZE };
        Product::new(&layer, Shape::square(SIZE), input, ROWS).write(level, black_box(&mut out), SIZE);
        2 * ROWS * SIZE * SIZE
    })
}

/// Bytes a second that one thread reads from `bytes` of memory, which should exceed the caches. Reading a table of that
/// size once cannot be faster. Returns the best rate within `time`.
pub fn read_peak(level: Level, bytes: usize, time: Duration) -> f64 {
    let mut table = Buffer::new(bytes / size_of::<f32>());
    // Pages that were never written all map to one page of zeros.
    table.fill(1.0);
    best_rate(time, || {
        black_box(level.run(ReadTable { table: &table }));
        bytes
    })
}

/// The best rate of `work`, which returns its number of operations.
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
            black_box(simd.sum_lanes(sum));
        }
        S::LANES
    }
}

struct ReadTable<'a> {
    table: &'a [f32],
}

/// Vectors that are read side by side.
const STREAMS: usize = 8;

/// Values between a read and its prefetch.
const AHEAD: usize = 1024;

impl Kernel for ReadTable<'_> {
    type Output = f32;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> f32 {
        let mut greatest = [simd.splat(0.0); STREAMS];
        for (place, values) in self.table.chunks_exact(STREAMS * S::LANES).enumerate() {
            let ahead = place.wrapping_mul(STREAMS * S::LANES).wrapping_add(AHEAD);
            for (vector, greatest) in greatest.iter_mut().enumerate() {
                simd.prefetch(self.table, ahead.wrapping_add(vector * S::LANES));
                *greatest = simd.max(*greatest, simd.load(&values[vector * S::LANES..]));
            }
        }
        greatest.into_iter().map(|greatest| simd.max_lane(greatest)).fold(0.0, f32::max)
    }
}
