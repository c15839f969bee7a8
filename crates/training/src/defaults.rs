use canet_data::Dataset;

use crate::samples::SampleOptions;

/// Default options that depend on the preset and the data.
///
/// `models/experiments` has the measurements behind them: Amazon Beauty for sparse data, MovieLens-100K for small dense data, and
/// MovieLens-1M for large dense data.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Defaults {
    /// Passes over the training data in the first stage.
    pub epochs: u64,
    /// How an epoch splits sequences into samples.
    pub samples: SampleOptions,
    /// Samples a step.
    pub batch_size: usize,
    /// Learning rate of the first stage at the end of the warm-up.
    pub learning_rate: f64,
    /// AdamW's decay rate of the second moment. The gradient of a rare item shows only in an average over many steps.
    pub beta2: f64,
    /// [`SandwichOptions::narrow_boost`](crate::SandwichOptions::narrow_boost)
    pub narrow_boost: f64,
    /// Share of activations that is dropped.
    pub dropout: f64,
    /// AdamW's weight decay of linear weights.
    pub weight_decay: f64,
    /// Whether the output layer uses the embedding table as its weight, if both have the same width.
    pub tied: bool,
    /// Positions of a user's training part that are held out for the router, at most.
    pub router_holdout: usize,
    /// Negatives of a step's sampled softmax. `None` stands for the full softmax.
    pub negatives: Option<usize>,
}

/// Data is sparse if it has fewer interactions an item. Amazon Beauty has 16, MovieLens-1M has 290.
const SPARSE: u64 = 32;

/// Data of fewer interactions is small: its models overfit sooner. MovieLens-1M has a million.
const SMALL: u64 = 500_000;

/// How many prefixes of a long history are samples of an epoch, for each window of that length.
const PREFIXES: usize = 16;

/// The learning rate of this width and the power of a width by which the rate falls. A narrow model has few
/// features, so each has to grow larger, and a wide one overfits at the rate of a narrow one.
const RATE: f64 = 1e-3;
const RATE_WIDTH: f64 = 128.0;
const NARROW_BOOST: f64 = 0.5;

/// The full softmax is the default for at most this many items.
const FULL_SOFTMAX_ITEMS: usize = 50_000;

/// Negatives for larger catalogues.
const NEGATIVES: usize = 4096;

impl Defaults {
    /// Defaults of the preset `paper`, for all data.
    pub const PAPER: Defaults = Defaults {
        epochs: 100,
        samples: SampleOptions { loss_positions: None, per_user: None },
        batch_size: 64,
        learning_rate: 1e-3,
        beta2: 0.98,
        narrow_boost: 0.0,
        dropout: 0.2,
        weight_decay: 0.1,
        tied: false,
        router_holdout: 0,
        negatives: None,
    };

    /// Defaults of the preset `utility` for a dataset. The model reads at most `max_len` items of a history, and its widest
    /// slice has `width` features.
    pub fn of(dataset: &Dataset, max_len: usize, width: usize) -> Defaults {
        let sequences = dataset.training_sequences();
        let items: usize = sequences.iter().map(|sequence| sequence.len()).sum();
        let windows = items.div_ceil(sequences.len().max(1)).div_ceil(max_len.max(1));
        let sparse = dataset.interactions < SPARSE * dataset.ids.len() as u64;
        let small = dataset.interactions < SMALL;
        // Prefixes give the better model and windows the faster training, and the more so the longer histories are.
        let (samples, batch_size) = match (sparse, small) {
            (true, _) => (SampleOptions { loss_positions: Some(1), per_user: None }, 256),
            (false, true) => (SampleOptions { loss_positions: Some(1), per_user: Some(PREFIXES * windows) }, 512),
            (false, false) => (SampleOptions { loss_positions: None, per_user: Some(windows) }, 32),
        };
        Defaults {
            epochs: if sparse { 18 } else { 40 },
            samples,
            batch_size,
            learning_rate: learning_rate(width),
            beta2: if sparse { 0.999 } else { 0.98 },
            narrow_boost: NARROW_BOOST,
            weight_decay: 0.0,
            dropout: if small { 0.5 } else { 0.2 },
            tied: true,
            // Most users of sparse data have few interactions, and the supernet needs the newest of them.
            router_holdout: if sparse { 0 } else { 10 },
            negatives: (dataset.ids.len() > FULL_SOFTMAX_ITEMS).then_some(NEGATIVES),
        }
    }
}

/// The learning rate of a model whose widest slice has this many features.
fn learning_rate(width: usize) -> f64 {
    RATE * (RATE_WIDTH / width.max(1) as f64).powf(NARROW_BOOST)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::Progress;

    /// A learning rate that comes back by one unit in the last place off would keep a stopped training from continuing.
    #[test]
    fn every_default_learning_rate_comes_back_from_the_state_as_it_was() {
        for width in 1..=1024 {
            let mut progress = Progress::for_tests();
            progress.options.learning_rate = learning_rate(width);
            let saved = serde_json::to_string(&progress).unwrap();
            let found: Progress = serde_json::from_str(&saved).unwrap();
            assert_eq!(found.options, progress.options, "{width}");
        }
    }
}
