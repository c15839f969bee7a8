//! The flags of `canet train`, apart from those of the run.

use canet_model::{Positions, WidthRule};
use clap::Args;

use crate::numbers::{non_negative, positive, share_below_one, share_or_zero};

/// Flags that determine the model's configuration.
#[derive(Debug, Args)]
#[command(next_help_heading = "Sizes")]
pub(super) struct SizeArgs {
    /// Longest history that the model reads, in items [default: 50, or that of --from]
    #[arg(long, env = "CANET_MAX_LEN")]
    pub(super) max_len: Option<usize>,
    /// Start reading a history longer than --max-len at a multiple of this number, so that `serve --history-cache` can reuse
    /// it when the next item comes: --max-len / 4 is a good value. 1 reads the last --max-len items [default: 1, or that of
    /// --from]
    #[arg(long, env = "CANET_HISTORY_STRIDE")]
    pub(super) history_stride: Option<usize>,
    /// Widths of the routes, in ascending order [default: those of --from, or 16,32,64,128; with --preset paper 64,96,128]
    #[arg(long, env = "CANET_HIDDEN", value_delimiter = ',')]
    pub(super) hidden: Option<Vec<usize>>,
    /// Depths of the routes, in ascending order [default: those of --from, or 1,2; with --preset paper 2,4,6,8]
    #[arg(long, env = "CANET_LAYERS", value_delimiter = ',')]
    pub(super) layers: Option<Vec<usize>>,
    /// Embedding widths of the routes, in ascending order, or `hidden`: each route's embedding is as wide as its --hidden
    /// [default: those of --from, or hidden; with --preset paper 64,96,128]
    #[arg(long, env = "CANET_EMBEDDING", value_parser = embedding_widths)]
    pub(super) embedding: Option<EmbeddingWidths>,
    /// Attention heads. Every width must be a multiple of this [default: those of --from, or 2; with --preset paper 4]
    #[arg(long, env = "CANET_HEADS")]
    pub(super) heads: Option<usize>,
    /// Head width in the attention scale of a narrow slice: its own or the full one. The authors' code uses the full one
    /// [default: slice, or that of --from]
    #[arg(long, env = "CANET_ATTENTION_SCALE", value_enum)]
    pub(super) attention_scale: Option<WidthRule>,
    /// Inner width of a narrow slice's feed-forward network: 4 x its own width or 4 x the full one. The authors' code
    /// uses 4 x the full one [default: slice, or that of --from]
    #[arg(long, env = "CANET_FFN_INNER", value_enum)]
    pub(super) ffn_inner: Option<WidthRule>,
    /// How the backbone reads positions [default: that of --from, or relative; with --preset paper newest]
    #[arg(long, env = "CANET_POSITIONS", value_enum)]
    pub(super) positions: Option<Positions>,
    /// Whether a layer norm follows the embedding [default: that of --from, or true; with --preset paper false]
    #[arg(long, env = "CANET_EMBEDDING_NORM", value_name = "BOOL")]
    pub(super) embedding_norm: Option<bool>,
    /// Constant that every layer norm adds to the variance [default: 0.00001, or that of --from]
    #[arg(long, env = "CANET_NORM_EPS", value_parser = positive)]
    pub(super) norm_eps: Option<f64>,
}

/// Flags that determine how the weights are trained.
#[derive(Debug, Args)]
#[command(next_help_heading = "Learning")]
pub(super) struct LearningArgs {
    /// Passes over the data in the first stage, at most. The learning rate falls to a tenth over them [default: 18 for
    /// sparse data, else 40; with --preset paper 100]
    ///
    /// Data is sparse if it has fewer than 32 interactions an item. With --from, 0 keeps the weights as they are for the next
    /// stage.
    #[arg(long, env = "CANET_EPOCHS")]
    pub(super) epochs: Option<u64>,
    /// How many of a sample's newest positions carry the loss: a number or `all` [default: 1, or all for dense data
    /// of 500,000 interactions or more; with --preset paper all]
    ///
    /// With 1, a sample is scored like a request.
    #[arg(long, env = "CANET_LOSS_POSITIONS", value_name = "M", value_parser = count_or_all)]
    pub(super) loss_positions: Option<Count>,
    /// Samples of each user in an epoch: a number or `all` [default: all for sparse data; for dense data the number of
    /// windows that cover a history of mean length, and 16 times as many below 500,000 interactions; with --preset paper all]
    ///
    /// A number gives samples that end at random positions. `all` gives one sample for each position, or with
    /// `--loss-positions all` adjacent windows that do not overlap.
    #[arg(long, env = "CANET_SAMPLES_PER_USER", value_name = "N", value_parser = count_or_all)]
    pub(super) samples_per_user: Option<Count>,
    /// Samples in a step [default: 256 for sparse data; for dense data 512 below 500,000 interactions and 32 above; with --preset
    /// paper 64]
    #[arg(long, env = "CANET_BATCH_SIZE", value_parser = clap::value_parser!(u32).range(1..=65536))]
    pub(super) batch_size: Option<u32>,
    /// Learning rate of the widest slice at the end of the warm-up [default: 0.001 x sqrt(128 / the largest --hidden); with
    /// --preset paper 0.001]
    #[arg(long, env = "CANET_LR", value_parser = positive)]
    pub(super) lr: Option<f64>,
    /// Steps of the warm-up, over which the learning rate rises.
    #[arg(long, env = "CANET_WARMUP_STEPS", default_value_t = 200)]
    pub(super) warmup_steps: u64,
    /// Weight decay of linear layers [default: 0; with --preset paper 0.1]
    #[arg(long, env = "CANET_WEIGHT_DECAY", value_parser = non_negative)]
    pub(super) weight_decay: Option<f64>,
    /// Longer gradients are scaled down to this norm.
    #[arg(long, env = "CANET_CLIP_NORM", default_value_t = 5.0, value_parser = positive)]
    pub(super) clip_norm: f64,
    /// Share of activations that is dropped [default: 0.5 for fewer than 500,000 interactions, else 0.2; with
    /// --preset paper 0.2]
    ///
    /// With --preset utility, embeddings and blocks narrower than 64 drop less.
    #[arg(long, env = "CANET_DROPOUT", value_parser = share_below_one)]
    pub(super) dropout: Option<f64>,
    /// Whether the output layer uses the item embedding as its weight [default: as in --from; without it true with --preset
    /// utility if the largest --embedding equals the largest --hidden, else false]
    #[arg(long, env = "CANET_TIE_EMBEDDINGS", value_name = "BOOL")]
    pub(super) tie_embeddings: Option<bool>,
    /// End a stage after this many epochs without a better validation NDCG@10.
    #[arg(long, env = "CANET_PATIENCE", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) patience: u64,
    /// Seed of the initial weights and of all random draws.
    #[arg(long, env = "CANET_SEED", default_value_t = 1)]
    pub(super) seed: u64,
}

// The defaults of flags that one preset alone has.
pub(super) const DISTILLATION: f64 = 0.5;
pub(super) const SETTLE_EPOCHS: u64 = 3;
pub(super) const SETTLE_LR: f64 = 2e-4;
pub(super) const FLOPS_WEIGHT: f64 = 1.0;
pub(super) const GUIDE_WEIGHT: f64 = 0.01;
pub(super) const BALANCE_WEIGHT: f64 = 0.01;
pub(super) const TEMPERATURE: f64 = 1.0;

/// Flags of the preset `utility`.
#[derive(Debug, Args)]
#[command(next_help_heading = "Preset utility")]
pub(super) struct UtilityArgs {
    /// Random items in the softmax of a step, beside the true item [default: the whole catalogue if it has at most
    /// 50,000 items, else 4096]
    #[arg(long, env = "CANET_NEGATIVES", value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) negatives: Option<u32>,
    /// Share of the full slice's probabilities in the targets of the other slices. The rest is the true item.
    #[arg(long, env = "CANET_DISTILLATION", default_value_t = DISTILLATION, value_parser = share_or_zero)]
    pub(super) distillation: f64,
    /// How much more narrow slices count: a slice's loss, and the learning rate of its features, are (widest / width)^EXPONENT
    /// times those of the widest slice [default: 0.5]
    #[arg(long, env = "CANET_NARROW_BOOST", value_name = "EXPONENT", value_parser = share_or_zero)]
    pub(super) narrow_boost: Option<f64>,
    /// Newest training positions of each user that are held out for the router, but at most a tenth of them [default: 0
    /// for sparse data and with --from, else 10]
    ///
    /// The router learns from the validation positions as well.
    #[arg(long, env = "CANET_ROUTER_HOLDOUT")]
    pub(super) router_holdout: Option<usize>,
    /// Passes over all training data after the router is trained. 0 skips this stage.
    #[arg(long, env = "CANET_SETTLE_EPOCHS", default_value_t = SETTLE_EPOCHS)]
    pub(super) settle_epochs: u64,
    /// Learning rate of these passes and of those of --newest-epochs.
    #[arg(long, env = "CANET_SETTLE_LR", default_value_t = SETTLE_LR, value_parser = positive)]
    pub(super) settle_lr: f64,
    /// Final passes over all interactions, including the validation and test splits. 0 skips this stage.
    ///
    /// Use it for a model that will serve. The checkpoint's accuracy and budgets are measured before this stage,
    /// because the same data cannot measure them afterwards.
    #[arg(long, env = "CANET_NEWEST_EPOCHS", value_name = "N", default_value_t = 0)]
    pub(super) newest_epochs: u64,
}

/// Flags of the preset `paper`.
#[derive(Debug, Args)]
#[command(next_help_heading = "Preset paper")]
pub(super) struct PaperArgs {
    /// Weight of the FLOPs term.
    #[arg(long, env = "CANET_FLOPS_WEIGHT", default_value_t = FLOPS_WEIGHT, value_parser = non_negative)]
    pub(super) flops_weight: f64,
    /// Weight of the guide term.
    #[arg(long, env = "CANET_GUIDE_WEIGHT", default_value_t = GUIDE_WEIGHT, value_parser = non_negative)]
    pub(super) guide_weight: f64,
    /// Weight of the balance term.
    #[arg(long, env = "CANET_BALANCE_WEIGHT", default_value_t = BALANCE_WEIGHT, value_parser = non_negative)]
    pub(super) balance_weight: f64,
    /// Temperature of the Gumbel-softmax that draws routes.
    #[arg(long, env = "CANET_TEMPERATURE", default_value_t = TEMPERATURE, value_parser = positive)]
    pub(super) temperature: f64,
}

/// The value of `--embedding`: widths, none for `hidden`.
#[derive(Clone, Debug)]
pub(super) struct EmbeddingWidths(pub(super) Vec<usize>);

fn embedding_widths(text: &str) -> Result<EmbeddingWidths, String> {
    if text == "hidden" {
        return Ok(EmbeddingWidths(Vec::new()));
    }
    let widths: Result<Vec<usize>, _> = text.split(',').map(str::parse).collect();
    widths.map(EmbeddingWidths).map_err(|_| "it must be widths such as 64,128, or `hidden`".to_owned())
}

/// The value of a flag that takes a number or `all`.
#[derive(Clone, Copy, Debug)]
pub(super) enum Count {
    Number(usize),
    All,
}

impl Count {
    pub(super) fn number(self) -> Option<usize> {
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
