use canet_domain::Item;

use super::Dataset;

/// A part of the leave-one-out split by time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Split {
    /// All interactions of a user except the last two, or all if the user has fewer than three.
    Train,
    /// The second-last interaction.
    Validation,
    /// The last interaction.
    Test,
}

/// One prediction task of an evaluation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Case<'a> {
    /// Index of the user in the data set.
    pub user: usize,
    /// All items before the target, oldest first, at least one.
    pub history: &'a [Item],
    /// The item that came next.
    pub target: Item,
}

impl Case<'_> {
    /// Whether the target stands in the history. Items of the history are not recommended, so such a target has no rank.
    pub fn repeats(&self) -> bool {
        self.history.contains(&self.target)
    }

    /// Number of cases whose target repeats.
    pub fn repeating(cases: &[Case<'_>]) -> usize {
        cases.iter().filter(|case| case.repeats()).count()
    }
}

impl Dataset {
    /// One case for each user who has a target in this part, in the order of the users. The target of [`Split::Train`] is the
    /// last item of the user's training part.
    pub fn cases(&self, split: Split) -> Vec<Case<'_>> {
        self.held_out(split, 1)
    }

    /// Each user's last `positions` cases up to the one of [`cases`](Self::cases), or fewer if the user has fewer. Users are in
    /// order, and each user's cases are oldest first.
    ///
    /// With several positions, earlier targets belong to earlier parts. A model trained on those parts has seen them.
    pub fn held_out(&self, split: Split, positions: usize) -> Vec<Case<'_>> {
        let cases = |(user, sequence)| {
            let known = part(sequence, split);
            let first = known.len().saturating_sub(positions).max(1);
            (first..known.len()).map(move |place| Case { user, history: &known[..place], target: known[place] })
        };
        self.sequences.iter().map(Vec::as_slice).enumerate().flat_map(cases).collect()
    }

    /// The training part of each user's sequence, in the order of the users.
    pub fn training_sequences(&self) -> Vec<&[Item]> {
        self.sequences.iter().map(|sequence| training_part(sequence)).collect()
    }

    /// Each user's whole sequence, in the order of the users.
    pub fn whole_sequences(&self) -> Vec<&[Item]> {
        self.sequences.iter().map(Vec::as_slice).collect()
    }

    /// Interactions of each item in the training part, in dense order.
    pub fn popularity(&self) -> Vec<u64> {
        self.popularity_in(&self.training_sequences())
    }

    /// Interactions of each item in the given sequences, in dense order.
    pub fn popularity_in(&self, sequences: &[&[Item]]) -> Vec<u64> {
        let mut counts = vec![0; self.ids.len()];
        for item in sequences.iter().copied().flatten() {
            counts[item.column() - 1] += 1;
        }
        counts
    }
}

/// All items up to the part's target; empty if the user has no target there.
fn part(sequence: &[Item], split: Split) -> &[Item] {
    match split {
        Split::Train => training_part(sequence),
        _ if sequence.len() < 3 => &[],
        Split::Validation => &sequence[..sequence.len() - 1],
        Split::Test => sequence,
    }
}

fn training_part(sequence: &[Item]) -> &[Item] {
    if sequence.len() < 3 { sequence } else { &sequence[..sequence.len() - 2] }
}
