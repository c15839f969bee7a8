use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use canet_model::{HostTensor, TensorFile, TensorFileError, TensorToWrite, Weights, write_tensors};
use canet_torch::tensors::{from_host, to_host};

use crate::error::TrainError;
use crate::optimizer::{AdamW, Moments};
use crate::parameters::{ParameterOptions, Parameters};
use crate::route_ranks::RouteRanks;
use crate::state::{Progress, TrainState};

/// The file that keeps the state of an unfinished training.
///
/// It is a safetensors file. Its metadata has the [`Progress`] as JSON under `progress`. Its tensors are named
/// `parameter.NAME`, `first.NAME`, `second.NAME` and `best.NAME` for each weight, and `utility.ranks`.
///
/// Its name says whether the training has written its version. A process that ends between this and the removal of the
/// state thus leaves nothing that would write the same version again.
pub(crate) struct StateFile {
    path: PathBuf,
}

/// A state that is open, of which only the progress has been read.
pub(crate) struct SavedState<'a> {
    pub progress: Progress,
    tensors: TensorFile,
    file: &'a StateFile,
}

/// The name before the version is written, and how that of version N begins and ends afterwards:
/// `finished-N.safetensors`.
const UNFINISHED: &str = "state.safetensors";
const FINISHED: [&str; 2] = ["finished-", ".safetensors"];

const PROGRESS: &str = "progress";
const PARAMETER: &str = "parameter";
const FIRST_MOMENT: &str = "first";
const SECOND_MOMENT: &str = "second";
const BEST: &str = "best";
const UTILITY: &str = "utility";
const RANKS: &str = "ranks";

impl StateFile {
    /// The state file of an unfinished training in a working directory.
    pub(crate) fn new(directory: &Path) -> StateFile {
        StateFile { path: directory.join(UNFINISHED) }
    }

    /// The state file of a training that has written its version, and the version.
    ///
    /// # Errors
    /// [`TrainError::Io`].
    pub(crate) fn finished(directory: &Path) -> Result<Option<(u64, StateFile)>, TrainError> {
        let [before, behind] = FINISHED;
        let entries = match fs::read_dir(directory) {
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                return Ok(None);
            }
            entries => entries.map_err(|source| TrainError::io(directory, source))?,
        };
        for entry in entries {
            let path = entry.map_err(|source| TrainError::io(directory, source))?.path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let number = name.strip_prefix(before).and_then(|name| name.strip_suffix(behind));
            if let Some(version) = number.and_then(|number| number.parse().ok()) {
                return Ok(Some((version, StateFile { path })));
            }
        }
        Ok(None)
    }

    /// Notes that the training has written this version. A new name needs no room, so a full disk does not refuse it.
    ///
    /// # Errors
    /// [`TrainError::Io`].
    pub(crate) fn finish(&self, version: u64) -> Result<(), TrainError> {
        let [before, behind] = FINISHED;
        let finished = self.path.with_file_name(format!("{before}{version}{behind}"));
        fs::rename(&self.path, finished).map_err(|source| TrainError::io(&self.path, source))
    }

    /// Takes back that the training has written its version.
    ///
    /// # Errors
    /// [`TrainError::Io`].
    pub(crate) fn unfinish(&self) -> Result<(), TrainError> {
        fs::rename(&self.path, self.path.with_file_name(UNFINISHED))
            .map_err(|source| TrainError::io(&self.path, source))
    }

    /// Writes the state to another file and renames that. A process that is killed leaves the old state or the new one. If a
    /// write fails, the other file goes, because it may be what fills the disk.
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
        let progress = serde_json::to_string(&state.progress).map_err(|error| self.invalid(error))?;
        let metadata = HashMap::from([(PROGRESS.to_owned(), progress)]);
        let tensors = tensors
            .iter()
            .map(|(name, tensor)| (name, TensorToWrite::floats(tensor.shape.clone(), &tensor.data)))
            .collect();
        let partial = self.path.with_extension("partial");
        let replace = || -> Result<(), TensorFileError> {
            write_tensors(&partial, tensors, Some(metadata))?;
            File::open(&partial).and_then(|file| file.sync_all()).map_err(TensorFileError::Write)?;
            fs::rename(&partial, &self.path).map_err(TensorFileError::Write)
        };
        replace().map_err(|error| {
            // The error that matters is the first one.
            let _ = fs::remove_file(&partial);
            match error {
                TensorFileError::Write(source) => TrainError::Save { path: self.path.clone(), source },
                other => self.tensor_error(other),
            }
        })
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

    /// Reads the progress without the tensors. Returns `None` if there is no file.
    ///
    /// # Errors
    /// [`TrainError`], if the file cannot be read or is not a state.
    pub(crate) fn progress(&self) -> Result<Option<Progress>, TrainError> {
        Ok(self.open()?.map(|saved| saved.progress))
    }

    /// Opens the state. Returns `None` if there is no file.
    ///
    /// # Errors
    /// [`TrainError`], if the file cannot be read or is not a state.
    pub(crate) fn open(&self) -> Result<Option<SavedState<'_>>, TrainError> {
        let tensors = match File::open(&self.path) {
            Ok(file) => TensorFile::open(file).map_err(|error| self.tensor_error(error))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(TrainError::io(&self.path, error)),
        };
        let progress = tensors.metadata(PROGRESS).ok_or_else(|| self.invalid("it has no progress"))?;
        let progress: Progress = serde_json::from_str(progress).map_err(|error| self.invalid(error))?;
        match progress.fault() {
            Some(fault) => Err(self.invalid(fault)),
            None => Ok(Some(SavedState { progress, tensors, file: self })),
        }
    }

    fn tensor_error(&self, error: TensorFileError) -> TrainError {
        match error {
            TensorFileError::Read(source) | TensorFileError::Write(source) => TrainError::io(&self.path, source),
            other => self.invalid(other),
        }
    }

    /// The error of a file that is not the state of a training.
    pub(crate) fn invalid(&self, reason: impl ToString) -> TrainError {
        TrainError::State { path: self.path.clone(), reason: reason.to_string() }
    }
}

impl SavedState<'_> {
    /// Reads the tensors. The configuration in the progress must be a checked one, because it gives their sizes.
    ///
    /// # Errors
    /// [`TrainError`], if the file cannot be read or is not a state.
    pub(crate) fn load(mut self, device: tch::Device) -> Result<TrainState, TrainError> {
        let mut parts = self.parts()?;
        let SavedState { progress, file, .. } = self;
        let ranks = match parts.remove(UTILITY) {
            Some(part) => RouteRanks::from_tensor(part.get(RANKS).map_err(|error| file.invalid(error))?),
            None => RouteRanks::default(),
        };
        let checked = |part: &str, weights: Weights| -> Result<Weights, TrainError> {
            weights.check(&progress.config).map_err(|error| file.invalid(format!("{part}: {error}")))?;
            Ok(weights)
        };
        let mut take = |part: &str| checked(part, parts.remove(part).unwrap_or_default());
        let options = ParameterOptions { recipe: progress.options.recipe(), tied: progress.options.tied, device };
        let parameters = Parameters::from_weights(&progress.config, &take(PARAMETER)?, options)?;
        let (first, second) = (take(FIRST_MOMENT)?, take(SECOND_MOMENT)?);
        let best = parts.remove(BEST).map(|best| checked(BEST, best)).transpose()?.unwrap_or_default();
        let moments = first
            .iter()
            .map(|(name, tensor)| {
                let second = second.get(name).map_err(|error| file.invalid(error))?;
                Ok((name.to_owned(), Moments { first: from_host(tensor)?, second: from_host(second)? }))
            })
            .collect::<Result<_, TrainError>>()?;
        let optimizer = AdamW::resume(progress.options.optimizer, &parameters, &moments, progress.optimizer_steps)?;
        Ok(TrainState { progress, parameters, optimizer, best, ranks })
    }

    /// The tensors by the part of the state that they belong to.
    fn parts(&mut self) -> Result<BTreeMap<String, Weights>, TrainError> {
        let SavedState { tensors, file, .. } = self;
        let shapes: Vec<(String, Vec<usize>)> =
            tensors.tensors().into_iter().map(|(name, info)| (name, info.shape.clone())).collect();
        let mut parts: BTreeMap<String, Weights> = BTreeMap::new();
        for (name, shape) in shapes {
            let data = tensors.floats(&name).map_err(|error| file.tensor_error(error))?;
            let unknown = || file.tensor_error(TensorFileError::Unknown(name.clone()));
            let (part, name) = name.split_once('.').ok_or_else(unknown)?;
            parts.entry(part.to_owned()).or_default().insert(name, HostTensor { shape, data });
        }
        Ok(parts)
    }
}
