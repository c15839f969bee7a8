use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use canet_model::{HostTensor, Weights};
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};
use zerocopy::IntoBytes;

use crate::error::TrainError;
use crate::optimizer::{AdamW, Moments};
use crate::parameters::{ParameterOptions, Parameters};
use crate::route_ranks::RouteRanks;
use crate::state::{Progress, TrainState};
use crate::tensors::{from_host, to_host};

/// The file that keeps the state of an unfinished training.
///
/// It is a safetensors file. Its metadata has the [`Progress`] as JSON under `progress`. Its tensors are named
/// `parameter.NAME`, `first.NAME`, `second.NAME` and `best.NAME` for each weight, and `utility.ranks`.
pub(crate) struct StateFile {
    path: PathBuf,
}

const PROGRESS: &str = "progress";
const PARAMETER: &str = "parameter";
const FIRST_MOMENT: &str = "first";
const SECOND_MOMENT: &str = "second";
const BEST: &str = "best";
const UTILITY: &str = "utility";
const RANKS: &str = "ranks";

impl StateFile {
    /// The state file in a working directory.
    pub(crate) fn new(directory: &Path) -> StateFile {
        StateFile { path: directory.join("state.safetensors") }
    }

    /// Writes the state to another file and renames that. A process that is killed leaves the old state or the new one.
    ///
    /// # Errors
    /// [`TrainError`], if the disk is full or the device is lost.
    pub(crate) fn save(&self, state: &TrainState) -> Result<(), TrainError> {
        let mut tensors = BTreeMap::new();
        for (name, tensor) in state.parameters.iter() {
            tensors.insert(format!("{PARAMETER}.{name}"), to_host(tensor)?);
        }
        for (name, moments) in state.optimizer.moments(&state.parameters)? {
            tensors.insert(format!("{FIRST_MOMENT}.{name}"), to_host(&moments.first)?);
            tensors.insert(format!("{SECOND_MOMENT}.{name}"), to_host(&moments.second)?);
        }
        for (name, tensor) in state.best.iter() {
            tensors.insert(format!("{BEST}.{name}"), tensor.clone());
        }
        if let Some(ranks) = state.ranks.to_tensor() {
            tensors.insert(format!("{UTILITY}.{RANKS}"), ranks);
        }
        let views = tensors
            .iter()
            .map(|(name, tensor)| {
                // The format is little-endian, like every processor that this program runs on.
                Ok((name, TensorView::new(Dtype::F32, tensor.shape.clone(), tensor.data.as_bytes())?))
            })
            .collect::<Result<Vec<_>, safetensors::SafeTensorError>>()
            .map_err(|error| self.invalid(error))?;
        let progress = serde_json::to_string(&state.progress).map_err(|error| self.invalid(error))?;
        let metadata = HashMap::from([(PROGRESS.to_owned(), progress)]);
        let bytes = safetensors::serialize(views, Some(metadata)).map_err(|error| self.invalid(error))?;
        let partial = self.path.with_extension("partial");
        let write = || -> io::Result<()> {
            let mut file = File::create(&partial)?;
            file.write_all(&bytes)?;
            file.sync_all()?;
            fs::rename(&partial, &self.path)
        };
        write().map_err(|source| TrainError::io(&self.path, source))
    }

    /// Removes the file, if it exists.
    ///
    /// # Errors
    /// [`TrainError::Io`].
    pub(crate) fn remove(&self) -> Result<(), TrainError> {
        match fs::remove_file(&self.path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => Err(TrainError::io(&self.path, source)),
            _ => Ok(()),
        }
    }

    /// Reads the state. Returns `None` if there is no file.
    ///
    /// # Errors
    /// [`TrainError`], if the file cannot be read or is not a state.
    pub(crate) fn load(&self, device: tch::Device) -> Result<Option<TrainState>, TrainError> {
        let bytes = match fs::read(&self.path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(TrainError::io(&self.path, error)),
        };
        let progress = self.progress(&bytes)?;
        let mut parts = self.parts(&bytes)?;
        let ranks = match parts.remove(UTILITY) {
            Some(part) => RouteRanks::from_tensor(part.get(RANKS).map_err(|error| self.invalid(error))?),
            None => RouteRanks::default(),
        };
        let checked = |part: &str, weights: Weights| -> Result<Weights, TrainError> {
            weights.check(&progress.config).map_err(|error| self.invalid(format!("{part}: {error}")))?;
            Ok(weights)
        };
        let mut take = |part: &str| checked(part, parts.remove(part).unwrap_or_default());
        let options = ParameterOptions { recipe: progress.options.recipe(), tied: progress.options.tied, device };
        let parameters = Parameters::from_weights(&take(PARAMETER)?, options)?;
        let (first, second) = (take(FIRST_MOMENT)?, take(SECOND_MOMENT)?);
        let best = parts.remove(BEST).map(|best| checked(BEST, best)).transpose()?.unwrap_or_default();
        let moments = first
            .iter()
            .map(|(name, tensor)| {
                let second = second.get(name).map_err(|error| self.invalid(error))?;
                Ok((name.to_owned(), Moments { first: from_host(tensor)?, second: from_host(second)? }))
            })
            .collect::<Result<_, TrainError>>()?;
        let optimizer = AdamW::resume(progress.options.optimizer, &parameters, &moments, progress.optimizer_steps)?;
        Ok(Some(TrainState { progress, parameters, optimizer, best, ranks }))
    }

    fn progress(&self, bytes: &[u8]) -> Result<Progress, TrainError> {
        let (_, header) = SafeTensors::read_metadata(bytes).map_err(|error| self.invalid(error))?;
        let progress = header.metadata().as_ref().and_then(|metadata| metadata.get(PROGRESS));
        let progress = progress.ok_or_else(|| self.invalid("it has no progress"))?;
        serde_json::from_str(progress).map_err(|error| self.invalid(error))
    }

    /// The tensors by the part of the state that they belong to.
    fn parts(&self, bytes: &[u8]) -> Result<BTreeMap<String, Weights>, TrainError> {
        let file = SafeTensors::deserialize(bytes).map_err(|error| self.invalid(error))?;
        let mut parts: BTreeMap<String, Weights> = BTreeMap::new();
        for (name, view) in file.iter() {
            let unknown = || self.invalid(format!("unknown tensor {name:?}"));
            let (part, name) = name.split_once('.').ok_or_else(unknown)?;
            let (values, _) = view.data().as_chunks();
            let data = values.iter().map(|value| f32::from_le_bytes(*value)).collect();
            let tensor = HostTensor { shape: view.shape().to_vec(), data };
            parts.entry(part.to_owned()).or_default().insert(name, tensor);
        }
        Ok(parts)
    }

    fn invalid(&self, reason: impl ToString) -> TrainError {
        TrainError::State { path: self.path.clone(), reason: reason.to_string() }
    }
}
