//! The forward over LibTorch: the reference on every device, and what runs where kernels of our own do not fit.

mod attention;
mod backbone;
mod backend;
mod best;
mod bias;
mod block;
mod device;
mod error;
mod load;
mod packed;
mod peak;
mod router;

pub use backend::TorchBackend;
pub use device::{count_gpus, set_threads, tch_device};
pub use error::TorchError;
pub use peak::gemm_peak;

use std::collections::HashMap;

use tch::{Kind, TchError, Tensor};

use self::backbone::{Backbone, Cut};
use self::best::best;
use self::device::heed_thread_bound;
use self::load::{Loader, kind};
use self::packed::Packed;
use self::router::Router;
use canet_domain::{History, Ranked, Route, RouteSpace, Selection};
use canet_model::{
    Device, Forward, ForwardError, LoadError, ModelConfig, Positions, Precision, Query, Rows, Weights, in_groups,
};

/// One set of weights on one device.
pub struct LibTorch {
    device: tch::Device,
    space: RouteSpace,
    columns: usize,
    max_len: usize,
    /// The backbone's; the router's are always newest.
    positions: Positions,
    /// Whether attention pads rows of several lengths, so that they share one call: a GPU loses more by another call than
    /// by the padding.
    pads: bool,
    backbone: Backbone,
    router: Router,
}

// SAFETY: a `LibTorch` never changes after `load`: every method takes `&self`, runs under `no_grad` and calls only
// out-of-place operations on the weights, and ATen allows concurrent reads of a tensor. `Tensor` lacks `Sync`
// because its in-place operations take `&self`-like handles; none is reachable from here.
#[expect(unsafe_code, reason = "weights are only read, which ATen allows from several threads")]
unsafe impl Sync for LibTorch {}

impl LibTorch {
    /// Puts weights on a device in float32, with Q, K and V packed once a width; every other slice is a view of one
    /// stored tensor.
    ///
    /// # Errors
    /// [`LoadError`] where the configuration is not sane, the weights do not fit it, or the device refuses them.
    pub fn load(config: &ModelConfig, weights: &Weights, device: Device) -> Result<LibTorch, LoadError> {
        LibTorch::load_in(Precision::Fp32, config, weights, device)
    }

    /// The same in another precision.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn load_in(
        precision: Precision,
        config: &ModelConfig,
        weights: &Weights,
        device: Device,
    ) -> Result<LibTorch, LoadError> {
        let space = config.check()?;
        weights.check(config)?;
        Ok(LibTorch::load_as(precision, config, weights, (tch_device(device), device.is_cuda()), &space)?)
    }

    fn load_as(
        precision: Precision,
        config: &ModelConfig,
        weights: &Weights,
        (device, pads): (tch::Device, bool),
        space: &RouteSpace,
    ) -> Result<LibTorch, TorchError> {
        tch::no_grad(|| {
            let exact = Loader::new(weights, device, Kind::Float, config.norm_eps);
            let loader = Loader::new(weights, device, kind(precision), config.norm_eps);
            Ok(LibTorch {
                device,
                columns: config.items + 1,
                max_len: config.max_len,
                positions: config.positions,
                pads,
                backbone: Backbone::load([&loader, &exact], config, space)?,
                router: Router::load(&exact, config)?,
                space: space.clone(),
            })
        })
    }
}

impl LibTorch {
    /// Scores of rows of one width, on the device: [B, N + 1]
    fn lane(&self, width: usize, cuts: &[Cut], histories: &[&History]) -> Result<Tensor, TchError> {
        let batch = self.pack(histories, |row| cuts[row].layers, self.positions)?;
        self.backbone.scores(width, cuts, &batch)
    }

    fn pack(
        &self,
        histories: &[&History],
        depth: impl Fn(usize) -> usize,
        positions: Positions,
    ) -> Result<Packed, TchError> {
        Packed::new(histories, depth, (self.max_len, positions), (self.device, self.pads))
    }

    fn logits(&self, histories: &[&History]) -> Result<Tensor, TchError> {
        self.router.logits(&self.pack(histories, |_| 1, Positions::Newest)?)
    }
}

impl Forward for LibTorch {
    fn router_logits(&self, histories: &[&History]) -> Result<Rows, ForwardError> {
        heed_thread_bound();
        let logits = tch::no_grad(|| to_host(&self.logits(histories)?)).map_err(TorchError::from)?;
        Rows::new(self.space.len(), logits)
    }

    fn scores(&self, route: Route, histories: &[&History]) -> Result<Rows, ForwardError> {
        let cuts = vec![Cut::new(&self.space, route); histories.len()];
        heed_thread_bound();
        let scores = tch::no_grad(|| to_host(&self.lane(self.space.place(route)[0], &cuts, histories)?));
        Rows::new(self.columns, scores.map_err(TorchError::from)?)
    }

    fn rank(&self, route: Route, queries: &[Query<'_>]) -> Result<Vec<Vec<Ranked>>, ForwardError> {
        let rows: Vec<(Route, Query<'_>)> = queries.iter().map(|query| (route, *query)).collect();
        self.rank_mixed(&rows)
    }

    fn rank_mixed(&self, rows: &[(Route, Query<'_>)]) -> Result<Vec<Vec<Ranked>>, ForwardError> {
        heed_thread_bound();
        in_groups(
            rows,
            |route| self.space.place(route)[0],
            |width, rows| {
                let cuts: Vec<Cut> = rows.iter().map(|(route, _)| Cut::new(&self.space, *route)).collect();
                let histories: Vec<&History> = rows.iter().map(|(_, query)| query.history).collect();
                let selections: Vec<Selection<'_>> = rows.iter().map(|(_, query)| query.selection).collect();
                let ranked = tch::no_grad(|| best(&self.lane(width, &cuts, &histories)?, &selections));
                Ok(ranked.map_err(TorchError::from)?)
            },
        )
    }

    fn shares_layers(&self) -> bool {
        true
    }

    fn backend(&self) -> &'static str {
        "libtorch"
    }

    /// Counted by storage: slices that are views of one tensor count once.
    fn weight_bytes(&self) -> usize {
        let mut extents: HashMap<usize, usize> = HashMap::new();
        for tensor in self.backbone.tensors().into_iter().chain(self.router.tensors()) {
            let last: i64 = tensor.size().iter().zip(tensor.stride()).map(|(size, stride)| (size - 1) * stride).sum();
            let bytes = (last as usize + 1) * tensor.kind().elt_size_in_bytes();
            let extent = extents.entry(tensor.data_ptr() as usize).or_default();
            *extent = bytes.max(*extent);
        }
        extents.values().sum()
    }
}

/// Copies a tensor to host memory, row by row.
fn to_host(tensor: &Tensor) -> Result<Vec<f32>, TchError> {
    let values = tensor.f_to_device(tch::Device::Cpu)?.f_to_kind(Kind::Float)?.f_contiguous()?;
    let mut data = vec![0.0_f32; values.numel()];
    let count = data.len();
    values.f_copy_data(&mut data, count)?;
    Ok(data)
}

#[cfg(test)]
mod tests {
    use super::*;
    use canet_domain::Item;
    use canet_model::{HostTensor, RouterConfig, WidthRule};

    /// A GPU's way, on this CPU: every route over rows of many lengths scores as rows of equal length do.
    #[test]
    fn padding_attention_changes_no_score() {
        tch::manual_seed(6);
        for positions in [Positions::Newest, Positions::Oldest, Positions::Relative] {
            for (embedding_norm, norm_eps) in [(false, ModelConfig::NORM_EPS), (true, 1e-2)] {
                let config = ModelConfig {
                    items: 90,
                    max_len: 12,
                    heads: 2,
                    hidden: vec![8, 12],
                    layers: vec![1, 2, 4],
                    embedding: vec![6, 10],
                    router: RouterConfig { dim: 8, heads: 2, ffn: 16 },
                    attention_scale: WidthRule::Slice,
                    ffn_inner: WidthRule::Slice,
                    positions,
                    embedding_norm,
                    norm_eps,
                };
                padded_rows_score_as_plain_ones(&config);
            }
        }
    }

    fn padded_rows_score_as_plain_ones(config: &ModelConfig) {
        let space = config.check().unwrap();
        let mut weights = Weights::default();
        for parameter in config.parameters() {
            let shape: Vec<i64> = parameter.shape.iter().map(|size| *size as i64).collect();
            let values = Tensor::randn(shape, (Kind::Float, tch::Device::Cpu)) * 0.2;
            let data = Vec::try_from(&values.reshape([-1])).unwrap();
            weights.insert(parameter.name, HostTensor { shape: parameter.shape, data });
        }
        let load =
            |pads| LibTorch::load_as(Precision::Fp32, config, &weights, (tch::Device::Cpu, pads), &space).unwrap();
        let [plain, padded] = [false, true].map(load);
        let histories: Vec<History> = (0..23_u32)
            .map(|row| {
                let items: Vec<Item> =
                    (0..=row * 5 % 12).map(|place| Item::new(1 + (row * 31 + place * 7) % 90).unwrap()).collect();
                History::new(&items, config.max_len).unwrap()
            })
            .collect();
        let histories: Vec<&History> = histories.iter().collect();
        let near = |[one, other]: [&Tensor; 2]| (one - other).abs().max().double_value(&[]) < 1e-4;
        tch::no_grad(|| {
            let [one, other] = [&plain, &padded].map(|forward| forward.logits(&histories).unwrap());
            assert!(near([&one, &other]));
            for width in 0..space.hidden().len() {
                // Rows of every depth and embedding width.
                let of_width: Vec<Route> = space.routes().filter(|route| space.place(*route)[0] == width).collect();
                let cuts: Vec<Cut> = (0..23).map(|row| Cut::new(&space, of_width[row % of_width.len()])).collect();
                let scores = |forward: &LibTorch| forward.lane(width, &cuts, &histories).unwrap();
                let together = scores(&plain);
                assert!(near([&together, &scores(&padded)]), "{config:?}, width {width}");
                // Rows of other lengths, depths and embedding widths change nothing for a row.
                for (row, (cut, history)) in cuts.iter().zip(&histories).enumerate() {
                    let alone = padded.lane(width, &[*cut], &[*history]).unwrap(); // [1, N + 1]
                    assert!(near([&alone, &together.narrow(0, row as i64, 1)]), "{config:?}, width {width}, row {row}");
                }
            }
        });
    }
}
