//! Imports a SASRec that RecBole trained and saved, as a model of one route.
//!
//! RecBole's SASRec is a slice of CANet at one size: positions counted from the oldest item, a layer norm behind the
//! embedding, residual scalars of 1, an identity as the input projection, and the item table as the output weights.

use std::collections::HashMap;
use std::fs::File;
use std::io::Seek;
use std::path::Path;

use canet_domain::{Catalogue, Item};

use super::pickle::Setting;
use super::recbole_settings::{Settings, refused};
use super::state_dict::StateDict;
use super::{ImportError, SASREC, check_names_and_shapes, finite, random_histories, read_ids};
use crate::checkpoint::{CheckpointDraft, DataRecord, MetricsRecord, Probes};
use crate::{Backend, HostTensor, ModelConfig, Parameter, Positions, RouterConfig, Weights, WidthRule};

const ITEM_TABLE: &str = "item_embedding.weight";
const POSITION_TABLE: &str = "position_embedding.weight";
const LAYERS: &str = "trm_encoder.layer.";

/// RecBole's default of `layer_norm_eps`.
const NORM_EPS: f64 = 1e-12;

/// The smallest router that every backend runs. A model of one route does not ask it.
const ROUTER: RouterConfig = RouterConfig { dim: 16, heads: 1, ffn: 16 };

/// A SASRec that RecBole saved, and the data that it was trained on.
#[derive(Clone, Debug)]
pub struct RecBoleImport<'a> {
    /// The `.pth` that RecBole saved, or a file of `torch.save(model.state_dict(), ...)`.
    pub file: &'a Path,
    /// Number of attention heads, for a file without RecBole's configuration.
    pub heads: Option<usize>,
    /// External ids, one a line in the order of RecBole's ids. Without this file they are in the order of first appearance in
    /// the data.
    pub ids: Option<&'a Path>,
    /// The file that `items` come from, for errors.
    pub data: &'a Path,
    /// The items of the data by dense id: the external id, and the number of interactions in the training part. The imported
    /// model has this order, so that it has the dense ids of a model that canet trains on the data. Items that the data lack
    /// follow.
    pub items: Vec<(Box<str>, u64)>,
    /// The items of the data in the order of first appearance.
    pub order: Vec<Item>,
    /// Whether the data are a selection of their file, as by a least number of interactions.
    pub selected: bool,
    /// What the manifest says about the data.
    pub record: DataRecord,
}

impl RecBoleImport<'_> {
    /// Reads and checks the file, and records probes on `backend`.
    ///
    /// # Errors
    /// [`ImportError`] that names the file and the tensor or setting, under RecBole's name.
    pub fn read(self, backend: &dyn Backend) -> Result<CheckpointDraft, ImportError> {
        let path = self.file;
        let mut file = File::open(path).map_err(ImportError::io(path))?;
        let size = file.seek(std::io::SeekFrom::End(0)).map_err(ImportError::io(path))?;
        file.rewind().map_err(ImportError::io(path))?;
        let (mut stored, settings) = StateDict::open_recbole(path, file)?;
        let config = self.config(&stored, &settings)?;
        let space = config.check().map_err(|source| ImportError::Config { path: path.to_owned(), source })?;
        check_names(path, &stored, &config)?;
        let (catalogue, rows) = self.catalogue(config.items, &settings)?;
        // `torch.save` does not compress, so no tensor is larger than the file.
        let mut read = |name: &str| finite(path, name, stored.read(name, size)?);
        let table = reordered(&read(ITEM_TABLE)?, config.width(), &rows);
        let weights = weights(&config, |name| if name == ITEM_TABLE { Ok(table.clone()) } else { read(name) })?;
        let forward = backend.load(&config, &weights)?;
        let probes = Probes::record(&*forward, &space, &random_histories(&config)?)?;
        Ok(CheckpointDraft {
            catalogue,
            data: DataRecord { items: config.items as u64, ..self.record },
            metrics: MetricsRecord::default(),
            calibration: None,
            training: None,
            exclude_seen: true,
            config,
            weights,
            probes,
        })
    }

    /// The sizes, from the shapes of the tensors, and the flags, from RecBole's configuration.
    fn config(&self, stored: &StateDict, settings: &Settings) -> Result<ModelConfig, ImportError> {
        let path = self.file;
        let shapes: HashMap<&str, &[usize]> = stored.shapes().collect();
        let missing = |name: &str| ImportError::Names {
            path: path.to_owned(),
            model: SASREC,
            missing: vec![name.to_owned()],
            unknown: Vec::new(),
        };
        let table = |name: &str| match shapes.get(name) {
            Some([rows, width]) if *rows > 0 => Ok((*rows, *width)),
            Some(_) => Err(ImportError::Tensor {
                path: path.to_owned(),
                name: name.to_owned(),
                reason: "is not a table of rows".to_owned(),
            }),
            None => Err(missing(name)),
        };
        settings.expect(path, "model", "SASRec", "only SASRec can be imported")?;
        settings.expect(path, "hidden_act", "gelu", "only gelu is computed; train with `hidden_act: gelu`")?;
        let (rows, width) = table(ITEM_TABLE)?;
        let (max_len, _) = table(POSITION_TABLE)?;
        let (inner, _) = table(&format!("{LAYERS}0.feed_forward.dense_1.weight"))?;
        if Some(inner) != width.checked_mul(4) {
            return Err(refused(
                path,
                "inner_size",
                format!("{inner}, and only 4 times the hidden size ({width}) is computed"),
            ));
        }
        let depth = shapes.keys().filter_map(|name| {
            let (layer, _) = name.strip_prefix(LAYERS)?.split_once('.')?;
            layer.parse::<usize>().ok()?.checked_add(1)
        });
        Ok(ModelConfig {
            items: rows - 1,
            max_len,
            heads: self.heads(settings)?,
            hidden: vec![width],
            layers: vec![depth.max().unwrap_or_default()],
            embedding: Vec::new(),
            router: ROUTER,
            attention_scale: WidthRule::Slice,
            ffn_inner: WidthRule::Slice,
            positions: Positions::Oldest,
            embedding_norm: true,
            history_stride: 1,
            norm_eps: settings.number(path, "layer_norm_eps")?.unwrap_or(NORM_EPS),
        })
    }

    fn heads(&self, settings: &Settings) -> Result<usize, ImportError> {
        let saved = match settings.0.get("n_heads") {
            Some(Setting::Int(heads)) => usize::try_from(*heads).ok(),
            _ => None,
        };
        match (saved, self.heads) {
            (Some(saved), Some(given)) if saved != given => Err(refused(
                self.file,
                "n_heads",
                format!("{saved}, and {given} heads are asked for; leave --heads out"),
            )),
            (Some(heads), _) | (None, Some(heads)) => Ok(heads),
            (None, None) => Err(refused(
                self.file,
                "n_heads",
                "not in the file; give the number of attention heads with --heads".into(),
            )),
        }
    }

    /// The items in the order of the data, and the row of each in RecBole's table.
    fn catalogue(&self, items: usize, settings: &Settings) -> Result<(Catalogue, Vec<usize>), ImportError> {
        let (path, theirs) = match self.ids {
            Some(path) => (path, read_ids(path, items)?),
            None => (self.data, self.appeared(items, settings)?),
        };
        let dense: HashMap<&str, usize> =
            self.items.iter().enumerate().map(|(place, (id, _))| (&**id, place)).collect();
        let mut rows: Vec<usize> = (0..items).collect();
        rows.sort_by_key(|row| dense.get(&*theirs[*row]).copied().unwrap_or(usize::MAX));
        let count = |row: &usize| dense.get(&*theirs[*row]).map_or(0, |place| self.items[*place].1);
        let popularity = rows.iter().map(count).collect();
        let ids = rows.iter().map(|row| theirs[*row].clone()).collect();
        let catalogue =
            Catalogue::new(ids, popularity).map_err(|source| ImportError::Items { path: path.to_owned(), source })?;
        // Row 0 is the padding's.
        Ok((catalogue, rows.into_iter().map(|row| row + 1).collect()))
    }

    /// The external ids as RecBole numbers them: in the order of the file.
    fn appeared(&self, items: usize, settings: &Settings) -> Result<Vec<Box<str>>, ImportError> {
        if !matches!(settings.0.get("rm_dup_inter"), None | Some(Setting::None)) {
            let reason = "set, so that RecBole sorts the interactions before it numbers the items; give the ids in RecBole's \
                          order with --items";
            return Err(refused(self.file, "rm_dup_inter", reason.to_owned()));
        }
        // Both have this default. RecBole also writes an absent setting as none.
        let takes_all = |setting: Option<&Setting<String>>| match setting {
            None | Some(Setting::None) => true,
            Some(Setting::Text(interval)) => interval == "[0,inf)",
            Some(_) => false,
        };
        let filters = ["user_inter_num_interval", "item_inter_num_interval", "val_interval"];
        let filter = filters.into_iter().find(|name| !takes_all(settings.0.get(*name)));
        if let Some(name) = filter.filter(|_| !self.selected) {
            let reason = "set, so that RecBole left interactions out before it numbered the items; select the same ones with \
                          --min-interactions or --where, or give the ids in RecBole's order with --items";
            return Err(refused(self.file, name, reason.to_owned()));
        }
        if self.order.len() != items {
            return Err(ImportError::RecBoleItems {
                path: self.data.to_owned(),
                found: self.order.len(),
                expected: items,
            });
        }
        Ok(self.order.iter().filter_map(|item| Some(self.items.get(item.column() - 1)?.0.clone())).collect())
    }
}

/// A table with the padding's row in front, and then the given rows.
fn reordered(table: &[f32], width: usize, rows: &[usize]) -> Vec<f32> {
    std::iter::once(&0).chain(rows).flat_map(|row| &table[row * width..(row + 1) * width]).copied().collect()
}

fn check_names(path: &Path, stored: &StateDict, config: &ModelConfig) -> Result<(), ImportError> {
    let stored_as = |ours: Parameter| match source(&ours.name) {
        Source::Stored(theirs) => Some((theirs, ours.shape)),
        _ => None,
    };
    let wanted: Vec<(String, Vec<usize>)> = config.parameters().into_iter().filter_map(stored_as).collect();
    let wanted = wanted.iter().map(|(theirs, shape)| (theirs.as_str(), shape.as_slice())).collect();
    check_names_and_shapes(path, SASREC, stored, wanted, |_| false)
}

/// The weights of a configuration, of which `read` gives the tensors that RecBole stores.
fn weights(
    config: &ModelConfig,
    mut read: impl FnMut(&str) -> Result<Vec<f32>, ImportError>,
) -> Result<Weights, ImportError> {
    let mut weights = Weights::default();
    for ours in config.parameters() {
        let size = ours.shape.iter().product();
        let data = match source(&ours.name) {
            Source::Stored(theirs) => read(&theirs)?,
            Source::Zeros => vec![0.0; size],
            Source::Ones => vec![1.0; size],
            Source::Identity => {
                let width = config.width();
                (0..size).map(|place| if place / width == place % width { 1.0 } else { 0.0 }).collect()
            }
        };
        weights.insert(ours.name, HostTensor { shape: ours.shape, data });
    }
    Ok(weights)
}

/// Where a weight comes from.
enum Source {
    /// The tensor of this name in RecBole's state dict.
    Stored(String),
    Zeros,
    Ones,
    Identity,
}

fn source(ours: &str) -> Source {
    let path: Vec<&str> = ours.split('.').collect();
    match path.as_slice() {
        ["backbone", "item_embedding"] | ["backbone", "output", "weight"] => Source::Stored(ITEM_TABLE.to_owned()),
        ["backbone", "position_embedding"] => Source::Stored(POSITION_TABLE.to_owned()),
        ["backbone", "embedding_norm", kind] => Source::Stored(format!("LayerNorm.{kind}")),
        ["backbone", "input", "weight"] => Source::Identity,
        ["backbone", "blocks", number, weight @ ..] => match in_layer(weight) {
            Some(theirs) => Source::Stored(format!("{LAYERS}{number}.{theirs}")),
            None => Source::Ones,
        },
        ["router", .., "attention_norm" | "ffn_norm", "weight"] => Source::Ones,
        _ => Source::Zeros,
    }
}

/// RecBole's name of a weight within a layer; `None` for the residual scalars, which RecBole does not have.
fn in_layer(path: &[&str]) -> Option<String> {
    Some(match path {
        ["attention", "output", kind] => format!("multi_head_attention.dense.{kind}"),
        ["attention", projection, kind] => format!("multi_head_attention.{projection}.{kind}"),
        ["attention_norm", kind] => format!("multi_head_attention.LayerNorm.{kind}"),
        ["ffn", "inner", kind] => format!("feed_forward.dense_1.{kind}"),
        ["ffn", "outer", kind] => format!("feed_forward.dense_2.{kind}"),
        ["ffn_norm", kind] => format!("feed_forward.LayerNorm.{kind}"),
        _ => return None,
    })
}
