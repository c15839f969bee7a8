use std::path::Path;

use canet_model::checkpoint::ModelDirectory;
use canet_model::{Backend, Model};

use super::Failure;

/// Opens a version (`None`: the highest) of the model in a directory.
pub(crate) fn open(directory: &Path, version: Option<u64>, backend: &dyn Backend) -> Result<Model, Failure> {
    let directory = ModelDirectory::open(directory).map_err(Failure::data)?;
    Model::open(&directory, version, backend).map_err(Failure::data)
}
