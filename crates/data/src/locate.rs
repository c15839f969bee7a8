use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::{DataError, Form};

/// Whether a path stands for standard input.
pub(crate) fn is_stdin(path: &Path) -> bool {
    path.as_os_str() == "-"
}

/// An interaction file, and what its place says about it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct DataFile {
    pub(crate) path: PathBuf,
    /// The keys and values of the folders `key=value` in which a Parquet file lies below the path that was given.
    pub(crate) partitions: Vec<(String, String)>,
    /// Whether the file is one of Spark's text files of one table.
    pub(crate) is_part: bool,
}

impl DataFile {
    fn alone(path: &Path) -> DataFile {
        DataFile { path: path.to_owned(), partitions: Vec::new(), is_part: false }
    }
}

/// The interaction files at a path: the file itself, the only one of a directory, all of Spark's `part-` files of a directory,
/// or all Parquet files of a directory and the directories in it, in the order of their names.
pub(crate) fn interactions(path: &Path) -> Result<Vec<DataFile>, DataError> {
    let read = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound => DataError::Missing(path.to_owned()),
        _ => DataError::Read { path: path.to_owned(), source },
    };
    if is_stdin(path) || !fs::metadata(path).map_err(read)?.is_dir() {
        return Ok(vec![DataFile::alone(path)]);
    }
    let mut parquet = ParquetFiles::default();
    parquet.search(path, &[]).map_err(read)?;
    let mut parts = parquet.found;
    parts.sort_by(|a, b| a.path.cmp(&b.path));
    let entries = fs::read_dir(path).and_then(Iterator::collect::<Result<Vec<_>, _>>).map_err(read)?;
    let mut others: Vec<PathBuf> = entries
        .into_iter()
        .map(|entry| entry.path())
        .filter(|file| file.is_file() && (is_known(file) || is_part(file)) && !is_parquet(file))
        .collect();
    others.sort();
    let is_one_table = others.iter().all(|file| is_part(file) && extension(file) == extension(&others[0]));
    match (parts.is_empty(), others.len()) {
        (true, 0) => Err(DataError::NoneInDirectory(path.to_owned())),
        (true, count) if count == 1 || is_one_table => {
            Ok(others.iter().map(|file| DataFile { is_part: count > 1, ..DataFile::alone(file) }).collect())
        }
        (false, 0) => Ok(parts),
        _ => Err(DataError::SeveralInDirectory {
            path: path.to_owned(),
            found: others
                .iter()
                .chain(parts.iter().map(|part| &part.path))
                .take(8)
                .map(|file| file_name(file))
                .collect(),
        }),
    }
}

/// Searches a directory for Parquet files.
#[derive(Default)]
struct ParquetFiles {
    found: Vec<DataFile>,
    /// Directories and files without links in their paths. A link may lead back, or to what is read anyway.
    seen: HashSet<PathBuf>,
}

impl ParquetFiles {
    /// Adds the files below a directory. Names that begin with a dot or an underscore belong to the program that wrote it.
    fn search(&mut self, directory: &Path, partitions: &[(String, String)]) -> io::Result<()> {
        if !self.seen.insert(fs::canonicalize(directory)?) {
            return Ok(());
        }
        let paths = fs::read_dir(directory)?.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<PathBuf>>>()?;
        let mut paths: Vec<(bool, PathBuf)> = paths
            .into_iter()
            .filter(|path| !file_name(path).starts_with(['.', '_']))
            .map(|path| Ok((fs::symlink_metadata(&path)?.is_symlink(), path)))
            .collect::<io::Result<_>>()?;
        // A directory is read at its own place, and not where a link to it is.
        paths.sort();
        for (_, path) in paths {
            if path.is_dir() {
                let mut below = partitions.to_vec();
                below.extend(partition(&file_name(&path)));
                self.search(&path, &below)?;
            } else if is_parquet(&path) && path.is_file() && self.seen.insert(fs::canonicalize(&path)?) {
                self.found.push(DataFile { path, partitions: partitions.to_vec(), is_part: false });
            }
        }
        Ok(())
    }
}

/// The key and the value of a folder's name `key=value`, as Hive and Spark write it.
fn partition(name: &str) -> Option<(String, String)> {
    let (key, value) = name.split_once('=').filter(|(key, _)| !key.is_empty())?;
    let value = if value == "__HIVE_DEFAULT_PARTITION__" { String::new() } else { percent_decoded(value) };
    Some((percent_decoded(key), value))
}

/// Replaces `%3A` and the like by the bytes that they stand for.
fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, next)) = rest.split_first() {
        let digits = next.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        let byte = digits.filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()));
        match byte.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) if *first == b'%' => {
                bytes.push(byte);
                rest = &next[2..];
            }
            _ => {
                bytes.push(*first);
                rest = next;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// RecBole's `.item` file, which may be packed, of the same name beside an `.inter` file.
pub(crate) fn items_beside(interactions: &Path) -> Option<PathBuf> {
    if extension(interactions)? != "inter" {
        return None;
    }
    let stem = stem(interactions);
    ["", ".gz", ".zst"]
        .into_iter()
        .map(|packed| interactions.with_file_name(format!("{stem}.item{packed}")))
        .find(|path| path.is_file())
}

/// The file's name without `.gz` or `.zst` and without its extension.
pub(crate) fn stem(path: &Path) -> String {
    if is_stdin(path) {
        return "stdin".to_owned();
    }
    Path::new(&unpacked_name(path)).file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

/// The extension in lower case, without `.gz` or `.zst`.
pub(crate) fn extension(path: &Path) -> Option<String> {
    Some(Path::new(&unpacked_name(path)).extension()?.to_string_lossy().to_ascii_lowercase())
}

fn is_known(path: &Path) -> bool {
    extension(path).is_some_and(|extension| Form::EXTENSIONS.contains(&extension.as_str()))
}

/// Whether a file is one of several that Spark writes for one table of text.
fn is_part(path: &Path) -> bool {
    file_name(path).starts_with("part-")
        && extension(path).is_some_and(|extension| matches!(&*extension, "csv" | "json" | "jsonl" | "ndjson"))
}

fn is_parquet(path: &Path) -> bool {
    extension(path).is_some_and(|extension| Form::is_parquet_extension(&extension))
}

fn unpacked_name(path: &Path) -> String {
    let name = file_name(path);
    let unpacked = [".gz", ".zst", ".zstd"].iter().find_map(|packed| name.strip_suffix(packed));
    unpacked.map(str::to_owned).unwrap_or(name)
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_names_a_key_and_a_value() {
        let found = |name| partition(name).map(|(key, value)| format!("{key}/{value}"));
        assert_eq!(found("event=purchase").as_deref(), Some("event/purchase"));
        assert_eq!(found("at%20=2023-11-14 22%3A50%").as_deref(), Some("at /2023-11-14 22:50%"));
        assert_eq!(found("event=__HIVE_DEFAULT_PARTITION__").as_deref(), Some("event/"));
        assert_eq!((found("=purchase"), found("event")), (None, None));
    }
}
