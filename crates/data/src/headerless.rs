use std::collections::HashSet;
use std::path::Path;

use super::bad_line::BadLines;
use super::collector::Collector;
use super::detect::Detected;
use super::interaction::{Id, Interaction, Place};
use super::lines::Lines;
use super::{DataError, Form, LineFault};

/// Reads `user item` lines or `user item item ...` lines. Both append a line's items to the user's sequence.
pub(crate) fn read(
    lines: &mut Lines,
    detected: Detected,
    collector: &mut Collector,
    bad_lines: &mut BadLines,
    path: &Path,
) -> Result<Form, DataError> {
    let mut checker = Checker { detected, users: HashSet::new() };
    while let Some((line, text)) =
        lines.next_line().map_err(|source| DataError::Read { path: path.to_owned(), source })?
    {
        let text = text.and_then(|text| std::str::from_utf8(text).map_err(|_| LineFault::NotUtf8));
        if text.as_ref().is_ok_and(|text| text.trim().is_empty()) {
            continue;
        }
        bad_lines.lines += 1;
        let added = text.and_then(|text| {
            let mut ids = text.split_whitespace();
            let place = |role| Place { role, column: None };
            let user = Id::in_interaction(place("user"), ids.next().unwrap_or_default())?;
            let items =
                ids.map(|id| Id::in_interaction(place("item"), id)).collect::<Result<Vec<Id<'_>>, LineFault>>()?;
            checker.check(line, user.as_str(), items.len())?;
            items.into_iter().try_for_each(|item| collector.add(Interaction { user, item, time: None }))
        });
        if let Err(fault) = added {
            bad_lines.report(line, fault)?;
        }
        collector.check_size(path)?;
    }
    Ok(checker.detected.form)
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
