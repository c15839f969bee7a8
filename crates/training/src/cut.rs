use tch::{Kind, TchError, Tensor};

use super::batch::{Batch, gather};
use canet_domain::{RouteSpace, Slice};
use canet_model::ModelConfig;

/// Which part of the supernet a pass uses.
pub enum Cut {
    /// One slice for every row: the weights themselves are cut.
    Uniform(Slice),
    /// Each row its own route: everything is computed at full size and masked.
    Mixed(Masks),
}

/// One row a route choice, as factors that are exactly 0 or 1 and carry the router's gradient.
pub struct Masks {
    /// Features of the embedding: [B, E]
    pub(crate) embedding: Tensor,
    /// 1 / number of those features: [B, 1], no gradient
    pub(crate) per_embedding: Tensor,
    /// Features of the hidden state: [B, D]
    pub(crate) hidden: Tensor,
    /// 1 / number of those features: [B, 1], no gradient
    pub(crate) per_hidden: Tensor,
    /// Query features, a prefix of every head, times the attention scale: [B, D]
    pub(crate) query: Tensor,
    /// From heads side by side at full width to heads side by side at the row's width: [B, D, D]
    pub(crate) concatenate: Tensor,
    /// Inner features of the feed-forward network: [B, F]
    pub(crate) inner: Tensor,
    /// The depth at which a row leaves, by place in the space's list: [B, depths]
    pub(crate) depth: Tensor,
}

/// The constant tables from which masks are made.
pub struct MaskTables {
    /// [embeddings, E]
    embedding: Tensor,
    /// [embeddings]
    per_embedding: Tensor,
    /// [widths, D]
    hidden: Tensor,
    /// [widths]
    per_hidden: Tensor,
    /// [widths, D]
    query: Tensor,
    /// [widths, D·D]
    concatenate: Tensor,
    /// [widths, F]
    inner: Tensor,
    /// From routes to widths, depths, embeddings: [routes, widths], [routes, depths], [routes, embeddings]
    marginals: [Tensor; 3],
}

impl MaskTables {
    /// Tables for a space.
    ///
    /// # Errors
    /// LibTorch's, when memory runs out.
    pub fn new(config: &ModelConfig, space: &RouteSpace, device: tch::Device) -> Result<MaskTables, TchError> {
        let table = |rows: usize, columns: usize, value: &dyn Fn(usize, usize) -> f64| {
            let values: Vec<f32> =
                (0..rows * columns).map(|place| value(place / columns, place % columns) as f32).collect();
            Tensor::f_from_slice(&values)?.f_reshape([rows as i64, columns as i64])?.f_to_device(device)
        };
        let (full, widths) = (config.width(), space.hidden());
        let head = full / config.heads;
        let ffn = config.shape().ffn_width(full);
        let prefix = |sizes: &[usize], row: usize, column: usize| f64::from(u8::from(column < sizes[row]));
        let per = |sizes: &[usize]| table(1, sizes.len(), &|_, column| 1.0 / sizes[column] as f64)?.f_reshape([-1]);
        let marginal = |axis: usize, sizes: usize| {
            table(space.len(), sizes, &|row, column| {
                space.route(row).map_or(0.0, |route| f64::from(u8::from(space.place(route)[axis] == column)))
            })
        };
        Ok(MaskTables {
            embedding: table(space.embedding().len(), config.embedding_width(), &|row, column| {
                prefix(space.embedding(), row, column)
            })?,
            per_embedding: per(space.embedding())?,
            hidden: table(widths.len(), full, &|row, column| prefix(widths, row, column))?,
            per_hidden: per(widths)?,
            query: table(widths.len(), full, &|row, column| {
                let kept = column % head < widths[row] / config.heads;
                if kept { config.attention_scale(widths[row]) } else { 0.0 }
            })?,
            concatenate: table(widths.len(), full * full, &|row, place| {
                let (from, to) = (place / full, place % full);
                let kept = widths[row] / config.heads;
                let taken = to < widths[row] && from == to / kept * head + to % kept;
                f64::from(u8::from(taken))
            })?,
            inner: table(widths.len(), ffn, &|row, column| {
                f64::from(u8::from(column < config.shape().ffn_width(widths[row])))
            })?,
            marginals: [
                marginal(0, widths.len())?,
                marginal(1, space.layers().len())?,
                marginal(2, space.embedding().len())?,
            ],
        })
    }

    /// Sums over the routes that share a width, a depth, an embedding: [B, routes] -> [B, sizes] each.
    ///
    /// # Errors
    /// LibTorch's.
    pub fn marginals(&self, routes: &Tensor) -> Result<[Tensor; 3], TchError> {
        let [hidden, layers, embedding] = &self.marginals;
        Ok([routes.f_matmul(hidden)?, routes.f_matmul(layers)?, routes.f_matmul(embedding)?])
    }

    /// Masks of a choice that is one-hot in value and may carry a gradient: [B, routes].
    ///
    /// # Errors
    /// LibTorch's.
    pub fn masks(&self, choice: &Tensor) -> Result<Masks, TchError> {
        let [width, depth, embedding] = self.marginals(choice)?;
        let rows = choice.size().first().copied().unwrap_or_default();
        let full = self.hidden.size().last().copied().unwrap_or_default();
        Ok(Masks {
            per_embedding: embedding.f_detach()?.f_matmul(&self.per_embedding)?.f_reshape([rows, 1])?,
            embedding: embedding.f_matmul(&self.embedding)?,
            hidden: width.f_matmul(&self.hidden)?,
            per_hidden: width.f_detach()?.f_matmul(&self.per_hidden)?.f_reshape([rows, 1])?,
            query: width.f_matmul(&self.query)?,
            concatenate: width.f_matmul(&self.concatenate)?.f_reshape([rows, full, full])?,
            inner: width.f_matmul(&self.inner)?,
            depth,
        })
    }
}

impl Masks {
    /// The same, one row an item of the batch instead of one a window; `concatenate` alone stays as it is.
    ///
    /// # Errors
    /// LibTorch's, when memory runs out.
    pub(crate) fn of_tokens(&self, batch: &Batch) -> Result<Masks, TchError> {
        let spread = |mask: &Tensor| gather(mask, &batch.row);
        Ok(Masks {
            embedding: spread(&self.embedding)?,
            per_embedding: spread(&self.per_embedding)?,
            hidden: spread(&self.hidden)?,
            per_hidden: spread(&self.per_hidden)?,
            query: spread(&self.query)?,
            concatenate: self.concatenate.shallow_clone(),
            inner: spread(&self.inner)?,
            depth: spread(&self.depth)?,
        })
    }
}

/// The one-hot choice of given routes, without a gradient: [B, routes].
///
/// # Errors
/// LibTorch's, where a route is not in the space.
pub fn one_hot(routes: &[usize], count: usize, device: tch::Device) -> Result<Tensor, TchError> {
    let routes: Vec<i64> = routes.iter().map(|route| *route as i64).collect();
    Tensor::f_from_slice(&routes)?.f_one_hot(count as i64)?.f_to_kind(Kind::Float)?.f_to_device(device)
}
