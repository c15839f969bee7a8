use std::path::{Path, PathBuf};

use canet_model::checkpoint::ModelDirectory;
use canet_model::{Backend, Model};
use clap::Args;

use super::Failure;
use super::exit::say;
use super::verdict::quoted;

/// The model of a command.
#[derive(Debug, Args)]
pub(crate) struct ModelArgs {
    /// Directory of the model, which holds its versions
    #[arg(long, env = "CANET_MODEL", value_name = "DIR")]
    model: PathBuf,
    /// Version of the model [default: the highest]
    #[arg(long, env = "CANET_VERSION", value_name = "N")]
    version: Option<u64>,
}

impl ModelArgs {
    /// A version (`None`: the highest) of the model in a directory.
    pub(crate) fn new(model: PathBuf, version: Option<u64>) -> ModelArgs {
        ModelArgs { model, version }
    }

    /// The flags that name this model, as a shell takes them.
    pub(crate) fn flags(&self) -> String {
        let version = self.version.map(|version| format!(" --version {version}")).unwrap_or_default();
        format!("--model {}{version}", self.directory())
    }

    /// The model's directory, as a shell takes it.
    pub(crate) fn directory(&self) -> String {
        quoted(&self.model)
    }

    /// Opens the model on a backend.
    pub(crate) fn open(&self, backend: &dyn Backend) -> Result<Model, Failure> {
        open(&self.model, self.version, backend)
    }
}

/// Opens a version (`None`: the highest) of the model in a directory.
pub(crate) fn open(directory: &Path, version: Option<u64>, backend: &dyn Backend) -> Result<Model, Failure> {
    let directory = ModelDirectory::open(directory).map_err(Failure::data)?;
    let model = Model::open(&directory, version, backend).map_err(Failure::data)?;
    if let Some(fault) = model.titles_fault() {
        say(fault);
    }
    Ok(model)
}
