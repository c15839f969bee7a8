//! Imports the authors' checkpoint (`state_dict.pt` and `args.json`), and SASRec models of RecBole (`SASRec.pth`).
//!
//! A restricted machine interprets the pickle in it. No foreign code runs.

mod arguments;
mod error;
mod names;
mod pickle;
mod recbole;
mod recbole_settings;
mod state_dict;
mod strided;

pub use error::ImportError;
pub use pickle::PickleError;
pub use recbole::RecBoleImport;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek};
use std::path::Path;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use self::arguments::Arguments;
use self::names::{Origin, is_residual, is_unused, origins};
use self::state_dict::StateDict;
use super::checkpoint::{CheckpointDraft, DataRecord, MetricsRecord, Probes, sha256_of};
use super::{Backend, HostTensor, ModelConfig, Weights, WidthRule};
use canet_domain::{Catalogue, History, Item};

/// Limit on the size of `args.json`.
const ARGUMENTS_LIMIT: u64 = 1 << 20;

/// Limit on the mean length of a line of item ids, the line break included.
const ITEM_LINE_LIMIT: u64 = 1025;

/// The models to import, as errors name them.
const AUTHORS: &str = "the authors' model of this args.json";
const SASREC: &str = "a SASRec of RecBole";

/// Number of histories to record as probes.
const PROBES: usize = 8;

/// The files to import, and the function that they are imported as. The authors' code trains the function with both rules
/// [`WidthRule::Full`].
#[derive(Clone, Copy, Debug)]
pub struct Import<'a> {
    /// A file of `torch.save(model.state_dict(), ...)`, or a safetensors file of the same names.
    pub state_dict: &'a Path,
    /// The `args.json` of the authors' program.
    pub args: &'a Path,
    /// External ids, one a line in dense order. Without this file the external ids are the dense ids.
    pub items: Option<&'a Path>,
    /// Scale of a narrow slice's attention scores.
    pub attention_scale: WidthRule,
    /// Inner width of a narrow slice's feed-forward network.
    pub ffn_inner: WidthRule,
}

impl Import<'_> {
    /// Reads and checks the files, and records probes on `backend`. All popularity counts are zero, because the files do not
    /// hold them.
    ///
    /// # Errors
    /// [`ImportError`] that names the file and the tensor or field, under the authors' name.
    pub fn read(&self, backend: &dyn Backend) -> Result<CheckpointDraft, ImportError> {
        let arguments = Arguments::parse(self.args, &read_bounded(self.args, ARGUMENTS_LIMIT)?)?;
        let config = arguments.config(self.attention_scale, self.ffn_inner);
        let space = config.check().map_err(|source| ImportError::Config { path: self.args.to_owned(), source })?;
        let mut file = File::open(self.state_dict).map_err(ImportError::io(self.state_dict))?;
        let sha256 = sha256_of(&mut file).map_err(ImportError::io(self.state_dict))?;
        file.rewind().map_err(ImportError::io(self.state_dict))?;
        let weights = self.read_weights(file, &config, arguments.learnt_residuals())?;
        let forward = backend.load(&config, &weights)?;
        let probes = Probes::record(&*forward, &space, &random_histories(&config)?)?;
        Ok(CheckpointDraft {
            catalogue: self.read_catalogue(config.items)?,
            data: DataRecord {
                name: self.state_dict.file_name().unwrap_or_default().to_string_lossy().into_owned(),
                sha256,
                parsed_sha256: None,
                users: arguments.num_user,
                items: config.items as u64,
                interactions: None,
            },
            metrics: MetricsRecord::default(),
            calibration: None,
            training: None,
            exclude_seen: true,
            config,
            weights,
            probes,
        })
    }

    fn read_weights(&self, file: File, config: &ModelConfig, learnt_residuals: bool) -> Result<Weights, ImportError> {
        let path = self.state_dict;
        let origins = origins(config, learnt_residuals);
        // float64, 8 bytes, is the widest element type. The sizes of a checked configuration stay far below 2^63.
        let values = |shape: &[usize]| shape.iter().map(|size| *size as u64).product::<u64>();
        let limit = ARGUMENTS_LIMIT + 8 * origins.iter().map(|origin| values(&origin.shape)).sum::<u64>();
        let mut stored = StateDict::open(path, file, limit)?;
        let wanted = origins.iter().map(|origin| (origin.theirs.as_str(), origin.shape.as_slice())).collect();
        check_names_and_shapes(path, AUTHORS, &stored, wanted, is_unused)?;
        let mut weights = Weights::default();
        for Origin { ours, theirs, .. } in origins {
            let mut data = finite(path, &theirs, stored.read(&theirs, limit)?)?;
            // The last row of the authors' item tables is unused.
            data.truncate(ours.shape.iter().product());
            weights.insert(ours.name, HostTensor { shape: ours.shape, data });
        }
        if !learnt_residuals {
            for parameter in config.parameters().into_iter().filter(|parameter| is_residual(&parameter.name)) {
                weights.insert(parameter.name, HostTensor { shape: parameter.shape, data: vec![1.0] });
            }
        }
        Ok(weights)
    }

    fn read_catalogue(&self, items: usize) -> Result<Catalogue, ImportError> {
        let ids: Vec<Box<str>> = match self.items {
            None => (1..=items).map(|id| id.to_string().into()).collect(),
            Some(path) => read_ids(path, items)?,
        };
        let path = self.items.unwrap_or(self.args);
        Catalogue::new(ids, vec![0; items]).map_err(|source| ImportError::Items { path: path.to_owned(), source })
    }
}

/// Reads external ids, one a line, for as many items as the model has.
fn read_ids(path: &Path, items: usize) -> Result<Vec<Box<str>>, ImportError> {
    let bytes = read_bounded(path, items as u64 * ITEM_LINE_LIMIT)?;
    let text = String::from_utf8(bytes).map_err(|_| ImportError::NotText { path: path.to_owned() })?;
    let lines = text.strip_prefix('\u{feff}').unwrap_or(&text).lines();
    // Counted first: each id takes more memory than a short line.
    let found = lines.clone().count();
    match found == items {
        true => Ok(lines.map(Box::from).collect()),
        false => Err(ImportError::ItemCount { path: path.to_owned(), found, expected: items }),
    }
}

/// Checks that every value of a tensor is finite.
fn finite(path: &Path, name: &str, data: Vec<f32>) -> Result<Vec<f32>, ImportError> {
    match data.iter().position(|value| !value.is_finite()) {
        None => Ok(data),
        Some(place) => {
            let reason = format!("holds {} at place {place}: every value must be finite", data[place]);
            Err(ImportError::Tensor { path: path.to_owned(), name: name.to_owned(), reason })
        }
    }
}

fn check_names_and_shapes(
    path: &Path,
    model: &'static str,
    stored: &StateDict,
    mut wanted: BTreeMap<&str, &[usize]>,
    is_unused: impl Fn(&str) -> bool,
) -> Result<(), ImportError> {
    let mut unknown = Vec::new();
    let mut odd = None;
    for (name, found) in stored.shapes().filter(|(name, _)| !is_unused(name)) {
        match wanted.remove(name) {
            None => unknown.push(name.to_owned()),
            Some(expected) if expected != found => odd = odd.or(Some((name, found, expected))),
            Some(_) => {}
        }
    }
    if !unknown.is_empty() || !wanted.is_empty() {
        let missing = wanted.into_keys().map(str::to_owned).collect();
        return Err(ImportError::Names { path: path.to_owned(), model, missing, unknown });
    }
    odd.map_or(Ok(()), |(name, found, expected)| {
        let (name, found, expected) = (name.to_owned(), found.to_vec(), expected.to_vec());
        Err(ImportError::Shape { path: path.to_owned(), model, name, found, expected })
    })
}

/// Random histories of 1 to `max_len` items, because the data is not at hand. They are the same on every machine.
fn random_histories(config: &ModelConfig) -> Result<Vec<History>, ImportError> {
    let mut random = ChaCha8Rng::seed_from_u64(0);
    (0..PROBES)
        .map(|place| {
            let length = 1 + place * (config.max_len - 1) / (PROBES - 1);
            let ids = (0..length).map(|_| random.gen_range(1..=config.items));
            let items: Vec<Item> = ids.filter_map(|id| Item::new(u32::try_from(id).ok()?)).collect();
            Ok(History::new(&items, config.max_len)?)
        })
        .collect()
}

/// Reads a file of at most `limit` bytes.
fn read_bounded(path: &Path, limit: u64) -> Result<Vec<u8>, ImportError> {
    let file = File::open(path).map_err(ImportError::io(path))?;
    let size = file.metadata().map_err(ImportError::io(path))?.len();
    if size > limit {
        return Err(ImportError::TooLarge { path: path.to_owned(), size, limit });
    }
    let mut bytes = Vec::new();
    file.take(limit).read_to_end(&mut bytes).map_err(ImportError::io(path))?;
    Ok(bytes)
}
