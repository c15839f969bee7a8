use std::fmt;
use std::io::Write;

use canet_model::checkpoint::{Origin, OriginError, OriginObject};
use futures_util::TryStreamExt;
use object_store::aws::AmazonS3;
use object_store::path::Path;
use object_store::{GetOptions, GetRange, ObjectStore};
use tokio::runtime::Runtime;

use crate::reason::{lacks_bucket, reason};
use crate::{S3Address, S3Settings, SettingsError};

/// The most objects that are listed. They make some thousand versions; a bucket of other things has more.
const MOST_OBJECTS: usize = 20_000;

/// A model below a prefix of a bucket.
pub struct S3Model {
    address: S3Address,
    /// `address` as text.
    shown: String,
    endpoint: Option<String>,
    pub(crate) store: AmazonS3,
    /// Calls run on the caller's thread. `None` only while this drops.
    runtime: Option<Runtime>,
}

impl S3Model {
    /// A model at an address. The store is not asked yet.
    ///
    /// # Errors
    /// [`SettingsError`] if the settings are incomplete or contradict each other.
    pub fn new(address: S3Address, settings: &S3Settings) -> Result<S3Model, SettingsError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        Ok(S3Model {
            store: settings.client(&address)?,
            shown: address.to_string(),
            endpoint: settings.endpoint().map(str::to_owned),
            runtime: Some(runtime.map_err(|error| SettingsError::Variables(error.to_string()))?),
            address,
        })
    }

    /// Waits for the end of a call.
    pub(crate) fn wait<T>(&self, call: impl Future<Output = object_store::Result<T>>) -> object_store::Result<T> {
        match &self.runtime {
            Some(runtime) => runtime.block_on(call),
            None => unreachable!("only `drop` takes the runtime"),
        }
    }

    /// The path of an object below the model's address.
    pub(crate) fn path(&self, key: &str) -> Path {
        self.address.path(key)
    }

    /// The error of a call that must succeed.
    pub(crate) fn unavailable(&self, error: &object_store::Error) -> OriginError {
        OriginError::Unavailable(reason(error, self.endpoint.as_deref()))
    }

    /// The error of a call for one object.
    fn object_error(&self, error: &object_store::Error) -> OriginError {
        match error {
            object_store::Error::NotFound { .. } if !lacks_bucket(error) => OriginError::Missing,
            error => self.unavailable(error),
        }
    }
}

impl Origin for S3Model {
    fn address(&self) -> &str {
        &self.shown
    }

    fn list(&self) -> Result<Vec<OriginObject>, OriginError> {
        let listed = self.wait(async {
            let mut found = Vec::new();
            let mut objects = self.store.list(Some(self.address.prefix()));
            while let Some(object) = objects.try_next().await? {
                let Some(key) = self.address.key(&object.location) else { continue };
                let tag = object.e_tag.unwrap_or_else(|| object.last_modified.to_rfc3339());
                found.push(OriginObject { key: key.to_owned(), bytes: object.size, tag });
                if found.len() > MOST_OBJECTS {
                    break;
                }
            }
            Ok(found)
        });
        match listed {
            Ok(found) if found.len() > MOST_OBJECTS => Err(OriginError::Unavailable(format!(
                "there are more than {MOST_OBJECTS} objects below it: give the prefix of one model, or remove old versions"
            ))),
            Ok(found) => Ok(found),
            Err(error) => Err(self.unavailable(&error)),
        }
    }

    fn read(&self, key: &str, limit: u64, to: &mut dyn Write) -> Result<(), OriginError> {
        tracing::debug!(address = self.shown, key, "reading an object");
        let mut download = Download { limit, to, written: 0, tag: None };
        loop {
            let before = download.written;
            match self.wait(download.proceed(&self.store, &self.path(key))) {
                // The client gives up after some attempts or seconds, however large the object is.
                Err(error) if download.written > before => {
                    tracing::debug!(%error, key, bytes = download.written, "reading on after a break");
                }
                Err(error) => return Err(self.object_error(&error)),
                Ok(outcome) => return outcome,
            }
        }
    }
}

/// An object that is being read.
struct Download<'a> {
    /// The most bytes that it may have.
    limit: u64,
    to: &'a mut dyn Write,
    written: u64,
    /// The object's tag at the beginning.
    tag: Option<String>,
}

impl Download<'_> {
    /// Reads from the first byte that is missing to the end. The object must still be the one of the beginning.
    async fn proceed(&mut self, store: &AmazonS3, path: &Path) -> object_store::Result<Result<(), OriginError>> {
        let range = (self.written > 0).then_some(GetRange::Offset(self.written));
        let options = GetOptions { range, if_match: self.tag.clone(), ..GetOptions::default() };
        let object = store.get_opts(path, options).await?;
        let size = object.meta.size;
        if size > self.limit {
            return Ok(Err(OriginError::TooLarge { size }));
        }
        self.tag = self.tag.take().or_else(|| object.meta.e_tag.clone());
        let mut pieces = object.into_stream();
        while let Some(piece) = pieces.try_next().await? {
            let size = self.written + piece.len() as u64;
            if size > self.limit {
                return Ok(Err(OriginError::TooLarge { size }));
            }
            if let Err(error) = self.to.write_all(&piece) {
                return Ok(Err(OriginError::Write(error)));
            }
            self.written = size;
        }
        Ok(Ok(()))
    }
}

impl Drop for S3Model {
    /// A runtime that drops within another one would panic, and a thread that waits for the network would delay it.
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl fmt::Debug for S3Model {
    /// Without the client, which holds credentials.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("S3Model").field("address", &self.shown).finish_non_exhaustive()
    }
}
