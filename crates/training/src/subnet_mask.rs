use canet_domain::{RouteSpace, Slice};
use canet_model::ModelConfig;
use tch::{Kind, TchError, Tensor};

use crate::batch::Batch;
use crate::tensors::gather;

/// Which part of the supernet a forward pass uses.
pub enum SubnetMask {
    /// One slice for every row. The pass reads only the slice's weights, as serving does.
    Slice(Slice),
    /// Another route for each row. The pass computes every row at full size and masks it.
    PerRow(RowMasks),
}

/// Masks that make each row of a batch its own slice, one route choice a row.
///
/// The factors are exactly 0 or 1 and carry the gradient of the choice. Shapes: B rows, E the widest embedding, D the
/// largest width, F the largest inner width.
pub struct RowMasks {
    /// Features of the embedding: `[B, E]`
    pub(crate) embedding: Tensor,
    /// 1 / number of these features, without a gradient: `[B, 1]`
    pub(crate) per_embedding: Tensor,
    /// Features of the hidden state: `[B, D]`
    pub(crate) hidden: Tensor,
    /// 1 / number of these features, without a gradient: `[B, 1]`
    pub(crate) per_hidden: Tensor,
    /// Query features, a prefix of every head, times the attention scale: `[B, D]`
    pub(crate) query: Tensor,
    /// Moves the heads' outputs together, from heads of D / heads features to heads of the row's width: `[B, D, D]`
    pub(crate) concatenate: Tensor,
    /// Inner features of the feed-forward network: `[B, F]`
    pub(crate) inner: Tensor,
    /// The row's depth, one-hot over the depths of the route space: `[B, depths]`
    pub(crate) depth: Tensor,
}

/// The constant tables from which [`RowMasks`] are made.
pub struct MaskTables {
    /// `[embeddings, E]`
    embedding: Tensor,
    /// `[embeddings]`
    per_embedding: Tensor,
    /// `[widths, D]`
    hidden: Tensor,
    /// `[widths]`
    per_hidden: Tensor,
    /// `[widths, D]`
    query: Tensor,
    /// `[widths, D·D]`
    concatenate: Tensor,
    /// `[widths, F]`
    inner: Tensor,
    /// One-hot size of each route on each axis: `[routes, widths]`, `[routes, depths]`, `[routes, embeddings]`
    sizes: [Tensor; 3],
}

impl MaskTables {
    /// Builds the tables of a route space.
    ///
    /// # Errors
    /// LibTorch's, if memory runs out.
    pub fn new(config: &ModelConfig, space: &RouteSpace, device: tch::Device) -> Result<MaskTables, TchError> {
        let table = |rows: usize, columns: usize, value: &dyn Fn(usize, usize) -> f64| {
            let values: Vec<f32> =
                (0..rows * columns).map(|place| value(place / columns, place % columns) as f32).collect();
            Tensor::f_from_slice(&values)?.f_reshape([rows as i64, columns as i64])?.f_to_device(device)
        };
        let (full, widths) = (config.width(), space.hidden());
        let head = full / config.heads;
        let ffn = config.shape().ffn_width(full);
        let one_if = |condition: bool| f64::from(u8::from(condition));
        let prefix = |sizes: &[usize], row: usize, column: usize| one_if(column < sizes[row]);
        let per = |sizes: &[usize]| table(1, sizes.len(), &|_, column| 1.0 / sizes[column] as f64)?.f_reshape([-1]);
        let size_of_route = |axis: usize, sizes: usize| {
            table(space.len(), sizes, &|row, column| {
                space.route(row).map_or(0.0, |route| one_if(space.place(route)[axis] == column))
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
                one_if(to < widths[row] && from == to / kept * head + to % kept)
            })?,
            inner: table(widths.len(), ffn, &|row, column| one_if(column < config.shape().ffn_width(widths[row])))?,
            sizes: [
                size_of_route(0, widths.len())?,
                size_of_route(1, space.layers().len())?,
                size_of_route(2, space.embedding().len())?,
            ],
        })
    }

    /// Sums over the routes of the same width, the same depth and the same embedding, in this order:
    /// `[B, routes] -> [B, widths]`, `[B, depths]`, `[B, embeddings]`
    ///
    /// # Errors
    /// LibTorch's.
    pub fn marginals(&self, routes: &Tensor) -> Result<[Tensor; 3], TchError> {
        let [hidden, layers, embedding] = &self.sizes;
        Ok([routes.f_matmul(hidden)?, routes.f_matmul(layers)?, routes.f_matmul(embedding)?])
    }

    /// Masks of a choice, `[B, routes]`, which is one-hot in value and may carry a gradient.
    ///
    /// # Errors
    /// LibTorch's.
    pub fn masks(&self, choice: &Tensor) -> Result<RowMasks, TchError> {
        let [width, depth, embedding] = self.marginals(choice)?;
        let rows = choice.size().first().copied().unwrap_or_default();
        let full = self.hidden.size().last().copied().unwrap_or_default();
        Ok(RowMasks {
            per_embedding: embedding.f_detach()?.f_matmul(&self.per_embedding)?.f_reshape([rows, 1])?, // [B, 1]
            embedding: embedding.f_matmul(&self.embedding)?,                                           // [B, E]
            hidden: width.f_matmul(&self.hidden)?,                                                     // [B, D]
            per_hidden: width.f_detach()?.f_matmul(&self.per_hidden)?.f_reshape([rows, 1])?,           // [B, 1]
            query: width.f_matmul(&self.query)?,                                                       // [B, D]
            concatenate: width.f_matmul(&self.concatenate)?.f_reshape([rows, full, full])?,            // [B, D, D]
            inner: width.f_matmul(&self.inner)?,                                                       // [B, F]
            depth,
        })
    }
}

impl RowMasks {
    /// Repeats each row's masks for each of its items: `[B, ..] -> [T, ..]`. `concatenate` stays as it is, because
    /// attention applies it by row.
    ///
    /// # Errors
    /// LibTorch's, if memory runs out.
    pub(crate) fn per_token(&self, batch: &Batch) -> Result<RowMasks, TchError> {
        let repeat = |mask: &Tensor| gather(mask, &batch.row_index);
        Ok(RowMasks {
            embedding: repeat(&self.embedding)?,
            per_embedding: repeat(&self.per_embedding)?,
            hidden: repeat(&self.hidden)?,
            per_hidden: repeat(&self.per_hidden)?,
            query: repeat(&self.query)?,
            concatenate: self.concatenate.shallow_clone(),
            inner: repeat(&self.inner)?,
            depth: repeat(&self.depth)?,
        })
    }
}

/// The one-hot choice of given routes, without a gradient: `[B, routes]`
///
/// # Errors
/// LibTorch's, if a route is not in the space.
pub fn one_hot(routes: &[usize], count: usize, device: tch::Device) -> Result<Tensor, TchError> {
    let routes: Vec<i64> = routes.iter().map(|route| *route as i64).collect();
    Tensor::f_from_slice(&routes)?.f_one_hot(count as i64)?.f_to_kind(Kind::Float)?.f_to_device(device)
}
