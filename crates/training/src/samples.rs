use canet_domain::{Item, Window};
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use crate::batch::Sample;

/// How an epoch splits users' sequences into samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SampleOptions {
    /// How many of a sample's newest positions carry the loss. `None` stands for all.
    pub loss_positions: Option<usize>,
    /// How many samples a user contributes to an epoch, each ending at a random position. A user with fewer positions
    /// contributes one sample for each of them.
    ///
    /// `None` stands for one sample for each position. If all positions carry the loss as well, it stands for adjacent
    /// windows that do not overlap.
    pub per_user: Option<usize>,
}

/// Batches whose samples are sorted by length together. More would make the lengths in a batch more similar, but would
/// mix users less.
const SORTED_BATCHES: usize = 16;

/// The training samples of a stage.
pub(crate) struct Samples<'a> {
    sequences: Vec<&'a [Item]>,
    options: SampleOptions,
    window: Window,
    batch_size: usize,
}

impl<'a> Samples<'a> {
    /// Samples of the given sequences. Sequences of one item have no target and give no sample.
    pub(crate) fn new(
        mut sequences: Vec<&'a [Item]>,
        options: SampleOptions,
        window: Window,
        batch_size: usize,
    ) -> Samples<'a> {
        sequences.retain(|sequence| sequence.len() > 1);
        Samples { sequences, options, window, batch_size }
    }

    /// Number of steps, and so of batches, in every epoch.
    pub(crate) fn steps(&self) -> u64 {
        let samples_of = |sequence: &&[Item]| {
            let ends = sequence.len() - 1;
            match self.options {
                SampleOptions { loss_positions: None, per_user: None } => self.adjacent(ends).count(),
                SampleOptions { per_user, .. } => per_user.unwrap_or(ends).min(ends),
            }
        };
        self.sequences.iter().map(samples_of).sum::<usize>().div_ceil(self.batch_size) as u64
    }

    /// The batches of an epoch. The samples of a batch have descending lengths. The same seed and epoch give the same
    /// batches.
    pub(crate) fn epoch(&self, seed: u64, epoch: u64) -> Vec<Vec<Sample<'a>>> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(epoch + 1);
        let mut samples: Vec<Sample<'a>> = Vec::new();
        for sequence in &self.sequences {
            self.split(sequence, &mut rng, &mut samples);
        }
        samples.shuffle(&mut rng);
        let mut batches = Vec::with_capacity(samples.len().div_ceil(self.batch_size));
        for pool in samples.chunks_mut(SORTED_BATCHES * self.batch_size) {
            pool.sort_by_key(|sample| std::cmp::Reverse(sample.inputs.len()));
            batches.extend(pool.chunks(self.batch_size).map(<[Sample<'a>]>::to_vec));
        }
        batches.shuffle(&mut rng);
        batches
    }

    /// The ends of adjacent windows that cover `length` items, the last one first.
    fn adjacent(&self, length: usize) -> impl Iterator<Item = usize> {
        let before = |end: &usize| Some(self.window.start(*end)).filter(|start| *start > 0);
        std::iter::successors(Some(length).filter(|length| *length > 0), before)
    }

    fn split(&self, sequence: &'a [Item], rng: &mut ChaCha8Rng, samples: &mut Vec<Sample<'a>>) {
        let ends = sequence.len() - 1;
        let sample = |end: usize, scored: usize| Sample {
            inputs: self.window.of(&sequence[..end], 0),
            targets: &sequence[end + 1 - scored..=end],
        };
        // A position that is not read cannot carry the loss.
        let read = |end: usize| end - self.window.start(end);
        let scored = |end: usize| self.options.loss_positions.unwrap_or(usize::MAX).min(read(end));
        match self.options {
            SampleOptions { loss_positions: None, per_user: None } => {
                samples.extend(self.adjacent(ends).map(|end| sample(end, read(end))));
            }
            SampleOptions { per_user: Some(count), .. } if count < ends => {
                let drawn = rand::seq::index::sample(rng, ends, count);
                samples.extend(drawn.into_iter().map(|place| sample(place + 1, scored(place + 1))));
            }
            SampleOptions { .. } => samples.extend((1..=ends).map(|end| sample(end, scored(end)))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sequences() -> Vec<Vec<Item>> {
        let items = |first: u32, count: u32| (first..first + count).filter_map(Item::new).collect();
        vec![items(1, 8), items(20, 1), items(30, 2), items(40, 13)]
    }

    fn samples(sequences: &[Vec<Item>], options: SampleOptions) -> Samples<'_> {
        Samples::new(sequences.iter().map(Vec::as_slice).collect(), options, Window::last(3), 4)
    }

    fn ids(items: &[Item]) -> Vec<u32> {
        items.iter().map(|item| item.id()).collect()
    }

    /// The samples of an epoch, each as its inputs and targets, sorted.
    fn found(samples: &Samples<'_>, epoch: u64) -> Vec<(Vec<u32>, Vec<u32>)> {
        let batches = samples.epoch(5, epoch);
        assert_eq!(batches.len() as u64, samples.steps());
        assert!(batches.iter().all(|batch| batch.is_sorted_by_key(|sample| std::cmp::Reverse(sample.inputs.len()))));
        let mut found: Vec<_> =
            batches.iter().flatten().map(|sample| (ids(sample.inputs), ids(sample.targets))).collect();
        found.sort();
        found
    }

    #[test]
    fn windows_cover_each_pair_of_neighbours_once() {
        let sequences = sequences();
        let windows = samples(&sequences, SampleOptions { loss_positions: None, per_user: None });
        let mut pairs: Vec<(u32, u32)> =
            found(&windows, 0).into_iter().flat_map(|(inputs, targets)| inputs.into_iter().zip(targets)).collect();
        pairs.sort_unstable();
        let expected: Vec<(u32, u32)> =
            sequences.iter().flat_map(|items| items.windows(2).map(|pair| (pair[0].id(), pair[1].id()))).collect();
        assert_eq!(pairs, expected);
    }

    #[test]
    fn samples_read_the_windows_that_requests_read() {
        let (sequences, window) = (sequences(), Window { max_len: 5, stride: 2 });
        let all = |options| {
            let samples = Samples::new(sequences.iter().map(Vec::as_slice).collect(), options, window, 4);
            found(&samples, 0)
        };
        let mut expected = Vec::new();
        for items in &sequences {
            for end in 1..items.len() {
                let read = window.of(&items[..end], 0);
                expected.push((ids(read), ids(&items[end + 1 - read.len()..=end])));
            }
        }
        expected.sort();
        assert_eq!(all(SampleOptions { loss_positions: None, per_user: Some(20) }), expected);
        // Adjacent windows are some of these, and cover each pair of neighbours once.
        let adjacent = all(SampleOptions { loss_positions: None, per_user: None });
        assert!(adjacent.iter().all(|sample| expected.contains(sample)));
        let pairs: usize = sequences.iter().map(|items| items.len() - 1).sum();
        assert_eq!(adjacent.iter().map(|(inputs, _)| inputs.len()).sum::<usize>(), pairs);
    }

    #[test]
    fn prefixes_predict_every_item_but_the_first_from_the_items_before_it() {
        let sequences = sequences();
        let prefixes = samples(&sequences, SampleOptions { loss_positions: Some(1), per_user: None });
        let mut expected = Vec::new();
        for items in &sequences {
            for end in 1..items.len() {
                expected.push((ids(&items[end.saturating_sub(3)..end]), ids(&items[end..=end])));
            }
        }
        expected.sort();
        assert_eq!(found(&prefixes, 0), expected);
        assert_eq!(found(&prefixes, 1), expected);
        assert_eq!(prefixes.epoch(5, 1), prefixes.epoch(5, 1));
        assert_ne!(prefixes.epoch(5, 1), prefixes.epoch(5, 2));
    }

    #[test]
    fn random_ends_differ_by_epoch_and_every_scored_position_is_read() {
        let sequences = sequences();
        let drawn = samples(&sequences, SampleOptions { loss_positions: Some(2), per_user: Some(4) });
        let first = found(&drawn, 0);
        assert_eq!(first.len(), 4 + 1 + 4);
        assert_ne!(first, found(&drawn, 1));
        for (inputs, targets) in first {
            assert_eq!(targets.len(), inputs.len().min(2));
            // Each target follows the input at its place.
            let newest = &inputs[inputs.len() - targets.len()..];
            assert!(newest.iter().zip(&targets).all(|(input, target)| input + 1 == *target));
        }
    }
}
