use super::samples::SampleOptions;
use canet_data::Dataset;

/// Settings of the preset `utility` that follow from the data. models/experiments has what those for sparse data come to;
/// those for dense data have no training there yet.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Defaults {
    /// Passes over the data in the first stage, over which the learning rate falls to a tenth.
    pub epochs: u64,
    /// What an epoch learns from.
    pub samples: SampleOptions,
    /// Samples a step.
    pub batch_size: usize,
    /// Share of activations dropped.
    pub dropout: f64,
    /// AdamW's weight decay of linear layers.
    pub weight_decay: f64,
    /// Whether one table of items serves for reading and for scoring them, where its two widths agree.
    pub tied: bool,
    /// Most positions of a user's training part that are kept for the router.
    pub router_holdout: usize,
    /// Items drawn for a step's softmax; `None` for the whole catalogue.
    pub negatives: Option<usize>,
}

/// Interactions an item below which data is sparse: 16 on Amazon Beauty, 290 on MovieLens-1M.
const SPARSE: u64 = 32;

/// Items up to which the softmax is over the whole catalogue.
const WHOLE_CATALOGUE: usize = 50_000;

/// Items that are drawn of a larger one.
const DRAWN: usize = 4096;

impl Defaults {
    /// What the preset `paper` takes, whatever the data.
    pub const PAPER: Defaults = Defaults {
        epochs: 100,
        samples: SampleOptions { loss_positions: None, per_user: None },
        batch_size: 64,
        dropout: 0.2,
        weight_decay: 0.1,
        tied: false,
        router_holdout: 0,
        negatives: None,
    };

    /// Settings for a data set whose histories are read up to `max_len` items.
    pub fn of(dataset: &Dataset, max_len: usize) -> Defaults {
        let sequences = dataset.training_sequences();
        let items: usize = sequences.iter().map(|sequence| sequence.len()).sum();
        let windows = items.div_ceil(sequences.len().max(1)).div_ceil(max_len.max(1));
        let sparse = dataset.interactions < SPARSE * dataset.ids.len() as u64;
        let prefixes = SampleOptions { loss_positions: Some(1), per_user: None };
        let windows = SampleOptions { loss_positions: None, per_user: Some(windows) };
        Defaults {
            epochs: if sparse { 18 } else { 40 },
            samples: if sparse { prefixes } else { windows },
            batch_size: if sparse { 256 } else { 32 },
            weight_decay: 0.0,
            dropout: if sparse { 0.5 } else { 0.2 },
            tied: sparse,
            // Where most users have few interactions, their newest ones are too much to lose.
            router_holdout: if sparse { 0 } else { 10 },
            negatives: (dataset.ids.len() > WHOLE_CATALOGUE).then_some(DRAWN),
        }
    }
}
