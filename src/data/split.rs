use super::Dataset;
use crate::domain::Item;

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

impl Dataset {
    /// One case for each user who has a target in this part, in the order of the users. The target of
    /// [`Split::Train`] is the last item of the user's training part.
    pub fn cases(&self, split: Split) -> Vec<Case<'_>> {
        let case = |(user, sequence)| {
            let known: &[Item] = match split {
                Split::Train => training_part(sequence),
                Split::Validation => {
                    sequence.len().checked_sub(1).filter(|end| *end >= 2).map(|end| &sequence[..end])?
                }
                Split::Test => Some(sequence).filter(|sequence| sequence.len() >= 3)?,
            };
            let (target, history) = known.split_last()?;
            (!history.is_empty()).then_some(Case { user, history, target: *target })
        };
        self.sequences.iter().map(Vec::as_slice).enumerate().filter_map(case).collect()
    }

    /// The training part of each user's sequence, in the order of the users.
    pub fn training_sequences(&self) -> Vec<&[Item]> {
        self.sequences.iter().map(|sequence| training_part(sequence)).collect()
    }

    /// Interactions of each item in the training part, in dense order.
    pub fn popularity(&self) -> Vec<u64> {
        let mut counts = vec![0; self.ids.len()];
        for item in self.training_sequences().into_iter().flatten() {
            counts[item.column() - 1] += 1;
        }
        counts
    }
}

fn training_part(sequence: &[Item]) -> &[Item] {
    if sequence.len() < 3 { sequence } else { &sequence[..sequence.len() - 2] }
}
