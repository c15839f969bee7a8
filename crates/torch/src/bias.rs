use tch::{Kind, TchError, Tensor};

use super::error::TorchError;
use super::load::Loader;
use super::packed::Group;
use canet_model::{ModelConfig, Positions};

/// The learnt biases by distance. LibTorch adds them to the attention scores as a mask, which must therefore hide later
/// keys as well.
pub(crate) struct PositionBias {
    /// By key position less query position, from `-(max_len - 1)` to `max_len - 1`. Minus infinity if the key follows
    /// the query. [layers, heads, 2·max_len - 1]
    strips: Tensor,
    max_len: i64,
}

/// The masks of a batch.
pub(crate) struct Masks {
    /// [layers, heads, 2·max_len - 1]
    strips: Tensor,
    max_len: i64,
    /// By query and key, for the longest history of the batch. Only distances count, so shorter histories read the
    /// first rows and columns. [layers, heads, L, L]
    squares: Tensor,
}

/// The masks of one layer.
pub(crate) struct LayerMask {
    /// [heads, 2·max_len - 1]
    strip: Tensor,
    max_len: i64,
    /// [1, heads, L, L]
    square: Tensor,
}

impl PositionBias {
    /// The biases, for relative positions only.
    pub(crate) fn load(loader: &Loader<'_>, config: &ModelConfig) -> Result<Option<PositionBias>, TorchError> {
        if config.positions != Positions::Relative {
            return Ok(None);
        }
        let by_distance = loader.tensor("backbone.position_bias")?; // [layers, heads, max_len]
        let [layers, heads, max_len] = [config.depth(), config.heads, config.max_len].map(|size| size as i64);
        let behind =
            Tensor::f_full([layers, heads, max_len - 1], f64::NEG_INFINITY, (Kind::Float, by_distance.device()))?; // [layers, heads, max_len - 1]
        let strips = Tensor::f_cat(&[by_distance.f_flip([2])?, behind], 2)?; // [layers, heads, 2·max_len - 1]
        Ok(Some(PositionBias { strips, max_len }))
    }

    /// The masks of the first `layers` layers for histories of up to `longest` items.
    pub(crate) fn masks(&self, layers: usize, longest: i64) -> Result<Masks, TchError> {
        let strips = self.strips.f_narrow(0, 0, layers as i64)?;
        // Each row of a square is a window of the strip, one step to the left of the row above. `unfold` moves windows
        // to the right, so the rows are flipped.
        let squares = strips
            .f_narrow(2, self.max_len - longest, 2 * longest - 1)? // [layers, heads, 2L - 1]
            .f_unfold(2, longest, 1)? // [layers, heads, L, L], the last query first
            .f_flip([2])?; // [layers, heads, L, L]
        Ok(Masks { strips, max_len: self.max_len, squares })
    }

    pub(crate) fn tensor(&self) -> &Tensor {
        &self.strips
    }
}

impl Masks {
    pub(crate) fn layer(&self, layer: usize) -> Result<LayerMask, TchError> {
        Ok(LayerMask {
            strip: self.strips.f_select(0, layer as i64)?, // [heads, 2·max_len - 1]
            max_len: self.max_len,
            square: self.squares.f_narrow(0, layer as i64, 1)?, // [1, heads, L, L]
        })
    }
}

impl LayerMask {
    /// The mask of every position, for histories of up to `length` items. Padding follows the items, so it hides the
    /// padding too. [1, heads, length, length]
    pub(crate) fn every_position(&self, length: i64) -> Result<Tensor, TchError> {
        self.square.f_narrow(2, 0, length)?.f_narrow(3, 0, length)
    }

    /// The mask of the newest position of each row of a group. It hides the padding. [1 or rows, heads, 1, length]
    pub(crate) fn newest_position(&self, group: &Group) -> Result<Tensor, TchError> {
        match &group.padding {
            None => {
                let newest = self.strip.f_narrow(1, self.max_len - group.length, group.length)?; // [heads, length]
                newest.f_unsqueeze(0)?.f_unsqueeze(2) // [1, heads, 1, length]
            }
            Some(padding) => self
                .strip
                .f_unfold(1, group.length, 1)? // [heads, windows, length]
                .f_index_select(1, &padding.lengths.f_neg()?.f_add_scalar(self.max_len)?)? // [heads, rows, length]
                .f_transpose(0, 1)? // [rows, heads, length]
                .f_unsqueeze(2), // [rows, heads, 1, length]
        }
    }
}
