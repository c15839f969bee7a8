use canet_model::checkpoint::{Checkpoint, ModelDirectory};
use canet_model::{Backend, Model};
use clap::Args;

use super::Failure;
use super::exit::say;
use super::model_address::{CacheArgs, ModelAddress};
use super::printable::quoted;

/// The model of a command.
#[derive(Debug, Args)]
pub(crate) struct ModelArgs {
    /// Directory of the model, which holds its versions, or s3://BUCKET/PREFIX
    #[arg(long, env = "CANET_MODEL", value_name = "DIR|S3")]
    model: ModelAddress,
    /// Version of the model [default: the highest]
    #[arg(long, env = "CANET_VERSION", value_name = "N")]
    version: Option<u64>,
    #[command(flatten)]
    cache: CacheArgs,
}

impl ModelArgs {
    /// A version (`None`: the highest) of the model at an address.
    pub(crate) fn new(model: ModelAddress, version: Option<u64>, cache: CacheArgs) -> ModelArgs {
        ModelArgs { model, version, cache }
    }

    /// The flags that name this model, as a shell takes them.
    pub(crate) fn flags(&self) -> String {
        let version = self.version.map(|version| format!(" --version {version}")).unwrap_or_default();
        format!("--model {}{version}", quoted(self.model.to_string()))
    }

    /// Reads the version without a backend.
    pub(crate) fn load(&self) -> Result<Checkpoint, Failure> {
        self.model.open(&self.cache)?.load(self.version).map_err(|error| Failure::checkpoint(&error))
    }

    /// Opens the model on a backend.
    pub(crate) fn open(&self, backend: &dyn Backend) -> Result<Model, Failure> {
        open(&self.model.open(&self.cache)?, self.version, backend)
    }
}

/// Opens a version (`None`: the highest) of a model.
pub(crate) fn open(directory: &ModelDirectory, version: Option<u64>, backend: &dyn Backend) -> Result<Model, Failure> {
    let model = Model::open(directory, version, backend).map_err(|error| Failure::opening(&error))?;
    if let Some(fault) = model.titles_fault() {
        say(fault);
    }
    Ok(model)
}
