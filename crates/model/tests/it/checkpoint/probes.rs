//! Probes detect a model that computes something else.

use canet_domain::{History, Route};
use canet_model::checkpoint::{ReplayError, Tolerance};
use canet_model::{Forward, ForwardError, Rows, Weights};

use crate::native;
use canet_testing::{draft, small_config};

/// Adds to one value of a weight.
fn nudge(weights: &Weights, name: &str, place: usize, by: f32) -> Weights {
    let mut weights = weights.clone();
    let mut tensor = weights.get(name).unwrap().clone();
    tensor.data[place] += by;
    weights.insert(name, tensor);
    weights
}

#[test]
fn another_router_fails_the_probes() {
    let draft = draft(small_config(), 11);
    let space = draft.config.check().unwrap();
    for tolerance in [Tolerance::FP32, Tolerance::BF16] {
        let outcomes = (0..space.len()).map(|route| {
            let pushed = nudge(&draft.weights, "router.head.bias", route, 1000.0);
            draft.probes.replay(&native(&draft.config, &pushed), &space, tolerance)
        });
        // The push changes nothing if every probe takes that route already, which is so for one route at most.
        let refused = outcomes.filter(|outcome| matches!(outcome, Err(ReplayError::Route { .. }))).count();
        assert!(refused >= space.len() - 1, "{refused}");
    }
}

#[test]
fn another_ranking_fails_the_probes() {
    let draft = draft(small_config(), 11);
    let space = draft.config.check().unwrap();
    for item in 1..=draft.config.items {
        let raised = nudge(&draft.weights, "backbone.output.bias", item, 100.0);
        let error = draft.probes.replay(&native(&draft.config, &raised), &space, Tolerance::FP32).unwrap_err();
        assert!(matches!(error, ReplayError::Score { .. } | ReplayError::Ranking { .. }), "{error}");
    }
}

#[test]
fn each_precision_has_its_tolerance() {
    let draft = draft(small_config(), 12);
    let space = draft.config.check().unwrap();
    let noisy = |relative: f32| Noisy { forward: native(&draft.config, &draft.weights), relative };
    draft.probes.replay(&noisy(5e-5), &space, Tolerance::FP32).unwrap();
    let error = draft.probes.replay(&noisy(5e-4), &space, Tolerance::FP32).unwrap_err();
    assert!(matches!(error, ReplayError::Score { probe: 0, .. }), "{error}");
    draft.probes.replay(&noisy(5e-3), &space, Tolerance::BF16).unwrap();
    let error = draft.probes.replay(&noisy(5e-2), &space, Tolerance::BF16).unwrap_err();
    assert!(matches!(error, ReplayError::Score { .. }), "{error}");
}

#[test]
fn scores_that_are_not_numbers_fail_the_probes() {
    let draft = draft(small_config(), 13);
    let space = draft.config.check().unwrap();
    let broken = Noisy { forward: native(&draft.config, &draft.weights), relative: f32::NAN };
    assert!(draft.probes.replay(&broken, &space, Tolerance::BF16).is_err());
}

/// Scores of a less precise device: each is off by a share of itself.
struct Noisy<F> {
    forward: F,
    relative: f32,
}

impl<F: Forward> Forward for Noisy<F> {
    fn router_logits(&self, histories: &[&History]) -> Result<Rows, ForwardError> {
        self.forward.router_logits(histories)
    }

    fn scores(&self, route: Route, histories: &[&History]) -> Result<Rows, ForwardError> {
        let rows = self.forward.scores(route, histories)?;
        let columns = rows.row(0).map_or(0, <[f32]>::len);
        Rows::new(columns, rows.iter().flatten().map(|score| score + self.relative * score.abs().max(1.0)).collect())
    }

    fn backend(&self) -> &'static str {
        self.forward.backend()
    }

    fn weight_bytes(&self) -> usize {
        self.forward.weight_bytes()
    }
}
