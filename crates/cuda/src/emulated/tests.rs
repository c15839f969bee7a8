use std::collections::HashSet;

use canet_cpu::{CpuForward, CpuOptions, Level};
use canet_domain::{Candidates, History, Item, ItemSet, Route, RouteSpace, Selection, top_k};
use canet_model::{Forward, ModelConfig, Positions, Precision, Query, RouterConfig, Rows, Weights, WidthRule};
use canet_testing::{BrokenPart, item, overflowing_weights, random_history, random_weights, relative_distance, rng};

use super::{Emulated, THREADS};
use crate::forward::CudaForward;
use crate::gpu::Gpu;
use crate::sizes::KernelSizes;

/// Float32 results differ by the order of sums and by factors that are cut by up to 2^-21. The greatest distance measured over
/// all tests is 3.7e-6.
const NEAR: f32 = 1e-5;

fn config(rule: WidthRule) -> ModelConfig {
    ModelConfig {
        items: 150,
        max_len: 40,
        heads: 2,
        hidden: vec![32, 64],
        layers: vec![1, 2],
        embedding: vec![32, 64],
        router: RouterConfig { dim: 16, heads: 2, ffn: 32 },
        attention_scale: rule,
        ffn_inner: rule,
        positions: Positions::Newest,
        embedding_norm: false,
        history_stride: 1,
        norm_eps: ModelConfig::NORM_EPS,
    }
}

/// Both rules of width; then every kind of positions, with and without a norm of the embedding, and epsilons that
/// matter.
fn configs() -> [ModelConfig; 6] {
    let with = |positions, embedding_norm, norm_eps| ModelConfig {
        positions,
        embedding_norm,
        norm_eps,
        ..config(WidthRule::Slice)
    };
    [
        config(WidthRule::Slice),
        config(WidthRule::Full),
        with(Positions::Newest, true, 1e-5),
        with(Positions::Oldest, false, 1e-2),
        with(Positions::Relative, false, 1e-12),
        with(Positions::Relative, true, 1e-2),
    ]
}

fn emulated(config: &ModelConfig, precision: Precision, weights: &Weights) -> CudaForward<Emulated> {
    let sizes = KernelSizes::new(config, precision, THREADS, 1 << 18).unwrap();
    let driver = Emulated::new(&sizes);
    CudaForward::load_on(driver, sizes, precision, config, weights).unwrap()
}

/// The forward on this CPU, which computes every precision at every level.
fn cpu(config: &ModelConfig, precision: Precision, weights: &Weights) -> CpuForward {
    let options = CpuOptions { level: Level::best(), precision, threads: 1, byte_scan: false, history_cache: 0 };
    CpuForward::load(config, weights, options).unwrap()
}

/// Lengths on both sides of a tile's edge.
fn histories(config: &ModelConfig) -> Vec<History> {
    let mut rng = rng(3);
    [1, 16, 17, config.max_len].map(|length| random_history(config.items, length, &mut rng)).into()
}

/// The greatest distance of two values, relative to values above 1.
fn furthest(found: &Rows, expected: &Rows) -> f32 {
    let pairs = found.iter().flatten().zip(expected.iter().flatten());
    pairs.map(|(found, expected)| (found - expected).abs() / expected.abs().max(1.0)).fold(0.0, f32::max)
}

#[test]
fn kernels_compute_what_the_cpu_computes() {
    for config in configs() {
        let weights = random_weights(&config, &mut rng(1));
        let [found, expected]: [Box<dyn Forward>; 2] =
            [Box::new(emulated(&config, Precision::Fp32, &weights)), Box::new(cpu(&config, Precision::Fp32, &weights))];
        let histories = histories(&config);
        let histories: Vec<&History> = histories.iter().collect();
        let logits = [&found, &expected].map(|forward| forward.router_logits(&histories).unwrap());
        let distance = furthest(&logits[0], &logits[1]);
        assert!(distance < NEAR, "{config:?}, router: {distance}");
        let space = config.check().unwrap();
        for route in space.routes() {
            let scores = [&found, &expected].map(|forward| forward.scores(route, &histories).unwrap());
            let distance = furthest(&scores[0], &scores[1]);
            assert!(distance < NEAR, "{config:?}, {}: {distance}", space.name(route));
        }
    }
}

/// Widths from 16 to 128 with two heads, so heads of 8 to 64 features.
#[test]
fn kernels_compute_slices_of_very_different_widths() {
    let config = ModelConfig {
        max_len: 20,
        hidden: vec![16, 32, 64, 128],
        layers: vec![1, 2, 4],
        embedding: vec![128],
        positions: Positions::Relative,
        ..config(WidthRule::Slice)
    };
    let weights = random_weights(&config, &mut rng(1));
    let (found, expected) = (emulated(&config, Precision::Fp32, &weights), cpu(&config, Precision::Fp32, &weights));
    let history = random_history(config.items, 18, &mut rng(2));
    let space = config.check().unwrap();
    for route in space.routes() {
        let (found, expected) =
            (found.scores(route, &[&history]).unwrap(), expected.scores(route, &[&history]).unwrap());
        let distance = furthest(&found, &expected);
        assert!(distance < NEAR, "{}: {distance}", space.name(route));
    }
    // With the shared memory of an H100.
    let longer = ModelConfig { max_len: 50, ..config };
    let sizes = |precision| KernelSizes::new(&longer, precision, Gpu::THREADS, 227 << 10);
    assert!(sizes(Precision::Fp32).is_ok());
    let error = sizes(Precision::Bf16).err().map(|error| error.to_string());
    assert!(error.as_ref().is_some_and(|error| error.contains("hidden width 16 is no multiple of 32")), "{error:?}");
}

/// A model, its routes and some histories.
fn model() -> (ModelConfig, Weights, RouteSpace, Vec<History>) {
    let config = config(WidthRule::Slice);
    let weights = random_weights(&config, &mut rng(1));
    let (space, histories) = (config.check().unwrap(), histories(&config));
    (config, weights, space, histories)
}

#[test]
fn a_batch_of_every_route_ranks_each_row_by_its_own_scores() {
    let (config, weights, space, histories) = model();
    let forward = emulated(&config, Precision::Fp32, &weights);
    let routes: Vec<Route> = space.routes().collect();
    let few = [3, 70, 12].map(item);
    let mut set = ItemSet::empty(config.items);
    (1..=config.items as u32).step_by(3).map(item).for_each(|item| set.insert(item));
    let seen: Vec<HashSet<Item>> = histories.iter().map(|history| history.items().iter().copied().collect()).collect();
    let rows: Vec<(Route, Query<'_>)> = histories
        .iter()
        .zip(&seen)
        .cycle()
        .take(3 * histories.len())
        .enumerate()
        .map(|(row, (history, excluded))| {
            let candidates = match row {
                2 => Candidates::Only(&few),
                // For every k, also for more than the set has.
                4.. => Candidates::Set(&set),
                _ => Candidates::All,
            };
            let k = [1, 10, 150][row % 3];
            (routes[2 * row % routes.len()], Query { history, selection: Selection { k, excluded, candidates } })
        })
        .collect();
    for ((route, query), ranked) in rows.iter().zip(forward.rank(&rows).unwrap()) {
        let scores = forward.scores(*route, &[query.history]).unwrap();
        let expected = top_k(scores.row(0).unwrap(), &query.selection);
        assert_eq!(ranked, expected, "{}", space.name(*route));
    }
}

/// More scores are equal than `select` has places for.
#[test]
fn ties_go_to_the_lower_item() {
    let (config, mut weights, space, histories) = model();
    for name in ["backbone.output.weight", "backbone.output.bias"] {
        let mut tensor = weights.get(name).unwrap().clone();
        tensor.data.fill(0.0);
        weights.insert(name, tensor);
    }
    let forward = emulated(&config, Precision::Fp32, &weights);
    let excluded = HashSet::from([item(2)]);
    let selection = Selection { k: 3, excluded: &excluded, candidates: Candidates::All };
    let ranked = forward.rank(&[(space.full(), Query { history: &histories[0], selection })]).unwrap();
    assert_eq!(ranked[0].iter().map(|ranked| ranked.item.id()).collect::<Vec<_>>(), [1, 3, 4]);
}

/// The row of the item that makes NaN has no ranking, and the other row has its own.
#[test]
fn a_row_of_nan_is_incomplete_and_changes_no_other_row() {
    let (config, weights, space, _) = model();
    let broken = item(9);
    let weights = overflowing_weights(&weights, broken, BrokenPart::Backbone);
    let (found, expected) = (emulated(&config, Precision::Fp32, &weights), cpu(&config, Precision::Fp32, &weights));
    let nothing = HashSet::new();
    let histories = [[item(3), broken, item(4)], [item(3), item(5), item(4)]];
    let histories = histories.map(|items| History::new(&items, config.max_len).unwrap());
    for k in [10, 150] {
        let selection = Selection { k, excluded: &nothing, candidates: Candidates::All };
        for route in space.routes() {
            let rows = histories.each_ref().map(|history| (route, Query { history, selection }));
            let complete = |forward: &dyn Forward| {
                let ranked = forward.rank(&rows).unwrap();
                ranked.iter().map(|row| selection.is_complete(row, config.items)).collect::<Vec<_>>()
            };
            assert_eq!(complete(&found), [false, true], "{}", space.name(route));
            assert_eq!(complete(&expected), [false, true], "{}", space.name(route));
        }
    }
}

#[test]
fn kernels_round_to_bfloat16_as_the_cpu_does() {
    for config in configs() {
        let weights = random_weights(&config, &mut rng(1));
        let found = emulated(&config, Precision::Bf16, &weights);
        let [exact, rounded] = [Precision::Fp32, Precision::Bf16].map(|precision| cpu(&config, precision, &weights));
        let histories = histories(&config);
        let histories: Vec<&History> = histories.iter().collect();
        let space = config.check().unwrap();
        for route in space.routes() {
            let exact = exact.scores(route, &histories).unwrap();
            let distance =
                |forward: &dyn Forward| relative_distance(&forward.scores(route, &histories).unwrap(), &exact);
            let (found, rounded) = (distance(&found), distance(&rounded));
            // The kernels keep the output layer in float32, which the CPU rounds too. Measured: 0.40 to 0.78 of its distance.
            assert!(found > 0.2 * rounded && found < rounded, "{}: {found}, CPU {rounded}", space.name(route));
        }
    }
}
