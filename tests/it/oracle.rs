//! Every forward against the float64 oracle, and two properties that hold for all of them.

use canet_domain::{History, Route, RouteSpace};
use canet_model::Forward;
use proptest::prelude::*;

use super::support::{
    OracleAnswers, any_config, forwards, full_size_config, random_history, random_weights, rng, small_config,
};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn every_forward_agrees_with_a_float64_recomputation(config in any_config(), seed in any::<u64>()) {
        let mut rng = rng(seed);
        let weights = random_weights(&config, &mut rng);
        let histories: Vec<History> =
            (1..=config.max_len).map(|length| random_history(config.items, length, &mut rng)).collect();
        let expected = OracleAnswers::compute(&config, &weights, &histories);
        for (backend, forward) in forwards(&config, &weights) {
            expected.assert_near(&backend, &*forward);
        }
    }
}

#[test]
fn an_answer_does_not_depend_on_the_rest_of_the_batch() {
    let config = small_config();
    let mut rng = rng(3);
    let weights = random_weights(&config, &mut rng);
    let space = config.check().unwrap();
    // 64 histories of every length, short ones beside long ones.
    let lengths = (0..64).map(|place| 1 + place * 7 % config.max_len);
    let histories: Vec<History> = lengths.map(|length| random_history(config.items, length, &mut rng)).collect();
    let batch: Vec<&History> = histories.iter().collect();
    for (backend, forward) in forwards(&config, &weights) {
        // The native forward takes every row's sums in one order, whatever stands beside it.
        let tolerance = if backend == "libtorch" { 1e-5 } else { 0.0 };
        let together = Answers::of(&*forward, &space, &batch);
        for (place, history) in histories.iter().enumerate() {
            let alone = Answers::of(&*forward, &space, &[history]);
            let longest = histories.iter().max_by_key(|history| history.len()).unwrap();
            let shortest = histories.iter().min_by_key(|history| history.len()).unwrap();
            let beside = Answers::of(&*forward, &space, &[longest, history, shortest]);
            for (name, found, row) in [("alone", &alone, 0), ("beside others", &beside, 1)] {
                for (found, expected) in found.0.iter().zip(&together.0) {
                    for (found, expected) in found[row].iter().zip(&expected[place]) {
                        let near = (found - expected).abs() <= tolerance * expected.abs().max(1.0);
                        assert!(near, "{backend}, row {place} {name}: {found} is not {expected}");
                    }
                }
            }
        }
    }
}

/// Each route's slice is a part of what is stored: 36 of them fit into little more than the weights themselves.
#[test]
fn thirty_six_routes_share_one_set_of_weights() {
    let config = full_size_config(1000);
    assert_eq!(config.check().unwrap().len(), 36);
    let weights = random_weights(&config, &mut rng(0));
    let bytes = |blocks: bool| {
        let chosen = weights.iter().filter(|(name, _)| name.contains(".block") == blocks);
        4.0 * chosen.map(|(_, tensor)| tensor.data.len()).sum::<usize>() as f64
    };
    // In place of the backbone's tables the native forward may keep their products, one an embedding width.
    let products = 4.0 * 2.0 * ((1001 + config.max_len) * 128) as f64;
    for (backend, forward) in forwards(&config, &weights) {
        let found = forward.weight_bytes() as f64;
        assert!(found >= bytes(true) + bytes(false), "{backend}: {found} bytes are less than the weights");
        assert!(found <= 1.33 * bytes(true) + bytes(false) + products, "{backend}: {found} bytes");
    }
}

/// Router logits, then the scores of each route: one row a history each.
struct Answers(Vec<Vec<Vec<f32>>>);

impl Answers {
    fn of(forward: &dyn Forward, space: &RouteSpace, histories: &[&History]) -> Answers {
        let routed = forward.router_logits(histories).unwrap();
        let scored = space.routes().map(|route: Route| forward.scores(route, histories).unwrap());
        let rows = std::iter::once(routed).chain(scored);
        Answers(rows.map(|rows| rows.iter().map(<[f32]>::to_vec).collect()).collect())
    }
}
