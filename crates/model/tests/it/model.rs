//! Opening a model, and answering with it.

use std::collections::HashSet;
use std::fs;

use canet_cpu::CpuBackend;
use canet_domain::{Candidates, History, Selection, choose_route};
use canet_model::checkpoint::{BudgetPoint, Calibration, CheckpointDraft, Fault, ModelDirectory, Probes, ReplayError};
use canet_model::{Forward, ForwardError, Model, OpenError, Query};
use canet_testing::{BrokenPart, draft, item, overflowing, overflowing_weights, random_history, rng, small_config};

use crate::native;

#[test]
fn an_open_model_routes_ranks_and_prices() {
    let root = tempfile::tempdir().unwrap();
    let mut draft = draft(small_config(), 5);
    let routes = draft.config.check().unwrap().len();
    // This bias makes the router choose route 7 under every budget.
    let mut bias = vec![0.0; routes];
    bias[7] = 1e6;
    draft.calibration = Some(Calibration { points: vec![BudgetPoint { budget: 0.4, bias, route: None, spent: 0.4 }] });
    let forward = native(&draft.config, &draft.weights);
    draft.write(root.path()).unwrap();
    let directory = ModelDirectory::open(root.path()).unwrap();
    let model = Model::open(&directory, None, &CpuBackend::single_threaded()).unwrap();

    let history = random_history(40, 3, &mut rng(1));
    let choice = model.route(&[&history], 0.4).unwrap()[0];
    assert_eq!(choice.route.index(), 7);
    let logits = forward.router_logits(&[&history]).unwrap();
    assert_eq!(choice, choose_route(model.space(), logits.row(0).unwrap(), &model.bias(0.4)));

    let excluded = HashSet::from([item(1)]);
    let query =
        Query { history: &history, selection: Selection { k: 5, excluded: &excluded, candidates: Candidates::All } };
    let ranked = model.rank(&[(choice.route, query)]).unwrap();
    assert_eq!(ranked, forward.rank(&[(choice.route, query)]).unwrap());

    let cost = model.cost(choice.route, history.len());
    let shape = model.shape();
    assert_eq!(cost.slice, shape.route_flops(model.space(), choice.route, 3));
    assert_eq!(cost.router, shape.router_flops(routes, 3));
    assert_eq!(cost.full, shape.full_flops(model.space(), 3));
}

#[test]
fn a_model_that_answers_otherwise_than_its_probes_is_not_opened() {
    let root = tempfile::tempdir().unwrap();
    let mut wrong = draft(small_config(), 5);
    let other = draft(small_config(), 6);
    let histories: Vec<History> = wrong.probes.histories().cloned().collect();
    let space = wrong.config.check().unwrap();
    wrong.probes = Probes::record(&native(&other.config, &other.weights), &space, &histories).unwrap();
    wrong.write(&root.path().join("small")).unwrap();
    let directory = ModelDirectory::open(&root.path().join("small")).unwrap();
    let error = Model::open(&directory, None, &CpuBackend::single_threaded()).unwrap_err();
    assert_eq!(error.fault(), Fault::Rejected);
    assert!(error.to_string().starts_with("model small version 1: probe 0: "), "{error}");
    assert!(matches!(error, OpenError::Probes { source: ReplayError::Route { .. } | ReplayError::Score { .. }, .. }));
}

#[test]
fn a_version_that_is_not_there_is_told_from_one_at_fault() {
    let root = tempfile::tempdir().unwrap();
    draft(small_config(), 5).write(root.path()).unwrap();
    let directory = ModelDirectory::open(root.path()).unwrap();
    let open = |version| Model::open(&directory, Some(version), &CpuBackend::single_threaded()).unwrap_err();
    assert_eq!(open(4).fault(), Fault::Missing);
    fs::remove_file(root.path().join("1/items.tsv")).unwrap();
    let error = open(1);
    assert_eq!(error.fault(), Fault::Incomplete);
    assert!(error.to_string().contains("items.tsv: the file is missing"), "{error}");
}

/// Probes with the item that makes NaN refuse the model, whichever part it breaks.
#[test]
fn a_model_whose_probes_are_not_finite_is_neither_written_nor_opened() {
    let broken = item(7);
    let whole = draft(small_config(), 5);
    let space = whole.config.check().unwrap();
    let history = History::new(&[item(3), broken, item(4)], 12).unwrap();
    for (part, words) in [(BrokenPart::Backbone, "the scores"), (BrokenPart::Router, "the router's logits")] {
        let weights = overflowing_weights(&whole.weights, broken, part);
        let forward = native(&whole.config, &weights);
        let error = Probes::record(&forward, &space, std::slice::from_ref(&history)).unwrap_err();
        assert!(matches!(error, ForwardError::NotFinite(_)) && error.to_string().starts_with(words), "{error}");

        let recorded =
            Probes::record(&native(&whole.config, &whole.weights), &space, std::slice::from_ref(&history)).unwrap();
        let root = tempfile::tempdir().unwrap();
        CheckpointDraft { weights, probes: recorded, ..whole.clone() }.write(root.path()).unwrap();
        let directory = ModelDirectory::open(root.path()).unwrap();
        let error = Model::open(&directory, None, &CpuBackend::single_threaded()).unwrap_err();
        assert_eq!(error.fault(), Fault::Rejected, "{error}");
        assert!(error.to_string().contains(&format!("probe 0: {words} are not finite")), "{error}");
    }
}

#[test]
fn a_history_without_finite_logits_gets_no_route() {
    let root = tempfile::tempdir().unwrap();
    let broken = item(7);
    overflowing(draft(small_config(), 5), broken, BrokenPart::Router).write(root.path()).unwrap();
    let model = Model::open(&ModelDirectory::open(root.path()).unwrap(), None, &CpuBackend::single_threaded()).unwrap();
    let history = |items: &[_]| History::new(items, 12).unwrap();
    let (good, bad) = (history(&[item(3), item(4)]), history(&[broken, item(4)]));
    assert!(model.route(&[&good], 0.3).is_ok());
    assert!(matches!(model.route(&[&good, &bad], 0.3), Err(ForwardError::NotFinite(_))));
}
