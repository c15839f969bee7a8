use std::fmt;

/// A format of interaction file.
///
/// Every format may be gzip (detected by the first bytes), and may have CRLF line ends and a byte order mark. Blank lines
/// are ignored.
///
/// # Detection
///
/// An extension to which [`Form::EXTENSIONS`] gives a format decides. Otherwise the first line that is not blank does: a
/// tab-separated header of `name:type` fields is RecBole's, a comma-separated header with `user` and `item` is CSV, and
/// anything else is a file without a header, whose columns are separated by spaces or tabs.
///
/// A file without a header holds either [`Form::Pairs`] or [`Form::Sequences`]. A line of two columns fits both. A longer
/// line proves sequences, and a repeated user proves pairs. In the first 64 KiB the more frequent proof decides. If they
/// are equally frequent (so far every user has one line of one item), the first proof in the rest of the file decides.
/// After that, a line of the other format is a bad line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// RecBole's `.inter`: a header with `user_id:token`, `item_id:token` and optionally `timestamp:float`, in any order and
    /// among other columns. Tabs separate the columns, and nothing is quoted.
    RecBole,
    /// CSV with a header with `user`, `item` and optionally `timestamp`, in any order and among other columns. Fields may be
    /// quoted.
    Csv,
    /// `user item` lines in the order of time, as SASRec's authors publish them.
    Pairs,
    /// One line `user item item ...` per user, items in the order of time, as S3-Rec's authors publish them.
    Sequences,
}

impl Form {
    /// The extensions of interaction files in lower case, and the format that each proves. `.txt` proves none. A file
    /// name may have `.gz` after the extension.
    ///
    /// A directory that is given as data is searched for files with these extensions.
    pub const EXTENSIONS: [(&'static str, Option<Form>); 3] =
        [("inter", Some(Form::RecBole)), ("csv", Some(Form::Csv)), ("txt", None)];

    /// The format that an extension proves.
    pub(crate) fn of_extension(extension: &str) -> Option<Form> {
        Form::EXTENSIONS.into_iter().find(|(known, _)| *known == extension)?.1
    }
}

impl fmt::Display for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Form::RecBole => "RecBole's .inter",
            Form::Csv => "CSV",
            Form::Pairs => "`user item` lines",
            Form::Sequences => "`user item item ...` lines",
        })
    }
}
