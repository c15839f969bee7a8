use std::io::{Write, stdout};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use clap::Args;
use clap::builder::BoolishValueParser;
use signal_hook::consts::{SIGINT, SIGTERM};

use super::Failure;
use super::device::DeviceArgs;
use super::numbers::{not_negative, positive, share, share_below_one};
use crate::data::{Dataset, ReadOptions};
use crate::model::{ModelConfig, RouterConfig, WidthRule};
use crate::training::{AdamWOptions, LossWeights, Losses, Outcome, TrainError, TrainJob, TrainOptions, train};

/// Trains a model and writes it as the next version of `--out`; an unfinished run goes on where it stopped.
#[derive(Debug, Args)]
pub(super) struct TrainArgs {
    /// Interactions: RecBole .inter, `user item` lines, `user item item ...` lines, or CSV with a header
    /// user,item,timestamp; each also gzipped.
    #[arg(long, env = "CANET_DATA", value_name = "PATH")]
    data: PathBuf,
    /// The model's directory, as models/NAME.
    #[arg(long, env = "CANET_OUT", value_name = "DIR")]
    out: PathBuf,
    /// Leave out lines that cannot be read, and say how many.
    #[arg(long, env = "CANET_SKIP_BAD_LINES", value_parser = BoolishValueParser::new())]
    skip_bad_lines: bool,
    #[command(flatten)]
    device: DeviceArgs,
    #[command(flatten)]
    sizes: SizeArgs,
    #[command(flatten)]
    learning: LearningArgs,
    #[command(flatten)]
    losses: LossArgs,
    /// Time for the whole run; when it is over, the best epoch so far becomes the checkpoint.
    #[arg(long, env = "CANET_MAX_MINUTES", value_name = "MINUTES", value_parser = positive)]
    max_minutes: Option<f64>,
    /// Throw an unfinished run away and begin again.
    #[arg(long, env = "CANET_RESTART", value_parser = BoolishValueParser::new())]
    restart: bool,
}

/// Sizes of the model.
#[derive(Debug, Args)]
#[command(next_help_heading = "Sizes")]
struct SizeArgs {
    /// Longest history that is read.
    #[arg(long, env = "CANET_MAX_LEN", default_value_t = 50)]
    max_len: usize,
    /// Widths of the routes, ascending.
    #[arg(long, env = "CANET_HIDDEN", value_delimiter = ',', default_value = "64,96,128")]
    hidden: Vec<usize>,
    /// Depths of the routes, ascending.
    #[arg(long, env = "CANET_LAYERS", value_delimiter = ',', default_value = "2,4,6,8")]
    layers: Vec<usize>,
    /// Embedding widths of the routes, ascending.
    #[arg(long, env = "CANET_EMBEDDING", value_delimiter = ',', default_value = "64,96,128")]
    embedding: Vec<usize>,
    /// Attention heads; every width is a multiple.
    #[arg(long, env = "CANET_HEADS", default_value_t = 4)]
    heads: usize,
    /// Whether a narrow slice scales attention by its own head width or by the full one (the authors' code: full).
    #[arg(long, env = "CANET_ATTENTION_SCALE", value_enum, default_value = "slice")]
    attention_scale: WidthRule,
    /// Whether a narrow slice has an inner width of 4 x its own width or 4 x the full one (the authors' code: full).
    #[arg(long, env = "CANET_FFN_INNER", value_enum, default_value = "slice")]
    ffn_inner: WidthRule,
}

/// How the weights learn.
#[derive(Debug, Args)]
#[command(next_help_heading = "Learning")]
struct LearningArgs {
    /// Passes over the data, at most.
    #[arg(long, env = "CANET_EPOCHS", default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..))]
    epochs: u64,
    /// Sequences a step.
    #[arg(long, env = "CANET_BATCH_SIZE", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=65536))]
    batch_size: u32,
    /// Learning rate at the end of the warm-up.
    #[arg(long, env = "CANET_LR", default_value_t = 1e-3, value_parser = positive)]
    lr: f64,
    /// Steps over which the learning rate rises.
    #[arg(long, env = "CANET_WARMUP_STEPS", default_value_t = 200)]
    warmup_steps: u64,
    /// AdamW's weight decay of linear layers.
    #[arg(long, env = "CANET_WEIGHT_DECAY", default_value_t = 0.1, value_parser = not_negative)]
    weight_decay: f64,
    /// Greatest norm of a step's gradient.
    #[arg(long, env = "CANET_CLIP_NORM", default_value_t = 5.0, value_parser = positive)]
    clip_norm: f64,
    /// Share of activations dropped.
    #[arg(long, env = "CANET_DROPOUT", default_value_t = 0.2, value_parser = share_below_one)]
    dropout: f64,
    /// Epochs without a better validation NDCG@10 after which training stops.
    #[arg(long, env = "CANET_PATIENCE", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..))]
    patience: u64,
    /// Seed of everything that is drawn.
    #[arg(long, env = "CANET_SEED", default_value_t = 1)]
    seed: u64,
}

/// What is minimised beside the cross-entropy of the drawn routes.
#[derive(Debug, Args)]
#[command(next_help_heading = "Losses")]
struct LossArgs {
    /// The guide and balance terms as the paper means them, or as the authors' code has them.
    #[arg(long, env = "CANET_LOSSES", value_enum, default_value = "paper")]
    losses: Losses,
    /// Train the full and the smallest slice on every row of every step too.
    #[arg(long, env = "CANET_SANDWICH", value_parser = BoolishValueParser::new())]
    sandwich: bool,
    /// Share of the full model's FLOPs to spend.
    #[arg(long, env = "CANET_FLOPS_BUDGET", default_value_t = 0.3, value_parser = share)]
    flops_budget: f64,
    /// Weight of the expected-FLOPs term.
    #[arg(long, env = "CANET_FLOPS_WEIGHT", default_value_t = 1.0, value_parser = not_negative)]
    flops_weight: f64,
    /// Weight of the guide term.
    #[arg(long, env = "CANET_GUIDE_WEIGHT", default_value_t = 0.01, value_parser = not_negative)]
    guide_weight: f64,
    /// Weight of the balance term.
    #[arg(long, env = "CANET_BALANCE_WEIGHT", default_value_t = 0.01, value_parser = not_negative)]
    balance_weight: f64,
    /// Temperature of the Gumbel-softmax by which routes are drawn.
    #[arg(long, env = "CANET_TEMPERATURE", default_value_t = 1.0, value_parser = positive)]
    temperature: f64,
}

/// Trains until done, stopped or out of time.
pub(super) fn run(args: TrainArgs) -> Result<(), Failure> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        // The first signal asks the run to save and stop; the second one ends the process at once.
        signal_hook::flag::register_conditional_shutdown(signal, Failure::INTERRUPTED, Arc::clone(&stop))
            .and_then(|_| signal_hook::flag::register(signal, Arc::clone(&stop)))
            .map_err(Failure::unavailable)?;
    }
    let device = args.device.open()?;
    let dataset =
        Dataset::read(&args.data, &ReadOptions { skip_bad_lines: args.skip_bad_lines }).map_err(Failure::data)?;
    let job = TrainJob {
        config: args.sizes.config(dataset.ids.len()),
        options: args.learning.options(&args.losses),
        dataset: &dataset,
        device,
        out: &args.out,
        max_time: args.max_minutes.map(|minutes| Duration::from_secs_f64(minutes * 60.0)),
        restart: args.restart,
        stop: &stop,
    };
    match train(&job).map_err(failure)? {
        Outcome::Stopped => {
            Err(Failure::Interrupted("stopped; the state is saved, and the same command goes on from here".to_owned()))
        }
        Outcome::Finished(checkpoint) => {
            let version = args.out.join(checkpoint.version.to_string());
            writeln!(stdout(), "{}", version.display()).map_err(Failure::unavailable)
        }
    }
}

impl SizeArgs {
    fn config(self, items: usize) -> ModelConfig {
        ModelConfig {
            items,
            max_len: self.max_len,
            heads: self.heads,
            hidden: self.hidden,
            layers: self.layers,
            embedding: self.embedding,
            router: RouterConfig::default(),
            attention_scale: self.attention_scale,
            ffn_inner: self.ffn_inner,
        }
    }
}

impl LearningArgs {
    fn options(&self, losses: &LossArgs) -> TrainOptions {
        TrainOptions {
            epochs: self.epochs,
            batch_size: self.batch_size as usize,
            learning_rate: self.lr,
            warmup_steps: self.warmup_steps,
            optimizer: AdamWOptions {
                betas: [0.9, 0.98],
                eps: 1e-8,
                weight_decay: self.weight_decay,
                clip_norm: self.clip_norm,
            },
            dropout: self.dropout,
            patience: self.patience,
            seed: self.seed,
            temperature: losses.temperature,
            losses: losses.losses,
            weights: LossWeights {
                guide: losses.guide_weight,
                balance: losses.balance_weight,
                flops: losses.flops_weight,
            },
            sandwich: losses.sandwich,
            flops_budget: losses.flops_budget,
        }
    }
}

fn failure(error: TrainError) -> Failure {
    match error {
        TrainError::Config(_) | TrainError::OtherRun { .. } | TrainError::Diverged { .. } => Failure::usage(error),
        TrainError::Busy { .. } | TrainError::Torch(_) | TrainError::Forward(_) | TrainError::Load(_) => {
            Failure::unavailable(error)
        }
        TrainError::NothingToLearn
        | TrainError::NothingToValidate
        | TrainError::State { .. }
        | TrainError::Io { .. }
        | TrainError::Catalogue(_)
        | TrainError::History(_)
        | TrainError::Checkpoint(_) => Failure::data(error),
    }
}
