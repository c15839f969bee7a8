use tch::{TchError, Tensor};

use super::attention::Attention;
use super::block::{Block, StoredBlock};
use super::load::{Linear, LoadError, Loader};
use super::packed::Packed;
use crate::domain::{RouteSpace, Slice};
use crate::model::ModelConfig;

/// The recommender, of which every route runs a slice.
pub(super) struct Backbone {
    /// [N + 1, E]
    items: Tensor,
    /// [max_len, E]
    positions: Tensor,
    /// One a width, ascending.
    widths: Vec<Width>,
}

/// What the routes of one width share.
struct Width {
    /// One an embedding width, ascending: [h, e]
    inputs: Vec<Linear>,
    /// As many as the deepest route has.
    blocks: Vec<Block>,
    /// [N + 1, h]
    output: Linear,
}

impl Backbone {
    pub(super) fn load(loader: &Loader<'_>, config: &ModelConfig, space: &RouteSpace) -> Result<Backbone, LoadError> {
        let input = loader.linear("backbone.input")?;
        let output = loader.linear("backbone.output")?;
        let blocks = (0..config.depth())
            .map(|layer| StoredBlock::load(loader, &format!("backbone.blocks.{layer}")))
            .collect::<Result<Vec<_>, _>>()?;
        let width = |hidden: usize| -> Result<Width, LoadError> {
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
        Ok(Backbone {
            items: loader.tensor("backbone.item_embedding")?,
            positions: loader.tensor("backbone.position_embedding")?,
            widths: space.hidden().iter().map(|hidden| width(*hidden)).collect::<Result<_, _>>()?,
        })
    }

    /// Scores of the next item by one slice: [B, N + 1], rows as they came.
    ///
    /// `place` is the slice's place in the lists of the route space: hidden, layers, embedding.
    pub(super) fn scores(&self, place: [usize; 3], slice: Slice, batch: &Packed) -> Result<Tensor, TchError> {
        let width = &self.widths[place[0]];
        let x = batch.embed(&self.items, &self.positions, slice.embedding)?; // [T, e]
        let mut x = width.inputs[place[2]].forward(&x)?; // [T, h]
        let (earlier, last) = width.blocks[..slice.layers].split_at(slice.layers - 1);
        for block in earlier {
            x = block.every_position(&x, batch)?; // [T, h]
        }
        for block in last {
            x = block.last_position(&x, batch)?; // [B, h]
        }
        width.output.forward(&batch.restore(&x)?) // [B, N + 1]
    }

    pub(super) fn tensors(&self) -> Vec<&Tensor> {
        let mut tensors = vec![&self.items, &self.positions];
        for width in &self.widths {
            tensors.extend(width.inputs.iter().chain([&width.output]).flat_map(Linear::tensors));
            tensors.extend(width.blocks.iter().flat_map(Block::tensors));
        }
        tensors
    }
}
