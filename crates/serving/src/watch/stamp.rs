use std::ffi::OsString;
use std::fs::{self, DirEntry, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use canet_model::checkpoint::{CheckpointError, Listing, ModelDirectory, OriginObject};

/// Identifies a state of the highest version without reading its files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stamp {
    pub(super) version: u64,
    /// Every file, by name.
    pub(super) files: Vec<FileStamp>,
    /// Device and inode of each of them.
    pub(super) inodes: Vec<(u64, u64)>,
}

/// Identifies a state of a file. A link stands for the file that it leads to.
///
/// A copy can keep size and modification time of the file that it replaces, but not the time at which the file system
/// last changed the file's entry.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct FileStamp {
    pub(super) name: OsString,
    pub(super) bytes: u64,
    /// Seconds and nanoseconds of the last modification.
    pub(super) modified: (i64, i64),
    /// Seconds and nanoseconds of the last change of contents, name, owner or mode.
    pub(super) changed: (i64, i64),
    /// What a store says of an object's content, in place of times. Empty for a file.
    pub(super) tag: String,
}

impl Stamp {
    /// The present state of the highest version; `None` if the directory has no version.
    ///
    /// # Errors
    /// [`CheckpointError::Io`] if the directory cannot be read.
    pub fn read(directory: &ModelDirectory) -> Result<Option<Stamp>, CheckpointError> {
        Stamp::of_highest(directory, &directory.list()?, None)
    }

    /// The present state of a single file, which stands for a version 0.
    ///
    /// # Errors
    /// [`io::Error`] if the file does not exist or cannot be looked at.
    pub(crate) fn of_file(path: &Path) -> io::Result<Stamp> {
        let (file, inode) = FileStamp::of(path.as_os_str().to_owned(), &fs::metadata(path)?);
        Ok(Stamp { version: 0, files: vec![file], inodes: vec![inode] })
    }

    /// The present state of the highest version that is not `but`; `None` if there is no such version.
    ///
    /// # Errors
    /// [`CheckpointError::Io`] if its files cannot be listed.
    pub(crate) fn of_highest(
        directory: &ModelDirectory,
        listing: &Listing,
        but: Option<u64>,
    ) -> Result<Option<Stamp>, CheckpointError> {
        let highest = listing.versions.iter().rfind(|version| Some(**version) != but);
        highest.map(|version| Stamp::of_version(directory, listing, *version)).transpose()
    }

    /// The present state of a version, or in a store that of the listing.
    ///
    /// # Errors
    /// [`CheckpointError::Io`] if its files cannot be listed.
    pub(crate) fn of_version(
        directory: &ModelDirectory,
        listing: &Listing,
        version: u64,
    ) -> Result<Stamp, CheckpointError> {
        if let Some(objects) = listing.objects.get(&version) {
            return Ok(Stamp {
                version,
                files: objects.iter().map(FileStamp::of_object).collect(),
                inodes: Vec::new(),
            });
        }
        let path = directory.path().join(version.to_string());
        let files = Stamp::files(&path).map_err(|source| CheckpointError::Io { path, action: "list", source })?;
        let (files, inodes) = files.into_iter().unzip();
        Ok(Stamp { version, files, inodes })
    }

    fn files(path: &Path) -> io::Result<Vec<(FileStamp, (u64, u64))>> {
        let mut files = Vec::new();
        for entry in fs::read_dir(path)? {
            let entry = entry?;
            let about = match followed(&entry) {
                // The file went between the two calls.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                about => about?,
            };
            files.push(FileStamp::of(entry.file_name(), &about));
        }
        files.sort_unstable();
        Ok(files)
    }
}

impl FileStamp {
    /// The stamp of a file, and its device and inode.
    fn of(name: OsString, about: &Metadata) -> (FileStamp, (u64, u64)) {
        let stamp = FileStamp {
            name,
            bytes: about.len(),
            modified: (about.mtime(), about.mtime_nsec()),
            changed: (about.ctime(), about.ctime_nsec()),
            tag: String::new(),
        };
        (stamp, (about.dev(), about.ino()))
    }

    fn of_object(object: &OriginObject) -> FileStamp {
        let OriginObject { key, bytes, tag } = object.clone();
        FileStamp { name: key.into(), bytes, modified: (0, 0), changed: (0, 0), tag }
    }
}

/// The metadata of an entry's file, or of the link itself if that leads nowhere.
fn followed(entry: &DirEntry) -> io::Result<Metadata> {
    fs::metadata(entry.path()).or_else(|_| entry.metadata())
}
