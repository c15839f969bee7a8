use canet_data::{Case, Dataset, Split};
use canet_domain::Item;

/// The split of the training part into positions for the supernet and positions for the router.
///
/// The router learns from positions that the supernet has not seen.
pub(crate) struct Holdout<'a> {
    /// The supernet's part of each user's sequence.
    pub training: Vec<&'a [Item]>,
    /// The router's cases: the held-out positions of the training part, and each user's validation position.
    pub cases: Vec<Case<'a>>,
}

/// At most one in this many positions of a user's training part is held out.
const ONE_IN: usize = 10;

impl<'a> Holdout<'a> {
    /// Holds out the newest positions of each user, at most `most`.
    pub(crate) fn new(dataset: &'a Dataset, most: usize) -> Holdout<'a> {
        let validation = dataset.cases(Split::Validation);
        let (mut training, mut cases) = (Vec::new(), Vec::new());
        for (user, part) in dataset.training_sequences().into_iter().enumerate() {
            let kept = part.len() - most.min(part.len() / ONE_IN);
            training.push(&part[..kept]);
            let held = (kept..part.len()).filter(|place| *place > 0);
            cases.extend(held.map(|place| Case { user, history: &part[..place], target: part[place] }));
        }
        cases.extend(validation);
        Holdout { training, cases }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use canet_data::ReadOptions;

    use super::*;

    #[test]
    fn a_tenth_of_the_training_part_and_the_validation_position_are_held_out() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("users.txt");
        let line = |user: u32, length: u32| {
            let items: Vec<String> = (1..=length).map(|item| item.to_string()).collect();
            format!("{user} {}\n", items.join(" "))
        };
        // The training parts have 40, 9 and 25 positions.
        fs::write(&path, line(1, 42) + &line(2, 11) + &line(3, 27)).unwrap();
        let dataset = Dataset::read(&path, &ReadOptions::default()).unwrap();
        let holdout = Holdout::new(&dataset, 3);
        let lengths: Vec<usize> = holdout.training.iter().map(|part| part.len()).collect();
        assert_eq!(lengths, [37, 9, 23]);
        let cases: Vec<(usize, usize, u32)> =
            holdout.cases.iter().map(|case| (case.user, case.history.len(), case.target.id())).collect();
        let held = [(0, 37, 38), (0, 38, 39), (0, 39, 40), (2, 23, 24), (2, 24, 25)];
        assert_eq!(cases, [&held[..], &[(0, 40, 41), (1, 9, 10), (2, 25, 26)]].concat());
    }
}
