use canet_domain::{Item, Window};
use tch::{Kind, TchError, Tensor};

use crate::parameters::{ITEM_EMBEDDING, Parameters};
use crate::tensors::gather;

/// The features of a history from which a predictor estimates utilities: pooled embeddings of the supernet, the number
/// of items, and their popularity. [`feature_count`] says how many they are.
///
/// They are in host memory wherever the weights are. A predictor is so small that a GPU would mostly wait for its next
/// kernel.
///
/// Shapes: M histories, T items of all histories, e features of an embedding, F features of a history.
pub(super) struct Features {
    /// The narrowest embedding of each item: `[N + 1, e]`
    table: Tensor,
    /// log(1 + interactions in the training data), by item.
    popularity: Vec<f32>,
    window: Window,
    /// `None` before the features are standardised.
    standard: Option<Standard>,
}

/// The mean and standard deviation of each feature, which is infinite for one that does not vary: `[1, F]` each
struct Standard {
    mean: Tensor,
    deviation: Tensor,
}

/// The newest items that are pooled separately.
const NEWEST: usize = 3;

/// Features of a history beside those of embeddings: the number of items and their popularity.
const NUMBERS: usize = 5;

/// Standardised features end here, in standard deviations. Predictors know nothing about histories beyond.
const FARTHEST: f64 = 4.0;

/// Values in the embeddings of the items that are pooled at a time, 32 MiB. The items of all histories together can be
/// a hundred times as many as the features of all histories.
const POOLED_VALUES: usize = 1 << 23;

/// Features of a history from embeddings of `width` features.
pub(super) fn feature_count(width: usize) -> usize {
    3 * width + NUMBERS
}

impl Features {
    /// Features from a supernet whose narrowest embedding has `width` features. `interactions` has a count for each
    /// item, from item 1 on.
    ///
    /// # Errors
    /// LibTorch's.
    pub(super) fn new(
        parameters: &Parameters,
        width: usize,
        interactions: &[u64],
        window: Window,
    ) -> Result<Features, TchError> {
        let table = parameters.get(ITEM_EMBEDDING)?.f_detach()?.f_narrow(1, 0, width as i64)?; // [N + 1, e]
        let table = table.f_to_device(tch::Device::Cpu)?.f_contiguous()?;
        let popularity = std::iter::once(0.0).chain(interactions.iter().map(|count| (*count as f32).ln_1p())).collect();
        Ok(Features { table, popularity, window, standard: None })
    }

    /// Standardises all features by their mean and deviation over some histories, and returns the features of these:
    /// `[M, F]`. A feature that does not vary among them is 0 from then on, because a predictor cannot learn what it means.
    ///
    /// # Errors
    /// LibTorch's.
    pub(super) fn standardise(&mut self, histories: &[&[Item]]) -> Result<Tensor, TchError> {
        let raw = self.raw(histories)?; // [M, F]
        let rows = [0_i64].as_slice();
        let mean = raw.f_mean_dim(rows, true, Kind::Float)?; // [1, F]
        let squares = raw.f_sub(&mean)?.f_square_()?; // [M, F]
        let deviation = squares.f_mean_dim(rows, true, Kind::Float)?.f_sqrt()?; // [1, F]
        let constant = deviation.f_lt_tensor(&mean.f_abs()?.f_mul_scalar(1e-5)?.f_clamp_min(1e-6)?)?;
        let standard = Standard { mean, deviation: deviation.f_masked_fill(&constant, f64::INFINITY)? };
        self.standard.insert(standard).apply(raw)
    }

    /// Features of histories, each of at least one item: `[M, F]`
    ///
    /// # Errors
    /// LibTorch's.
    pub(super) fn of(&self, histories: &[&[Item]]) -> Result<Tensor, TchError> {
        let raw = self.raw(histories)?;
        match &self.standard {
            Some(standard) => standard.apply(raw),
            None => Ok(raw),
        }
    }

    /// Features before they are standardised: `[M, F]`
    fn raw(&self, histories: &[&[Item]]) -> Result<Tensor, TchError> {
        let width = self.table.size2()?.1 as usize;
        let pooled_at_once = (POOLED_VALUES / (width * self.window.max_len)).max(1);
        self.raw_in_chunks(histories, pooled_at_once)
    }

    /// Features before they are standardised, computed for `chunk` histories at a time: `[M, F]`
    fn raw_in_chunks(&self, histories: &[&[Item]], chunk: usize) -> Result<Tensor, TchError> {
        let features = feature_count(self.table.size2()?.1 as usize) as i64;
        let raw = Tensor::f_empty([histories.len() as i64, features], (Kind::Float, tch::Device::Cpu))?; // [M, F]
        let mut start = 0;
        for part in histories.chunks(chunk) {
            raw.f_narrow(0, start, part.len() as i64)?.f_copy_(&self.raw_at_once(part)?)?;
            start += part.len() as i64;
        }
        Ok(raw)
    }

    /// Features before they are standardised, with the embeddings of all items in memory: `[M, F]`
    fn raw_at_once(&self, histories: &[&[Item]]) -> Result<Tensor, TchError> {
        let (mut items, mut row_index, mut last, mut numbers) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        // The weight of each item in the mean over its history, and in the mean over the newest items.
        let (mut of_all, mut of_newest) = (Vec::new(), Vec::new());
        for (row, history) in histories.iter().enumerate() {
            let read = self.window.of(history, 0);
            let newest = read.len().min(NEWEST);
            let popularity: Vec<f32> = read.iter().map(|item| self.popularity[item.column()]).collect();
            for (index, item) in read.iter().enumerate() {
                items.push(i64::from(item.id()));
                row_index.push(row as i64);
                of_all.push(1.0 / read.len() as f32);
                of_newest.push(if index + newest >= read.len() { 1.0 / newest as f32 } else { 0.0 });
            }
            last.push(items.len() as i64 - 1);
            let mean = popularity.iter().sum::<f32>() / popularity.len() as f32;
            let variance = popularity.iter().map(|value| (value - mean).powi(2)).sum::<f32>() / popularity.len() as f32;
            let newest_mean = popularity[read.len() - newest..].iter().sum::<f32>() / newest as f32;
            numbers.extend([(read.len() as f32).ln(), mean, variance.sqrt(), popularity[read.len() - 1], newest_mean]);
        }
        let embedded = gather(&self.table, &Tensor::f_from_slice(&items)?)?; // [T, e]
        let row_index = Tensor::f_from_slice(&row_index)?; // [T]
        let pool = |weights: &[f32]| -> Result<Tensor, TchError> {
            let weights = Tensor::f_from_slice(weights)?.f_unsqueeze(1)?; // [T, 1]
            let shape = [histories.len() as i64, embedded.size2()?.1];
            let zeros = Tensor::f_zeros(shape, (Kind::Float, tch::Device::Cpu))?; // [M, e]
            zeros.f_index_add(0, &row_index, &embedded.f_mul(&weights)?)
        };
        let last = gather(&embedded, &Tensor::f_from_slice(&last)?)?; // [M, e]
        let numbers = Tensor::f_from_slice(&numbers)?.f_reshape([histories.len() as i64, NUMBERS as i64])?; // [M, 5]
        Tensor::f_cat(&[pool(&of_all)?, pool(&of_newest)?, last, numbers], 1)
    }
}

impl Standard {
    /// Standardises features in their own memory: `[M, F]`
    fn apply(&self, mut raw: Tensor) -> Result<Tensor, TchError> {
        let _ = raw.f_sub_(&self.mean)?.f_div_(&self.deviation)?.f_clamp_(-FARTHEST, FARTHEST)?;
        Ok(raw)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::torch_seed::seed_torch;

    /// Features of 20 items with random embeddings of 4 features.
    fn features(window: Window) -> Features {
        Features {
            table: Tensor::randn([21, 4], (Kind::Float, tch::Device::Cpu)),
            popularity: (0..21).map(|place| (place as f32).ln_1p()).collect(),
            window,
            standard: None,
        }
    }

    fn item(id: usize) -> Item {
        Item::new(id as u32).unwrap()
    }

    #[test]
    fn features_computed_in_chunks_equal_those_computed_at_once() {
        let _generator = seed_torch(6);
        let features = features(Window::last(6));
        let histories: Vec<Vec<Item>> =
            (0..41).map(|user| (0..=user % 9).map(|step| item(1 + (user * 3 + step * 7) % 20)).collect()).collect();
        let histories: Vec<&[Item]> = histories.iter().map(Vec::as_slice).collect();
        let whole = features.raw_at_once(&histories).unwrap();
        assert_eq!(whole.size(), [41, feature_count(4) as i64]);
        for chunk in [1, 7, 41, 100] {
            assert!(features.raw_in_chunks(&histories, chunk).unwrap().equal(&whole), "{chunk}");
        }
    }

    /// All histories of the fit fill the window, so their length says nothing. Shorter ones must not look extreme.
    #[test]
    fn features_stay_near_those_of_the_fit() {
        let _generator = seed_torch(5);
        let mut features = features(Window::last(6));
        let long: Vec<Vec<Item>> =
            (0..40).map(|user| (0..9).map(|step| item(1 + (user * 3 + step * 7) % 20)).collect()).collect();
        let long: Vec<&[Item]> = long.iter().map(Vec::as_slice).collect();
        let fitted = features.standardise(&long).unwrap(); // [40, 17]
        assert!(fitted.equal(&features.of(&long).unwrap()));
        let length = 3 * 4;
        assert_eq!(f64::try_from(fitted.select(1, length).abs().max()).unwrap(), 0.0);
        let varying = fitted.square().mean_dim([0_i64].as_slice(), false, Kind::Float);
        assert!((f64::try_from(varying.select(0, 0)).unwrap() - 1.0).abs() < 0.2);

        let single = [item(20)];
        let short = features.of(&[&single]).unwrap();
        assert_eq!(f64::try_from(short.select(1, length).abs().max()).unwrap(), 0.0);
        assert!(f64::try_from(short.abs().max()).unwrap() <= FARTHEST);
        assert!(bool::try_from(short.isfinite().all()).unwrap());
    }
}
