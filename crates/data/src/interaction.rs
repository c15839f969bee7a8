use canet_domain::Catalogue;

use super::LineFault;
use super::time::Time;

/// One interaction, as a file holds it.
#[derive(Clone, Copy)]
pub(crate) struct Interaction<'a> {
    pub(crate) user: Id<'a>,
    pub(crate) item: Id<'a>,
    /// `None` if the order of the lines is the order of time.
    pub(crate) time: Option<Time>,
}

/// Where an interaction has an id.
#[derive(Clone, Copy)]
pub(crate) struct Place<'a> {
    /// `user` or `item`.
    pub(crate) role: &'static str,
    /// The column or field. `None` in a format without names.
    pub(crate) column: Option<&'a str>,
}

/// What programs write for a missing value. As an id it would join all interactions of unknown users into one user.
const NULL_MARKERS: [&str; 12] =
    ["NULL", "null", "Null", "\\N", "(null)", "<NA>", "NA", "N/A", "None", "nan", "NaN", "undefined"];

/// The external id of a user or an item. It is not empty, has no blanks around it, is not longer than a checkpoint allows, and
/// holds no tab or line break, so a line-based file can hold it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Id<'a>(&'a str);

impl<'a> Id<'a> {
    /// Checks an id, without the blanks around it. `column` names the column or field in the error.
    ///
    /// # Errors
    /// [`LineFault::EmptyId`], [`LineFault::UnusableId`] or [`LineFault::LongId`].
    pub(crate) fn new(column: &str, text: &'a str) -> Result<Id<'a>, LineFault> {
        match text.trim() {
            "" => Err(LineFault::EmptyId(column.to_owned())),
            id if id.len() > Catalogue::MAX_ID_BYTES => {
                Err(LineFault::LongId { column: column.to_owned(), bytes: id.len() })
            }
            id if id.bytes().any(|byte| matches!(byte, b'\t' | b'\n' | b'\r')) => {
                Err(LineFault::UnusableId(column.to_owned()))
            }
            id => Ok(Id(id)),
        }
    }

    /// Checks the id of a user or an item in an interaction. A [marker of a missing value](NULL_MARKERS) is no id there.
    ///
    /// A catalogue names its items on purpose, so its ids may be such markers.
    ///
    /// # Errors
    /// As [`new`](Self::new), or [`LineFault::MissingId`].
    pub(crate) fn in_interaction(place: Place<'_>, text: &'a str) -> Result<Id<'a>, LineFault> {
        let Place { role, column } = place;
        let missing =
            |text: &str| LineFault::MissingId { role, text: text.to_owned(), column: column.map(str::to_owned) };
        match Id::new(column.unwrap_or(role), text) {
            Err(LineFault::EmptyId(_)) => Err(missing("")),
            Ok(Id(id)) if NULL_MARKERS.contains(&id) => Err(missing(id)),
            checked => checked,
        }
    }

    pub(crate) fn as_str(self) -> &'a str {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_marker_of_a_missing_value_is_no_id_of_an_interaction() {
        let fault = |column, text| Id::in_interaction(Place { role: "user", column }, text).unwrap_err().to_string();
        assert_eq!(
            fault(Some("visitor"), " NULL "),
            "the user is `NULL`, which stands for a missing value (leave such rows out: --where 'visitor!=NULL')"
        );
        assert_eq!(fault(Some("visitor"), " "), "`visitor` is empty (leave such rows out: --where 'visitor!=')");
        assert_eq!(fault(None, "\\N"), "the user is `\\N`, which stands for a missing value");
        for id in ["NULLs", "nAn", "none", "0", "-", "nobody", "na"] {
            assert!(Id::in_interaction(Place { role: "user", column: None }, id).is_ok(), "{id}");
        }
        assert!(Id::new("id", "NULL").is_ok(), "an item of a catalogue");
    }

    #[test]
    fn ids_are_trimmed_and_checked() {
        assert_eq!(Id::new("user", " a b\r").map(Id::as_str), Ok("a b"));
        assert_eq!(Id::new("user", " \t"), Err(LineFault::EmptyId("user".to_owned())));
        for text in ["a\tb", "a\nb", "a\rb"] {
            assert_eq!(Id::new("item", text), Err(LineFault::UnusableId("item".to_owned())), "{text:?}");
        }
        let longest = "x".repeat(Catalogue::MAX_ID_BYTES);
        assert!(Id::new("item", &longest).is_ok());
        let fault = LineFault::LongId { column: "item".to_owned(), bytes: longest.len() + 1 };
        assert_eq!(Id::new("item", &(longest + "x")), Err(fault));
    }
}
