use tch::{Kind, TchError, Tensor};

use crate::batch::gather;
use crate::parameters::Parameters;
use canet_domain::Item;

/// What a teacher reads of a history: pooled embeddings of the supernet, and how popular its items are.
///
/// In host memory, on whatever device the weights are: a teacher is so small that a GPU would wait for its next kernel.
pub(super) struct Features {
    /// Item embeddings, their first features: [N + 1, e]
    table: Tensor,
    /// Logarithm of 1 + interactions in the training data, by item.
    popularity: Vec<f32>,
    max_len: usize,
    /// What centres and scales each feature, once it is known: [1, F] each
    standard: Option<[Tensor; 2]>,
}

/// Newest items that are pooled apart.
const NEWEST: usize = 3;

impl Features {
    /// Features of a supernet whose narrowest embedding is `width` wide, for interactions of each item in dense order.
    ///
    /// # Errors
    /// LibTorch's.
    pub(super) fn new(
        parameters: &Parameters,
        width: usize,
        interactions: &[u64],
        max_len: usize,
    ) -> Result<Features, TchError> {
        let table = parameters.get("backbone.item_embedding")?.f_detach()?.f_narrow(1, 0, width as i64)?;
        let table = table.f_to_device(tch::Device::Cpu)?.f_contiguous()?;
        let popularity = std::iter::once(0.0).chain(interactions.iter().map(|count| (*count as f32).ln_1p())).collect();
        Ok(Features { table, popularity, max_len, standard: None })
    }

    /// Remembers mean and deviation of each feature over some histories.
    ///
    /// # Errors
    /// LibTorch's.
    pub(super) fn standardise(&mut self, histories: &[&[Item]]) -> Result<(), TchError> {
        let raw = self.raw(histories)?;
        let dims = [0_i64].as_slice();
        let mean = raw.f_mean_dim(dims, true, Kind::Float)?;
        let deviation =
            raw.f_sub(&mean)?.f_square()?.f_mean_dim(dims, true, Kind::Float)?.f_sqrt()?.f_clamp_min(1e-6)?;
        self.standard = Some([mean, deviation]);
        Ok(())
    }

    /// One row a history, which has at least one item: [M, F]
    ///
    /// # Errors
    /// LibTorch's.
    pub(super) fn of(&self, histories: &[&[Item]]) -> Result<Tensor, TchError> {
        let raw = self.raw(histories)?;
        match &self.standard {
            Some([mean, deviation]) => raw.f_sub(mean)?.f_div(deviation),
            None => Ok(raw),
        }
    }

    fn raw(&self, histories: &[&[Item]]) -> Result<Tensor, TchError> {
        let (mut items, mut row, mut weight, mut recent) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let (mut last, mut counts) = (Vec::new(), Vec::new());
        for (place, history) in histories.iter().enumerate() {
            let read = &history[history.len().saturating_sub(self.max_len)..];
            let newest = read.len().min(NEWEST);
            let popularity: Vec<f32> = read.iter().map(|item| self.popularity[item.column()]).collect();
            for (index, item) in read.iter().enumerate() {
                items.push(i64::from(item.id()));
                row.push(place as i64);
                weight.push(1.0 / read.len() as f32);
                recent.push(if index + newest >= read.len() { 1.0 / newest as f32 } else { 0.0 });
            }
            last.push(items.len() as i64 - 1);
            let mean = popularity.iter().sum::<f32>() / popularity.len() as f32;
            let spread = popularity.iter().map(|value| (value - mean).powi(2)).sum::<f32>() / popularity.len() as f32;
            let newest_mean = popularity[read.len() - newest..].iter().sum::<f32>() / newest as f32;
            counts.extend([(read.len() as f32).ln(), mean, spread.sqrt(), popularity[read.len() - 1], newest_mean]);
        }
        let factors = |values: &[f32]| Tensor::f_from_slice(values)?.f_unsqueeze(1);
        let embedded = gather(&self.table, &Tensor::f_from_slice(&items)?)?; // [T, e]
        let row = Tensor::f_from_slice(&row)?;
        let pool = |weights: &[f32]| -> Result<Tensor, TchError> {
            let width = embedded.size2()?.1;
            let zeros = Tensor::f_zeros([histories.len() as i64, width], (Kind::Float, tch::Device::Cpu))?;
            zeros.f_index_add(0, &row, &embedded.f_mul(&factors(weights)?)?)
        };
        let numbers = Tensor::f_from_slice(&counts)?.f_reshape([histories.len() as i64, -1])?;
        Tensor::f_cat(&[pool(&weight)?, pool(&recent)?, gather(&embedded, &Tensor::f_from_slice(&last)?)?, numbers], 1)
    }
}
