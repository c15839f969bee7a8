use std::fs::{self, File};
use std::io::{self, Read, Seek};
use std::path::Path;

use sha2::{Digest, Sha256};

use super::CheckpointError;
use crate::tensor_file::ends_early;

pub(super) const MANIFEST: &str = "canet.json";
pub(super) const WEIGHTS: &str = "weights.safetensors";
pub(super) const ITEMS: &str = "items.tsv";
pub(super) const PROBES: &str = "probes.safetensors";
pub(super) const TITLES: &str = "titles.tsv";

/// The files of a version, in the order in which a copy that is not renamed must be made: the manifest last, because readers
/// take a version without it for none. Titles may be missing.
pub const FILE_NAMES: [&str; 5] = [WEIGHTS, ITEMS, PROBES, TITLES, MANIFEST];

/// SHA-256 of bytes, in hexadecimal.
pub(super) fn sha256_hex(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// Reads a whole regular file of at most `limit` bytes.
pub(super) fn read_bounded(path: &Path, limit: u64) -> Result<Vec<u8>, CheckpointError> {
    let file = open_bounded(path, limit)?;
    let mut bytes = Vec::new();
    // `take` keeps the limit even if the file grows meanwhile.
    file.take(limit).read_to_end(&mut bytes).map_err(CheckpointError::io(path, "read"))?;
    Ok(bytes)
}

/// Reads a whole regular file and checks its digest. `ends_early` tells from the bytes of a file with another digest whether
/// its end is missing.
pub(super) fn read_verified(
    path: &Path,
    sha256: &str,
    limit: u64,
    ends_early: impl FnOnce(&[u8]) -> bool,
) -> Result<Vec<u8>, CheckpointError> {
    let bytes = read_bounded(path, limit)?;
    match compare(path, sha256_hex(&bytes), sha256) {
        Err(_) if ends_early(&bytes) => Err(CheckpointError::Truncated { path: path.to_owned() }),
        compared => compared.map(|()| bytes),
    }
}

/// Opens a regular safetensors file of at most `limit` bytes, checks its digest, and rewinds it.
pub(super) fn open_verified(path: &Path, sha256: &str, limit: u64) -> Result<File, CheckpointError> {
    let mut file = open_bounded(path, limit)?;
    let digest = sha256_of(&mut file).map_err(CheckpointError::io(path, "read"))?;
    file.rewind().map_err(CheckpointError::io(path, "read"))?;
    if let Err(error) = compare(path, digest, sha256) {
        return Err(match ends_early(&mut file).map_err(CheckpointError::io(path, "read"))? {
            true => CheckpointError::Truncated { path: path.to_owned() },
            false => error,
        });
    }
    Ok(file)
}

/// Whether a regular file of at most `limit` bytes has this digest.
pub(super) fn has_digest(path: &Path, sha256: &str, limit: u64) -> Result<bool, CheckpointError> {
    let mut file = open_bounded(path, limit)?;
    Ok(sha256_of(&mut file).map_err(CheckpointError::io(path, "read"))? == sha256)
}

/// Like [`has_digest`] for a safetensors file. It does not read a file whose end is missing beyond its header.
pub(super) fn is_whole(path: &Path, sha256: &str, limit: u64) -> Result<bool, CheckpointError> {
    let mut file = open_bounded(path, limit)?;
    let ends_early = ends_early(&mut file).map_err(CheckpointError::io(path, "read"))?;
    Ok(!ends_early && has_digest(path, sha256, limit)?)
}

/// Syncs a written file and returns its digest, which it reads back from the file system.
pub(super) fn sync_and_digest(path: &Path) -> Result<String, CheckpointError> {
    let mut file = File::open(path).map_err(CheckpointError::io(path, "open"))?;
    file.sync_all().map_err(CheckpointError::io(path, "sync"))?;
    sha256_of(&mut file).map_err(CheckpointError::io(path, "read"))
}

/// Syncs the entries of a directory.
pub(super) fn sync_directory(path: &Path) -> Result<(), CheckpointError> {
    File::open(path).and_then(|directory| directory.sync_all()).map_err(CheckpointError::io(path, "sync"))
}

/// It checks the type before it opens the file, because opening a pipe waits for a writer.
fn open_bounded(path: &Path, limit: u64) -> Result<File, CheckpointError> {
    let metadata = match fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(CheckpointError::MissingFile { path: path.to_owned() });
        }
        Err(error) => return Err(CheckpointError::io(path, "read")(error)),
    };
    if !metadata.is_file() {
        return Err(CheckpointError::NotAFile { path: path.to_owned() });
    }
    if metadata.len() > limit {
        return Err(CheckpointError::TooLarge { path: path.to_owned(), size: metadata.len(), limit });
    }
    File::open(path).map_err(CheckpointError::io(path, "open"))
}

/// SHA-256 of the rest of a file, in hexadecimal.
pub(crate) fn sha256_of(file: &mut File) -> io::Result<String> {
    let mut hasher = Sha256::new();
    io::copy(file, &mut hasher)?;
    Ok(hex(&hasher.finalize()))
}

/// Checks a digest of the file at `path`.
pub(super) fn compare(path: &Path, found: String, expected: &str) -> Result<(), CheckpointError> {
    if found == expected {
        return Ok(());
    }
    Err(CheckpointError::Digest { path: path.to_owned(), found, expected: expected.to_owned() })
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
