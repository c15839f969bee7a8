use std::fs::File;
use std::io::{self, Read};
use std::path::{Path as FilePath, PathBuf};

use bytes::Bytes;
use canet_model::checkpoint::{FILE_NAMES, MANIFEST_LIMIT, Origin, OriginError};
use object_store::{MultipartUpload, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload};

use crate::S3Model;

/// Bytes of a part of an upload. Smaller files are uploaded in one call. S3 takes 10,000 parts, so that a file may have 160 GB.
const PART: usize = 16 << 20;

/// Ends the name of the object that says which version a writer uploads. Readers ignore it.
const CLAIM: &str = ".uploading";

/// The number under which a version is published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VersionNumber {
    /// This one.
    Number(u64),
    /// The one after the highest that exists. If the highest is the same version, or an upload of it that broke off, it stays.
    Next,
}

/// A version that a store holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Published {
    /// Its address.
    pub address: String,
    /// Its number in the store.
    pub version: u64,
    /// Whether this call uploaded it. Otherwise the same version was there already.
    pub is_new: bool,
}

/// Why a version was not published.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// A local file cannot be read.
    #[error("{path}: {source}", path = .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The store holds another version of that number.
    #[error(
        "{address} holds another version, and a version is never replaced: publish this one with --as next, or under a number \
         that is free"
    )]
    Taken {
        /// The version's address.
        address: String,
    },
    /// Another version of that number was uploaded in part.
    #[error(
        "{address} has objects of another upload, which runs or broke off: publish with --as next, or remove them if nobody \
         uploads any more"
    )]
    Uploading {
        /// The version's address.
        address: String,
    },
    /// The store failed.
    #[error("{address}: {reason}")]
    Store {
        /// The object or the model.
        address: String,
        /// The reason, and what to do.
        reason: String,
    },
    /// No number is left.
    #[error("{address}: no number is left after the highest version")]
    Exhausted {
        /// The model's address.
        address: String,
    },
}

/// The manifest's name.
const MANIFEST: &str = FILE_NAMES[FILE_NAMES.len() - 1];

/// The name of the titles, the only file that a version may lack.
const TITLES: &str = FILE_NAMES[FILE_NAMES.len() - 2];

impl S3Model {
    /// Uploads the version in a directory, unless the store holds it already.
    ///
    /// The manifest goes last, and readers take a version without it for none. Before the files, an object claims the number
    /// for this manifest: a writer of another version leaves the files alone, and one of the same version may finish an upload
    /// that broke off. Neither the claim nor the manifest is ever replaced.
    ///
    /// # Errors
    /// [`PublishError`].
    pub fn publish(&self, directory: &FilePath, target: VersionNumber) -> Result<Published, PublishError> {
        let path = directory.join(MANIFEST);
        let manifest = std::fs::read(&path).map_err(|source| PublishError::File { path, source })?;
        let mut version = match target {
            VersionNumber::Number(version) => version,
            VersionNumber::Next => self.next(&manifest)?,
        };
        loop {
            match self.publish_as(version, directory, &manifest) {
                // Another writer was faster.
                Err(PublishError::Taken { .. } | PublishError::Uploading { .. }) if target == VersionNumber::Next => {
                    version = self.next(&manifest)?.max(version.saturating_add(1));
                }
                outcome => return outcome,
            }
        }
    }

    /// The number after the highest that any object has, or the highest itself if it has this manifest or is claimed for it.
    /// So a job that is tried again publishes no second copy, and finishes an upload that broke off.
    fn next(&self, manifest: &[u8]) -> Result<u64, PublishError> {
        let objects = self.list().map_err(|error| self.failed(None, &error))?;
        let number = |key: &str| key.split_once('/').and_then(|(number, _)| number.parse::<u64>().ok());
        let highest = objects.iter().filter_map(|object| number(&object.key)).max().unwrap_or(0);
        for name in [MANIFEST.to_owned(), format!("{MANIFEST}{CLAIM}")] {
            let key = format!("{highest}/{name}");
            if objects.iter().any(|object| object.key == key) && self.content(&key)?.as_deref() == Some(manifest) {
                return Ok(highest);
            }
        }
        highest.checked_add(1).ok_or_else(|| PublishError::Exhausted { address: self.address().to_owned() })
    }

    fn publish_as(&self, version: u64, directory: &FilePath, manifest: &[u8]) -> Result<Published, PublishError> {
        let address = format!("{}/{version}", self.address());
        let published = |is_new| Published { address: address.clone(), version, is_new };
        let (key, claim) = (format!("{version}/{MANIFEST}"), format!("{version}/{MANIFEST}{CLAIM}"));
        match self.content(&key)? {
            Some(found) if found == manifest => return Ok(published(false)),
            Some(_) => return Err(PublishError::Taken { address }),
            None => {}
        }
        let is_claimed = self.create(&claim, manifest)?;
        if !is_claimed && self.content(&claim)?.is_none_or(|found| found != manifest) {
            return Err(PublishError::Uploading { address });
        }
        // Whoever held the claim before may have finished meanwhile.
        if let Some(found) = self.content(&key)? {
            self.remove(&claim);
            return if found == manifest { Ok(published(false)) } else { Err(PublishError::Taken { address }) };
        }
        for name in FILE_NAMES.iter().filter(|name| **name != MANIFEST) {
            let path = directory.join(name);
            match File::open(&path) {
                Ok(file) => self.upload(&format!("{version}/{name}"), file, &path)?,
                // Titles may be missing. The caller has checked the others, but somebody may remove them meanwhile.
                Err(error) if error.kind() == io::ErrorKind::NotFound && *name == TITLES => {}
                Err(source) => return Err(PublishError::File { path, source }),
            }
        }
        let is_new = self.create(&key, manifest)?;
        if !is_new && self.content(&key)?.is_none_or(|found| found != manifest) {
            return Err(PublishError::Taken { address });
        }
        self.remove(&claim);
        Ok(published(is_new))
    }

    /// The content of a manifest or a claim; `None` if there is no such object.
    fn content(&self, key: &str) -> Result<Option<Vec<u8>>, PublishError> {
        let mut bytes = Vec::new();
        match self.read(key, MANIFEST_LIMIT, &mut bytes) {
            Ok(()) => Ok(Some(bytes)),
            // It is no manifest of this program, so it is another version's.
            Err(OriginError::TooLarge { .. }) => Ok(Some(Vec::new())),
            Err(OriginError::Missing) => Ok(None),
            Err(error) => Err(self.failed(Some(key), &error)),
        }
    }

    /// Creates an object. Returns whether there was none.
    fn create(&self, key: &str, bytes: &[u8]) -> Result<bool, PublishError> {
        let options = PutOptions::from(PutMode::Create);
        let payload = PutPayload::from(bytes.to_vec());
        match self.wait(self.store.put_opts(&self.path(key), payload, options)) {
            Ok(_) => Ok(true),
            Err(object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. }) => Ok(false),
            Err(error) => Err(self.failed(Some(key), &self.unavailable(&error))),
        }
    }

    /// Uploads a file in parts, of which one is in memory.
    fn upload(&self, key: &str, mut file: File, path: &FilePath) -> Result<(), PublishError> {
        let unreadable = |source| PublishError::File { path: path.to_owned(), source };
        let failed = |error| self.failed(Some(key), &self.unavailable(&error));
        let (mut part, mut next) =
            (read_part(&mut file).map_err(unreadable)?, read_part(&mut file).map_err(unreadable)?);
        if next.is_empty() {
            return self.wait(self.store.put(&self.path(key), part.into())).map(drop).map_err(failed);
        }
        let mut upload = self.wait(self.store.put_multipart(&self.path(key))).map_err(failed)?;
        let mut upload_all = || {
            while !part.is_empty() {
                self.wait(upload.put_part(std::mem::take(&mut part).into())).map_err(failed)?;
                part = std::mem::take(&mut next);
                if !part.is_empty() {
                    next = read_part(&mut file).map_err(unreadable)?;
                }
            }
            self.wait(upload.complete()).map(drop).map_err(failed)
        };
        let uploaded = upload_all();
        if uploaded.is_err() {
            // Parts that stay cost space until the bucket's own rules remove them.
            let _ = self.wait(upload.abort());
        }
        uploaded
    }

    /// Removes a claim. One that stays does no harm: readers ignore it, and writers read the manifest first.
    fn remove(&self, key: &str) {
        if let Err(error) = self.wait(self.store.delete(&self.path(key))) {
            tracing::debug!(%error, key, "the claim stays");
        }
    }

    fn failed(&self, key: Option<&str>, error: &OriginError) -> PublishError {
        let address = key.map_or_else(|| self.address().to_owned(), |key| format!("{}/{key}", self.address()));
        PublishError::Store { address, reason: error.to_string() }
    }
}

/// The next bytes of a file, none at its end.
fn read_part(file: &mut File) -> io::Result<Bytes> {
    let mut part = Vec::new();
    file.take(PART as u64).read_to_end(&mut part)?;
    Ok(part.into())
}
