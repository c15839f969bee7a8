use std::collections::HashSet;

use super::collector::Collector;
use super::detect::Detected;
use super::interaction::{Id, Interaction};
use super::lines::Lines;
use super::{DataError, Form, LineFault};

/// Reads `user item` lines or `user item item ...` lines. Both append a line's items to the user's sequence.
pub(crate) fn read(lines: &mut Lines, detected: Detected, collector: &mut Collector<'_>) -> Result<(), DataError> {
    let mut checker = Checker { detected, users: HashSet::new() };
    while let Some((line, text)) = lines.next_line().map_err(|error| collector.unreadable(error))? {
        let parsed = text.and_then(|text| {
            let mut ids = Id::split(text);
            let Some(user) = ids.next() else { return Ok(None) };
            checker.check(line, user.as_str(), ids.clone().count())?;
            Ok(Some((user, ids)))
        });
        match parsed {
            Ok(Some((user, mut items))) => {
                items.try_for_each(|item| collector.add(Interaction { user, item, time: None }))?;
            }
            Ok(None) => {}
            Err(fault) => collector.bad_lines.report(collector.path, line, fault)?,
        }
    }
    Ok(())
}

/// Checks that all lines are of one format.
struct Checker {
    detected: Detected,
    /// The users of earlier lines, unless the file holds pairs.
    users: HashSet<Box<str>>,
}

impl Checker {
    fn check(&mut self, line: u64, user: &str, items: usize) -> Result<(), LineFault> {
        if items == 0 {
            return Err(LineFault::OneColumn(user.chars().take(40).collect()));
        }
        let repeated = self.users.contains(user);
        if self.detected.proof.is_none() {
            let form = if repeated { Some(Form::Pairs) } else { (items > 1).then_some(Form::Sequences) };
            if let Some(form) = form {
                self.detected = Detected { form, proof: Some(line) };
            }
        }
        match self.detected {
            Detected { form: Form::Pairs, proof: Some(because) } if items > 1 => {
                Err(LineFault::SeveralItems { items, because })
            }
            Detected { form: Form::Pairs, proof: Some(_) } => Ok(()),
            Detected { proof: Some(because), .. } if repeated => {
                Err(LineFault::RepeatedUser { user: user.to_owned(), because })
            }
            _ => {
                self.users.insert(user.into());
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_proof_decides_for_the_lines_after_it() {
        let unproved = Detected { form: Form::Pairs, proof: None };
        let mut checker = Checker { detected: unproved, users: HashSet::new() };
        assert_eq!(checker.check(1, "a", 1), Ok(()));
        assert_eq!(checker.check(2, "b", 2), Ok(()));
        assert_eq!(checker.check(3, "a", 1), Err(LineFault::RepeatedUser { user: "a".to_owned(), because: 2 }));
        let mut checker = Checker { detected: unproved, users: HashSet::new() };
        assert_eq!(checker.check(1, "a", 1), Ok(()));
        assert_eq!(checker.check(2, "a", 1), Ok(()));
        assert_eq!(checker.check(3, "b", 2), Err(LineFault::SeveralItems { items: 2, because: 2 }));
        assert_eq!(checker.check(4, "c", 0), Err(LineFault::OneColumn("c".to_owned())));
    }
}
