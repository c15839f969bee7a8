//! From records with named columns to interactions.

use std::path::Path;

use super::collector::Collector;
use super::condition::ColumnTest;
use super::interaction::{Id, Interaction, Place};
use super::roles::Roles;
use super::time::Time;
use super::{DataError, LineFault, TimeFormat};

/// One row of a table, one JSON object or one Parquet row.
pub(crate) trait Record {
    /// The text of a column without surrounding blanks. It is empty if there is none.
    fn text(&self, column: usize) -> Result<&str, LineFault>;

    /// The time of a column, whose name an error has, by a format if there is one.
    fn time(&self, column: usize, name: &str, format: Option<&TimeFormat>) -> Result<Time, LineFault> {
        TimeFormat::parse(format, self.text(column)?, name)
    }
}

/// Selects records and turns them into interactions.
pub(crate) struct Records {
    names: Vec<String>,
    roles: Roles,
    /// Records that met the conditions.
    selected: u64,
    /// Records that did not.
    pub(crate) unselected: u64,
}

impl Records {
    pub(crate) fn new(names: Vec<String>, mut roles: Roles) -> Records {
        for test in roles.tests.iter_mut().filter(|test| roles.time == Some(test.column)) {
            test.time_format.clone_from(&roles.time_format);
        }
        Records { names, roles, selected: 0, unselected: 0 }
    }

    pub(crate) fn roles(&self) -> &Roles {
        &self.roles
    }

    pub(crate) fn name(&self, column: usize) -> &str {
        &self.names[column]
    }

    pub(crate) fn names(&self) -> &[String] {
        &self.names
    }

    /// The names of the columns that are not read.
    pub(crate) fn unused(&self) -> Vec<String> {
        let unused = |column: &usize| !self.roles.uses(*column);
        (0..self.names.len()).filter(unused).map(|column| self.names[column].clone()).collect()
    }

    /// Whether the user and the item are names of columns. The record is then a header of other columns than the file's.
    pub(crate) fn is_header(&self, record: &impl Record) -> bool {
        let is_name = |column: usize| {
            record.text(column).is_ok_and(|text| self.names.iter().any(|name| name.eq_ignore_ascii_case(text)))
        };
        is_name(self.roles.user) && is_name(self.roles.item)
    }

    /// Adds the record's interaction, if it meets the conditions.
    pub(crate) fn add(&mut self, record: &impl Record, collector: &mut Collector) -> Result<(), LineFault> {
        let Roles { user, item, time, .. } = self.roles;
        for test in &mut self.roles.tests {
            let value = record.text(test.column)?;
            if !test.selects(value)? {
                if self.selected == 0 {
                    test.remember(value);
                }
                self.unselected += 1;
                return Ok(());
            }
        }
        let place = |role, column: usize| Place { role, column: Some(&self.names[column]) };
        let user = Id::in_interaction(place("user", user), record.text(user)?)?;
        let item = Id::in_interaction(place("item", item), record.text(item)?)?;
        let time = match time {
            Some(column) => Some(record.time(column, &self.names[column], self.roles.time_format.as_ref())?),
            None => None,
        };
        self.selected += 1;
        collector.add(Interaction { user, item, time })
    }

    /// Why the conditions selected no record; `None` if they selected one or there was none.
    pub(crate) fn nothing_selected(&self, path: &Path) -> Option<DataError> {
        if self.selected > 0 || self.unselected == 0 {
            return None;
        }
        // A record is refused by the first condition that it does not meet.
        let (condition, found) = self.roles.tests.iter().find_map(ColumnTest::explain)?;
        Some(DataError::NothingSelected { path: path.to_owned(), condition, found })
    }
}
