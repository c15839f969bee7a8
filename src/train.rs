mod args;
mod stop_signals;

use std::io::{Write, stderr, stdout};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use canet_data::Dataset;
use canet_model::checkpoint::{Checkpoint, CheckpointError, ModelDirectory};
use canet_model::{Backend, ModelConfig, Positions, RouterConfig, WidthRule};
use canet_training::{
    AdamWOptions, Defaults, Finished, JointOptions, LossWeights, MemoryEstimate, NewestOptions, Preset, RouterOptions,
    SampleOptions, SandwichOptions, SettleOptions, SourceRecord, Stage, TrainError, TrainJob, TrainOptions,
    TrainOutcome, discards_earlier, is_tied, recorded_source, train,
};
use clap::Args;
use clap::builder::BoolishValueParser;

use self::args::{
    BALANCE_WEIGHT, Count, DISTILLATION, FLOPS_WEIGHT, GUIDE_WEIGHT, LearningArgs, PaperArgs, SETTLE_EPOCHS, SETTLE_LR,
    SizeArgs, TEMPERATURE, UtilityArgs,
};
use self::stop_signals::StopSignals;
use crate::Failure;
use crate::data;
use crate::exit::say;
use crate::interactions::DataArgs;
use crate::memory::{self, gigabytes};
use crate::model_address::{CacheArgs, ModelAddress, new_version_directory};
use crate::numbers::{DEFAULT_BUDGET, minutes, share};
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
    /// Version of --from [default: that of the unfinished training in --out, else the highest]
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

/// A training that the flags and the data describe, before it has a device.
struct Plan {
    /// The model to start from, if any.
    source: Option<Checkpoint>,
    config: ModelConfig,
    options: TrainOptions,
}

impl Plan {
    fn job<'a>(
        &'a self,
        args: &'a TrainArgs,
        dataset: &'a Dataset,
        backend: &Arc<dyn Backend>,
        stop: &'a AtomicBool,
    ) -> TrainJob<'a> {
        TrainJob {
            options: self.options.clone(),
            config: self.config.clone(),
            source: self.source.as_ref(),
            dataset,
            device: backend.device(),
            backend: Arc::clone(backend),
            out: &args.out,
            max_time: args.max_minutes,
            stop_after: args.stop_after,
            restart: args.restart,
            stop,
        }
    }
}

/// Runs `canet train`.
pub(crate) fn run(args: TrainArgs) -> Result<(), Failure> {
    let signals = StopSignals::install().map_err(Failure::unavailable)?;
    args.check_preset()?;
    let backend = args.device.open_alone()?;
    let dataset = args.data.read()?;
    data::lines(&dataset).for_each(say);
    dataset.check_size().map_err(Failure::data)?;
    let discards = |plan: &Plan| discards_earlier(&plan.job(&args, &dataset, &backend, &signals.stop)).map_err(failure);
    let plan = args.plan(&dataset, discards)?;
    if let Some(source) = &plan.source {
        args.remark_on(source);
    }
    let job = plan.job(&args, &dataset, &backend, &signals.stop);
    check_memory(&job, args.skip_memory_check)?;
    if !job.device.is_cuda() {
        canet_torch::keep_freed_memory();
    }
    signals.save_before_stopping();
    let outcome = train(&job).map_err(failure)?;
    args.tell(outcome, &dataset)
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
    /// Refuses flags and stages that the preset does not have.
    fn check_preset(&self) -> Result<(), Failure> {
        if let Some(flag) = self.flag_of_another_preset() {
            let (preset, other) = match self.preset {
                Preset::Paper => ("paper", "utility"),
                Preset::Utility => ("utility", "paper"),
            };
            return Err(Failure::usage(format_args!(
                "{flag} is a flag of --preset {other}, and changes nothing in {preset}"
            )));
        }
        let stages = self.preset.stages();
        let Some(stage) = self.stop_after.filter(|stage| !stages.contains(stage)) else { return Ok(()) };
        let known: Vec<&str> = stages.iter().map(|stage| stage.name()).collect();
        Err(Failure::usage(format_args!(
            "--stop-after {}: the preset has no such stage, but {}",
            stage.name(),
            known.join(", ")
        )))
    }

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
            overrides_seen: false,
        }
    }

    /// What to train. Without --from-version, a training that goes on keeps the version of --from with which it began, even if
    /// there is a higher one by now. `discards` says whether a plan discards that training.
    fn plan(&self, dataset: &Dataset, discards: impl Fn(&Plan) -> Result<bool, Failure>) -> Result<Plan, Failure> {
        let Some(address) = &self.from else {
            return match self.learning.epochs {
                Some(0) => Err(Failure::usage("--epochs 0 is for a training that starts --from a model")),
                _ => self.plan_from(dataset, None),
            };
        };
        let models = address.open(&self.cache)?;
        let load = |version: Option<u64>| models.load(version).map_err(|error| Failure::checkpoint(&error));
        if let Some(version) = self.recorded_version(&models)? {
            let plan = self.plan_from(dataset, Some(load(Some(version))?))?;
            if !discards(&plan)? {
                say(format_args!("--from {address}: version {version}, with which the training in --out began"));
                return Ok(plan);
            }
        }
        self.plan_from(dataset, Some(load(self.from_version)?))
    }

    /// What to train from a source.
    fn plan_from(&self, dataset: &Dataset, source: Option<Checkpoint>) -> Result<Plan, Failure> {
        let config = self.sizes.config(self.preset, dataset.ids.len(), source.as_ref())?;
        let options = self.options(dataset, &config, source.as_ref())?;
        Ok(Plan { source, config, options })
    }

    /// The version of --from with which the training in --out began, if it is still the same one and the flags do not ask for
    /// another.
    fn recorded_version(&self, models: &ModelDirectory) -> Result<Option<u64>, Failure> {
        if self.restart || self.from_version.is_some() {
            return Ok(None);
        }
        let recorded = recorded_source(&self.out).map_err(failure)?;
        let recorded = recorded.filter(|source| source.name == models.name());
        Ok(recorded
            .filter(|source| models.digest(source.version).is_ok_and(|digest| digest == source.digest))
            .map(|source| source.version))
    }

    /// Says what a user may not expect of the model to start from.
    fn remark_on(&self, source: &Checkpoint) {
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
    }

    /// Says how a training ended. Standard output has the version's path alone, for scripts.
    fn tell(&self, outcome: TrainOutcome, dataset: &Dataset) -> Result<(), Failure> {
        let finished = match outcome {
            TrainOutcome::Stopped => {
                let words = "stopped and saved; the same command continues this training";
                return Err(Failure::Interrupted(words.to_owned()));
            }
            TrainOutcome::Paused => {
                say("the stage is done and saved; the same command without --stop-after continues this training");
                return Ok(());
            }
            TrainOutcome::Finished(finished) => finished,
        };
        let Finished { checkpoint, verdict } = *finished;
        if let Some(verdict) = verdict {
            let text =
                Words::of(verdict, &self.commands(dataset)).cut_short(checkpoint.manifest.cut_short_after()).text();
            // The training is done if standard error is closed.
            drop(write!(stderr(), "\n{}\n", printable_lines(&text)));
        }
        let version = self.out.join(checkpoint.version.to_string());
        writeln!(stdout(), "{}", version.display()).map_err(Failure::output)
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
        | TrainError::Out(_)
        | TrainError::Untieable
        | TrainError::OtherTraining { .. }
        | TrainError::Diverged { .. } => Failure::usage(error),
        TrainError::Busy { .. } | TrainError::Torch(_) | TrainError::Forward(_) | TrainError::Load(_) => {
            Failure::unavailable(error)
        }
        TrainError::Directory { ref source, .. } => Failure::unwritable(source, error.to_string()),
        // The directory was there when the training began.
        TrainError::Io { .. } | TrainError::Save { .. } | TrainError::Checkpoint(CheckpointError::Io { .. }) => {
            Failure::Io(error.to_string())
        }
        TrainError::Checkpoint(error) => Failure::writing(&error),
        TrainError::Data(_) | TrainError::State { .. } | TrainError::Catalogue(_) | TrainError::History(_) => {
            Failure::data(error)
        }
    }
}
