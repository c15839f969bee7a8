use canet_torch::tch_device;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tch::{Kind, TchError, Tensor};

use crate::batch::{Batch, Sample};
use crate::dropout::DropoutShares;
use crate::error::TrainError;
use crate::optimizer::{AdamW, AdamWOptions, Schedule};
use crate::parameters::Parameters;
use crate::run::{Pause, Run};
use crate::stage::Stage;
use crate::supernet::Supernet;
use canet_domain::Item;

/// What a step of the router's learning asks for.
pub(super) struct Lesson<'a> {
    /// Histories, each of at least one item.
    pub histories: Vec<&'a [Item]>,
    /// The logits that they should have: [B, routes]
    pub logits: Tensor,
}

const LEARNING_RATE: f64 = 2e-3;
const WARMUP: u64 = 50;
const OPTIMIZER: AdamWOptions = AdamWOptions { betas: [0.9, 0.98], eps: 1e-8, weight_decay: 0.01, clip_norm: 1.0 };

/// Spread of the router's item table at its start.
const TABLE_STD: f64 = 0.1;

/// Teaches the checkpoint's router over `steps` lessons; logits count where `allowed` (1 or 0, a route) and up to a
/// constant a history. Ends early where the run's time is over; where it is stopped, the router is left half taught. Returns why it
/// ended and the lessons done.
///
/// # Errors
/// [`TrainError`] where the device fails.
pub(super) fn learn<'a>(
    run: &mut Run<'_>,
    allowed: &Tensor,
    steps: u64,
    mut lesson: impl FnMut(u64) -> Result<Lesson<'a>, TchError>,
) -> Result<(Pause, u64), TrainError> {
    start_from_supernet(&run.state.parameters)?;
    let mut optimizer = AdamW::new(OPTIMIZER, &run.state.parameters)?;
    let schedule = Schedule { peak: LEARNING_RATE, warmup: WARMUP.min(steps / 4), total: steps };
    run.display.begin(Stage::Router, steps, 0);
    for step in 0..steps {
        if let Some(pause) = run.interrupted(Stage::Router) {
            return Ok((pause, step));
        }
        let Lesson { histories, logits } = lesson(step)?;
        let found = router_logits(run, &histories)?;
        let device = found.device();
        let loss = apart(&found, &logits.f_to_device(device)?, &allowed.f_to_device(device)?)?;
        loss.f_backward()?;
        optimizer.step(&run.state.parameters, schedule.rate(step))?;
        run.display.step(loss.f_double_value(&[])?, None);
    }
    Ok((Pause::Done, steps))
}

/// The router's logits of histories: [B, routes]
///
/// # Errors
/// LibTorch's.
pub(super) fn router_logits(run: &Run<'_>, histories: &[&[Item]]) -> Result<Tensor, TchError> {
    let job = run.job;
    let max_len = job.config.max_len;
    let samples: Vec<Sample<'_>> = histories
        .iter()
        .map(|history| &history[history.len().saturating_sub(max_len)..])
        .map(|read| Sample { inputs: read, targets: read })
        .collect();
    let batch = Batch::new(&samples, max_len, tch_device(job.device))?;
    Supernet { config: &job.config, parameters: &run.state.parameters, dropout: DropoutShares::NONE }
        .router_logits(&batch)
}

/// Mean squared distance of two rows of logits over the allowed routes, each row less its mean over them.
///
/// # Errors
/// LibTorch's.
pub(super) fn apart(found: &Tensor, wanted: &Tensor, allowed: &Tensor) -> Result<Tensor, TchError> {
    let count = allowed.f_sum(Kind::Float)?;
    let off = found.f_sub(wanted)?.f_mul(allowed)?; // [B, routes]
    let mean = off.f_sum_dim_intlist([1_i64].as_slice(), true, Kind::Float)?.f_div(&count)?;
    let off = off.f_sub(&mean)?.f_mul(allowed)?;
    off.f_square()?.f_sum_dim_intlist([1_i64].as_slice(), false, Kind::Float)?.f_div(&count)?.f_mean(Kind::Float)
}

/// Histories drawn from the training parts, each cut at a drawn place; the longest first.
pub(super) fn drawn_histories<'a>(sequences: &[&'a [Item]], count: usize, seed: u64) -> Vec<&'a [Item]> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut histories: Vec<&[Item]> = (0..count)
        .map(|_| {
            let sequence = sequences[rng.gen_range(0..sequences.len())];
            &sequence[..rng.gen_range(1..=sequence.len())]
        })
        .collect();
    histories.sort_by_key(|history| std::cmp::Reverse(history.len()));
    histories
}

/// Lets the router's item table begin as the principal components of the supernet's.
fn start_from_supernet(parameters: &Parameters) -> Result<(), TchError> {
    tch::no_grad(|| {
        let table = parameters.get("backbone.item_embedding")?; // [N + 1, E]
        let own = parameters.get("router.item_embedding")?; // [N + 1, dim]
        let (rows, dim) = own.size2()?;
        let items = table.f_narrow(0, 1, rows - 1)?;
        let centred = items.f_sub(&items.f_mean_dim([0_i64].as_slice(), true, Kind::Float)?)?;
        let (_, _, directions) = centred.f_transpose(0, 1)?.f_matmul(&centred)?.f_svd(true, true)?; // [E, E]
        let kept = dim.min(directions.size2()?.1);
        let projected = centred.f_matmul(&directions.f_narrow(1, 0, kept)?)?; // [N, kept]
        let spread = projected.f_square()?.f_mean(Kind::Float)?.f_sqrt()?.f_clamp_min(1e-12)?;
        let start = projected.f_div(&spread)?.f_mul_scalar(TABLE_STD)?;
        own.f_narrow(0, 1, rows - 1)?.f_narrow(1, 0, kept)?.f_copy_(&start)
    })
}
