use tch::{Kind, TchError, Tensor};

use super::attention::Attention;
use super::bias::{Masks, PositionBias};
use super::block::{Block, StoredBlock};
use super::error::TorchError;
use super::load::{LayerNorm, Linear, Loader};
use super::packed::PackedBatch;
use super::tensors::concatenate;
use canet_domain::{Route, RouteSpace};
use canet_model::{ModelConfig, Positions};

/// How a backbone's weights are loaded.
pub(crate) struct Loaders<'a> {
    /// Loads linear layers at the model's precision, and everything else as float32.
    pub(crate) layers: Loader<'a>,
    /// Loads everything as float32.
    pub(crate) exact: Loader<'a>,
}

/// The recommender. Every route runs a slice of it.
pub(crate) struct Backbone {
    /// [N + 1, E]
    items: Tensor,
    /// [max_len, E]; `None` for relative positions.
    positions: Option<Tensor>,
    /// For relative positions only.
    bias: Option<PositionBias>,
    /// The norm of the embedding, one an embedding width, ascending. Empty without such a norm.
    norms: Vec<LayerNorm>,
    /// The embedding widths, ascending.
    embedding: Vec<usize>,
    /// One a width, ascending.
    widths: Vec<Width>,
}

/// The slice of one row, beside the width that all rows of its batch share.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RowSlice {
    /// The number of blocks that it runs, at least 1.
    pub(crate) layers: usize,
    /// Place of its embedding width in the ascending list.
    pub(crate) embedding: usize,
}

impl RowSlice {
    pub(crate) fn new(space: &RouteSpace, route: Route) -> RowSlice {
        RowSlice { layers: space.slice(route).layers, embedding: space.place(route)[2] }
    }
}

/// The layers that the routes of one width share.
struct Width {
    /// One an embedding width, ascending: [h, e]
    inputs: Vec<Linear>,
    /// As many as the deepest route runs.
    blocks: Vec<Block>,
    /// [N + 1, h]
    output: Linear,
}

impl Backbone {
    /// Loads the weights. The output layer is float32 at every precision: LibTorch rounds outputs to a layer's kind, and
    /// scores in bfloat16 are mostly ties.
    pub(crate) fn load(
        loaders: &Loaders<'_>,
        config: &ModelConfig,
        space: &RouteSpace,
    ) -> Result<Backbone, TorchError> {
        let Loaders { layers: loader, exact } = loaders;
        let input = loader.linear("backbone.input")?;
        let output = exact.linear("backbone.output")?;
        let blocks = (0..config.depth())
            .map(|layer| StoredBlock::load(loader, &format!("backbone.blocks.{layer}")))
            .collect::<Result<Vec<_>, _>>()?;
        let width = |hidden: usize| -> Result<Width, TorchError> {
            let scale = config.attention_scale(hidden);
            let attention = Attention { heads: config.heads as i64, scale, causal: true };
            let ffn = config.shape().ffn_width(hidden);
            Ok(Width {
                inputs: space.embedding().iter().map(|e| input.slice(hidden, *e)).collect::<Result<_, _>>()?,
                blocks: blocks
                    .iter()
                    .map(|block| block.slice(loader, hidden, ffn, attention))
                    .collect::<Result<_, _>>()?,
                output: output.slice(config.items + 1, hidden)?,
            })
        };
        let positions = match config.positions {
            Positions::Newest | Positions::Oldest => Some(loader.tensor("backbone.position_embedding")?),
            Positions::Relative => None,
        };
        let norms = match config.embedding_norm {
            true => {
                let norm = loader.norm("backbone.embedding_norm")?;
                space.embedding().iter().map(|e| norm.slice(*e)).collect::<Result<_, _>>()?
            }
            false => Vec::new(),
        };
        Ok(Backbone {
            items: loader.tensor("backbone.item_embedding")?,
            positions,
            bias: PositionBias::load(loader, config)?,
            norms,
            embedding: space.embedding().to_vec(),
            widths: space.hidden().iter().map(|hidden| width(*hidden)).collect::<Result<_, _>>()?,
        })
    }

    /// Scores of the next item: [B, N + 1], in the order of the histories.
    ///
    /// `width` is the place of the rows' width in the ascending list. `slices` has one entry a row. Narrower embeddings
    /// are masked. A row leaves after its last block, which runs for its newest position alone.
    pub(crate) fn scores(&self, width: usize, slices: &[RowSlice], batch: &PackedBatch) -> Result<Tensor, TchError> {
        let width = &self.widths[width];
        let mut x = self.input(width, slices, batch)?; // [T, h]
        let deepest = slices.iter().map(|slice| slice.layers).max().unwrap_or_default();
        let masks = self.bias.as_ref().map(|bias| bias.masks(deepest, batch.longest())).transpose()?;
        let mut rows = batch.rows();
        let mut going_on_rows = batch.range(0..rows)?;
        let mut left = Vec::new();
        for (before, block) in width.blocks.iter().enumerate() {
            let staying = batch.staying(|row| slices[row].layers == before + 1).min(rows);
            if staying < rows {
                going_on_rows = batch.range(0..staying)?;
            }
            let leaving_rows = batch.range(staying..rows)?;
            let mask = masks.as_ref().map(|masks: &Masks| masks.layer(before)).transpose()?;
            let [going_on, leaving] = block.forward(&x, batch, [&going_on_rows, &leaving_rows], mask.as_ref())?;
            if staying < rows {
                left.push(leaving); // [R, h]
            }
            if staying == 0 {
                break;
            }
            (x, rows) = (going_on, staying);
        }
        // Rows are sorted by depth, the deepest first, and the deepest left last.
        left.reverse();
        width.output.forward(&batch.restore(&concatenate(left)?)?) // [B, N + 1]
    }

    /// The input projection at the widest embedding of the batch, zeros in place of features that a row does not read:
    /// [T, h]
    fn input(&self, width: &Width, slices: &[RowSlice], batch: &PackedBatch) -> Result<Tensor, TchError> {
        let widest = slices.iter().map(|slice| slice.embedding).max().unwrap_or_default();
        let columns = self.embedding[widest];
        let mut x = batch.embed(&self.items, self.positions.as_ref(), columns)?; // [T, e]
        let norm = self.norms.get(widest);
        if slices.iter().any(|slice| slice.embedding < widest) {
            let read = batch.by_token(|row| self.embedding[slices[row].embedding] as i64)?.f_unsqueeze(1)?; // [T, 1]
            let column = Tensor::f_arange(columns as i64, (Kind::Int64, x.device()))?; // [e]
            let beyond = column.f_ge_tensor(&read)?; // [T, e]
            x = match norm {
                Some(norm) => norm.forward_prefixes(&x, &read, &beyond)?, // [T, e]
                None => x.f_masked_fill(&beyond, 0.0)?,                   // [T, e]
            };
        } else if let Some(norm) = norm {
            x = norm.forward(&x)?; // [T, e]
        }
        width.inputs[widest].forward_to_float(&x) // [T, h]
    }

    pub(crate) fn tensors(&self) -> Vec<&Tensor> {
        let mut tensors = vec![&self.items];
        tensors.extend(&self.positions);
        tensors.extend(self.bias.as_ref().map(PositionBias::tensor));
        tensors.extend(self.norms.iter().flat_map(LayerNorm::tensors));
        for width in &self.widths {
            tensors.extend(width.inputs.iter().chain([&width.output]).flat_map(Linear::tensors));
            tensors.extend(width.blocks.iter().flat_map(Block::tensors));
        }
        tensors
    }
}
