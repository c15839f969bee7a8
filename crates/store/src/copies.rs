use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use canet_model::checkpoint::{CheckpointError, ModelDirectory};
use twox_hash::XxHash64;

use crate::{S3Address, S3Model, S3Settings, SettingsError};

/// A model in a store cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The settings are incomplete or contradict each other.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// The directory for copies cannot be made.
    #[error(transparent)]
    Copies(#[from] CheckpointError),
}

/// Opens a model in a store, whose versions are copied into a directory of their own below `cache`. The store is not asked yet.
///
/// # Errors
/// [`StoreError`]
pub fn open(address: S3Address, settings: &S3Settings, cache: &Path) -> Result<ModelDirectory, StoreError> {
    let path = cache.join(place(&address, settings)).join(address.name());
    let model = S3Model::new(address, settings)?;
    Ok(ModelDirectory::of_origin(&path, Arc::new(model))?)
}

/// The directory for copies of a user who names none: `$XDG_CACHE_HOME/canet/models` or `~/.cache/canet/models`. `None` without a
/// home directory.
pub fn default_cache(variables: impl IntoIterator<Item = (OsString, OsString)>) -> Option<PathBuf> {
    let (mut cache, mut home) = (None, None);
    for (name, value) in variables.into_iter().filter(|(_, value)| !value.is_empty()) {
        match name.to_str() {
            Some("XDG_CACHE_HOME") => cache = Some(PathBuf::from(value)),
            Some("HOME") => home = Some(PathBuf::from(value)),
            _ => {}
        }
    }
    Some(cache.or_else(|| Some(home?.join(".cache")))?.join("canet").join("models"))
}

/// The directory of a place in a store, so that two models of one name are kept apart.
fn place(address: &S3Address, settings: &S3Settings) -> String {
    let place = format!("{} {address}", settings.endpoint().unwrap_or_default());
    format!("{:016x}", XxHash64::oneshot(0, place.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models_of_one_name_have_copies_of_their_own() {
        let address = |text: &str| text.parse::<S3Address>().unwrap();
        let at = |endpoint: &str| S3Settings::from_variables([("AWS_ENDPOINT_URL".into(), endpoint.into())]);
        let places = [
            place(&address("s3://a/ml"), &at("")),
            place(&address("s3://b/ml"), &at("")),
            place(&address("s3://a/ml"), &at("http://minio")),
        ];
        assert!(places[0] != places[1] && places[0] != places[2] && places[1] != places[2]);
        assert_eq!(places[0], place(&address("s3://a/ml/"), &at("")));
    }

    #[test]
    fn copies_are_in_the_cache_of_the_user() {
        let cache = |variables: &[(&str, &str)]| {
            default_cache(variables.iter().map(|(name, value)| (name.into(), value.into())))
        };
        let (home, cache_home) = (("HOME", "/home/ann"), ("XDG_CACHE_HOME", "/cache"));
        assert_eq!(cache(&[home]), Some("/home/ann/.cache/canet/models".into()));
        assert_eq!(cache(&[cache_home, home]), Some("/cache/canet/models".into()));
        assert_eq!(cache(&[home, ("XDG_CACHE_HOME", "")]), Some("/home/ann/.cache/canet/models".into()));
        assert_eq!(cache(&[("HOME", "")]), None);
    }
}
