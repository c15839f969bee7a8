mod stop_signals;

use std::io::{Write, stderr, stdout};
use std::path::PathBuf;
use std::time::Duration;

use canet_data::Dataset;
use canet_model::checkpoint::{Checkpoint, CheckpointError};
use canet_model::{ModelConfig, Positions, RouterConfig, WidthRule};
use canet_training::{
    AdamWOptions, Defaults, Finished, JointOptions, LossWeights, MemoryEstimate, NewestOptions, Preset, RouterOptions,
    SampleOptions, SandwichOptions, SettleOptions, SourceRecord, Stage, TrainError, TrainJob, TrainOptions,
    TrainOutcome, is_tied, train,
};
use clap::Args;
use clap::builder::BoolishValueParser;

use self::stop_signals::StopSignals;
use crate::Failure;
use crate::data;
use crate::exit::say;
use crate::interactions::DataArgs;
use crate::memory::{self, gigabytes};
use crate::model_address::{CacheArgs, ModelAddress, new_version_directory};
use crate::numbers::{DEFAULT_BUDGET, minutes, non_negative, positive, share, share_below_one, share_or_zero};
use crate::printable::{printable_lines, quoted, value_name};
use crate::target::DeviceArgs;
use crate::verdict::{Commands, Words};

/// Trains a model and writes it as the next version of --out. An unfinished training continues where it stopped.
#[derive(Debug, Args)]
pub(crate) struct TrainArgs {
    #[command(flatten)]
    data: DataArgs,
    /// Directory of the model, for example models/NAME.
    #[arg(long, env = "CANET_OUT", value_name = "DIR", value_parser = new_version_directory())]
    out: PathBuf,
    /// Start from the weights of this model, in a directory or at s3://BUCKET/PREFIX, in place of random ones.
    ///
    /// Items are matched by their ids: new ones get the mean row, and dropped ones go. Sizes that you do not give are the
    /// model's. Slices that it lacks start as usual.
    #[arg(long, env = "CANET_FROM", value_name = "DIR|S3")]
    from: Option<ModelAddress>,
    /// Version of --from [default: the highest]
    #[arg(long, env = "CANET_FROM_VERSION", value_name = "N", requires = "from")]
    from_version: Option<u64>,
    #[command(flatten)]
    cache: CacheArgs,
    /// Training method.
    #[arg(long, env = "CANET_PRESET", value_enum, default_value = "utility")]
    preset: Preset,
    /// Share of the full model's FLOPs to spend.
    #[arg(long, env = "CANET_FLOPS_BUDGET", default_value_t = DEFAULT_BUDGET, value_parser = share)]
    flops_budget: f64,
    /// Rank items of the user's own history too: in validation, in what the router learns, in the verdict, and by default when
    /// the model is evaluated or serves.
    ///
    /// Use it where people buy again. Without it, repeat purchases count as misses.
    #[arg(long, env = "CANET_INCLUDE_SEEN", value_parser = BoolishValueParser::new())]
    include_seen: bool,
    /// Time limit of the training. When it is over, the best epoch so far becomes the checkpoint. Measuring it takes
    /// its time on top.
    #[arg(long, env = "CANET_MAX_MINUTES", value_name = "MINUTES", value_parser = minutes)]
    max_minutes: Option<Duration>,
    /// Save and stop at the end of this stage. The same command without this flag continues with the next stage.
    ///
    /// The flags of stages that have not begun may still change. Copies of --out can thus try several budgets on one
    /// supernet.
    #[arg(long, env = "CANET_STOP_AFTER", value_enum, value_name = "STAGE")]
    stop_after: Option<Stage>,
    /// Discard an unfinished training and start again.
    #[arg(long, env = "CANET_RESTART", value_parser = BoolishValueParser::new())]
    restart: bool,
    /// Start even if the training needs more memory than is available.
    #[arg(long, env = "CANET_SKIP_MEMORY_CHECK", value_parser = BoolishValueParser::new())]
    skip_memory_check: bool,
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
}

/// Flags that determine the model's configuration.
#[derive(Debug, Args)]
#[command(next_help_heading = "Sizes")]
struct SizeArgs {
    /// Longest history that the model reads, in items [default: 50, or that of --from]
    #[arg(long, env = "CANET_MAX_LEN")]
    max_len: Option<usize>,
    /// Start reading a history longer than --max-len at a multiple of this place, so that `serve --history-cache` can reuse
    /// it when the next item comes: --max-len / 4 is a good value. 1 reads the last --max-len items [default: 1, or that of
    /// --from]
    #[arg(long, env = "CANET_HISTORY_STRIDE")]
    history_stride: Option<usize>,
    /// Widths of the routes, in ascending order [default: those of --from, or 16,32,64,128; with --preset paper 64,96,128]
    #[arg(long, env = "CANET_HIDDEN", value_delimiter = ',')]
    hidden: Option<Vec<usize>>,
    /// Depths of the routes, in ascending order [default: those of --from, or 1,2; with --preset paper 2,4,6,8]
    #[arg(long, env = "CANET_LAYERS", value_delimiter = ',')]
    layers: Option<Vec<usize>>,
    /// Embedding widths of the routes, in ascending order, or `hidden`: each route's embedding is as wide as its --hidden
    /// [default: those of --from, or hidden; with --preset paper 64,96,128]
    #[arg(long, env = "CANET_EMBEDDING", value_parser = embedding_widths)]
    embedding: Option<EmbeddingWidths>,
    /// Attention heads. Every width must be a multiple of this [default: those of --from, or 2; with --preset paper 4]
    #[arg(long, env = "CANET_HEADS")]
    heads: Option<usize>,
    /// Head width in the attention scale of a narrow slice: its own or the full one. The authors' code uses the full one
    /// [default: slice, or that of --from]
    #[arg(long, env = "CANET_ATTENTION_SCALE", value_enum)]
    attention_scale: Option<WidthRule>,
    /// Inner width of a narrow slice's feed-forward network: 4 x its own width or 4 x the full one. The authors' code
    /// uses 4 x the full one [default: slice, or that of --from]
    #[arg(long, env = "CANET_FFN_INNER", value_enum)]
    ffn_inner: Option<WidthRule>,
    /// How the backbone reads positions [default: that of --from, or relative; with --preset paper newest]
    #[arg(long, env = "CANET_POSITIONS", value_enum)]
    positions: Option<Positions>,
    /// Whether a layer norm follows the embedding [default: that of --from, or true; with --preset paper false]
    #[arg(long, env = "CANET_EMBEDDING_NORM", value_name = "BOOL")]
    embedding_norm: Option<bool>,
    /// Constant that every layer norm adds to the variance [default: 0.00001, or that of --from]
    #[arg(long, env = "CANET_NORM_EPS", value_parser = positive)]
    norm_eps: Option<f64>,
}

/// Flags that determine how the weights are trained.
#[derive(Debug, Args)]
#[command(next_help_heading = "Learning")]
struct LearningArgs {
    /// Passes over the data in the first stage, at most. The learning rate falls to a tenth over them [default: 18 for
    /// sparse data, else 40; with --preset paper 100]
    ///
    /// Data is sparse if it has fewer than 32 interactions an item. With --from, 0 keeps the weights as they are for the next
    /// stage.
    #[arg(long, env = "CANET_EPOCHS")]
    epochs: Option<u64>,
    /// How many of a sample's newest positions carry the loss: a number or `all` [default: 1, or all for dense data
    /// of 500,000 interactions or more; with --preset paper all]
    ///
    /// With 1, a sample is scored like a request.
    #[arg(long, env = "CANET_LOSS_POSITIONS", value_name = "M", value_parser = count_or_all)]
    loss_positions: Option<Count>,
    /// Samples of each user in an epoch: a number or `all` [default: all for sparse data; for dense data the number of
    /// windows that cover a history of mean length, and 16 times as many below 500,000 interactions; with --preset paper all]
    ///
    /// A number gives samples that end at random positions. `all` gives one sample for each position, or with
    /// `--loss-positions all` adjacent windows that do not overlap.
    #[arg(long, env = "CANET_SAMPLES_PER_USER", value_name = "N", value_parser = count_or_all)]
    samples_per_user: Option<Count>,
    /// Samples in a step [default: 256 for sparse data; for dense data 512 below 500,000 interactions and 32 above; with --preset
    /// paper 64]
    #[arg(long, env = "CANET_BATCH_SIZE", value_parser = clap::value_parser!(u32).range(1..=65536))]
    batch_size: Option<u32>,
    /// Learning rate of the widest slice at the end of the warm-up [default: 0.001 x sqrt(128 / the largest --hidden); with
    /// --preset paper 0.001]
    #[arg(long, env = "CANET_LR", value_parser = positive)]
    lr: Option<f64>,
    /// Steps of the warm-up, over which the learning rate rises.
    #[arg(long, env = "CANET_WARMUP_STEPS", default_value_t = 200)]
    warmup_steps: u64,
    /// Weight decay of linear layers [default: 0; with --preset paper 0.1]
    #[arg(long, env = "CANET_WEIGHT_DECAY", value_parser = non_negative)]
    weight_decay: Option<f64>,
    /// Longer gradients are scaled down to this norm.
    #[arg(long, env = "CANET_CLIP_NORM", default_value_t = 5.0, value_parser = positive)]
    clip_norm: f64,
    /// Share of activations that is dropped [default: 0.5 for fewer than 500,000 interactions, else 0.2; with
    /// --preset paper 0.2]
    ///
    /// With --preset utility, embeddings and blocks narrower than 64 drop less.
    #[arg(long, env = "CANET_DROPOUT", value_parser = share_below_one)]
    dropout: Option<f64>,
    /// Whether the output layer uses the item embedding as its weight [default: as in --from; without it true with --preset
    /// utility if the largest --embedding equals the largest --hidden, else false]
    #[arg(long, env = "CANET_TIE_EMBEDDINGS", value_name = "BOOL")]
    tie_embeddings: Option<bool>,
    /// End a stage after this many epochs without a better validation NDCG@10.
    #[arg(long, env = "CANET_PATIENCE", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..))]
    patience: u64,
    /// Seed of the initial weights and of all random draws.
    #[arg(long, env = "CANET_SEED", default_value_t = 1)]
    seed: u64,
}

// The defaults of flags that one preset alone has.
const DISTILLATION: f64 = 0.5;
const SETTLE_EPOCHS: u64 = 3;
const SETTLE_LR: f64 = 2e-4;
const FLOPS_WEIGHT: f64 = 1.0;
const GUIDE_WEIGHT: f64 = 0.01;
const BALANCE_WEIGHT: f64 = 0.01;
const TEMPERATURE: f64 = 1.0;

/// Flags of the preset `utility`.
#[derive(Debug, Args)]
#[command(next_help_heading = "Preset utility")]
struct UtilityArgs {
    /// Random items in the softmax of a step, beside the true item [default: the whole catalogue if it has at most
    /// 50,000 items, else 4096]
    #[arg(long, env = "CANET_NEGATIVES", value_parser = clap::value_parser!(u32).range(1..))]
    negatives: Option<u32>,
    /// Share of the full slice's probabilities in the targets of the other slices. The rest is the true item.
    #[arg(long, env = "CANET_DISTILLATION", default_value_t = DISTILLATION, value_parser = share_or_zero)]
    distillation: f64,
    /// How much more narrow slices count: a slice's loss, and the learning rate of its features, are (widest / width)^EXPONENT
    /// times those of the widest slice [default: 0.5]
    #[arg(long, env = "CANET_NARROW_BOOST", value_name = "EXPONENT", value_parser = share_or_zero)]
    narrow_boost: Option<f64>,
    /// Newest training positions of each user that are held out for the router, but at most a tenth of them [default: 0
    /// for sparse data and with --from, else 10]
    ///
    /// The router learns from the validation positions as well.
    #[arg(long, env = "CANET_ROUTER_HOLDOUT")]
    router_holdout: Option<usize>,
    /// Passes over all training data after the router is trained. 0 skips this stage.
    #[arg(long, env = "CANET_SETTLE_EPOCHS", default_value_t = SETTLE_EPOCHS)]
    settle_epochs: u64,
    /// Learning rate of these passes and of those of --newest-epochs.
    #[arg(long, env = "CANET_SETTLE_LR", default_value_t = SETTLE_LR, value_parser = positive)]
    settle_lr: f64,
    /// Final passes over all interactions, including the validation and test splits. 0 skips this stage.
    ///
    /// Use it for a model that will serve. The checkpoint's accuracy and budgets are measured before this stage,
    /// because the same data cannot measure them afterwards.
    #[arg(long, env = "CANET_NEWEST_EPOCHS", value_name = "N", default_value_t = 0)]
    newest_epochs: u64,
}

/// Flags of the preset `paper`.
#[derive(Debug, Args)]
#[command(next_help_heading = "Preset paper")]
struct PaperArgs {
    /// Weight of the FLOPs term.
    #[arg(long, env = "CANET_FLOPS_WEIGHT", default_value_t = FLOPS_WEIGHT, value_parser = non_negative)]
    flops_weight: f64,
    /// Weight of the guide term.
    #[arg(long, env = "CANET_GUIDE_WEIGHT", default_value_t = GUIDE_WEIGHT, value_parser = non_negative)]
    guide_weight: f64,
    /// Weight of the balance term.
    #[arg(long, env = "CANET_BALANCE_WEIGHT", default_value_t = BALANCE_WEIGHT, value_parser = non_negative)]
    balance_weight: f64,
    /// Temperature of the Gumbel-softmax that draws routes.
    #[arg(long, env = "CANET_TEMPERATURE", default_value_t = TEMPERATURE, value_parser = positive)]
    temperature: f64,
}

/// The value of `--embedding`: widths, none for `hidden`.
#[derive(Clone, Debug)]
struct EmbeddingWidths(Vec<usize>);

fn embedding_widths(text: &str) -> Result<EmbeddingWidths, String> {
    if text == "hidden" {
        return Ok(EmbeddingWidths(Vec::new()));
    }
    let widths: Result<Vec<usize>, _> = text.split(',').map(str::parse).collect();
    widths.map(EmbeddingWidths).map_err(|_| "it must be widths such as 64,128, or `hidden`".to_owned())
}

/// The value of a flag that takes a number or `all`.
#[derive(Clone, Copy, Debug)]
enum Count {
    Number(usize),
    All,
}

impl Count {
    fn number(self) -> Option<usize> {
        match self {
            Count::Number(count) => Some(count),
            Count::All => None,
        }
    }
}

fn count_or_all(text: &str) -> Result<Count, String> {
    match text.parse() {
        Ok(count) if count > 0 => Ok(Count::Number(count)),
        _ if text == "all" => Ok(Count::All),
        _ => Err("it must be a number above 0 or `all`".to_owned()),
    }
}

/// Runs `canet train`.
pub(crate) fn run(args: TrainArgs) -> Result<(), Failure> {
    let signals = StopSignals::install().map_err(Failure::unavailable)?;
    if let Some(flag) = args.flag_of_another_preset() {
        let (preset, other) = match args.preset {
            Preset::Paper => ("paper", "utility"),
            Preset::Utility => ("utility", "paper"),
        };
        return Err(Failure::usage(format_args!(
            "{flag} is a flag of --preset {other}, and changes nothing in {preset}"
        )));
    }
    let stages = args.preset.stages();
    if let Some(stage) = args.stop_after.filter(|stage| !stages.contains(stage)) {
        let known: Vec<&str> = stages.iter().map(|stage| stage.name()).collect();
        return Err(Failure::usage(format_args!(
            "--stop-after {}: the preset has no such stage, but {}",
            stage.name(),
            known.join(", ")
        )));
    }
    let backend = args.device.open_alone()?;
    let dataset = args.data.read()?;
    data::lines(&dataset).for_each(say);
    dataset.check_size().map_err(Failure::data)?;
    let source = args.source()?;
    let config = args.sizes.config(args.preset, dataset.ids.len(), source.as_ref())?;
    let job = TrainJob {
        options: args.options(&dataset, &config, source.as_ref())?,
        config,
        source: source.as_ref(),
        dataset: &dataset,
        device: backend.device(),
        backend,
        out: &args.out,
        max_time: args.max_minutes,
        stop_after: args.stop_after,
        restart: args.restart,
        stop: &signals.stop,
    };
    check_memory(&job, args.skip_memory_check)?;
    if !job.device.is_cuda() {
        canet_torch::keep_freed_memory();
    }
    signals.save_before_stopping();
    match train(&job).map_err(failure)? {
        TrainOutcome::Stopped => {
            Err(Failure::Interrupted("stopped and saved; the same command continues this training".to_owned()))
        }
        TrainOutcome::Paused => {
            say("the stage is done and saved; the same command without --stop-after continues this training");
            Ok(())
        }
        TrainOutcome::Finished(finished) => {
            let Finished { checkpoint, verdict } = *finished;
            if let Some(verdict) = verdict {
                let text = Words::of(verdict, &args.commands(&dataset))
                    .cut_short(checkpoint.manifest.cut_short_after())
                    .text();
                // Standard output has the version's path alone, for scripts. The training is done if standard error is closed.
                drop(write!(stderr(), "\n{}\n", printable_lines(&text)));
            }
            let version = args.out.join(checkpoint.version.to_string());
            writeln!(stdout(), "{}", version.display()).map_err(Failure::output)
        }
    }
}

/// Prints the memory that the training needs. Refuses a training that needs more of the host's memory than there is.
/// What it needs of the GPU's is printed alone.
fn check_memory(job: &TrainJob<'_>, skip: bool) -> Result<(), Failure> {
    let MemoryEstimate { host, gpu } = MemoryEstimate::of(job).map_err(failure)?;
    let needed = gigabytes(host.saturating_add(memory::taken().unwrap_or_default()));
    let on_gpu = if gpu > 0 { format!(" and {} of the GPU's", gigabytes(gpu)) } else { String::new() };
    say(format_args!("training needs about {needed} of memory{on_gpu}"));
    match memory::available() {
        Some(available) if host > available && !skip => Err(Failure::Unavailable(format!(
            "the training needs about {} more memory, and {} are available: use a smaller --embedding, --hidden or \
             --batch-size, or a machine or container with more memory; --skip-memory-check starts all the same",
            gigabytes(host),
            gigabytes(available)
        ))),
        _ => Ok(()),
    }
}

impl SizeArgs {
    /// The configuration of a model for this many items: the flags, else the source's values, else the preset's.
    fn config(&self, preset: Preset, items: usize, source: Option<&Checkpoint>) -> Result<ModelConfig, Failure> {
        let paper = preset == Preset::Paper;
        let base = match source {
            Some(source) => source.config.clone(),
            None => ModelConfig {
                items,
                max_len: 50,
                heads: if paper { 4 } else { 2 },
                hidden: if paper { vec![64, 96, 128] } else { vec![16, 32, 64, 128] },
                layers: if paper { vec![2, 4, 6, 8] } else { vec![1, 2] },
                embedding: if paper { vec![64, 96, 128] } else { Vec::new() },
                router: RouterConfig::default(),
                attention_scale: WidthRule::Slice,
                ffn_inner: WidthRule::Slice,
                positions: if paper { Positions::Newest } else { Positions::Relative },
                embedding_norm: !paper,
                history_stride: 1,
                norm_eps: ModelConfig::NORM_EPS,
            },
        };
        let config = ModelConfig {
            items,
            max_len: self.max_len.unwrap_or(base.max_len),
            heads: self.heads.unwrap_or(base.heads),
            hidden: self.hidden.clone().unwrap_or_else(|| base.hidden.clone()),
            layers: self.layers.clone().unwrap_or_else(|| base.layers.clone()),
            embedding: self.embedding.as_ref().map_or_else(|| base.embedding.clone(), |widths| widths.0.clone()),
            router: base.router,
            attention_scale: self.attention_scale.unwrap_or(base.attention_scale),
            ffn_inner: self.ffn_inner.unwrap_or(base.ffn_inner),
            positions: self.positions.unwrap_or(base.positions),
            embedding_norm: self.embedding_norm.unwrap_or(base.embedding_norm),
            history_stride: self.history_stride.unwrap_or(base.history_stride),
            norm_eps: self.norm_eps.unwrap_or(base.norm_eps),
        };
        match source {
            Some(_) => contradiction(&config, &base).map_or(Ok(config), Err),
            None => Ok(config),
        }
    }
}

/// The flag that gives the source's weights another meaning, if one does.
fn contradiction(config: &ModelConfig, source: &ModelConfig) -> Option<Failure> {
    let differs = [
        ("--heads", config.heads != source.heads, source.heads.to_string()),
        ("--positions", config.positions != source.positions, value_name(&source.positions)),
        ("--embedding-norm", config.embedding_norm != source.embedding_norm, source.embedding_norm.to_string()),
        ("--norm-eps", config.norm_eps != source.norm_eps, source.norm_eps.to_string()),
        ("--attention-scale", config.attention_scale != source.attention_scale, value_name(&source.attention_scale)),
        ("--ffn-inner", config.ffn_inner != source.ffn_inner, value_name(&source.ffn_inner)),
    ];
    let (flag, _, value) = differs.into_iter().find(|(_, differs, _)| *differs)?;
    Some(Failure::Usage(format!(
        "{flag}: the weights of --from were trained with {value}, and mean something else with another value: leave {flag} out"
    )))
}

impl TrainArgs {
    /// The first flag that the preset does not have and that has another value than its default.
    fn flag_of_another_preset(&self) -> Option<&'static str> {
        let TrainArgs { utility, paper, .. } = self;
        let differs = |given: f64, default: f64| given.total_cmp(&default).is_ne();
        let paper_flags = [
            ("--flops-weight", differs(paper.flops_weight, FLOPS_WEIGHT)),
            ("--guide-weight", differs(paper.guide_weight, GUIDE_WEIGHT)),
            ("--balance-weight", differs(paper.balance_weight, BALANCE_WEIGHT)),
            ("--temperature", differs(paper.temperature, TEMPERATURE)),
        ];
        let utility_flags = [
            ("--negatives", utility.negatives.is_some()),
            ("--distillation", differs(utility.distillation, DISTILLATION)),
            ("--narrow-boost", utility.narrow_boost.is_some()),
            ("--router-holdout", utility.router_holdout.is_some()),
            ("--settle-epochs", utility.settle_epochs != SETTLE_EPOCHS),
            ("--settle-lr", differs(utility.settle_lr, SETTLE_LR)),
            ("--newest-epochs", utility.newest_epochs > 0),
        ];
        let flags = match self.preset {
            Preset::Utility => &paper_flags[..],
            Preset::Paper => &utility_flags,
        };
        flags.iter().find(|(_, given)| *given).map(|(flag, _)| *flag)
    }

    /// The commands that a verdict may recommend.
    fn commands(&self, dataset: &Dataset) -> Commands {
        #[expect(clippy::disallowed_methods, reason = "this is the command line")]
        let given = std::env::args_os().skip_while(|argument| argument != "train").skip(1);
        let given: Vec<String> = given.map(quoted).collect();
        Commands {
            model: format!("--model {}", quoted(&self.out)),
            retrain: Some(given.join(" ")),
            repeats_by_duplicates: dataset.repeats_by_duplicates(),
        }
    }

    /// The model to start from, if any.
    fn source(&self) -> Result<Option<Checkpoint>, Failure> {
        let Some(address) = &self.from else {
            return match self.learning.epochs {
                Some(0) => Err(Failure::usage("--epochs 0 is for a training that starts --from a model")),
                _ => Ok(None),
            };
        };
        let source = address.open(&self.cache)?.load(self.from_version);
        let source = source.map_err(|error| Failure::checkpoint(&error))?;
        if source.manifest.has_learnt_everything() {
            say(format_args!(
                "{}, version {}, has learnt every interaction of its data (--newest-epochs). If they are in these data too, the \
                 figures, the router and the budgets of this training are too good: users without a new interaction are tested \
                 on what the weights know. Start from a version without --newest-epochs, or without --from",
                source.name, source.version
            ));
        }
        let SizeArgs { hidden, layers, embedding, .. } = &self.sizes;
        if source.space.len() == 1 && hidden.is_none() && layers.is_none() && embedding.is_none() {
            say(format_args!(
                "{}, version {}, has one route, and so will this model: --hidden and --layers give it more",
                source.name, source.version
            ));
        }
        Ok(Some(source))
    }

    /// Whether the output layer uses the item embedding. The source's own rule holds for its weights.
    fn tied(&self, default: bool, config: &ModelConfig, source: Option<&Checkpoint>) -> Result<bool, Failure> {
        let (given, possible) = (self.learning.tie_embeddings, config.width() == config.embedding_width());
        let Some(source) = source else { return Ok(given.unwrap_or(default && possible)) };
        let is_tied = is_tied(source);
        if given == Some(true) && !is_tied {
            return Err(Failure::usage(
                "--tie-embeddings true: the model of --from scores items by another table than the one by which it reads \
                 them: leave the flag out",
            ));
        }
        Ok(given.unwrap_or(is_tied && possible))
    }

    /// The options, with defaults that depend on the preset and the data.
    fn options(
        &self,
        dataset: &Dataset,
        config: &ModelConfig,
        source: Option<&Checkpoint>,
    ) -> Result<TrainOptions, Failure> {
        let TrainArgs { learning, utility, paper, .. } = self;
        let defaults = match self.preset {
            Preset::Utility => Defaults::of(dataset, config.max_len, config.width()),
            Preset::Paper => Defaults::PAPER,
        };
        let number = |given: Option<Count>, default| given.map_or(default, Count::number);
        Ok(TrainOptions {
            preset: self.preset,
            epochs: learning.epochs.unwrap_or(defaults.epochs),
            samples: SampleOptions {
                loss_positions: number(learning.loss_positions, defaults.samples.loss_positions),
                per_user: number(learning.samples_per_user, defaults.samples.per_user),
            },
            batch_size: learning.batch_size.map_or(defaults.batch_size, |size| size as usize),
            learning_rate: learning.lr.unwrap_or(defaults.learning_rate),
            warmup_steps: learning.warmup_steps,
            optimizer: AdamWOptions {
                betas: [0.9, defaults.beta2],
                eps: 1e-8,
                weight_decay: learning.weight_decay.unwrap_or(defaults.weight_decay),
                clip_norm: learning.clip_norm,
            },
            dropout: learning.dropout.unwrap_or(defaults.dropout),
            tied: self.tied(defaults.tied, config, source)?,
            patience: learning.patience,
            seed: learning.seed,
            flops_budget: self.flops_budget,
            exclude_seen: !self.include_seen,
            joint: JointOptions {
                temperature: paper.temperature,
                weights: LossWeights {
                    guide: paper.guide_weight,
                    balance: paper.balance_weight,
                    flops: paper.flops_weight,
                },
            },
            sandwich: SandwichOptions {
                negatives: utility.negatives.map(|count| count as usize).or(defaults.negatives),
                distillation: utility.distillation,
                narrow_boost: utility.narrow_boost.unwrap_or(defaults.narrow_boost),
            },
            // The weights of a source have learnt the positions that a fresh training would hold out.
            router: RouterOptions {
                holdout: utility.router_holdout.unwrap_or(if source.is_some() { 0 } else { defaults.router_holdout }),
            },
            settle: SettleOptions { epochs: utility.settle_epochs, learning_rate: utility.settle_lr },
            newest: NewestOptions { epochs: utility.newest_epochs },
            from: source.map(SourceRecord::of),
        })
    }
}

/// Assigns the exit code of an error.
fn failure(error: TrainError) -> Failure {
    match error {
        TrainError::Config(_)
        | TrainError::Untieable
        | TrainError::OtherTraining { .. }
        | TrainError::Diverged { .. } => Failure::usage(error),
        TrainError::Busy { .. } | TrainError::Torch(_) | TrainError::Forward(_) | TrainError::Load(_) => {
            Failure::unavailable(error)
        }
        TrainError::Directory { ref source, .. } => Failure::unwritable(source, error.to_string()),
        // The directory was there when the training began.
        TrainError::Io { .. } | TrainError::Checkpoint(CheckpointError::Io { .. }) => Failure::Io(error.to_string()),
        TrainError::Checkpoint(error) => Failure::writing(&error),
        TrainError::Data(_) | TrainError::State { .. } | TrainError::Catalogue(_) | TrainError::History(_) => {
            Failure::data(error)
        }
    }
}
