use std::fmt;

/// A format of interaction file.
///
/// Every format of text may be gzip or zstd (detected by the first bytes), and may have CR LF or CR line ends and a byte order
/// mark. Blank lines are ignored.
///
/// # Detection
///
/// The content decides, and the extension only where the content fits several formats. Parquet is known by its first bytes,
/// JSON lines by a brace, RecBole by a header of `name:type` fields, and other tables by a header with names for a user and
/// an item. Four columns without a header are ratings if `::` or tabs separate them, the third is a small number and the
/// fourth is a time. Anything else is a text of ids, separated by blanks.
///
/// A text of ids holds either [`Form::Pairs`] or [`Form::Sequences`]. A line of two columns fits both. A longer line proves
/// sequences, and a repeated user proves pairs. In the first 64 KiB the more frequent proof decides. If they are equally
/// frequent (so far every user has one line of one item), the first proof in the rest of the file decides. After that, a line
/// of the other format is a bad line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// RecBole's `.inter`: a header with `user_id:token`, `item_id:token` and optionally `timestamp:float`, in any order and
    /// among other columns. Tabs or commas separate the columns, and nothing is quoted.
    RecBole,
    /// A table with columns separated by commas, semicolons, tabs or bars. A header or the user names the columns. Fields
    /// may be quoted.
    Csv,
    /// One JSON object a line.
    JsonLines,
    /// Apache Parquet.
    Parquet,
    /// MovieLens: `user`, `item`, `rating` and `timestamp` without a header, separated by `::` or, in `u.data`, by tabs.
    Ratings,
    /// `user item` lines in the order of time, as SASRec's authors publish them.
    Pairs,
    /// One line `user item item ...` per user, items in the order of time, as S3-Rec's authors publish them.
    Sequences,
}

impl Form {
    /// The extensions of interaction files in lower case. A file name may have `.gz` or `.zst` after the extension.
    ///
    /// A directory that is given as data is searched for files with these extensions.
    pub const EXTENSIONS: [&'static str; 11] =
        ["inter", "csv", "tsv", "psv", "jsonl", "ndjson", "parquet", "pq", "dat", "data", "txt"];

    /// Whether files with this extension are tables, even if their first line has no known name.
    pub(crate) fn is_table_extension(extension: Option<&str>) -> bool {
        matches!(extension, Some("csv" | "tsv" | "psv" | "inter"))
    }

    /// Whether files with this extension are Parquet, of which a directory may hold many.
    pub(crate) fn is_parquet_extension(extension: &str) -> bool {
        matches!(extension, "parquet" | "pq")
    }
}

impl fmt::Display for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Form::RecBole => "RecBole's .inter",
            Form::Csv => "CSV",
            Form::JsonLines => "JSON lines",
            Form::Parquet => "Parquet",
            Form::Ratings => "MovieLens ratings",
            Form::Pairs => "`user item` lines",
            Form::Sequences => "`user item item ...` lines",
        })
    }
}
