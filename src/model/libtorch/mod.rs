//! The forward over LibTorch: the reference on every device, and the one that CUDA runs.

mod attention;
mod backbone;
mod block;
mod device;
mod load;
mod packed;
mod peak;
mod router;

pub use super::device::{Device, DeviceError};
pub use device::set_threads;
pub(super) use device::{gpus, use_one_thread_here};
pub use peak::gemm_peak;

use std::collections::HashMap;

use tch::{Kind, Tensor};

use self::backbone::{Backbone, Cut};
use self::load::{Loader, kind};
use self::packed::Packed;
use self::router::Router;
use super::forward::in_groups;
use super::{Forward, ForwardError, LoadError, ModelConfig, Precision, Query, Rows, Weights};
use crate::domain::{History, Ranked, Route, RouteSpace, top_k};

/// One set of weights on one device.
pub struct LibTorch {
    device: tch::Device,
    space: RouteSpace,
    columns: usize,
    max_len: usize,
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
        let device = device.tch();
        tch::no_grad(|| {
            let exact = Loader::new(weights, device, Kind::Float);
            let loader = Loader::new(weights, device, kind(precision));
            Ok(LibTorch {
                device,
                columns: config.items + 1,
                max_len: config.max_len,
                backbone: Backbone::load([&loader, &exact], config, &space)?,
                router: Router::load(&exact, config)?,
                space,
            })
        })
    }
}

impl LibTorch {
    /// Scores of rows of one width.
    fn lane(&self, width: usize, cuts: &[Cut], histories: &[&History]) -> Result<Rows, ForwardError> {
        tch::no_grad(|| {
            let batch = Packed::new(histories, |row| cuts[row].layers, self.max_len, self.device)?;
            to_rows(self.columns, &self.backbone.scores(width, cuts, &batch)?)
        })
    }
}

impl Forward for LibTorch {
    fn router_logits(&self, histories: &[&History]) -> Result<Rows, ForwardError> {
        tch::no_grad(|| {
            let batch = Packed::new(histories, |_| 1, self.max_len, self.device)?;
            to_rows(self.space.len(), &self.router.logits(&batch)?)
        })
    }

    fn scores(&self, route: Route, histories: &[&History]) -> Result<Rows, ForwardError> {
        self.lane(self.space.place(route)[0], &vec![Cut::new(&self.space, route); histories.len()], histories)
    }

    fn rank_mixed(&self, rows: &[(Route, Query<'_>)]) -> Result<Vec<Vec<Ranked>>, ForwardError> {
        in_groups(
            rows,
            |route| self.space.place(route)[0],
            |width, rows| {
                let cuts: Vec<Cut> = rows.iter().map(|(route, _)| Cut::new(&self.space, *route)).collect();
                let histories: Vec<&History> = rows.iter().map(|(_, query)| query.history).collect();
                let scores = self.lane(width, &cuts, &histories)?;
                Ok(rows.iter().zip(scores.iter()).map(|((_, query), row)| top_k(row, &query.selection)).collect())
            },
        )
    }

    fn shares_layers(&self) -> bool {
        true
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

/// Copies a [B, columns] tensor to host memory.
fn to_rows(columns: usize, tensor: &Tensor) -> Result<Rows, ForwardError> {
    let values = tensor.f_to_device(tch::Device::Cpu)?.f_to_kind(Kind::Float)?.f_contiguous()?;
    let mut data = vec![0.0_f32; values.numel()];
    let count = data.len();
    values.f_copy_data(&mut data, count)?;
    Rows::new(columns, data)
}
