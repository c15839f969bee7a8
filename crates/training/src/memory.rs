//! The memory that a training takes, before it takes any.
//!
//! Tables of items dominate in large catalogues, and their copies are counted exactly. Activations, the softmax and the router's
//! cases dominate in small ones, and are estimated. Measured peaks are within 30 % (`docs/training.md`).

use canet_data::Split;
use canet_domain::RouteSpace;

use crate::error::TrainError;
use crate::holdout::Holdout;
use crate::job::TrainJob;
use crate::parameters::{ITEM_EMBEDDING, OUTPUT_WEIGHT};
use crate::router::values_of_case;
use crate::samples::Samples;
use crate::stage::{Preset, Stage};
use crate::validation::ranking_batch;

/// The most memory that a training takes at a time, beside what the process has before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryEstimate {
    /// Bytes of the machine's memory.
    pub host: u64,
    /// Bytes of the GPU's memory, 0 for a training on a CPU.
    pub gpu: u64,
}

/// Bytes of a float32 value.
const VALUE: u64 = 4;

/// Vectors as long as the trained weights: the weights, their gradients, two moments, which of them decay, and the factors of their
/// learning rates.
const STATE_VECTORS: u64 = 6;

/// Vectors that the optimizer makes in a step.
const OPTIMIZER_VECTORS: u64 = 2;

/// Gradients of the item table that the backward pass holds at a time: of one slice, padded to the full width, and their sum.
const TABLE_GRADIENTS: u64 = 3;

/// Copies of all weights in a save: the weights, two moments and the best epoch's, and a copy for ranking that was freed just
/// before, which the allocator has not given back yet.
const SAVED_COPIES: u64 = 5;

/// Values that the forward pass keeps for the backward pass, a token, a layer and a feature.
const ACTIVATIONS: u64 = 20;

/// Matrices of positions x items that a step holds at a time, an exit.
const SOFTMAX_MATRICES: u64 = 4;

/// Scores that the full softmax computes at a time, approximately.
const SOFTMAX_SCORES: u64 = crate::full_softmax::SCORES as u64;

/// Bytes of a sample while an epoch is drawn: in the list of all samples, which grows by doubling, and in its batch.
const SAMPLE: u64 = 96;

/// Bytes of a case and a route: ranks, and utilities with their predictions.
const CASE_ROUTE: u64 = 96;

/// Bytes of a case beside that, without its features.
const CASE: u64 = 256;

/// Bytes that LibTorch takes for its libraries and threads once it computes.
const LIBTORCH: u64 = 60 << 20;

impl MemoryEstimate {
    /// The estimate for a job.
    ///
    /// # Errors
    /// [`TrainError::Config`] if the configuration is invalid.
    pub fn of(job: &TrainJob<'_>) -> Result<MemoryEstimate, TrainError> {
        let space = job.config.check()?;
        let tables = Tables::of(job);
        let data = data_bytes(job, &space);
        let step = step_bytes(job, &space);
        let scores = 2 * ranking_batch(job.device) as u64 * (job.config.items as u64 + 1) * VALUE;
        let Tables { stored, trained, items } = tables;
        let state = STATE_VECTORS * trained;
        // The kernels' own form of the weights, some of them in bytes as well.
        let kernels = stored + stored / 4;
        let sum = |parts: &[u64]| parts.iter().fold(0, |sum: u64, part| sum.saturating_add(*part));
        let learning = (OPTIMIZER_VECTORS * trained).max(TABLE_GRADIENTS * items);
        let saving = SAVED_COPIES * stored;
        // The next stage's weights stand beside those of this one.
        let changing = 3 * trained + stored;
        Ok(match job.device.is_cuda() {
            false => {
                let phases = [learning + stored, 2 * stored + kernels + scores, stored + saving, changing];
                let most = phases.into_iter().max().unwrap_or_default();
                // Activations are many small tensors. The allocator keeps their memory for the next step.
                MemoryEstimate { host: sum(&[LIBTORCH, data, step, state, most]), gpu: 0 }
            }
            true => MemoryEstimate {
                host: sum(&[LIBTORCH, data, stored, saving.max(stored + scores)]),
                gpu: sum(&[step, state, learning.max(kernels + scores).max(changing)]),
            },
        })
    }
}

/// Bytes of the weights.
struct Tables {
    /// All, as a checkpoint stores them.
    stored: u64,
    /// Those in training: a tied table counts once.
    trained: u64,
    /// The tables of items that a step reads.
    items: u64,
}

impl Tables {
    fn of(job: &TrainJob<'_>) -> Tables {
        let (mut stored, mut output, mut items) = (0, 0, 0);
        for parameter in job.config.parameters() {
            let bytes = VALUE * parameter.shape.iter().map(|size| *size as u64).product::<u64>();
            stored += bytes;
            match parameter.name.as_str() {
                OUTPUT_WEIGHT => output = bytes,
                ITEM_EMBEDDING => items = bytes,
                _ => {}
            }
        }
        Tables { stored, trained: if job.options.tied { stored - output } else { stored }, items }
    }
}

/// Bytes of one step's activations and softmax. The largest sizes that flags accept exceed 2^64 bytes, which count as
/// 2^64 - 1.
fn step_bytes(job: &TrainJob<'_>, space: &RouteSpace) -> u64 {
    let (config, options) = (&job.config, &job.options);
    let lengths = job.dataset.sequences.iter().map(|sequence| sequence.len().min(config.max_len) as u64);
    // Samples of one batch have about the same length, so the longest count.
    let longest = lengths.max().unwrap_or(1);
    let tokens = options.batch_size as u64 * longest;
    let depth = config.depth() as u64;
    // Each pass of a step: one of every width in the preset `utility`, the full one alone in the preset `paper`.
    let widths: u64 = match options.preset {
        Preset::Utility => space.hidden().iter().map(|width| *width as u64).sum(),
        Preset::Paper => 2 * config.width() as u64,
    };
    let passes = match options.preset {
        Preset::Utility => space.hidden().len() as u64 + 1,
        Preset::Paper => 1,
    };
    let attention = 3 * passes * config.heads as u64 * longest;
    let activations = (VALUE * tokens * depth).saturating_mul(ACTIVATIONS * widths + attention);
    let scored = options.samples.loss_positions.map_or(longest, |count| (count as u64).min(longest));
    let positions = options.batch_size as u64 * scored;
    let softmax = match (options.preset, options.sandwich.negatives) {
        (Preset::Utility, None) => {
            let items = config.items as u64;
            (VALUE * items).saturating_mul(positions.min((SOFTMAX_SCORES / items).max(1)))
        }
        // No more negatives than items are drawn.
        (Preset::Utility, Some(negatives)) => (VALUE * positions).saturating_mul(negatives.min(config.items) as u64),
        (Preset::Paper, _) => (VALUE * positions).saturating_mul(config.items as u64),
    };
    activations.saturating_add((SOFTMAX_MATRICES * passes).saturating_mul(softmax))
}

/// Bytes of the samples of an epoch, and of the cases that rank and route users.
fn data_bytes(job: &TrainJob<'_>, space: &RouteSpace) -> u64 {
    let (options, dataset) = (&job.options, job.dataset);
    let sequences = dataset.training_sequences();
    let samples = Samples::new(sequences, options.samples, job.config.window(), options.batch_size);
    let samples = samples.steps() * options.batch_size as u64;
    let routes = space.len() as u64;
    let trains_router = options.preset.stages().contains(&Stage::Router) && routes > 1;
    let held_out = match trains_router {
        true => Holdout::new(dataset, options.router.holdout).cases.len(),
        false => 0,
    };
    let cases = held_out.max(dataset.cases(Split::Validation).len()) as u64;
    let narrowest = space.embedding().first().copied().unwrap_or_default();
    let features = VALUE * values_of_case(narrowest) as u64 * held_out as u64;
    SAMPLE * samples + cases * (CASE + CASE_ROUTE * routes) + features
}
