use serde::{Deserialize, Serialize};

use canet_domain::{Catalogue, FfnInner, ModelShape, RouteSpace, RouteSpaceError, RouterShape, Window};

/// The sizes and flags of a network. With the weights they define the function that it computes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ModelConfig {
    /// Catalogue size N. Tables have N + 1 rows and outputs have N + 1 columns; index 0 is padding.
    pub items: usize,
    /// Length of the longest history that the model reads.
    pub max_len: usize,
    /// Attention heads of every slice. Each width is a multiple of it.
    pub heads: usize,
    /// Widths of the slices, ascending.
    pub hidden: Vec<usize>,
    /// Depths of the slices, ascending.
    pub layers: Vec<usize>,
    /// Embedding widths of the slices, ascending. Empty: the embedding of each slice is as wide as its hidden state.
    pub embedding: Vec<usize>,
    /// The router's sizes.
    pub router: RouterConfig,
    /// Scale of a narrow slice's attention scores.
    pub attention_scale: WidthRule,
    /// Inner width of a narrow slice's feed-forward network.
    pub ffn_inner: WidthRule,
    /// How the backbone encodes an item's position in a history.
    #[serde(default, skip_serializing_if = "Positions::is_newest")]
    pub positions: Positions,
    /// Whether a layer norm follows the backbone's embedding. It covers the features that the slice reads.
    #[serde(default, skip_serializing_if = "is_false")]
    pub embedding_norm: bool,
    /// A history longer than `max_len` is read from an item on whose place in the user's whole history is a multiple of this.
    /// With 1 the model reads the last `max_len` items.
    #[serde(default = "default_history_stride", skip_serializing_if = "is_default_history_stride")]
    pub history_stride: usize,
    /// Added to the variance in every layer norm, as in `(x - mean) / sqrt(variance + eps)`.
    #[serde(default = "default_norm_eps", skip_serializing_if = "is_default_norm_eps")]
    pub norm_eps: f64,
}

/// How the backbone encodes an item's position in a history. The router always has its own table, indexed as with
/// [`Positions::Newest`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Positions {
    /// A table whose last row, `max_len - 1`, belongs to the newest item.
    #[default]
    Newest,
    /// A table whose row 0 belongs to the oldest item that the model reads, as in RecBole's SASRec.
    Oldest,
    /// No table. Each scaled attention score gets a learnt bias by layer, head and distance (query position less key
    /// position). All slices share the biases of a layer.
    Relative,
}

impl Positions {
    /// Whether this is the default, which checkpoints leave out.
    fn is_newest(&self) -> bool {
        *self == Positions::Newest
    }
}

/// The epsilon of checkpoints that leave it out.
const NORM_EPS: f64 = 1e-5;

fn default_norm_eps() -> f64 {
    NORM_EPS
}

/// The stride of checkpoints that leave it out.
fn default_history_stride() -> usize {
    1
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes fields by reference")]
fn is_default_history_stride(stride: &usize) -> bool {
    *stride == default_history_stride()
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes fields by reference")]
fn is_default_norm_eps(eps: &f64) -> bool {
    *eps == NORM_EPS
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes fields by reference")]
fn is_false(flag: &bool) -> bool {
    !*flag
}

/// Sizes of the router, which is one transformer block over its own tables and a linear layer on the last position.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RouterConfig {
    /// Width.
    pub dim: usize,
    /// Attention heads.
    pub heads: usize,
    /// Inner width of the feed-forward network.
    pub ffn: usize,
}

impl Default for RouterConfig {
    /// The authors' router: 32 wide, 4 heads, inner width 128.
    fn default() -> RouterConfig {
        RouterConfig { dim: 32, heads: 4, ffn: 128 }
    }
}

/// Whether a size of a narrow slice follows the slice's own width or the full width.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum WidthRule {
    /// The slice's width h: scale 1/sqrt(h / heads), inner width 4h.
    Slice,
    /// The full width D, as the authors' code trains: scale 1/sqrt(D / heads), inner width 4D.
    Full,
}

/// Why a configuration is invalid.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ConfigError {
    /// The three lists do not make a route space.
    #[error(transparent)]
    Space(#[from] RouteSpaceError),
    /// A size is outside its bounds.
    #[error("`{field}` is {value}: it must be from {min} to {max}")]
    OutOfRange {
        /// The field's name.
        field: &'static str,
        /// Its value.
        value: usize,
        /// Least value allowed.
        min: usize,
        /// Greatest value allowed.
        max: usize,
    },
    /// The number of heads does not divide a width.
    #[error("`{field}` has {width}, which {heads} heads do not divide")]
    HeadsDoNotDivide {
        /// The field's name.
        field: &'static str,
        /// The width.
        width: usize,
        /// The number of heads.
        heads: usize,
    },
    /// The widths' own copies of the attention weights would take far more memory than the weights.
    #[error(
        "`hidden` has {count} widths whose squares sum to {ratio:.0} times the widest one's: at most {max} times, because \
         backends keep attention weights for each width",
        max = ModelConfig::MAX_WIDTH_COPIES
    )]
    Widths {
        /// Number of widths.
        count: usize,
        /// The sum of their squares, in squares of the widest.
        ratio: f64,
    },
    /// A backend may keep the position biases of every pair of positions, which would take too much memory.
    #[error(
        "`positions` is relative, and layers x heads x max_len^2 is {pairs}: it must be at most {max}",
        max = ModelConfig::MAX_BIAS_PAIRS
    )]
    Biases {
        /// The product.
        pairs: usize,
    },
    /// The epsilon is zero in float32, or above 1.
    #[error("`norm_eps` is {0}: it must be from 1e-30 to 1")]
    NormEps(f64),
}

impl ModelConfig {
    /// The value of `norm_eps` in checkpoints that leave it out.
    pub const NORM_EPS: f64 = NORM_EPS;

    /// Limit on the sum of the widths' squares, in squares of the widest. Sixteen widths of any sizes are allowed.
    pub const MAX_WIDTH_COPIES: u32 = 16;

    /// Limit on layers x heads x max_len^2 with relative positions: 1 GiB of float32.
    pub const MAX_BIAS_PAIRS: usize = 1 << 28;

    /// Checks every size, so that later arithmetic neither overflows nor divides by zero, and bounds the copies of attention
    /// weights and the position biases that backends make.
    ///
    /// # Errors
    /// [`ConfigError`] that names the field and its bounds.
    pub fn check(&self) -> Result<RouteSpace, ConfigError> {
        let bounded = |field, value, min, max| {
            (min..=max).contains(&value).then_some(()).ok_or(ConfigError::OutOfRange { field, value, min, max })
        };
        let space = RouteSpace::new(self.hidden.clone(), self.layers.clone(), self.embedding.clone())?;
        let widest = space.widest();
        bounded("items", self.items, 1, Catalogue::MAX_ITEMS)?;
        bounded("max_len", self.max_len, 1, 8192)?;
        bounded("history_stride", self.history_stride, 1, self.max_len)?;
        bounded("heads", self.heads, 1, 128)?;
        bounded("hidden", widest.hidden, 1, 8192)?;
        bounded("layers", widest.layers, 1, 256)?;
        bounded("embedding", widest.embedding, 1, 8192)?;
        bounded("router.dim", self.router.dim, 1, 8192)?;
        bounded("router.heads", self.router.heads, 1, 128)?;
        bounded("router.ffn", self.router.ffn, 1, 32768)?;
        let widths = self.hidden.iter().map(|width| ("hidden", *width, self.heads));
        for (field, width, heads) in widths.chain([("router.dim", self.router.dim, self.router.heads)]) {
            if !width.is_multiple_of(heads) {
                return Err(ConfigError::HeadsDoNotDivide { field, width, heads });
            }
        }
        let squares: f64 = self.hidden.iter().map(|width| (*width as f64).powi(2)).sum();
        let ratio = squares / (widest.hidden as f64).powi(2);
        if ratio > f64::from(ModelConfig::MAX_WIDTH_COPIES) {
            return Err(ConfigError::Widths { count: self.hidden.len(), ratio });
        }
        let pairs = widest.layers * self.heads * self.max_len * self.max_len;
        if self.positions == Positions::Relative && pairs > ModelConfig::MAX_BIAS_PAIRS {
            return Err(ConfigError::Biases { pairs });
        }
        if !(1e-30..=1.0).contains(&self.norm_eps) {
            return Err(ConfigError::NormEps(self.norm_eps));
        }
        Ok(space)
    }

    /// Which items of a longer history the model reads.
    pub fn window(&self) -> Window {
        Window { max_len: self.max_len, stride: self.history_stride }
    }

    /// The widest hidden size, D.
    pub fn width(&self) -> usize {
        self.hidden.last().copied().unwrap_or_default()
    }

    /// The widest embedding, E.
    pub fn embedding_width(&self) -> usize {
        self.embedding.last().copied().unwrap_or(self.width())
    }

    /// The number of routes.
    pub fn routes(&self) -> usize {
        self.hidden.len() * self.layers.len() * self.embedding.len().max(1)
    }

    /// The number of stored blocks.
    pub fn depth(&self) -> usize {
        self.layers.last().copied().unwrap_or_default()
    }

    /// The sizes that fix the cost of a route.
    pub fn shape(&self) -> ModelShape {
        ModelShape {
            items: self.items,
            width: self.width(),
            ffn_inner: match self.ffn_inner {
                WidthRule::Slice => FfnInner::Slice,
                WidthRule::Full => FfnInner::Full,
            },
            router: RouterShape { dim: self.router.dim, ffn: self.router.ffn },
        }
    }

    /// Scale of the attention scores of a slice of width `hidden`: 1/sqrt(head width).
    pub fn attention_scale(&self, hidden: usize) -> f64 {
        let width = match self.attention_scale {
            WidthRule::Slice => hidden,
            WidthRule::Full => self.width(),
        };
        1.0 / ((width / self.heads) as f64).sqrt()
    }

    /// Every weight, in the order of the forward pass. All are float32.
    pub fn parameters(&self) -> Vec<Parameter> {
        let mut backbone = ParameterList::of(self, ModelPart::Backbone);
        backbone.add("item_embedding", Role::Table, &[Axis::Items, Axis::Embedding]);
        match self.positions {
            rule @ (Positions::Newest | Positions::Oldest) => {
                backbone.add("position_embedding", Role::Table, &[Axis::Positions(rule), Axis::Embedding]);
            }
            rule @ Positions::Relative => {
                backbone.add("position_bias", Role::Bias, &[Axis::Layers, Axis::Heads, Axis::Positions(rule)]);
            }
        }
        if self.embedding_norm {
            backbone.norm("embedding_norm", Axis::Embedding);
        }
        backbone.linear("input", Axis::Hidden, Axis::Embedding);
        let axes = BlockAxes { hidden: Axis::Hidden, headed: Axis::HeadedHidden, inner: Axis::Inner };
        for layer in 0..self.depth() {
            backbone.block(&format!("blocks.{layer}"), axes);
        }
        backbone.linear("output", Axis::Items, Axis::Hidden);

        let mut router = ParameterList::of(self, ModelPart::Router);
        router.add("item_embedding", Role::Table, &[Axis::Items, Axis::RouterHidden]);
        router.add("position_embedding", Role::Table, &[Axis::Positions(Positions::Newest), Axis::RouterHidden]);
        // The router is never sliced, so its heads need no axis of their own.
        let axes = BlockAxes { hidden: Axis::RouterHidden, headed: Axis::RouterHidden, inner: Axis::RouterInner };
        router.block("block", axes);
        router.linear("head", Axis::Routes, Axis::RouterHidden);
        backbone.parameters.into_iter().chain(router.parameters).collect()
    }

    /// The number of places along an axis.
    fn size(&self, axis: Axis) -> usize {
        match axis {
            Axis::Items => self.items + 1,
            Axis::Positions(_) => self.max_len,
            Axis::Layers => self.depth(),
            Axis::Heads => self.heads,
            Axis::Embedding => self.embedding_width(),
            Axis::Hidden | Axis::HeadedHidden => self.width(),
            Axis::Inner => 4 * self.width(),
            Axis::Routes => self.routes(),
            Axis::RouterHidden => self.router.dim,
            Axis::RouterInner => self.router.ffn,
        }
    }
}

/// A weight of a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parameter {
    /// Path of the weight, as in `backbone.blocks.0.attention.query.weight`.
    pub name: String,
    /// The size of each axis; empty for a scalar.
    pub shape: Vec<usize>,
    /// What each axis stands for; empty for a scalar.
    pub axes: Vec<Axis>,
    /// What the weight does.
    pub role: Role,
    /// The part of the model that has it.
    pub part: ModelPart,
}

/// What the places along an axis of a weight stand for. This says which places a slice reads, and which of them a model
/// of other sizes has as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Axis {
    /// The padding, then the items: N + 1.
    Items,
    /// Positions in a history, or distances between two of them: `max_len`, indexed by this rule.
    Positions(Positions),
    /// The backbone's blocks.
    Layers,
    /// The backbone's attention heads.
    Heads,
    /// Features of the backbone's embedding: E. A slice reads the first ones.
    Embedding,
    /// Features of the backbone's hidden state: D. A slice reads the first ones.
    Hidden,
    /// Features of the backbone's queries, keys or values, head by head: D. A slice reads the first ones of each head.
    HeadedHidden,
    /// Features within a feed-forward network of the backbone: 4D. A slice reads the first ones.
    Inner,
    /// The routes, in the order of their index.
    Routes,
    /// Features of the router's embedding and hidden state.
    RouterHidden,
    /// Features within the router's feed-forward network.
    RouterInner,
}

/// What a weight does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// A table of embeddings, which has a row for each item or position.
    Table,
    /// The matrix of a linear layer: outputs, then inputs.
    Linear,
    /// An addend: of a linear layer, of a norm or of attention scores.
    Bias,
    /// The factors of a layer norm.
    Norm,
    /// The scalar factor of a residual connection.
    Residual,
}

/// A part of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ModelPart {
    /// The recommender. Every route runs a slice of it.
    Backbone,
    /// The network that chooses the route.
    Router,
}

/// The weights of one part of a model.
struct ParameterList<'a> {
    config: &'a ModelConfig,
    part: ModelPart,
    parameters: Vec<Parameter>,
}

/// The axes of a block's weights.
#[derive(Clone, Copy)]
struct BlockAxes {
    /// Of its input and output.
    hidden: Axis,
    /// Of its queries, keys and values.
    headed: Axis,
    /// Within its feed-forward network.
    inner: Axis,
}

impl ParameterList<'_> {
    fn of(config: &ModelConfig, part: ModelPart) -> ParameterList<'_> {
        ParameterList { config, part, parameters: Vec::new() }
    }

    fn add(&mut self, name: &str, role: Role, axes: &[Axis]) {
        let part = match self.part {
            ModelPart::Backbone => "backbone",
            ModelPart::Router => "router",
        };
        self.parameters.push(Parameter {
            name: format!("{part}.{name}"),
            shape: axes.iter().map(|axis| self.config.size(*axis)).collect(),
            axes: axes.to_vec(),
            role,
            part: self.part,
        });
    }

    fn linear(&mut self, name: &str, out: Axis, input: Axis) {
        self.add(&format!("{name}.weight"), Role::Linear, &[out, input]);
        self.add(&format!("{name}.bias"), Role::Bias, &[out]);
    }

    fn norm(&mut self, name: &str, features: Axis) {
        self.add(&format!("{name}.weight"), Role::Norm, &[features]);
        self.add(&format!("{name}.bias"), Role::Bias, &[features]);
    }

    /// One post-norm block: `x = LN(x + a·Attention(x))`, then `x = LN(x + a·FFN(x))`, each with its own scalar `a`.
    fn block(&mut self, name: &str, axes: BlockAxes) {
        let BlockAxes { hidden, headed, inner } = axes;
        for projection in ["query", "key", "value"] {
            self.linear(&format!("{name}.attention.{projection}"), headed, hidden);
        }
        // A slice concatenates the outputs of its heads, so it reads a prefix of this layer.
        self.linear(&format!("{name}.attention.output"), hidden, hidden);
        self.add(&format!("{name}.attention_residual"), Role::Residual, &[]);
        self.norm(&format!("{name}.attention_norm"), hidden);
        self.linear(&format!("{name}.ffn.inner"), inner, hidden);
        self.linear(&format!("{name}.ffn.outer"), hidden, inner);
        self.add(&format!("{name}.ffn_residual"), Role::Residual, &[]);
        self.norm(&format!("{name}.ffn_norm"), hidden);
    }
}
