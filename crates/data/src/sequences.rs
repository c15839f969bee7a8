use std::collections::HashSet;

use super::form::Shown;
use super::gather::Gather;
use super::lines::Lines;
use super::{DataError, Form, LineFault};

/// Reads `user item` lines and `user item item ...` lines; both add a line's items to the user's sequence.
pub(crate) fn read(lines: &mut Lines, shown: Option<Shown>, gather: &mut Gather<'_>) -> Result<(), DataError> {
    let mut kind = Kind { shown, users: HashSet::new() };
    while let Some((line, text)) = lines.next_line().map_err(|error| gather.unreadable(error))? {
        let taken = text.and_then(|text| {
            let mut columns = text.split_whitespace();
            let Some(user) = columns.next() else { return Ok(None) };
            kind.check(line, user, columns.clone().count())?;
            Ok(Some((user, columns)))
        });
        match taken {
            Ok(Some((user, items))) => gather.sequence(user, items)?,
            Ok(None) => {}
            Err(fault) => gather.faults.report(gather.path, line, fault)?,
        }
    }
    Ok(())
}

/// What the lines so far say about the file's form.
struct Kind {
    shown: Option<Shown>,
    /// The users of earlier lines; pairs do not need them.
    users: HashSet<Box<str>>,
}

impl Kind {
    fn check(&mut self, line: u64, user: &str, items: usize) -> Result<(), LineFault> {
        if items == 0 {
            return Err(LineFault::OneColumn(user.chars().take(40).collect()));
        }
        let known = self.users.contains(user);
        if self.shown.is_none() {
            let form = if known { Some(Form::Pairs) } else { (items > 1).then_some(Form::Sequences) };
            self.shown = form.map(|form| Shown { form, line });
        }
        match self.shown {
            Some(Shown { form: Form::Pairs, line: because }) => {
                if items > 1 {
                    Err(LineFault::SeveralItems { items, because })
                } else {
                    Ok(())
                }
            }
            Some(Shown { line: because, .. }) if known => {
                Err(LineFault::RepeatedUser { user: user.to_owned(), because })
            }
            _ => {
                self.users.insert(user.into());
                Ok(())
            }
        }
    }
}
