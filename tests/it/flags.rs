//! `positions`, `embedding_norm` and `norm_eps` against a network that PyTorch computed (`tests/fixtures/make_flags.py`).

use std::collections::BTreeMap;

use canet_domain::History;
use canet_model::{HostTensor, ModelConfig, Positions, Rows, Weights};
use serde::Deserialize;

use super::server::canet;
use super::support::{draft, forwards, item, small_config, write_checkpoint};

#[derive(Deserialize)]
struct Fixture {
    histories: Vec<Vec<u32>>,
    models: Vec<Model>,
}

#[derive(Deserialize)]
struct Model {
    config: ModelConfig,
    weights: BTreeMap<String, Weight>,
    /// By history and route.
    logits: Vec<Vec<f32>>,
    /// By route, history and column.
    scores: Vec<Vec<Vec<f32>>>,
}

#[derive(Deserialize)]
struct Weight {
    shape: Vec<usize>,
    /// What the numbers are divided by.
    unit: f32,
    numbers: Vec<f32>,
}

impl Model {
    fn weights(&self) -> Weights {
        let mut weights = Weights::default();
        for (name, Weight { shape, unit, numbers }) in &self.weights {
            let data = numbers.iter().map(|number| number / unit).collect();
            weights.insert(name, HostTensor { shape: shape.clone(), data });
        }
        weights
    }
}

fn assert_near(found: &Rows, expected: &[Vec<f32>], what: &str) {
    assert_eq!(found.iter().len(), expected.len(), "{what}");
    for (row, (found, expected)) in found.iter().zip(expected).enumerate() {
        assert_eq!(found.len(), expected.len(), "{what}");
        for (column, (found, expected)) in found.iter().zip(expected).enumerate() {
            let near = (found - expected).abs() <= 1e-4 * expected.abs().max(1.0);
            assert!(near, "{what}, history {row}, column {column}: {found} is not {expected}");
        }
    }
}

#[test]
fn every_forward_gives_what_pytorch_computes_for_the_flags() {
    let fixture: Fixture = serde_json::from_str(include_str!("../fixtures/flags.json")).unwrap();
    for model in &fixture.models {
        let config = &model.config;
        let space = config.check().unwrap();
        let histories: Vec<History> = fixture
            .histories
            .iter()
            .map(|ids| {
                let items: Vec<_> = ids.iter().map(|id| item(*id)).collect();
                History::new(&items, config.max_len).unwrap()
            })
            .collect();
        let batch: Vec<&History> = histories.iter().collect();
        assert_eq!(space.len(), model.scores.len());
        for (backend, forward) in forwards(config, &model.weights()) {
            let what =
                format!("{backend}, {:?}, norm {}, eps {:e}", config.positions, config.embedding_norm, config.norm_eps);
            assert_near(&forward.router_logits(&batch).unwrap(), &model.logits, &format!("{what}, router"));
            for (route, expected) in space.routes().zip(&model.scores) {
                let found = forward.scores(route, &batch).unwrap();
                assert_near(&found, expected, &format!("{what}, {}", space.name(route)));
            }
        }
    }
}

#[test]
fn inspect_shows_the_flags() {
    let root = tempfile::tempdir().unwrap();
    let relative =
        ModelConfig { positions: Positions::Relative, embedding_norm: true, norm_eps: 1e-12, ..small_config() };
    draft(relative, 33).write(root.path()).unwrap();
    write_checkpoint(root.path(), 34);
    for (version, expected) in [
        ("1", "positions relative, embedding_norm yes, norm_eps 1e-12\n"),
        ("2", "positions newest, embedding_norm no, norm_eps 1e-5\n"),
    ] {
        let mut command = canet(&["inspect", "--version", version, "--model"]);
        let text = String::from_utf8(command.arg(root.path()).output().unwrap().stdout).unwrap();
        assert!(text.contains(expected), "{text}");
    }
}
