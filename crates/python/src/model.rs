use std::path::{Path, PathBuf};
use std::sync::Arc;

use canet_catalogue::{FilterExpression, ItemIndex};
use canet_cpu::CpuBackend;
use canet_data::ItemTable;
use canet_domain::Item;
use canet_model::checkpoint::ModelDirectory;
use canet_model::{Model as Checkpoint, Precision};
use canet_ranking::{BatchRanker, RankError, RankingOptions, Recommended, Sequences, UserItems};
use canet_store::{S3Address, S3Settings, StoreError};
use numpy::{PyArray1, PyArray2, PyArrayMethods};
use pyo3::create_exception;
use pyo3::exceptions::{PyException, PyMemoryError, PyValueError};
use pyo3::prelude::*;

use crate::reading::{Ids, read};

create_exception!(canet, ModelError, PyException, "A checkpoint cannot be opened, or computes NaN or infinity.");

/// Users of a batch, as in `canet rank`.
const BATCH: usize = 256;

/// A checkpoint on the CPU.
#[pyclass(frozen, module = "canet._native")]
pub(crate) struct Model {
    checkpoint: Checkpoint,
    /// The catalogue file, if there is one.
    index: Option<Arc<ItemIndex>>,
}

/// What a model is opened from.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
struct OpenOptions {
    path: PathBuf,
    model_cache: Option<PathBuf>,
    version: Option<u64>,
    catalogue: Option<PathBuf>,
    threads: Option<usize>,
    precision: String,
}

/// What users get.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
struct RecommendOptions<'py> {
    k: usize,
    route: String,
    budget: f64,
    exclude_seen: Option<bool>,
    exclude: Option<Bound<'py, PyAny>>,
    candidates: Option<Bound<'py, PyAny>>,
    /// A filter in JSON.
    filter: Option<String>,
}

/// Items, scores and routes: dense ids with 0 for none, their scores, and the index of each user's route with -1 for none.
type RankedArrays<'py> = (Bound<'py, PyArray2<u32>>, Bound<'py, PyArray2<f32>>, Bound<'py, PyArray1<i32>>);

#[pymethods]
impl Model {
    #[new]
    fn open(py: Python<'_>, options: OpenOptions) -> PyResult<Model> {
        let OpenOptions { path, model_cache, version, catalogue, threads, precision } = options;
        let precision = match precision.as_str() {
            "fp32" => Precision::Fp32,
            "bf16" => Precision::Bf16,
            other => return Err(PyValueError::new_err(format!("`precision` is {other:?}: use fp32 or bf16"))),
        };
        let threads = match threads {
            Some(0) => return Err(PyValueError::new_err("`threads` is 0: it must be at least 1")),
            Some(threads) => threads,
            None => std::thread::available_parallelism().map_or(1, usize::from),
        };
        let backend = CpuBackend::new(precision, threads)
            .map_err(|error| PyValueError::new_err(format!("`precision` bf16: {error}; use fp32")))?;
        py.detach(|| {
            let directory = model_directory(&path, model_cache)?;
            let checkpoint = Checkpoint::open(&directory, version, &backend).map_err(model_error)?;
            let index = |path: PathBuf| {
                let table = ItemTable::read(&path).map_err(wrong_value)?;
                Ok::<_, PyErr>(Arc::new(ItemIndex::new(Arc::new(table), checkpoint.catalogue())))
            };
            let index = catalogue.map(index).transpose()?;
            Ok(Model { checkpoint, index })
        })
    }

    /// The description of `canet inspect --json`.
    fn description(&self) -> String {
        self.checkpoint.description().to_json().to_string()
    }

    /// External ids, by dense id from 1.
    fn ids(&self) -> Vec<&str> {
        self.checkpoint.catalogue().ids().iter().map(|id| &**id).collect()
    }

    /// The title of an external id, if it has one: that of the catalogue file, or else the model's.
    fn title(&self, id: &str) -> Option<&str> {
        let catalogue = self.checkpoint.catalogue();
        let item = catalogue.item(id)?;
        self.index.as_ref().and_then(|index| index.title(item)).or_else(|| catalogue.title(item))
    }

    /// Why titles are missing, if some are.
    fn titles_fault(&self) -> Option<String> {
        self.checkpoint.titles_fault().map(ToString::to_string)
    }

    fn recommend<'py>(
        &self,
        py: Python<'py>,
        histories: &Bound<'py, PyAny>,
        options: RecommendOptions<'py>,
    ) -> PyResult<RankedArrays<'py>> {
        let RecommendOptions { k, route, budget, exclude_seen, exclude, candidates, filter } = options;
        let filter = filter.map(|json| serde_json::from_str::<FilterExpression>(&json)).transpose();
        let filter = filter.map_err(|error| PyValueError::new_err(format!("`filter` is not a filter: {error}")))?;
        let sequences = self.histories(histories)?;
        let users = sequences.len();
        let exclude = self.lists(exclude.as_ref(), "exclude", users)?;
        let candidates = self.lists(candidates.as_ref(), "candidates", users)?;
        let options = RankingOptions {
            k,
            route: &route,
            budget,
            exclude_seen: exclude_seen.unwrap_or(self.checkpoint.manifest().exclude_seen),
            excluded: of_everybody(exclude.as_ref()).unwrap_or_default(),
            candidates: of_everybody(candidates.as_ref()),
            index: self.index.as_ref(),
            filter: filter.as_ref(),
        };
        let ranker = BatchRanker::new(&self.checkpoint, options).map_err(wrong_value)?;
        let size = users.checked_mul(k).ok_or_else(out_of_memory)?;
        let (mut items, mut scores, mut routes) = (filled(size, 0)?, filled(size, f32::NAN)?, filled(users, -1)?);
        py.detach(|| {
            let batch = ranker.batch_size(BATCH);
            for first in (0..users).step_by(batch) {
                let places = first..users.min(first + batch);
                let user = |place| UserItems {
                    sequence: sequences.user(place),
                    excluded: of_user(exclude.as_ref(), place).unwrap_or_default(),
                    candidates: of_user(candidates.as_ref(), place),
                };
                let batch: Vec<UserItems<'_>> = places.clone().map(user).collect();
                let recommended = ranker.rank(&batch).map_err(|error| rank_error(&error, first))?;
                for (place, Recommended { items: ranked, route, .. }) in places.zip(recommended) {
                    routes[place] = route.map_or(-1, |route| route.index() as i32);
                    let rows = items[place * k..].iter_mut().zip(&mut scores[place * k..]);
                    for ((item, score), ranked) in rows.zip(ranked) {
                        (*item, *score) = (ranked.item.id(), ranked.score);
                    }
                }
                interrupted()?;
            }
            Ok::<_, PyErr>(())
        })?;
        Ok((
            PyArray1::from_vec(py, items).reshape([users, k])?,
            PyArray1::from_vec(py, scores).reshape([users, k])?,
            PyArray1::from_vec(py, routes),
        ))
    }

    fn scores<'py>(
        &self,
        py: Python<'py>,
        histories: &Bound<'py, PyAny>,
        route: &str,
        budget: f64,
    ) -> PyResult<Bound<'py, PyArray2<f32>>> {
        let options = RankingOptions {
            k: 1,
            route,
            budget,
            exclude_seen: false,
            excluded: &[],
            candidates: None,
            index: None,
            filter: None,
        };
        let ranker = BatchRanker::new(&self.checkpoint, options).map_err(wrong_value)?;
        let sequences = self.histories(histories)?;
        let (users, columns) = (sequences.len(), self.checkpoint.catalogue().len());
        let mut scores = filled(users.checked_mul(columns).ok_or_else(out_of_memory)?, f32::NAN)?;
        py.detach(|| {
            for (batch, rows) in scores.chunks_mut(BATCH * columns).enumerate() {
                let (first, count) = (batch * BATCH, rows.len() / columns);
                let batch: Vec<&[Item]> = (first..first + count).map(|place| sequences.user(place)).collect();
                ranker.scores(&batch, rows).map_err(|error| rank_error(&error, first))?;
                interrupted()?;
            }
            Ok::<_, PyErr>(())
        })?;
        PyArray1::from_vec(py, scores).reshape([users, columns])
    }
}

impl Model {
    fn histories(&self, histories: &Bound<'_, PyAny>) -> PyResult<Sequences> {
        match read(histories, "histories", self.checkpoint.catalogue())? {
            Ids::Many(sequences) => Ok(sequences),
            Ids::One(_) => Err(PyValueError::new_err("`histories` is one history: put it into a list")),
        }
    }

    /// The ids of an argument that is one list for everybody, or has a list for each of the users.
    fn lists(&self, value: Option<&Bound<'_, PyAny>>, argument: &'static str, users: usize) -> PyResult<Option<Ids>> {
        let Some(value) = value else { return Ok(None) };
        match read(value, argument, self.checkpoint.catalogue())? {
            Ids::Many(lists) if lists.is_empty() => Ok(Some(Ids::One(Vec::new()))),
            Ids::Many(lists) if lists.len() != users => {
                let message = format!("`{argument}` has {} lists for {users} histories", lists.len());
                Err(PyValueError::new_err(message))
            }
            ids => Ok(Some(ids)),
        }
    }
}

/// The one list for everybody.
fn of_everybody(ids: Option<&Ids>) -> Option<&[Item]> {
    match ids? {
        Ids::One(items) => Some(items),
        Ids::Many(_) => None,
    }
}

/// A user's own list.
fn of_user(ids: Option<&Ids>, place: usize) -> Option<&[Item]> {
    match ids? {
        Ids::One(_) => None,
        Ids::Many(lists) => Some(lists.user(place)),
    }
}

/// Runs Python's signal handlers, so that Ctrl-C stops a long call.
#[expect(clippy::redundant_closure_for_method_calls, reason = "the method itself is not general enough for `attach`")]
fn interrupted() -> PyResult<()> {
    Python::attach(|python| python.check_signals())
}

/// The directory of a model, or that of the copies of one in a store.
fn model_directory(path: &Path, cache: Option<PathBuf>) -> PyResult<ModelDirectory> {
    let Some(address) = path.to_str().filter(|text| S3Address::is_meant_by(text)) else {
        return ModelDirectory::open(path).map_err(model_error);
    };
    let address: S3Address = address.parse().map_err(wrong_value)?;
    let cache = cache.or_else(|| canet_store::default_cache(variables()));
    let cache = cache.ok_or_else(|| {
        wrong_value("there is no home directory for copies of the model: name a directory with `model_cache`")
    })?;
    canet_store::open(address, &S3Settings::from_variables(variables()), &cache).map_err(|error| match error {
        StoreError::Settings(error) => wrong_value(error),
        StoreError::Copies(error) => model_error(error),
    })
}

#[expect(clippy::disallowed_methods, reason = "the usual variables of S3 are no arguments")]
fn variables() -> std::env::VarsOs {
    std::env::vars_os()
}

fn wrong_value(error: impl ToString) -> PyErr {
    PyValueError::new_err(error.to_string())
}

fn model_error(error: impl ToString) -> PyErr {
    ModelError::new_err(error.to_string())
}

/// The error for a batch whose first history is at `first`.
fn rank_error(error: &RankError, first: usize) -> PyErr {
    match error {
        RankError::Forward(error) => model_error(error),
        RankError::User { place, source } => model_error(format!("history {}: {source}", first + place)),
    }
}

fn out_of_memory() -> PyErr {
    PyMemoryError::new_err("the answer does not fit into memory: give fewer histories")
}

/// A list of equal values, or an error if there is no room for it.
fn filled<T: Clone>(count: usize, value: T) -> PyResult<Vec<T>> {
    let mut list = Vec::new();
    list.try_reserve_exact(count).map_err(|_| out_of_memory())?;
    list.resize(count, value);
    Ok(list)
}
