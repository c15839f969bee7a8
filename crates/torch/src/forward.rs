use std::collections::HashMap;

use tch::{Kind, TchError, Tensor};

use super::backbone::{Backbone, Loaders, RowSlice};
use super::device::{apply_thread_limit, tch_device};
use super::device_top_k::device_top_k;
use super::error::TorchError;
use super::load::{Loader, kind};
use super::packed::{PackOptions, PackedBatch};
use super::router::Router;
use super::tensors::to_host;
use canet_domain::{History, Ranked, Route, RouteSpace, Selection};
use canet_model::{
    Device, Forward, ForwardError, LoadError, ModelConfig, Positions, Precision, Query, Rows, Weights, in_groups,
};

/// One set of weights on one device, computed by LibTorch.
pub struct TorchForward {
    space: RouteSpace,
    columns: usize,
    /// How the backbone packs a batch.
    pack: PackOptions,
    backbone: Backbone,
    router: Router,
}

#[expect(unsafe_code, reason = "weights are only read, which ATen allows from several threads")]
// SAFETY: a `TorchForward` never changes after `load`. Every method takes `&self`, runs under `no_grad` and calls only
// out-of-place operations on the weights, and ATen allows concurrent reads of a tensor. `Tensor` lacks `Sync` only
// because its in-place operations take handles like `&self`. None of them is called here.
unsafe impl Sync for TorchForward {}

impl TorchForward {
    /// Puts weights on a device. Q, K and V are packed once a width; every other slice is a view of one stored tensor.
    ///
    /// # Errors
    /// [`LoadError`] if the configuration is not valid, the weights do not fit it, or the device refuses them.
    pub fn load(
        config: &ModelConfig,
        weights: &Weights,
        precision: Precision,
        device: Device,
    ) -> Result<TorchForward, LoadError> {
        let pack = PackOptions {
            max_len: config.max_len,
            positions: config.positions,
            device: tch_device(device),
            // A GPU loses more by another call than by padding.
            pads: device.is_cuda(),
        };
        Ok(TorchForward::load_with(config, weights, precision, pack)?)
    }

    fn load_with(
        config: &ModelConfig,
        weights: &Weights,
        precision: Precision,
        pack: PackOptions,
    ) -> Result<TorchForward, TorchError> {
        let (space, device) = (config.check()?, pack.device);
        weights.check(config)?;
        tch::no_grad(|| {
            let loader = |kind: Kind| Loader::new(weights, device, kind, config.norm_eps);
            let loaders = Loaders { layers: loader(kind(precision)), exact: loader(Kind::Float) };
            Ok(TorchForward {
                columns: config.items + 1,
                pack,
                backbone: Backbone::load(&loaders, config, &space)?,
                router: Router::load(&loaders.exact, config)?,
                space,
            })
        })
    }

    /// Scores of rows of one width, on the device: [B, N + 1]
    fn width_scores(&self, width: usize, slices: &[RowSlice], histories: &[&History]) -> Result<Tensor, TchError> {
        let batch = PackedBatch::new(histories, |row| slices[row].layers, self.pack)?;
        self.backbone.scores(width, slices, &batch)
    }

    /// Router logits, on the device: [B, routes]
    fn logits(&self, histories: &[&History]) -> Result<Tensor, TchError> {
        // The router has its own table of positions, whatever the backbone's are.
        let pack = PackOptions { positions: Positions::Newest, ..self.pack };
        self.router.logits(&PackedBatch::new(histories, |_| 1, pack)?)
    }
}

impl Forward for TorchForward {
    fn router_logits(&self, histories: &[&History]) -> Result<Rows, ForwardError> {
        apply_thread_limit();
        let logits = tch::no_grad(|| to_host(&self.logits(histories)?)).map_err(TorchError::from)?;
        Rows::new(self.space.len(), logits.data)
    }

    fn scores(&self, route: Route, histories: &[&History]) -> Result<Rows, ForwardError> {
        let slices = vec![RowSlice::new(&self.space, route); histories.len()];
        apply_thread_limit();
        let scores = tch::no_grad(|| to_host(&self.width_scores(self.space.place(route)[0], &slices, histories)?));
        Rows::new(self.columns, scores.map_err(TorchError::from)?.data)
    }

    fn rank(&self, rows: &[(Route, Query<'_>)]) -> Result<Vec<Vec<Ranked>>, ForwardError> {
        apply_thread_limit();
        in_groups(
            rows,
            |route| self.space.place(route)[0],
            |width, rows| {
                let slices: Vec<RowSlice> = rows.iter().map(|(route, _)| RowSlice::new(&self.space, *route)).collect();
                let histories: Vec<&History> = rows.iter().map(|(_, query)| query.history).collect();
                let selections: Vec<Selection<'_>> = rows.iter().map(|(_, query)| query.selection).collect();
                let ranked =
                    tch::no_grad(|| device_top_k(&self.width_scores(width, &slices, &histories)?, &selections));
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

    /// Counts storage: views of one tensor count once.
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

#[cfg(test)]
mod tests {
    use super::*;
    use canet_domain::Item;
    use canet_model::{HostTensor, RouterConfig, WidthRule};

    /// Pads as on a GPU, but computes on the CPU.
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
                    history_stride: 1,
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
        let load = |pads| {
            let (max_len, positions) = (config.max_len, config.positions);
            let pack = PackOptions { max_len, positions, device: tch::Device::Cpu, pads };
            TorchForward::load_with(config, &weights, Precision::Fp32, pack).unwrap()
        };
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
                let slices: Vec<RowSlice> =
                    (0..23).map(|row| RowSlice::new(&space, of_width[row % of_width.len()])).collect();
                let scores = |forward: &TorchForward| forward.width_scores(width, &slices, &histories).unwrap();
                let together = scores(&plain);
                assert!(near([&together, &scores(&padded)]), "{config:?}, width {width}");
                // The other rows of a batch change nothing for a row.
                for (row, (slice, history)) in slices.iter().zip(&histories).enumerate() {
                    let alone = padded.width_scores(width, &[*slice], &[*history]).unwrap(); // [1, N + 1]
                    assert!(near([&alone, &together.narrow(0, row as i64, 1)]), "{config:?}, width {width}, row {row}");
                }
            }
        });
    }
}
