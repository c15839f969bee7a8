use std::fmt::Write;

use canet_model::{ModelConfig, Positions, Precision, WidthRule};

/// Rows of a tile.
const TILE: usize = 16;
/// Rows of a batch that share what they read of the output layer, as in `kernels/catalogue.cuh`.
pub(crate) const TOGETHER: usize = 64;
/// The most tiles of a history: a warp keeps a query's scores in registers.
const MAX_TILES: usize = 8;

/// The sizes for which kernels are compiled, and the shared memory that they need.
pub(crate) struct KernelSizes {
    pub(crate) width: usize,
    pub(crate) columns: usize,
    pub(crate) routes: usize,
    pub(crate) max_len: usize,
    /// Bytes of shared memory of each kernel: backbone, router, score.
    pub(crate) shared: [usize; 3],
    defines: String,
}

/// Why the kernels do not support a model.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the native kernels for GPUs do not fit this model: {0}; use --backend auto or libtorch")]
pub struct UnsupportedModel(String);

impl KernelSizes {
    /// The sizes for a block of `threads` threads and at most `shared` bytes of shared memory.
    ///
    /// # Errors
    /// [`UnsupportedModel`] names the size that does not fit.
    pub(crate) fn new(
        config: &ModelConfig,
        precision: Precision,
        threads: usize,
        shared: usize,
    ) -> Result<KernelSizes, UnsupportedModel> {
        let (stored, run, spread) = match precision {
            Precision::Fp32 => ("Exact", 16, 16),
            Precision::Bf16 => ("Rounded", 32, 4),
        };
        let whole = |name: &str, width: usize, of: usize| match width.is_multiple_of(of) {
            true => Ok(()),
            false => Err(UnsupportedModel(format!("{name} {width} is no multiple of {of}"))),
        };
        for hidden in &config.hidden {
            whole("hidden width", *hidden, run)?;
            whole("head width", hidden / config.heads, 8)?;
        }
        for embedding in &config.embedding {
            whole("embedding width", *embedding, run)?;
        }
        let router = config.router;
        whole("router width", router.dim, 16)?;
        whole("router head width", router.dim / router.heads, 8)?;
        whole("router inner width", router.ffn, 16)?;
        let tiles = config.max_len.div_ceil(TILE);
        let (width, embedding) = (config.width(), config.embedding_width());
        // Pads rows such that the words which a quarter of a warp reads together come from different banks.
        let apart = |width: usize, spread: usize| width + (spread + 32 - width % 32) % 32;
        let [x, y] = [apart(width, spread), apart(embedding.max(4 * width), spread)];
        let [router_x, router_y] = [apart(router.dim, 16), apart(router.ffn.max(3 * router.dim), 16)];
        let score = apart(width, 16);
        let bytes =
            [tiles * TILE * (x + y), tiles * TILE * (router_x + router_y), TOGETHER * score].map(|words| 4 * words);
        if tiles > MAX_TILES || tiles.div_ceil(2) > threads / 32 {
            return Err(UnsupportedModel(format!(
                "histories of {} items are longer than {}",
                config.max_len,
                MAX_TILES * TILE
            )));
        }
        if let Some(most) = bytes.iter().max().filter(|most| **most > shared) {
            return Err(UnsupportedModel(format!(
                "width {width} over {} items takes {most} bytes of shared memory and the device has {shared}",
                config.max_len
            )));
        }
        let routes = config.routes();
        let columns = config.items + 1;
        let full = |rule| usize::from(rule == WidthRule::Full);
        let mut defines = String::new();
        for (name, value) in [
            ("THREADS", threads),
            ("TILES", tiles),
            ("MAX_LEN", config.max_len),
            ("WIDTH", width),
            ("EMBEDDING", embedding),
            ("INNER", 4 * width),
            ("HEADS", config.heads),
            ("ROUTES", routes),
            ("COLUMNS", columns),
            ("FULL_INNER", full(config.ffn_inner)),
            ("FULL_SCALE", full(config.attention_scale)),
            ("ROUTER_WIDTH", router.dim),
            ("ROUTER_INNER", router.ffn),
            ("ROUTER_HEADS", router.heads),
            ("X_STRIDE", x),
            ("Y_STRIDE", y),
            ("ROUTER_X_STRIDE", router_x),
            ("ROUTER_Y_STRIDE", router_y),
            ("SCORE_STRIDE", score),
            ("NEWEST", Positions::Newest as usize),
            ("OLDEST", Positions::Oldest as usize),
            ("RELATIVE", Positions::Relative as usize),
            ("POSITIONS", config.positions as usize),
            ("EMBEDDING_NORM", usize::from(config.embedding_norm)),
        ] {
            // Writing to a string cannot fail.
            let _ = writeln!(defines, "#define {name} {value}");
        }
        // Above zero: rows of equal numbers follow a history's items, and a norm of them must not be NaN.
        let eps = (config.norm_eps as f32).max(f32::MIN_POSITIVE);
        let _ = writeln!(defines, "#define NORM_EPS {eps:e}f");
        let _ = writeln!(defines, "struct Exact; struct Rounded; typedef {stored} Stored;");
        Ok(KernelSizes { width, columns, routes, max_len: config.max_len, shared: bytes, defines })
    }

    /// The source of the kernels for these sizes, behind the given primitives.
    pub(crate) fn source(&self, primitives: &str) -> String {
        let parts = [
            self.defines.as_str(),
            primitives,
            include_str!("kernels/arithmetic.cuh"),
            include_str!("kernels/product.cuh"),
            include_str!("kernels/attention.cuh"),
            include_str!("kernels/block.cuh"),
            include_str!("kernels/history.cuh"),
            include_str!("kernels/catalogue.cuh"),
        ];
        parts.concat()
    }
}
