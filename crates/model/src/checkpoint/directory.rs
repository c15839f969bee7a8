use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::read::read;
use super::{Checkpoint, CheckpointError, MANIFEST, files};

/// The directory of a model: numbered versions, and nothing else that counts.
#[derive(Clone, Debug)]
pub struct ModelDirectory {
    path: PathBuf,
    name: String,
}

impl ModelDirectory {
    /// Opens a model that has at least one version.
    ///
    /// # Errors
    /// [`CheckpointError`] that says what to give instead: where the directory is missing, has no version, is one
    /// version, or holds models.
    pub fn open(path: &Path) -> Result<ModelDirectory, CheckpointError> {
        let directory = ModelDirectory::at(path)?;
        directory.latest()?;
        Ok(directory)
    }

    /// Opens a model to write to, making its directory where there is none.
    pub(super) fn create(path: &Path) -> Result<ModelDirectory, CheckpointError> {
        if !path.exists() {
            fs::create_dir_all(path).map_err(CheckpointError::io(path, "create"))?;
        }
        let directory = ModelDirectory::at(path)?;
        let absolute = fs::canonicalize(path).map_err(CheckpointError::io(path, "open"))?;
        if let Some(parent) = absolute.parent() {
            files::sync_directory(parent)?;
        }
        Ok(directory)
    }

    fn at(path: &Path) -> Result<ModelDirectory, CheckpointError> {
        let absolute = fs::canonicalize(path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => CheckpointError::NoModel { path: path.to_owned() },
            io::ErrorKind::NotADirectory => CheckpointError::NotADirectory { path: path.to_owned() },
            _ => CheckpointError::io(path, "open")(error),
        })?;
        if !absolute.is_dir() {
            return Err(CheckpointError::NotADirectory { path: path.to_owned() });
        }
        if absolute.join(MANIFEST).exists() {
            let version = absolute.file_name().and_then(version_number);
            let root = path.parent().filter(|root| !root.as_os_str().is_empty()).map(Path::to_owned);
            return Err(CheckpointError::IsVersion { path: path.to_owned(), root, version });
        }
        // A link keeps the name that was asked for; `.` and `..` have none of their own.
        let Some(name) = path.file_name().or(absolute.file_name()).and_then(OsStr::to_str) else {
            return Err(CheckpointError::NoName { path: path.to_owned() });
        };
        Ok(ModelDirectory { name: name.to_owned(), path: path.to_owned() })
    }

    /// The model's name: the last part of its path.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The directory, as it was given.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The versions that are there now, ascending: directories named by a positive decimal number.
    ///
    /// # Errors
    /// [`CheckpointError::Io`] where the directory cannot be read.
    pub fn versions(&self) -> Result<Vec<u64>, CheckpointError> {
        let mut versions = numbered(&self.path)?;
        versions.retain(|version| self.version_path(*version).is_dir());
        Ok(versions)
    }

    /// The highest version that is there now.
    ///
    /// # Errors
    /// [`CheckpointError::NoVersions`] where there is none.
    pub fn latest(&self) -> Result<u64, CheckpointError> {
        if let Some(version) = self.versions()?.pop() {
            return Ok(version);
        }
        let path = self.path.clone();
        let entries = fs::read_dir(&path).map_err(CheckpointError::io(&path, "list"))?;
        let models = entries.flatten().map(|entry| entry.path()).filter(|model| holds_a_version(model));
        Err(match models.min() {
            Some(example) => CheckpointError::HoldsModels { path, example },
            None => CheckpointError::NoVersions { path },
        })
    }

    /// The number after the highest that is taken, by a version or by anything else.
    pub(super) fn next_version(&self) -> Result<u64, CheckpointError> {
        let highest = numbered(&self.path)?.pop().unwrap_or(0);
        highest.checked_add(1).ok_or_else(|| CheckpointError::VersionsExhausted { path: self.path.clone() })
    }

    /// Where a version is or would be.
    pub(super) fn version_path(&self, version: u64) -> PathBuf {
        self.path.join(version.to_string())
    }

    /// Reads a version, the highest where none is named, and checks everything but its probes.
    ///
    /// # Errors
    /// [`CheckpointError`] that names the file and the field.
    pub fn load(&self, version: Option<u64>) -> Result<Checkpoint, CheckpointError> {
        let version = match version {
            Some(version) => version,
            None => self.latest()?,
        };
        let path = self.version_path(version);
        if !path.is_dir() {
            let available = self.versions()?;
            return Err(CheckpointError::NoVersion { path: self.path.clone(), version, available });
        }
        read(&self.name, version, &path)
    }
}

/// Entries named by a version number, ascending.
fn numbered(path: &Path) -> Result<Vec<u64>, CheckpointError> {
    let mut versions = Vec::new();
    for entry in fs::read_dir(path).map_err(CheckpointError::io(path, "list"))? {
        let entry = entry.map_err(CheckpointError::io(path, "list"))?;
        versions.extend(version_number(&entry.file_name()));
    }
    versions.sort_unstable();
    Ok(versions)
}

fn holds_a_version(path: &Path) -> bool {
    path.is_dir() && numbered(path).is_ok_and(|versions| !versions.is_empty())
}

/// The number that a name spells, in the one way that numbers are written: `7`, not `07` or `+7`.
fn version_number(name: &OsStr) -> Option<u64> {
    let name = name.to_str()?;
    name.parse().ok().filter(|version: &u64| *version > 0 && version.to_string() == name)
}
