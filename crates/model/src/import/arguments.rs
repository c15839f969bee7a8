use std::path::Path;

use serde::Deserialize;

use super::ImportError;
use crate::{ModelConfig, Positions, RouterConfig, WidthRule, json};

/// The fields of the authors' `args.json` that concern the weights.
#[derive(Debug, Deserialize)]
pub(super) struct Arguments {
    max_len: usize,
    d_list: Vec<usize>,
    emb_list: Vec<usize>,
    layer_list: Vec<usize>,
    attn_heads: usize,
    num_item: usize,
    /// Number of users in the training data.
    pub(super) num_user: Option<u64>,
    /// 0 if the residual connections have no learnt scalar.
    #[serde(default = "enabled")]
    enable_res_parameter: u8,
}

fn enabled() -> u8 {
    1
}

impl Arguments {
    pub(super) fn parse(path: &Path, bytes: &[u8]) -> Result<Arguments, ImportError> {
        json::parse(bytes).map_err(|source| ImportError::Arguments { path: path.to_owned(), source })
    }

    /// Whether the residual connections have a learnt scalar. Without one the scalar is 1.
    pub(super) fn learnt_residuals(&self) -> bool {
        self.enable_res_parameter != 0
    }

    /// The configuration of these weights. The authors' router (`Gate`) has as many heads as the backbone. Their code fixes
    /// its other sizes, which are those of [`RouterConfig::default`].
    pub(super) fn config(&self, attention_scale: WidthRule, ffn_inner: WidthRule) -> ModelConfig {
        ModelConfig {
            items: self.num_item,
            max_len: self.max_len,
            heads: self.attn_heads,
            hidden: self.d_list.clone(),
            layers: self.layer_list.clone(),
            embedding: self.emb_list.clone(),
            router: RouterConfig { heads: self.attn_heads, ..RouterConfig::default() },
            attention_scale,
            ffn_inner,
            positions: Positions::Newest,
            embedding_norm: false,
            history_stride: 1,
            norm_eps: ModelConfig::NORM_EPS,
        }
    }
}
