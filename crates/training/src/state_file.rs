use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};
use tch::Tensor;

use super::error::TrainError;
use super::optimizer::{AdamW, Moments};
use super::parameters::{Parameters, to_host};
use super::router::Utilities;
use super::state::{Progress, RunState};
use canet_model::{HostTensor, Weights};

/// The file of an unfinished run.
pub(crate) struct StateFile {
    path: PathBuf,
}

const PROGRESS_KEY: &str = "progress";

/// The part of the file that holds what slices were worth.
const UTILITY: &str = "utility";

impl StateFile {
    /// The state file of a working directory.
    pub(crate) fn of(directory: &Path) -> StateFile {
        StateFile { path: directory.join("state.safetensors") }
    }

    /// Writes the state aside, then in place: a kill leaves the old or the new one.
    ///
    /// # Errors
    /// [`TrainError`] where the disk is full or the device is lost.
    pub(crate) fn save(&self, state: &RunState) -> Result<(), TrainError> {
        let mut tensors = BTreeMap::new();
        for (name, tensor) in state.parameters.iter() {
            tensors.insert(format!("parameter.{name}"), to_host(tensor)?);
        }
        for (name, moments) in state.optimizer.moments(&state.parameters)? {
            tensors.insert(format!("first.{name}"), to_host(&moments.first)?);
            tensors.insert(format!("second.{name}"), to_host(&moments.second)?);
        }
        for (name, tensor) in state.best.iter() {
            tensors.insert(format!("best.{name}"), tensor.clone());
        }
        if let Some(ranks) = state.utilities.to_tensor() {
            tensors.insert(format!("{UTILITY}.ranks"), ranks);
        }
        let bytes: Vec<(String, Vec<usize>, Vec<u8>)> = tensors
            .into_iter()
            .map(|(name, tensor)| {
                let bytes = tensor.data.iter().flat_map(|value| value.to_le_bytes()).collect();
                (name, tensor.shape, bytes)
            })
            .collect();
        let views = bytes
            .iter()
            .map(|(name, shape, bytes)| Ok((name, TensorView::new(Dtype::F32, shape.clone(), bytes)?)))
            .collect::<Result<Vec<_>, safetensors::SafeTensorError>>()
            .map_err(|error| self.corrupt(error))?;
        let progress = serde_json::to_string(&state.progress).map_err(|error| self.corrupt(error))?;
        let metadata = HashMap::from([(PROGRESS_KEY.to_owned(), progress)]);
        let file = safetensors::serialize(views, Some(metadata)).map_err(|error| self.corrupt(error))?;
        let aside = self.path.with_extension("partial");
        let write = || -> std::io::Result<()> {
            let mut out = File::create(&aside)?;
            out.write_all(&file)?;
            out.sync_all()?;
            fs::rename(&aside, &self.path)
        };
        write().map_err(|source| TrainError::io(&self.path, source))
    }

    /// Throws the state away, where there is one.
    ///
    /// # Errors
    /// [`TrainError::Io`].
    pub(crate) fn remove(&self) -> Result<(), TrainError> {
        match fs::remove_file(&self.path) {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => Err(TrainError::io(&self.path, source)),
            _ => Ok(()),
        }
    }

    /// Reads the state of an unfinished run, `None` where there is none.
    ///
    /// # Errors
    /// [`TrainError`] where the file cannot be read or is not a run's state.
    pub(crate) fn load(&self, device: tch::Device) -> Result<Option<RunState>, TrainError> {
        let bytes = match fs::read(&self.path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(TrainError::io(&self.path, error)),
        };
        let (_, header) = SafeTensors::read_metadata(&bytes).map_err(|error| self.corrupt(error))?;
        let progress = header
            .metadata()
            .as_ref()
            .and_then(|metadata| metadata.get(PROGRESS_KEY))
            .ok_or_else(|| self.corrupt("it has no progress"))?;
        let progress: Progress = serde_json::from_str(progress).map_err(|error| self.corrupt(error))?;
        let file = SafeTensors::deserialize(&bytes).map_err(|error| self.corrupt(error))?;
        let mut parts: BTreeMap<&str, Weights> = BTreeMap::new();
        for (name, view) in file.iter() {
            let (part, name) = name.split_once('.').ok_or_else(|| self.corrupt(format!("odd tensor {name:?}")))?;
            let data = view
                .data()
                .chunks_exact(size_of::<f32>())
                .map(|bytes| f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
                .collect();
            parts.entry(part).or_default().insert(name, HostTensor { shape: view.shape().to_vec(), data });
        }
        let utilities = match parts.remove(UTILITY) {
            Some(part) => Utilities::from_tensor(part.get("ranks").map_err(|error| self.corrupt(error))?),
            None => Utilities::default(),
        };
        let take = |parts: &mut BTreeMap<&str, Weights>, part: &str| -> Result<Weights, TrainError> {
            let weights = parts.remove(part).unwrap_or_default();
            weights.check(&progress.config).map_err(|error| self.corrupt(format!("{part}: {error}")))?;
            Ok(weights)
        };
        let parameters = {
            let (weights, options) = (take(&mut parts, "parameter")?, &progress.options);
            Parameters::from_weights(&weights, options.preset.recipe(), options.tied, device)?
        };
        let (first, second) = (take(&mut parts, "first")?, take(&mut parts, "second")?);
        let best = if parts.contains_key("best") { take(&mut parts, "best")? } else { Weights::default() };
        let moments = first
            .iter()
            .map(|(name, tensor)| {
                let second = second.get(name).map_err(|error| self.corrupt(error))?;
                Ok((name.to_owned(), Moments { first: to_tensor(tensor)?, second: to_tensor(second)? }))
            })
            .collect::<Result<_, TrainError>>()?;
        let optimizer = AdamW::resume(progress.options.optimizer, &parameters, &moments, progress.optimizer_steps)?;
        Ok(Some(RunState { progress, parameters, optimizer, best, utilities }))
    }

    fn corrupt(&self, reason: impl ToString) -> TrainError {
        TrainError::State { path: self.path.clone(), reason: reason.to_string() }
    }
}

fn to_tensor(host: &HostTensor) -> Result<Tensor, tch::TchError> {
    let shape: Vec<i64> = host.shape.iter().map(|size| *size as i64).collect();
    Tensor::f_from_slice(&host.data)?.f_reshape(shape)
}
