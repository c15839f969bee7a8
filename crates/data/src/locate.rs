use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::{DataError, Form};

/// Whether a path stands for standard input.
pub(crate) fn is_stdin(path: &Path) -> bool {
    path.as_os_str() == "-"
}

/// The interaction files at a path: the file itself, the only one of a directory, or all Parquet files of a directory and
/// the directories in it, in the order of their names.
pub(crate) fn interactions(path: &Path) -> Result<Vec<PathBuf>, DataError> {
    let read = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound => DataError::Missing(path.to_owned()),
        _ => DataError::Read { path: path.to_owned(), source },
    };
    if is_stdin(path) || !fs::metadata(path).map_err(read)?.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut parts = Vec::new();
    parquet_files(path, &mut parts).map_err(read)?;
    let entries = fs::read_dir(path).and_then(Iterator::collect::<Result<Vec<_>, _>>).map_err(read)?;
    let mut others: Vec<PathBuf> = entries
        .into_iter()
        .map(|entry| entry.path())
        .filter(|file| file.is_file() && is_known(file) && !is_parquet(file))
        .collect();
    others.sort();
    match (parts.is_empty(), others.len()) {
        (true, 0) => Err(DataError::NoneInDirectory(path.to_owned())),
        (true, 1) => Ok(others),
        (false, 0) => Ok(parts),
        _ => Err(DataError::SeveralInDirectory {
            path: path.to_owned(),
            found: others.iter().chain(&parts).take(8).map(|file| file_name(file)).collect(),
        }),
    }
}

/// The Parquet files below a directory. Names that begin with a dot or an underscore belong to the program that wrote it.
fn parquet_files(directory: &Path, found: &mut Vec<PathBuf>) -> io::Result<()> {
    let mut paths: Vec<PathBuf> = fs::read_dir(directory)?.map(|entry| Ok(entry?.path())).collect::<io::Result<_>>()?;
    paths.sort();
    for path in paths {
        if file_name(&path).starts_with(['.', '_']) {
            continue;
        }
        // A link could lead back here.
        let kind = fs::symlink_metadata(&path)?.file_type();
        if kind.is_dir() {
            parquet_files(&path, found)?;
        } else if is_parquet(&path) && path.is_file() {
            found.push(path);
        }
    }
    Ok(())
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
