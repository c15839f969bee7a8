use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::files::MANIFEST;
use super::read::{self, read};
use super::versions::{holds_a_version, resembles_version, version_number};
use super::{Checkpoint, CheckpointError, Manifest, Origin, OriginObject, files, mirror, versions};

/// The directory of a model. Its versions are the subdirectories named by a number; other entries are ignored.
///
/// The versions of a model with an [`Origin`] are those of the store. The directory then holds copies of those that were read
/// last.
#[derive(Clone, Debug)]
pub struct ModelDirectory {
    path: PathBuf,
    name: String,
    origin: Option<Arc<dyn Origin>>,
}

/// The directories of a model.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// The versions, ascending.
    pub versions: Vec<u64>,
    /// Directories that are no versions although their names have digits, such as `0002` and `v4`, in the order of the
    /// names. Hidden directories are not among them.
    pub ignored: Vec<String>,
    /// The objects of each version of a model with an [`Origin`], in the order of their keys.
    pub objects: BTreeMap<u64, Vec<OriginObject>>,
}

impl ModelDirectory {
    /// Opens a model that has at least one version.
    ///
    /// # Errors
    /// [`CheckpointError`] if the directory is missing, has no version, is itself a version, or holds models. The message
    /// says which path to give instead.
    pub fn open(path: &Path) -> Result<ModelDirectory, CheckpointError> {
        let directory = ModelDirectory::at(path)?;
        directory.latest()?;
        Ok(directory)
    }

    /// Opens a model to write to. It creates the directory if it is missing.
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
        // A link names the model; `.` and `..` do not, so the directory behind them does.
        let Some(name) = path.file_name().or(absolute.file_name()).and_then(OsStr::to_str) else {
            return Err(CheckpointError::NoName { path: path.to_owned() });
        };
        Ok(ModelDirectory { name: name.to_owned(), path: path.to_owned(), origin: None })
    }

    /// A model in a store, of which `path` holds copies. The directory is created if it is missing, and its name is the
    /// model's. The store is not asked yet.
    ///
    /// # Errors
    /// [`CheckpointError`] if the directory cannot be made or is something else.
    pub fn of_origin(path: &Path, origin: Arc<dyn Origin>) -> Result<ModelDirectory, CheckpointError> {
        let directory = ModelDirectory::create(path)?;
        Ok(ModelDirectory { origin: Some(origin), ..directory })
    }

    /// The copies alone, as a model whose versions do not change. `None` if the model has no [`Origin`].
    pub fn copies(&self) -> Option<ModelDirectory> {
        self.origin.is_some().then(|| ModelDirectory { origin: None, ..self.clone() })
    }

    /// The model's name, which is the last part of its path.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The path that the caller gave.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where the versions are: the address of the [`Origin`], or the path.
    pub fn address(&self) -> PathBuf {
        self.origin.as_ref().map_or_else(|| self.path.clone(), |origin| PathBuf::from(origin.address()))
    }

    /// The versions that exist now, ascending.
    ///
    /// # Errors
    /// [`CheckpointError::Io`] if the directory cannot be read, [`CheckpointError::Origin`] if the store cannot.
    pub fn versions(&self) -> Result<Vec<u64>, CheckpointError> {
        Ok(self.list()?.versions)
    }

    /// The directories that exist now.
    ///
    /// # Errors
    /// [`CheckpointError::Io`] if the directory cannot be read, [`CheckpointError::Origin`] if the store cannot.
    pub fn list(&self) -> Result<Listing, CheckpointError> {
        if let Some(origin) = &self.origin {
            return Ok(Listing::of_objects(list_objects(&**origin)?));
        }
        let mut listing = Listing::default();
        let entries = fs::read_dir(&self.path).map_err(CheckpointError::io(&self.path, "list"))?;
        for entry in entries {
            let entry = entry.map_err(CheckpointError::io(&self.path, "list"))?;
            let name = entry.file_name();
            let version = version_number(&name);
            // A link to a directory is a directory too, and only it needs a look at its target.
            let is_directory = || match entry.file_type() {
                Ok(kind) if kind.is_symlink() => entry.path().is_dir(),
                kind => kind.is_ok_and(|kind| kind.is_dir()),
            };
            match version {
                Some(version) if is_directory() => listing.versions.push(version),
                None if resembles_version(&name) && is_directory() => {
                    listing.ignored.push(name.to_string_lossy().into_owned());
                }
                _ => {}
            }
        }
        listing.versions.sort_unstable();
        listing.ignored.sort_unstable();
        Ok(listing)
    }

    /// The highest version that exists now.
    ///
    /// # Errors
    /// [`CheckpointError::NoVersions`] or [`CheckpointError::HoldsModels`] if there is none.
    pub fn latest(&self) -> Result<u64, CheckpointError> {
        if let Some(origin) = &self.origin {
            return latest_object(&**origin);
        }
        let Listing { mut versions, ignored, .. } = self.list()?;
        if let Some(version) = versions.pop() {
            return Ok(version);
        }
        let path = self.path.clone();
        let entries = fs::read_dir(&path).map_err(CheckpointError::io(&path, "list"))?;
        let models = entries.flatten().map(|entry| entry.path()).filter(|model| holds_a_version(model));
        Err(match models.min() {
            Some(example) => CheckpointError::HoldsModels { path, example },
            None => CheckpointError::NoVersions { path, ignored },
        })
    }

    /// The path of a version, whether it exists or not.
    fn version_path(&self, version: u64) -> PathBuf {
        versions::path_of(&self.path, version)
    }

    /// Reads a version (`None`: the highest), and checks everything except its probes.
    ///
    /// # Errors
    /// [`CheckpointError`] that names the file and the field.
    pub fn load(&self, version: Option<u64>) -> Result<Checkpoint, CheckpointError> {
        let version = match version {
            Some(version) => version,
            None => self.latest()?,
        };
        let path = self.version_path(version);
        if let Some(origin) = &self.origin {
            return self.load_copy(&**origin, version);
        }
        if !path.is_dir() {
            return Err(self.no_version(version)?);
        }
        read(&self.name, version, &path)
    }

    /// Copies a version from the store, unless that copy exists, and reads the copy. One that was damaged is copied again.
    fn load_copy(&self, origin: &dyn Origin, version: u64) -> Result<Checkpoint, CheckpointError> {
        let Some(manifest) = mirror::manifest_bytes(origin, version)? else { return Err(self.no_version(version)?) };
        let path = self.version_path(version);
        let held = mirror::fetch(&self.path, origin, version, &manifest)?;
        let outcome = read(&self.name, version, &path);
        if outcome.is_ok() || !held.is_old {
            return outcome;
        }
        drop(held);
        mirror::discard(&self.path, version)?;
        let _held = mirror::fetch(&self.path, origin, version, &manifest)?;
        read(&self.name, version, &path)
    }

    /// The error for a version that does not exist.
    fn no_version(&self, version: u64) -> Result<CheckpointError, CheckpointError> {
        Ok(CheckpointError::NoVersion { path: self.address(), version, available: self.versions()? })
    }

    /// Reads the manifest of a version, and no other file.
    ///
    /// # Errors
    /// [`CheckpointError`] if the manifest is missing, damaged or invalid.
    pub fn manifest(&self, version: u64) -> Result<Manifest, CheckpointError> {
        if let Some(origin) = &self.origin {
            let path = self.address().join(version.to_string()).join(MANIFEST);
            let Some(bytes) = mirror::manifest_bytes(&**origin, version)? else {
                return Err(self.no_version(version)?);
            };
            return read::parse_manifest(&path, &bytes);
        }
        read::manifest(&self.version_path(version))
    }

    /// The SHA-256 of a version's manifest, which holds the digest of every other file but the titles.
    ///
    /// # Errors
    /// [`CheckpointError`] if the manifest is missing or cannot be read.
    pub fn digest(&self, version: u64) -> Result<String, CheckpointError> {
        let bytes = match &self.origin {
            Some(origin) => match mirror::manifest_bytes(&**origin, version)? {
                Some(bytes) => bytes,
                None => return Err(self.no_version(version)?),
            },
            None => files::read_bounded(&self.version_path(version).join(MANIFEST), read::MANIFEST_LIMIT)?,
        };
        Ok(files::sha256_hex(&bytes))
    }

    /// Whether every file of a version has the digest that the manifest records, so that nobody copies it any more. Titles
    /// have no digest and do not count. Every file is read, but of a weights file whose end is missing only the header.
    ///
    /// A version of a store is copied for that.
    pub fn is_complete(&self, version: u64) -> bool {
        if let Some(origin) = &self.origin {
            let manifest = mirror::manifest_bytes(&**origin, version).ok().flatten();
            return manifest.is_some_and(|manifest| mirror::fetch(&self.path, &**origin, version, &manifest).is_ok());
        }
        read::is_complete(&self.version_path(version)).unwrap_or(false)
    }
}

impl Listing {
    /// The versions among a store's objects. What has no manifest is no version yet.
    fn of_objects(objects: Vec<OriginObject>) -> Listing {
        let mut listing = Listing::default();
        let mut directories: BTreeMap<String, Vec<OriginObject>> = BTreeMap::new();
        for object in objects {
            if let Some((directory, _)) = object.key.split_once('/') {
                directories.entry(directory.to_owned()).or_default().push(object);
            }
        }
        for (name, mut objects) in directories {
            match version_number(OsStr::new(&name)) {
                Some(version) if objects.iter().any(|object| object.key == format!("{name}/{MANIFEST}")) => {
                    objects.sort_unstable();
                    listing.objects.insert(version, objects);
                }
                None if resembles_version(OsStr::new(&name)) => listing.ignored.push(name),
                _ => {}
            }
        }
        listing.versions = listing.objects.keys().copied().collect();
        listing
    }
}

fn list_objects(origin: &dyn Origin) -> Result<Vec<OriginObject>, CheckpointError> {
    let reason = match origin.list() {
        Ok(objects) => return Ok(objects),
        Err(error) => error.to_string(),
    };
    Err(CheckpointError::Origin { address: origin.address().to_owned(), reason })
}

/// The highest version of a store.
fn latest_object(origin: &dyn Origin) -> Result<u64, CheckpointError> {
    let (objects, path) = (list_objects(origin)?, PathBuf::from(origin.address()));
    if objects.iter().any(|object| object.key == MANIFEST) {
        let (root, name) = (path.parent().map(Path::to_owned), path.file_name());
        return Err(CheckpointError::IsVersion { version: name.and_then(version_number), root, path });
    }
    // `NAME/1/canet.json`
    let mut manifests = objects.iter().filter_map(|object| object.key.strip_suffix(MANIFEST)?.strip_suffix('/'));
    let model = manifests.find_map(|version| {
        let (model, version) = version.rsplit_once('/')?;
        version_number(OsStr::new(version)).map(|_| path.join(model))
    });
    let Listing { versions, ignored, .. } = Listing::of_objects(objects);
    match (versions.last(), model) {
        (Some(version), _) => Ok(*version),
        (None, Some(example)) => Err(CheckpointError::HoldsModels { path, example }),
        (None, None) => Err(CheckpointError::NoVersions { path, ignored }),
    }
}
