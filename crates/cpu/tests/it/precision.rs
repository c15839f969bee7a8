//! bfloat16: close to float32, and half the memory.

use std::collections::HashSet;
use std::path::Path;

use canet_cpu::{CpuForward, CpuOptions, Level};
use canet_domain::{Candidates, History, Item, Route, Selection};
use canet_model::checkpoint::ModelDirectory;
use canet_model::{Forward, ModelConfig, Precision, Query};
use canet_testing::{
    flagged_configs, full_size_config, odd_config, random_histories, random_weights, relative_distance, rng,
};
use rand::Rng;

use super::options;

#[test]
#[cfg_attr(debug_assertions, ignore = "takes minutes without optimisation")]
fn bfloat16_scores_are_near_float32_and_router_logits_are_bit_identical() {
    for (seed, config) in [odd_config(), full_size_config(300)].into_iter().chain(flagged_configs()).enumerate() {
        let mut rng = rng(1 + seed as u64);
        let weights = random_weights(&config, &mut rng);
        let space = config.check().unwrap();
        let histories = random_histories(&config, 9, &mut rng);
        let batch: Vec<&History> = histories.iter().collect();
        let load = |level, precision| CpuForward::load(&config, &weights, options(level, precision, 2)).unwrap();
        let exact = load(Level::best(), Precision::Fp32);
        for level in Level::available() {
            let forward = load(level, Precision::Bf16);
            for route in space.routes() {
                let [found, expected] = [&forward, &exact].map(|forward| forward.scores(route, &batch).unwrap());
                // A factor has eight significant bits. The lower bound shows that something is rounded.
                let distance = relative_distance(&found, &expected);
                assert!((1e-4..3e-2).contains(&distance), "{level}, {}: {distance}", space.name(route));
            }
            assert!(forward.weight_bytes() < exact.weight_bytes());
        }
        let rounded = load(Level::best(), Precision::Bf16);
        assert_eq!(rounded.router_logits(&batch).unwrap(), exact.router_logits(&batch).unwrap());
    }
}

/// A weight of a linear layer takes two bytes, every other value four.
#[test]
fn linear_layers_take_half_the_memory() {
    let config = ModelConfig { hidden: vec![128], ..full_size_config(3000) };
    let weights = random_weights(&config, &mut rng(3));
    let native =
        |precision| CpuForward::load(&config, &weights, CpuOptions::fastest(precision, 1)).unwrap().weight_bytes();
    // The products of the input layer with the tables replace it. Keys are stored twice, as they are and transposed.
    let linear = |name: &str| {
        let is = name.starts_with("backbone.") && name.ends_with(".weight") && !name.contains("_norm");
        is && !name.contains("backbone.input")
    };
    let copies = |name: &str| if name.contains("attention.key") { 2 } else { 1 };
    let halved = weights.iter().filter(|(name, _)| linear(name));
    let halved: usize = halved.map(|(name, tensor)| 2 * copies(name) * tensor.data.len()).sum();
    // Panels are padded to 32 outputs.
    let padding = 32 * 128 * 2;
    let saved = native(Precision::Fp32) - native(Precision::Bf16);
    assert!((halved..=halved + padding).contains(&saved), "{saved}, {halved}");
}

/// The shipped model, on histories whose items are drawn by popularity.
#[test]
#[cfg_attr(debug_assertions, ignore = "takes minutes without optimisation")]
fn the_top_ten_of_a_trained_model_hardly_change() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/ml-100k");
    let checkpoint = ModelDirectory::open(&directory).unwrap().load(None).unwrap();
    let (config, weights) = (&checkpoint.config, &checkpoint.weights);
    let popular = checkpoint.catalogue.by_popularity();
    let mut rng = rng(4);
    let mut history = || {
        let length = rng.gen_range(1..=config.max_len);
        // The n-th item is drawn 1/n as often as the first.
        let item = |rng: &mut rand_chacha::ChaCha8Rng| {
            popular[((popular.len() as f64).powf(rng.gen_range(0.0..1.0)) as usize - 1).min(popular.len() - 1)]
        };
        let items: Vec<Item> = (0..length).map(|_| item(&mut rng)).collect();
        History::new(&items, config.max_len).unwrap()
    };
    let histories: Vec<History> = (0..20).map(|_| history()).collect();
    let nothing = HashSet::new();
    let selection = Selection { k: 10, excluded: &nothing, candidates: Candidates::All };
    let top = |precision| {
        let native = CpuForward::load(config, weights, CpuOptions::fastest(precision, 1)).unwrap();
        let rows: Vec<(Route, Query<'_>)> = checkpoint
            .space
            .routes()
            .flat_map(|route| histories.iter().map(move |history| (route, Query { history, selection })))
            .collect();
        native.rank(&rows).unwrap()
    };
    let (exact, found) = (top(Precision::Fp32), top(Precision::Bf16));
    let again = exact.iter().zip(&found).map(|(exact, found)| {
        exact.iter().filter(|ranked| found.iter().any(|found| found.item == ranked.item)).count()
    });
    let overlap = again.sum::<usize>() as f64 / (10 * exact.len()) as f64;
    assert!((0.98..1.0).contains(&overlap), "{overlap}");
}
