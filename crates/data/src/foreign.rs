//! Formats that are not read, by their first bytes.

use std::fmt;
use std::path::Path;

/// A format that is not read, and the command that converts it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Foreign {
    /// What the file is, as a noun.
    pub(crate) name: &'static str,
    /// The command, or what to do.
    pub(crate) remedy: String,
}

impl fmt::Display for Foreign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "this is {}, which canet does not read. {}", self.name, self.remedy)
    }
}

/// A remedy with the placeholders FILE and OUT.
type Entry = (&'static [u8], &'static str, &'static str);

const POLARS: &str = "Convert it: python3 -c \"import polars; polars.METHOD('FILE').write_parquet('OUT.parquet')\"";

/// By the first bytes of the file or of what gzip or zstd packed.
const MAGIC: &[Entry] = &[
    (
        b"PK\x03\x04",
        "a zip archive or an Excel workbook",
        "Unpack it: unzip -p FILE > OUT.csv (a workbook: save it as CSV)",
    ),
    (b"BZh", "a bzip2 file", "Unpack it: bzip2 -dc FILE > OUT"),
    (b"\xfd7zXZ\0", "an xz file", "Unpack it: xz -dc FILE > OUT"),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive", "Unpack it: 7z x FILE"),
    (b"Rar!\x1a\x07", "a RAR archive", "Unpack it: unrar x FILE"),
    (b"\x04\x22\x4d\x18", "an LZ4 file", "Unpack it: lz4 -dc FILE > OUT"),
    (b"\xff\x06\0\0sNaPpY", "a Snappy file", "Unpack it: snzip -dc FILE > OUT"),
    (b"ARROW1", "an Arrow (Feather) file", "read_ipc"),
    (
        b"FEA1",
        "an old Feather file",
        "Convert it: python3 -c \"import pandas; pandas.read_feather('FILE').to_parquet('OUT.parquet')\"",
    ),
    (b"Obj\x01", "an Avro file", "read_avro"),
    (
        b"ORC",
        "an ORC file",
        "Convert it: python3 -c \"import pandas; pandas.read_orc('FILE').to_parquet('OUT.parquet')\"",
    ),
    (
        b"SQLite format 3\0",
        "an SQLite database",
        "Export the table: sqlite3 -header -csv FILE 'select * from TABLE' > OUT.csv",
    ),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an old Excel workbook", "Save it as CSV"),
    (
        b"\x89HDF\r\n\x1a\n",
        "an HDF5 file",
        "Convert it: python3 -c \"import pandas; pandas.read_hdf('FILE').to_parquet('OUT.parquet')\"",
    ),
    (b"\x93NUMPY", "a NumPy array", "Write it as CSV, with a header that names the columns"),
    (b"\x80\x02", PICKLE, PICKLE_REMEDY),
    (b"\x80\x03", PICKLE, PICKLE_REMEDY),
    (b"\x80\x04", PICKLE, PICKLE_REMEDY),
    (b"\x80\x05", PICKLE, PICKLE_REMEDY),
    (b"%PDF", "a PDF document", "Export the table as CSV"),
    (b"\xff\xfe\0\0", "text in UTF-32", "Convert it: iconv -f UTF-32 -t UTF-8 FILE > OUT"),
    (b"\xff\xfe", "text in UTF-16", UTF16_REMEDY),
    (b"\xfe\xff", "text in UTF-16", UTF16_REMEDY),
];

const PICKLE: &str = "a Python pickle";
const PICKLE_REMEDY: &str =
    "Convert it: python3 -c \"import pandas; pandas.read_pickle('FILE').to_parquet('OUT.parquet')\"";
const UTF16_REMEDY: &str = "Convert it: iconv -f UTF-16 -t UTF-8 FILE > OUT";

impl Foreign {
    /// The foreign format of a file that begins like this, if it is one.
    ///
    /// A tar archive is known by bytes 257 to 261, and UTF-16 without a mark by its zeros.
    pub(crate) fn of(path: &Path, start: &[u8]) -> Option<Foreign> {
        // A table's header may begin with the letters of a format, as `ORCID` does.
        let binary = std::str::from_utf8(start).is_err_and(|error| error.error_len().is_some()) || start.contains(&0);
        let known = MAGIC.iter().find(|(magic, _, _)| binary && start.starts_with(magic));
        if let Some((_, name, remedy)) = known {
            let remedy = match *remedy {
                "read_ipc" | "read_avro" => POLARS.replace("METHOD", remedy),
                remedy => remedy.to_owned(),
            };
            return Some(Foreign::new(path, name, &remedy));
        }
        if start.get(257..262) == Some(b"ustar") {
            return Some(Foreign::new(path, "a tar archive", "Unpack it: tar -xf FILE"));
        }
        let first = start.trim_ascii_start();
        if first.starts_with(b"<") {
            return Some(Foreign::new(path, "XML or HTML", "Export the data as CSV, JSON lines or Parquet"));
        }
        let zeros = |odd: usize| start.iter().skip(odd).step_by(2).take(64).filter(|byte| **byte == 0).count();
        let start_of_text = start.len().min(128) / 2;
        if start_of_text > 4 && zeros(0).max(zeros(1)) * 4 > start_of_text * 3 {
            let order = if zeros(1) > zeros(0) { "LE" } else { "BE" };
            let remedy = UTF16_REMEDY.replace("UTF-16", &format!("UTF-16{order}"));
            return Some(Foreign::new(path, "text in UTF-16", &remedy));
        }
        start.contains(&0).then(|| {
            Foreign::new(path, "a binary file of an unknown format", "Export the data as CSV, JSON lines or Parquet")
        })
    }

    /// A foreign format with the file's name in its remedy.
    pub(crate) fn new(path: &Path, name: &'static str, remedy: &str) -> Foreign {
        let file = path.display().to_string();
        let remedy = remedy.replace("FILE", if file == "-" { "FILE" } else { &file });
        Foreign { name, remedy: remedy.replace("OUT", "interactions") }
    }
}
