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

    pub(crate) fn as_str(self) -> &'a str {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
