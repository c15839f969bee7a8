use std::fmt::Debug;
use std::io::{self, Write};

/// A store that holds the versions of a model, from which a [`ModelDirectory`](super::ModelDirectory) copies them.
///
/// Objects have the keys that the files of a model's directory have as paths: `3/canet.json`. A version exists once its
/// `canet.json` does, so a writer uploads that last.
pub trait Origin: Debug + Send + Sync {
    /// The model's address, as in `s3://bucket/models/ml-100k`. Errors name objects below it.
    fn address(&self) -> &str;

    /// Every object below the address that exists now.
    ///
    /// # Errors
    /// [`OriginError`] if the store does not answer or refuses.
    fn list(&self) -> Result<Vec<OriginObject>, OriginError>;

    /// Writes an object of at most `limit` bytes to `to`.
    ///
    /// # Errors
    /// [`OriginError`]. Some of the object may be written already.
    fn read(&self, key: &str, limit: u64, to: &mut dyn Write) -> Result<(), OriginError>;
}

/// An object of a store.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct OriginObject {
    /// Its key below the model's address.
    pub key: String,
    /// Its size in bytes.
    pub bytes: u64,
    /// Changes with its content.
    pub tag: String,
}

/// Why a store did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum OriginError {
    /// There is no such object.
    #[error("there is no such object")]
    Missing,
    /// The object is larger than the caller allows.
    #[error("the object has {size} bytes")]
    TooLarge {
        /// Its size in bytes.
        size: u64,
    },
    /// The copy could not be written.
    #[error("{0}")]
    Write(#[from] io::Error),
    /// The store does not answer, or refuses these credentials. The text says what to do.
    #[error("{0}")]
    Unavailable(String),
}
