//! Fixtures of the unit tests: a model whose ranks can be worked out by hand, and its users.

use std::sync::Mutex;

use canet_data::{Case, Dataset, ReadOptions};
use canet_domain::{FfnInner, History, Item, ModelShape, Route, RouteSpace, RouterShape, Window};
use canet_model::{Forward, ForwardError, Rows};
pub(crate) use canet_testing::{best_mixture, item, rng};
use rand::Rng;

use crate::{EvaluatedModel, Metric, Ranker, RouteTable};

pub(crate) fn items(ids: &[u32]) -> Vec<Item> {
    ids.iter().map(|id| item(*id)).collect()
}

pub(crate) fn close(found: f64, expected: f64) {
    assert!((found - expected).abs() < 1e-12, "{found} is not {expected}");
}

/// The data of a file with one `user item item ...` line per user.
pub(crate) fn dataset(text: &str) -> Dataset {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tiny.txt");
    std::fs::write(&path, text).unwrap();
    Dataset::read(&path, &ReadOptions::default()).unwrap()
}

/// A model of four routes over six items, which are arranged in a ring 1, 2, ..., 6, 1, ...
///
/// After a history that ends with item `last`, route r ranks the items in ring order from `last + r + 1` on. The router
/// prefers route `last mod 4`.
pub(crate) struct RingModel {
    /// Route (`None`: the router) and history lengths of each call.
    pub(crate) calls: Mutex<Vec<(Option<Route>, Vec<usize>)>>,
}

/// Items of the ring.
pub(crate) const ITEMS: usize = 6;

/// The longest history that the ring model reads.
pub(crate) const MAX_LEN: usize = 3;

pub(crate) const SHAPE: ModelShape =
    ModelShape { items: ITEMS, width: 8, ffn_inner: FfnInner::Slice, router: RouterShape { dim: 4, ffn: 16 } };

/// The four routes of the ring model.
pub(crate) fn space() -> RouteSpace {
    RouteSpace::new(vec![4, 8], vec![1, 2], vec![4]).unwrap()
}

impl RingModel {
    pub(crate) fn new() -> RingModel {
        RingModel { calls: Mutex::default() }
    }

    pub(crate) fn with_space<'a>(&'a self, space: &'a RouteSpace) -> EvaluatedModel<'a> {
        EvaluatedModel { forward: self, space, shape: SHAPE, window: Window::last(MAX_LEN) }
    }

    /// Number of histories that the model computed on a route (`None`: with the router).
    pub(crate) fn computed(&self, route: Option<Route>) -> usize {
        self.calls.lock().unwrap().iter().filter(|call| call.0 == route).map(|call| call.1.len()).sum()
    }

    fn rows(
        &self,
        route: Option<Route>,
        histories: &[&History],
        row: impl Fn(usize) -> Vec<f32>,
    ) -> Result<Rows, ForwardError> {
        self.calls.lock().unwrap().push((route, histories.iter().map(|history| history.len()).collect()));
        let rows: Vec<Vec<f32>> =
            histories.iter().map(|history| row(history.items().last().unwrap().column())).collect();
        Rows::new(rows[0].len(), rows.concat())
    }
}

impl Forward for RingModel {
    fn router_logits(&self, histories: &[&History]) -> Result<Rows, ForwardError> {
        self.rows(None, histories, |last| (0..4).map(|route| if route == last % 4 { 1.0 } else { 0.0 }).collect())
    }

    fn scores(&self, route: Route, histories: &[&History]) -> Result<Rows, ForwardError> {
        self.rows(Some(route), histories, |last| {
            let first = last + route.index() + 1;
            (0..=ITEMS).map(|item| -(((item + 6 * ITEMS - first) % ITEMS) as f32)).collect()
        })
    }

    fn backend(&self) -> &'static str {
        "ring"
    }

    fn weight_bytes(&self) -> usize {
        0
    }
}

/// The ring model's table of MRR for `users` users with random histories and targets.
pub(crate) fn random_table(users: usize, seed: u64) -> RouteTable {
    let mut rng = rng(seed);
    let mut draw =
        |length: usize| -> Vec<Item> { (0..length).map(|_| item(rng.gen_range(1..=ITEMS as u32))).collect() };
    let drawn: Vec<(Vec<Item>, Item)> = (0..users).map(|user| (draw(1 + user % 3), draw(1)[0])).collect();
    let cases: Vec<Case<'_>> =
        (drawn.iter().enumerate()).map(|(user, (history, target))| Case { user, history, target: *target }).collect();
    let (model, space) = (RingModel::new(), space());
    Ranker::new(model.with_space(&space), &cases, 64).unwrap().table(Metric::Mrr).unwrap()
}
