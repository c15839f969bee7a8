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
    /// The epsilon is zero in float32, or above 1.
    #[error("`norm_eps` is {0}: it must be from 1e-30 to 1")]
    NormEps(f64),
}

impl ModelConfig {
    /// The value of `norm_eps` in checkpoints that leave it out.
    pub const NORM_EPS: f64 = NORM_EPS;

    /// Checks every size, so that later arithmetic neither overflows nor divides by zero.
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

    /// Name and shape of every weight, in the order of the forward pass. All are float32.
    pub fn parameters(&self) -> Vec<Parameter> {
        let (width, embedding) = (self.width(), self.embedding_width());
        let rows = self.items + 1;
        let mut list = ParameterList::default();
        list.add("backbone.item_embedding", &[rows, embedding]);
        match self.positions {
            Positions::Newest | Positions::Oldest => {
                list.add("backbone.position_embedding", &[self.max_len, embedding]);
            }
            Positions::Relative => list.add("backbone.position_bias", &[self.depth(), self.heads, self.max_len]),
        }
        if self.embedding_norm {
            list.norm("backbone.embedding_norm", embedding);
        }
        list.linear("backbone.input", width, embedding);
        for layer in 0..self.depth() {
            list.block(&format!("backbone.blocks.{layer}"), width, 4 * width);
        }
        list.linear("backbone.output", rows, width);
        list.add("router.item_embedding", &[rows, self.router.dim]);
        list.add("router.position_embedding", &[self.max_len, self.router.dim]);
        list.block("router.block", self.router.dim, self.router.ffn);
        list.linear("router.head", self.routes(), self.router.dim);
        list.0
    }
}

/// A weight's name and shape.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parameter {
    /// Path of the weight, as in `backbone.blocks.0.attention.query.weight`.
    pub name: String,
    /// Shape; empty for a scalar.
    pub shape: Vec<usize>,
}

#[derive(Default)]
struct ParameterList(Vec<Parameter>);

impl ParameterList {
    fn add(&mut self, name: &str, shape: &[usize]) {
        self.0.push(Parameter { name: name.to_owned(), shape: shape.to_vec() });
    }

    fn linear(&mut self, name: &str, out: usize, input: usize) {
        self.add(&format!("{name}.weight"), &[out, input]);
        self.add(&format!("{name}.bias"), &[out]);
    }

    fn norm(&mut self, name: &str, width: usize) {
        self.add(&format!("{name}.weight"), &[width]);
        self.add(&format!("{name}.bias"), &[width]);
    }

    /// One post-norm block: `x = LN(x + a·Attention(x))`, then `x = LN(x + a·FFN(x))`, each with its own scalar `a`.
    fn block(&mut self, name: &str, width: usize, ffn: usize) {
        for projection in ["query", "key", "value", "output"] {
            self.linear(&format!("{name}.attention.{projection}"), width, width);
        }
        self.add(&format!("{name}.attention_residual"), &[]);
        self.norm(&format!("{name}.attention_norm"), width);
        self.linear(&format!("{name}.ffn.inner"), ffn, width);
        self.linear(&format!("{name}.ffn.outer"), width, ffn);
        self.add(&format!("{name}.ffn_residual"), &[]);
        self.norm(&format!("{name}.ffn_norm"), width);
    }
}
