use std::io::{Write, stdout};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use clap::Args;
use clap::builder::BoolishValueParser;
use signal_hook::consts::{SIGINT, SIGTERM};

use super::Failure;
use super::exit::say;
use super::interactions;
use super::numbers::{at_most_one, minutes, not_negative, positive, share, share_below_one};
use super::target::DeviceArgs;
use canet_data::{Dataset, ReadOptions};
use canet_model::{ModelConfig, Positions, RouterConfig, WidthRule};
use canet_training::{
    AdamWOptions, Defaults, JointOptions, LossForm, LossWeights, NewestOptions, Preset, RouterFit, RouterOptions,
    SampleOptions, SandwichOptions, SettleOptions, Stage, TrainError, TrainJob, TrainOptions, TrainOutcome, train,
};

/// Trains a model and writes it as the next version of `--out`; an unfinished run goes on where it stopped.
#[derive(Debug, Args)]
pub(crate) struct TrainArgs {
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
    /// How to train: by what each slice is worth to held-out users, or as published.
    #[arg(long, env = "CANET_PRESET", value_enum, default_value = "utility")]
    preset: Preset,
    /// Share of the full model's FLOPs to spend.
    #[arg(long, env = "CANET_FLOPS_BUDGET", default_value_t = 0.3, value_parser = share)]
    flops_budget: f64,
    #[command(flatten)]
    device: DeviceArgs,
    #[command(flatten)]
    sizes: SizeArgs,
    #[command(flatten)]
    learning: LearningArgs,
    #[command(flatten)]
    utility: UtilityArgs,
    #[command(flatten)]
    paper: PaperArgs,
    /// Time for the whole run; when it is over, the best epoch so far becomes the checkpoint.
    #[arg(long, env = "CANET_MAX_MINUTES", value_name = "MINUTES", value_parser = minutes)]
    max_minutes: Option<Duration>,
    /// Save and stop at the end of this stage; without the flag, the same command then begins the next one. Until that has
    /// begun its own flags may still be changed, so copies of --out go on from one supernet to several routers.
    #[arg(long, env = "CANET_STOP_AFTER", value_enum, value_name = "STAGE")]
    stop_after: Option<Stage>,
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
    /// Widths of the routes, ascending [default: 16,32,64,128, with --preset paper 64,96,128]
    #[arg(long, env = "CANET_HIDDEN", value_delimiter = ',')]
    hidden: Option<Vec<usize>>,
    /// Depths of the routes, ascending [default: 1,2, with --preset paper 2,4,6,8]
    #[arg(long, env = "CANET_LAYERS", value_delimiter = ',')]
    layers: Option<Vec<usize>>,
    /// Embedding widths of the routes, ascending [default: the greatest --hidden, with --preset paper 64,96,128]
    #[arg(long, env = "CANET_EMBEDDING", value_delimiter = ',')]
    embedding: Option<Vec<usize>>,
    /// Attention heads; every width is a multiple [default: 2, with --preset paper 4]
    #[arg(long, env = "CANET_HEADS")]
    heads: Option<usize>,
    /// Whether a narrow slice scales attention by its own head width or by the full one (the authors' code: full).
    #[arg(long, env = "CANET_ATTENTION_SCALE", value_enum, default_value = "slice")]
    attention_scale: WidthRule,
    /// Whether a narrow slice has an inner width of 4 x its own width or 4 x the full one (the authors' code: full).
    #[arg(long, env = "CANET_FFN_INNER", value_enum, default_value = "slice")]
    ffn_inner: WidthRule,
    /// How the backbone knows where an item stands in a history: by a table from the newest item or from the oldest, or by
    /// a learnt bias on attention scores for each distance [default: relative, with --preset paper newest]
    #[arg(long, env = "CANET_POSITIONS", value_enum)]
    positions: Option<Positions>,
    /// Whether a layer norm follows the embedding [default: true, with --preset paper false]
    #[arg(long, env = "CANET_EMBEDDING_NORM", value_name = "BOOL")]
    embedding_norm: Option<bool>,
    /// Added to the variance in every layer norm.
    #[arg(long, env = "CANET_NORM_EPS", default_value_t = ModelConfig::NORM_EPS, value_parser = positive)]
    norm_eps: f64,
}

/// How the weights learn.
#[derive(Debug, Args)]
#[command(next_help_heading = "Learning")]
struct LearningArgs {
    /// Passes over the data, at most; the learning rate falls to a tenth over them [default: 18 on sparse data, else 40, with
    /// --preset paper 100]
    #[arg(long, env = "CANET_EPOCHS", value_parser = clap::value_parser!(u64).range(1..))]
    epochs: Option<u64>,
    /// Newest positions of a sample that carry the loss, or `all`: with 1 a sample is scored as a request is [default: 1 on
    /// sparse data, else all]
    #[arg(long, env = "CANET_LOSS_POSITIONS", value_name = "M", value_parser = count_or_all)]
    loss_positions: Option<Count>,
    /// Samples with drawn ends that each user contributes to an epoch, or `all` for every end; with `--loss-positions all`
    /// that is windows which meet end to end [default: all on sparse data, else the number that covers a mean history]
    #[arg(long, env = "CANET_SAMPLES_PER_USER", value_name = "N", value_parser = count_or_all)]
    samples_per_user: Option<Count>,
    /// Samples a step [default: 256 on sparse data, else 32, with --preset paper 64]
    #[arg(long, env = "CANET_BATCH_SIZE", value_parser = clap::value_parser!(u32).range(1..=65536))]
    batch_size: Option<u32>,
    /// Learning rate at the end of the warm-up.
    #[arg(long, env = "CANET_LR", default_value_t = 1e-3, value_parser = positive)]
    lr: f64,
    /// Steps over which the learning rate rises.
    #[arg(long, env = "CANET_WARMUP_STEPS", default_value_t = 200)]
    warmup_steps: u64,
    /// AdamW's weight decay of linear layers [default: 0, with --preset paper 0.1]
    #[arg(long, env = "CANET_WEIGHT_DECAY", value_parser = not_negative)]
    weight_decay: Option<f64>,
    /// Greatest norm of a step's gradient.
    #[arg(long, env = "CANET_CLIP_NORM", default_value_t = 5.0, value_parser = positive)]
    clip_norm: f64,
    /// Share of activations dropped; embeddings and blocks narrower than 64 drop less [default: 0.5 on sparse data, else 0.2]
    #[arg(long, env = "CANET_DROPOUT", value_parser = share_below_one)]
    dropout: Option<f64>,
    /// Whether one table of items serves for reading and for scoring them, which helps rare items and holds frequent ones
    /// back [default: under the preset `utility`, where the greatest --embedding is as wide as the greatest --hidden, whether
    /// the data is sparse, that is has fewer than 32 interactions an item]
    #[arg(long, env = "CANET_TIE_EMBEDDINGS", value_name = "BOOL")]
    tie_embeddings: Option<bool>,
    /// Epochs without a better validation NDCG@10 after which training stops.
    #[arg(long, env = "CANET_PATIENCE", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..))]
    patience: u64,
    /// Seed of everything that is drawn.
    #[arg(long, env = "CANET_SEED", default_value_t = 1)]
    seed: u64,
}

/// Stages of the preset `utility`.
#[derive(Debug, Args)]
#[command(next_help_heading = "Preset utility")]
struct UtilityArgs {
    /// Items drawn for the softmax of a step [default: the whole catalogue up to 50,000 items, else 4096]
    #[arg(long, env = "CANET_NEGATIVES", value_parser = clap::value_parser!(u32).range(1..))]
    negatives: Option<u32>,
    /// Share of the full slice's probabilities in what the other slices learn; the rest is the true item.
    #[arg(long, env = "CANET_DISTILLATION", default_value_t = 0.5, value_parser = at_most_one)]
    distillation: f64,
    /// Most positions of a user's training part that are kept for the router beside the validation position, and at most a
    /// tenth of it [default: 0 on sparse data, else 10]
    #[arg(long, env = "CANET_ROUTER_HOLDOUT")]
    router_holdout: Option<usize>,
    /// How the router comes from what slices are worth.
    #[arg(long, env = "CANET_ROUTER_FIT", value_enum, default_value = "distilled")]
    router_fit: RouterFit,
    /// Passes over all of the training data once the router stands; 0 for none.
    #[arg(long, env = "CANET_SETTLE_EPOCHS", default_value_t = 3)]
    settle_epochs: u64,
    /// Learning rate of those, and of the passes behind them.
    #[arg(long, env = "CANET_SETTLE_LR", default_value_t = 2e-4, value_parser = positive)]
    settle_lr: f64,
    /// Passes over every interaction in the end, each user's last two too, for a model to serve: what the checkpoint says
    /// of its accuracy and its budgets was measured before, and these data cannot measure it again.
    #[arg(long, env = "CANET_NEWEST_EPOCHS", value_name = "N", default_value_t = 0)]
    newest_epochs: u64,
}

/// What the preset `paper` minimises beside the cross-entropy of the drawn routes.
#[derive(Debug, Args)]
#[command(next_help_heading = "Preset paper")]
struct PaperArgs {
    /// The guide and balance terms as the paper means them, or as the authors' code has them.
    #[arg(long, env = "CANET_LOSSES", value_enum, default_value = "paper")]
    losses: LossForm,
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

/// A number of things, or all of them.
#[derive(Clone, Copy, Debug)]
enum Count {
    Some(usize),
    All,
}

impl Count {
    fn number(self) -> Option<usize> {
        match self {
            Count::Some(count) => Some(count),
            Count::All => None,
        }
    }
}

fn count_or_all(text: &str) -> Result<Count, String> {
    match text.parse() {
        Ok(count) if count > 0 => Ok(Count::Some(count)),
        _ if text == "all" => Ok(Count::All),
        _ => Err("give a number above 0, or `all`".to_owned()),
    }
}

/// Trains until done, stopped or out of time.
pub(crate) fn run(args: TrainArgs) -> Result<(), Failure> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        // The first signal asks the run to save and stop; the second one ends the process at once.
        signal_hook::flag::register_conditional_shutdown(signal, Failure::INTERRUPTED, Arc::clone(&stop))
            .and_then(|_| signal_hook::flag::register(signal, Arc::clone(&stop)))
            .map_err(Failure::unavailable)?;
    }
    if args.preset == Preset::Paper && args.utility.newest_epochs > 0 {
        return Err(Failure::usage("--newest-epochs is of the preset `utility`: the published one has a single stage"));
    }
    let backend = args.device.open_alone()?;
    let dataset =
        Dataset::read(&args.data, &ReadOptions { skip_bad_lines: args.skip_bad_lines }).map_err(Failure::data)?;
    interactions::remarks(&args.data, &dataset);
    let (users, items) = (dataset.users.len(), dataset.ids.len());
    say(format_args!("read {users} users, {items} items, {} interactions", dataset.interactions));
    let config = args.sizes.config(args.preset, items);
    let job = TrainJob {
        options: args.options(&dataset, &config),
        config,
        dataset: &dataset,
        device: backend.device(),
        backend,
        out: &args.out,
        max_time: args.max_minutes,
        stop_after: args.stop_after,
        restart: args.restart,
        stop: &stop,
    };
    match train(&job).map_err(failure)? {
        TrainOutcome::Stopped => {
            Err(Failure::Interrupted("stopped; the state is saved, and the same command goes on from here".to_owned()))
        }
        TrainOutcome::Paused => {
            say("the stage is done and saved; the same command without --stop-after goes on from here");
            Ok(())
        }
        TrainOutcome::Finished(checkpoint) => {
            let version = args.out.join(checkpoint.version.to_string());
            writeln!(stdout(), "{}", version.display()).map_err(Failure::output)
        }
    }
}

impl SizeArgs {
    fn config(&self, preset: Preset, items: usize) -> ModelConfig {
        let paper = preset == Preset::Paper;
        let list = |given: &Option<Vec<usize>>, utility: &[usize], published: &[usize]| {
            given.clone().unwrap_or_else(|| if paper { published } else { utility }.to_vec())
        };
        let hidden = list(&self.hidden, &[16, 32, 64, 128], &[64, 96, 128]);
        let widest = &hidden[hidden.len().saturating_sub(1)..];
        ModelConfig {
            items,
            max_len: self.max_len,
            heads: self.heads.unwrap_or(if paper { 4 } else { 2 }),
            layers: list(&self.layers, &[1, 2], &[2, 4, 6, 8]),
            embedding: list(&self.embedding, widest, &[64, 96, 128]),
            router: RouterConfig::default(),
            attention_scale: self.attention_scale,
            ffn_inner: self.ffn_inner,
            positions: self.positions.unwrap_or(if paper { Positions::Newest } else { Positions::Relative }),
            embedding_norm: self.embedding_norm.unwrap_or(!paper),
            norm_eps: self.norm_eps,
            hidden,
        }
    }
}

impl TrainArgs {
    fn options(&self, dataset: &Dataset, config: &ModelConfig) -> TrainOptions {
        let TrainArgs { learning, utility, paper, .. } = self;
        let defaults = match self.preset {
            Preset::Utility => Defaults::of(dataset, config.max_len),
            Preset::Paper => Defaults::PAPER,
        };
        let number = |given: Option<Count>, default| given.map_or(default, Count::number);
        TrainOptions {
            preset: self.preset,
            epochs: learning.epochs.unwrap_or(defaults.epochs),
            samples: SampleOptions {
                loss_positions: number(learning.loss_positions, defaults.samples.loss_positions),
                per_user: number(learning.samples_per_user, defaults.samples.per_user),
            },
            batch_size: learning.batch_size.map_or(defaults.batch_size, |size| size as usize),
            learning_rate: learning.lr,
            warmup_steps: learning.warmup_steps,
            optimizer: AdamWOptions {
                betas: [0.9, 0.98],
                eps: 1e-8,
                weight_decay: learning.weight_decay.unwrap_or(defaults.weight_decay),
                clip_norm: learning.clip_norm,
            },
            dropout: learning.dropout.unwrap_or(defaults.dropout),
            tied: learning.tie_embeddings.unwrap_or(defaults.tied && config.width() == config.embedding_width()),
            patience: learning.patience,
            seed: learning.seed,
            flops_budget: self.flops_budget,
            joint: JointOptions {
                temperature: paper.temperature,
                losses: paper.losses,
                weights: LossWeights {
                    guide: paper.guide_weight,
                    balance: paper.balance_weight,
                    flops: paper.flops_weight,
                },
            },
            sandwich: SandwichOptions {
                negatives: utility.negatives.map(|count| count as usize).or(defaults.negatives),
                distillation: utility.distillation,
            },
            router: RouterOptions {
                holdout: utility.router_holdout.unwrap_or(defaults.router_holdout),
                fit: utility.router_fit,
            },
            settle: SettleOptions { epochs: utility.settle_epochs, learning_rate: utility.settle_lr },
            newest: NewestOptions { epochs: utility.newest_epochs },
        }
    }
}

fn failure(error: TrainError) -> Failure {
    match error {
        TrainError::Config(_)
        | TrainError::Untieable
        | TrainError::OtherTraining { .. }
        | TrainError::Diverged { .. } => Failure::usage(error),
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
