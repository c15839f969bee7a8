//! How the entries of a model's directory are named.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use super::CheckpointError;

/// The version numbers that name an entry, ascending.
pub(super) fn numbered(path: &Path) -> Result<Vec<u64>, CheckpointError> {
    let mut versions = Vec::new();
    for entry in fs::read_dir(path).map_err(CheckpointError::io(path, "list"))? {
        let entry = entry.map_err(CheckpointError::io(path, "list"))?;
        versions.extend(version_number(&entry.file_name()));
    }
    versions.sort_unstable();
    Ok(versions)
}

/// The number after the highest that names an entry, whether the entry is a version or not.
pub(super) fn next(root: &Path) -> Result<u64, CheckpointError> {
    let highest = numbered(root)?.pop().unwrap_or(0);
    highest.checked_add(1).ok_or_else(|| CheckpointError::VersionsExhausted { path: root.to_owned() })
}

/// The path of a version, whether it exists or not.
pub(super) fn path_of(root: &Path, version: u64) -> PathBuf {
    root.join(version.to_string())
}

/// Whether a path is a directory with at least one entry that a version number names.
pub(super) fn holds_a_version(path: &Path) -> bool {
    path.is_dir() && numbered(path).is_ok_and(|versions| !versions.is_empty())
}

/// Whether a name may be meant as a version's. The directories that file systems and people add, as `lost+found`, have no
/// digits.
pub(super) fn resembles_version(name: &OsStr) -> bool {
    let name = name.as_encoded_bytes();
    !name.starts_with(b".") && name.iter().any(u8::is_ascii_digit)
}

/// The positive number that a name spells canonically: `7`, not `07` or `+7`.
pub(super) fn version_number(name: &OsStr) -> Option<u64> {
    let name = name.to_str()?;
    name.parse().ok().filter(|version: &u64| *version > 0 && version.to_string() == name)
}
