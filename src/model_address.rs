use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;

use canet_model::checkpoint::ModelDirectory;
use canet_store::{S3Address, S3Settings, StoreError};
use clap::Args;
use clap::builder::{OsStringValueParser, TypedValueParser, ValueParserFactory};

use super::Failure;

/// Where the versions of a model are.
#[derive(Clone, Debug)]
pub(crate) enum ModelAddress {
    /// A directory.
    Directory(PathBuf),
    /// A prefix of a bucket.
    S3(S3Address),
}

/// Reads the directory of a model that gets a new version.
pub(crate) fn new_version_directory() -> impl TypedValueParser<Value = PathBuf> {
    OsStringValueParser::new().try_map(|text| match text.to_str() {
        Some(address) if S3Address::is_meant_by(address) => {
            Err("a version is written to a directory first: give one, and copy it into the bucket with `canet publish`")
        }
        _ => Ok(PathBuf::from(text)),
    })
}

/// Where copies of models are kept.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct CacheArgs {
    /// Directory for copies of the versions of an s3:// model. Those that were read last stay [default:
    /// $XDG_CACHE_HOME/canet/models, or ~/.cache/canet/models]
    #[arg(long, env = "CANET_MODEL_CACHE", value_name = "DIR")]
    model_cache: Option<PathBuf>,
}

impl ModelAddress {
    fn parse(text: OsString) -> Result<ModelAddress, canet_store::AddressError> {
        match text.to_str() {
            Some(address) if S3Address::is_meant_by(address) => address.parse().map(ModelAddress::S3),
            _ => Ok(ModelAddress::Directory(text.into())),
        }
    }

    /// Opens the model. A directory must have a version. A store is not asked yet.
    pub(crate) fn open(&self, cache: &CacheArgs) -> Result<ModelDirectory, Failure> {
        let address = match self {
            ModelAddress::Directory(path) => {
                return ModelDirectory::open(path).map_err(|error| Failure::checkpoint(&error));
            }
            ModelAddress::S3(address) => address,
        };
        let cache = cache.directory()?;
        canet_store::open(address.clone(), &s3_settings(), &cache).map_err(|error| match error {
            StoreError::Settings(error) => Failure::usage(error),
            StoreError::Copies(error) => Failure::writing(&error),
        })
    }

    /// Whether asking for versions costs a request to a store.
    pub(crate) fn is_remote(&self) -> bool {
        matches!(self, ModelAddress::S3(_))
    }
}

impl ValueParserFactory for ModelAddress {
    type Parser = clap::builder::ValueParser;

    fn value_parser() -> Self::Parser {
        OsStringValueParser::new().try_map(ModelAddress::parse).into()
    }
}

impl CacheArgs {
    fn directory(&self) -> Result<PathBuf, Failure> {
        if let Some(path) = &self.model_cache {
            return Ok(path.clone());
        }
        let missing = || {
            Failure::usage("there is no home directory for copies of the model: name a directory with --model-cache")
        };
        canet_store::default_cache(variables()).ok_or_else(missing)
    }
}

/// The settings in the environment.
pub(crate) fn s3_settings() -> S3Settings {
    S3Settings::from_variables(variables())
}

#[expect(clippy::disallowed_methods, reason = "the usual variables of S3 are no flags of this program")]
fn variables() -> std::env::VarsOs {
    std::env::vars_os()
}

impl fmt::Display for ModelAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ModelAddress::Directory(path) => path.display().fmt(f),
            ModelAddress::S3(address) => address.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn an_address_is_a_directory_unless_it_says_otherwise() {
        let parse = |text: &str| ModelAddress::parse(text.into());
        for text in ["models/ml-100k", "s3", "./s3://x", "gs://bucket/x"] {
            assert!(matches!(parse(text).unwrap(), ModelAddress::Directory(path) if path == Path::new(text)), "{text}");
        }
        let remote = parse("s3://models/ml-100k/").unwrap();
        assert!(remote.is_remote());
        assert_eq!(remote.to_string(), "s3://models/ml-100k");
        assert!(parse("s3://").is_err());
    }
}
