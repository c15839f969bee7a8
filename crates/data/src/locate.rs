use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::{DataError, Form};

/// The interaction file at a path: the file itself, or the only one of a directory.
pub(crate) fn interactions(path: &Path) -> Result<PathBuf, DataError> {
    let read = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound => DataError::Missing(path.to_owned()),
        _ => DataError::Read { path: path.to_owned(), source },
    };
    if !fs::metadata(path).map_err(read)?.is_dir() {
        return Ok(path.to_owned());
    }
    let entries = fs::read_dir(path).and_then(Iterator::collect::<Result<Vec<_>, _>>).map_err(read)?;
    let mut files: Vec<PathBuf> =
        entries.into_iter().map(|entry| entry.path()).filter(|file| file.is_file() && is_known(file)).collect();
    files.sort();
    match files.as_slice() {
        [] => Err(DataError::NoneInDirectory(path.to_owned())),
        [_] => Ok(files.remove(0)),
        several => Err(DataError::SeveralInDirectory {
            path: path.to_owned(),
            found: several.iter().map(|file| file_name(file)).collect(),
        }),
    }
}

/// RecBole's `.item` or `.item.gz` file of the same name beside an `.inter` file.
pub(crate) fn items_beside(interactions: &Path) -> Option<PathBuf> {
    if extension(interactions).and_then(|extension| Form::of_extension(&extension)) != Some(Form::RecBole) {
        return None;
    }
    let stem = stem(interactions);
    [format!("{stem}.item"), format!("{stem}.item.gz")]
        .into_iter()
        .map(|name| interactions.with_file_name(name))
        .find(|path| path.is_file())
}

/// The file's name without `.gz` and without its extension.
pub(crate) fn stem(path: &Path) -> String {
    Path::new(&unpacked_name(path)).file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

/// The extension in lower case, without `.gz`.
pub(crate) fn extension(path: &Path) -> Option<String> {
    Some(Path::new(&unpacked_name(path)).extension()?.to_string_lossy().to_ascii_lowercase())
}

fn is_known(path: &Path) -> bool {
    extension(path).is_some_and(|extension| Form::EXTENSIONS.iter().any(|(known, _)| *known == extension))
}

fn unpacked_name(path: &Path) -> String {
    let name = file_name(path);
    name.strip_suffix(".gz").map(str::to_owned).unwrap_or(name)
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}
