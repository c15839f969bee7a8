use super::Dataset;
use canet_domain::Item;

/// Part of a leave-one-out split by time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Split {
    /// Everything but the last two interactions of a user; everything where a user has fewer than three.
    Train,
    /// The last interaction but one.
    Validation,
    /// The last interaction.
    Test,
}

/// One question of an evaluation: what comes after this?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Case<'a> {
    /// Place of the user in the data set.
    pub user: usize,
    /// Everything that the user did before the target, oldest first; at least one item.
    pub history: &'a [Item],
    /// What came next.
    pub target: Item,
}

impl Case<'_> {
    /// Whether the user came back to something. What a history holds is not recommended, so such a target has no rank.
    pub fn repeats(&self) -> bool {
        self.history.contains(&self.target)
    }

    /// How many of the cases do so.
    pub fn repeating(cases: &[Case<'_>]) -> usize {
        cases.iter().filter(|case| case.repeats()).count()
    }
}

impl Dataset {
    /// One case for each user who has a target in this part, in the order of the users. The target of
    /// [`Split::Train`] is the last item of the user's training part.
    pub fn cases(&self, split: Split) -> Vec<Case<'_>> {
        self.held_out(split, 1)
    }

    /// The last `positions` questions of each user that end with the one of [`cases`](Self::cases), fewer where the
    /// user has fewer: users in order, each one's oldest first, each target with everything before it. All but the last
    /// of [`Split::Test`] stand in the parts before it, so what was trained on those has seen them.
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

    /// The same in other parts of the sequences.
    pub fn popularity_in(&self, sequences: &[&[Item]]) -> Vec<u64> {
        let mut counts = vec![0; self.ids.len()];
        for item in sequences.iter().copied().flatten() {
            counts[item.column() - 1] += 1;
        }
        counts
    }
}

/// Everything up to the last target of a part; nothing where the user has none there.
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
