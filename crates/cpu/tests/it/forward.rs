//! All levels agree with each other, and nothing about a call changes an answer.

use std::collections::HashSet;

use canet_cpu::{CpuForward, CpuOptions, Level};
use canet_domain::{Candidates, History, Item, ItemSet, Ranked, Route, RouteSpace, Selection, top_k};
use canet_model::{Forward, ModelConfig, Positions, Precision, Query, Weights};
use canet_testing::{
    flagged_configs, full_size_config, item, odd_config, random_histories, random_history, random_weights, rng,
    small_config,
};
use rand::Rng;
use rand_chacha::ChaCha8Rng;

use super::options;

fn load(level: Level, config: &ModelConfig, weights: &Weights, threads: usize) -> CpuForward {
    CpuForward::load(config, weights, options(level, Precision::Fp32, threads)).unwrap()
}

fn route(space: &RouteSpace, rng: &mut ChaCha8Rng) -> Route {
    space.route(rng.gen_range(0..space.len())).unwrap()
}

#[test]
#[cfg_attr(debug_assertions, ignore = "takes minutes without optimisation")]
fn every_level_gives_the_same_scores() {
    for (seed, config) in [odd_config(), full_size_config(300)].into_iter().chain(flagged_configs()).enumerate() {
        let mut rng = rng(1 + seed as u64);
        let weights = random_weights(&config, &mut rng);
        let space = config.check().unwrap();
        let histories = random_histories(&config, 9, &mut rng);
        let batch: Vec<&History> = histories.iter().collect();
        let levels: Vec<CpuForward> =
            Level::available().into_iter().map(|level| load(level, &config, &weights, 1)).collect();
        for route in space.routes() {
            let scores: Vec<_> = levels.iter().map(|native| native.scores(route, &batch).unwrap()).collect();
            for (native, found) in levels.iter().zip(&scores) {
                for (found, expected) in found.iter().flatten().zip(scores[0].iter().flatten()) {
                    let near = (found - expected).abs() <= 2e-5 * expected.abs().max(1.0);
                    assert!(near, "{:?}, {}: {found}, {expected}", native.level(), space.name(route));
                }
            }
        }
    }
}

#[test]
fn the_portable_levels_are_always_available() {
    let names: Vec<String> = Level::available().iter().map(Level::to_string).collect();
    assert!(names.ends_with(&["portable, 8 lanes".to_owned(), "portable, 16 lanes".to_owned()]), "{names:?}");
    assert_eq!(Level::best().to_string(), names[0]);
}

#[test]
#[cfg_attr(debug_assertions, ignore = "takes minutes without optimisation")]
fn neither_the_batch_nor_the_number_of_threads_changes_a_bit_of_an_answer() {
    let sizes: Vec<ModelConfig> = [odd_config(), full_size_config(3000)].into_iter().chain(flagged_configs()).collect();
    for (config, precision) in sizes.iter().flat_map(|config| [(config, Precision::Fp32), (config, Precision::Bf16)]) {
        let mut rng = rng(5);
        let weights = random_weights(config, &mut rng);
        let space = config.check().unwrap();
        let histories = random_histories(config, 60, &mut rng);
        let excluded: Vec<HashSet<Item>> =
            histories.iter().map(|history| history.items().iter().copied().collect()).collect();
        let candidates: Vec<Item> = (1..=200).rev().map(item).collect();
        let mut set = ItemSet::empty(config.items);
        (1..=config.items as u32).step_by(3).map(item).for_each(|item| set.insert(item));
        let queries: Vec<(Route, Query<'_>)> = histories
            .iter()
            .zip(&excluded)
            .enumerate()
            .map(|(place, (history, excluded))| {
                let candidates = match place % 5 {
                    0 => Candidates::Only(&candidates),
                    1 => Candidates::Set(&set),
                    _ => Candidates::All,
                };
                (
                    route(&space, &mut rng),
                    Query { history, selection: Selection { k: 1 + place, excluded, candidates } },
                )
            })
            .collect();
        let load = |threads| CpuForward::load(config, &weights, CpuOptions::fastest(precision, threads)).unwrap();
        let [one, three] = [1, 3].map(load);
        let together = one.rank(&queries).unwrap();
        assert_eq!(three.rank(&queries).unwrap(), together);
        for ((route, query), expected) in queries.iter().zip(&together) {
            assert_eq!(&one.rank(&[(*route, *query)]).unwrap()[0], expected, "{}", space.name(*route));
            let scores = one.scores(*route, &[query.history]).unwrap();
            assert_eq!(&top_k(scores.row(0).unwrap(), &query.selection), expected, "{}", space.name(*route));
        }
        assert_eq!(one.rank(&[]).unwrap(), Vec::<Vec<Ranked>>::new());
    }
}

#[test]
fn ties_go_to_the_lower_item_across_blocks_of_columns() {
    let config = ModelConfig { items: 2000, ..small_config() };
    let mut rng = rng(6);
    let mut weights = random_weights(&config, &mut rng);
    let mut output = weights.get("backbone.output.weight").unwrap().clone();
    output.data.fill(0.0);
    weights.insert("backbone.output.weight", output);
    let mut bias = weights.get("backbone.output.bias").unwrap().clone();
    bias.data.iter_mut().enumerate().for_each(|(column, bias)| *bias = if column % 7 == 3 { 1.0 } else { -0.0 });
    weights.insert("backbone.output.bias", bias);
    let native = load(Level::best(), &config, &weights, 1);
    let (history, excluded) = (random_history(config.items, 4, &mut rng), HashSet::from([item(10)]));
    let selection = Selection { k: 1000, excluded: &excluded, candidates: Candidates::All };
    let space = config.check().unwrap();
    let found = native.rank(&[(space.full(), Query { history: &history, selection })]).unwrap();
    let ids: Vec<u32> = found[0].iter().map(|ranked| ranked.item.id()).collect();
    let (high, low): (Vec<u32>, Vec<u32>) = (1..=2000).filter(|id| *id != 10).partition(|id| id % 7 == 3);
    let expected: Vec<u32> = high.into_iter().chain(low).take(1000).collect();
    assert_eq!(ids, expected);
}

#[test]
fn only_the_newest_items_of_a_long_history_count() {
    let config = odd_config();
    let mut rng = rng(7);
    let weights = random_weights(&config, &mut rng);
    let space = config.check().unwrap();
    let native = load(Level::best(), &config, &weights, 1);
    let long = random_history(config.items, 4 * config.max_len, &mut rng);
    let newest = History::new(long.items(), config.max_len).unwrap();
    let scores = native.scores(space.full(), &[&long, &newest]).unwrap();
    assert_eq!(scores.row(0), scores.row(1));
    let logits = native.router_logits(&[&long, &newest]).unwrap();
    assert_eq!(logits.row(0), logits.row(1));
}

/// The largest possible weights make infinities and NaN. Nothing panics, NaN is never ranked, and the ranking is known to be
/// incomplete.
#[test]
fn scores_may_overflow() {
    let config = odd_config();
    let mut rng = rng(8);
    let mut weights = random_weights(&config, &mut rng);
    for name in ["backbone.item_embedding", "backbone.input.weight"] {
        let mut tensor = weights.get(name).unwrap().clone();
        tensor.data.fill(Weights::LARGEST);
        weights.insert(name, tensor);
    }
    let space = config.check().unwrap();
    let (history, nothing) = (random_history(config.items, 20, &mut rng), HashSet::new());
    let selection = Selection { k: 10, excluded: &nothing, candidates: Candidates::All };
    for level in Level::available() {
        let native = load(level, &config, &weights, 1);
        for route in space.routes() {
            let found = native.rank(&[(route, Query { history: &history, selection })]).unwrap();
            assert!(found[0].iter().all(|ranked| !ranked.score.is_nan()));
            // A single number of the embedding may not be enough to overflow.
            assert!(space.slice(route).embedding == 1 || !selection.is_complete(&found[0], config.items));
        }
    }
}

/// A small catalogue's tables are multiplied with the input layer in advance. A large catalogue's tokens pass the
/// layer.
#[test]
#[cfg_attr(debug_assertions, ignore = "takes minutes without optimisation")]
fn large_and_small_catalogues_embed_items_alike() {
    let plain =
        ModelConfig { hidden: vec![64, 128], layers: vec![1, 2], embedding: vec![8, 16], ..full_size_config(70_000) };
    let relative = ModelConfig { positions: Positions::Relative, embedding_norm: true, ..plain.clone() };
    for config in [plain, relative] {
        let weights = random_weights(&config, &mut rng(13));
        let few = ModelConfig { items: 700, ..config.clone() };
        let cut = cut_to(&few, &weights);
        let histories = random_histories(&few, 17, &mut rng(14));
        let batch: Vec<&History> = histories.iter().collect();
        let space = config.check().unwrap();
        let chosen = ["item_embedding", "position_embedding"].map(|table| weights.get(&format!("backbone.{table}")));
        let tables: usize = chosen.into_iter().flatten().map(|table| table.data.len() * size_of::<f32>()).sum();
        let variants =
            Level::available().into_iter().flat_map(|level| [Precision::Fp32, Precision::Bf16].map(|p| (level, p)));
        for (level, precision) in variants {
            let load = |config, weights| CpuForward::load(config, weights, options(level, precision, 2)).unwrap();
            let (large, small) = (load(&config, &weights), load(&few, &cut));
            let layers = large.weight_bytes() - tables;
            assert!(
                layers < 2 * 70_001 * 128 * size_of::<f32>(),
                "{layers} bytes: products of a large catalogue were kept"
            );
            let tolerance = if precision == Precision::Fp32 { 1e-4 } else { 0.1 };
            for route in space.routes() {
                let [whole, first] = [&large, &small].map(|native| native.scores(route, &batch).unwrap());
                for (whole, first) in whole.iter().zip(first.iter()) {
                    let farthest = whole.iter().zip(first).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                    assert!(farthest < tolerance, "{level}, {}: {farthest}", space.name(route));
                }
            }
        }
    }
}

/// Without a table of positions, one row an item is enough, with or without a norm.
#[test]
fn relative_positions_need_one_precomputed_row_an_item() {
    let plain =
        ModelConfig { hidden: vec![32], layers: vec![1], embedding: vec![32], heads: 2, ..full_size_config(300) };
    let bytes = |positions, embedding_norm| {
        let config = ModelConfig { positions, embedding_norm, ..plain.clone() };
        let weights = random_weights(&config, &mut rng(15));
        CpuForward::load(&config, &weights, CpuOptions::fastest(Precision::Fp32, 1)).unwrap().weight_bytes()
            / size_of::<f32>()
    };
    let [absolute, relative] = [Positions::Newest, Positions::Relative].map(|positions| bytes(positions, false));
    assert_eq!(bytes(Positions::Relative, true), relative);
    // The rows of positions are gone. The second head has its own row of biases, padded by 32 values.
    assert_eq!(absolute - relative, 50 * 32 - (50 + 32));
    // The layer, 32 wide, and the norm are kept: the norm of a sum is no sum.
    assert_eq!(bytes(Positions::Oldest, true) - absolute, 33 * 32 + 2 * 32 + 1);
}

/// The weights of a configuration with fewer items.
fn cut_to(few: &ModelConfig, weights: &Weights) -> Weights {
    let mut cut = Weights::default();
    for parameter in few.parameters() {
        let mut tensor = weights.get(&parameter.name).unwrap().clone();
        tensor.data.truncate(parameter.shape.iter().product());
        tensor.shape = parameter.shape;
        cut.insert(parameter.name, tensor);
    }
    cut
}

/// The output layer of the large catalogue is streamed, that of its first items alone is not.
#[test]
#[cfg_attr(debug_assertions, ignore = "takes minutes without optimisation")]
fn streamed_and_cached_output_layers_score_bit_identically() {
    let config = ModelConfig { hidden: vec![64, 128], layers: vec![1], embedding: vec![8], ..full_size_config(70_000) };
    let weights = random_weights(&config, &mut rng(9));
    let few = ModelConfig { items: 700, ..config.clone() };
    let cut = cut_to(&few, &weights);
    let histories = random_histories(&few, 17, &mut rng(10));
    let batch: Vec<&History> = histories.iter().collect();
    let space = config.check().unwrap();
    for level in Level::available() {
        for precision in [Precision::Fp32, Precision::Bf16] {
            let load = |config, weights| CpuForward::load(config, weights, options(level, precision, 2)).unwrap();
            let (large, small) = (load(&config, &weights), load(&few, &cut));
            for (route, rows) in space.routes().flat_map(|route| [1, 2, 17].map(|rows| (route, rows))) {
                let [whole, first] = [&large, &small].map(|native| native.scores(route, &batch[..rows]).unwrap());
                for (whole, first) in whole.iter().zip(first.iter()) {
                    assert_eq!(&whole[..701], first, "{level}, {}", space.name(route));
                }
            }
        }
    }
}

/// The byte scan only skips items that cannot be among the best. Where it gives up, every item is scored.
#[test]
#[cfg_attr(debug_assertions, ignore = "takes minutes without optimisation")]
fn the_byte_scan_ranks_as_all_scores_do() {
    let config = ModelConfig {
        hidden: vec![62, 128],
        layers: vec![1],
        embedding: vec![8],
        heads: 2,
        ..full_size_config(70_000)
    };
    let plain = random_weights(&config, &mut rng(11));
    // Items of equal scores but for a few, and items of very different norms and biases.
    let mut equal = plain.clone();
    let mut uneven = plain.clone();
    let width = config.width();
    for (name, tensor) in [("weight", width), ("bias", 1)].map(|(part, row)| (format!("backbone.output.{part}"), row)) {
        let mut data = equal.get(&name).unwrap().clone();
        let first: Vec<f32> = data.data[tensor..2 * tensor].to_vec();
        data.data.chunks_mut(tensor).skip(6).for_each(|row| row.copy_from_slice(&first));
        equal.insert(name.clone(), data);
        let mut data = uneven.get(&name).unwrap().clone();
        for (item, row) in data.data.chunks_mut(tensor).enumerate() {
            row.iter_mut().for_each(|value| *value *= f32::powi(2.0, (item % 41) as i32 - 30));
        }
        uneven.insert(name, data);
    }
    let histories = random_histories(&config, 17, &mut rng(12));
    let space = config.check().unwrap();
    let few: Vec<Item> = (1..=70_000).step_by(997).filter_map(Item::new).collect();
    // 0, 1, 10 and 90 % of the items.
    let sets = [0, 1, 10, 90].map(|percent| {
        let mut set = ItemSet::empty(70_000);
        (1..=70_000_u32).filter(|id| id * 7 % 100 < percent).filter_map(Item::new).for_each(|item| set.insert(item));
        set
    });
    for (weights, level) in [&plain, &equal, &uneven]
        .into_iter()
        .flat_map(|weights| Level::available().into_iter().map(move |level| (weights, level)))
    {
        for precision in [Precision::Fp32, Precision::Bf16] {
            let native = CpuForward::load(&config, weights, options(level, precision, 2)).unwrap();
            for route in space.routes() {
                let scores = native.scores(route, &histories.iter().collect::<Vec<_>>()).unwrap();
                let excluded: HashSet<Item> = top_k(scores.iter().next().unwrap(), &selection(3, &HashSet::new()))
                    .into_iter()
                    .map(|best| best.item)
                    .collect();
                let selections = [
                    selection(10, &excluded),
                    selection(0, &excluded),
                    selection(1500, &excluded),
                    Selection { candidates: Candidates::Only(&few), ..selection(10, &excluded) },
                    Selection { candidates: Candidates::Set(&sets[0]), ..selection(10, &excluded) },
                    Selection { candidates: Candidates::Set(&sets[1]), ..selection(10, &excluded) },
                    Selection { candidates: Candidates::Set(&sets[1]), ..selection(1500, &excluded) },
                    Selection { candidates: Candidates::Set(&sets[2]), ..selection(10, &excluded) },
                    Selection { candidates: Candidates::Set(&sets[3]), ..selection(10, &excluded) },
                ];
                let queries: Vec<(Route, Query<'_>)> = histories
                    .iter()
                    .zip(selections.iter().cycle())
                    .map(|(history, selection)| (route, Query { history, selection: *selection }))
                    .collect();
                for rows in [1, 17] {
                    let ranked = native.rank(&queries[..rows]).unwrap();
                    for ((ranked, scores), (_, query)) in ranked.iter().zip(scores.iter()).zip(&queries) {
                        assert_eq!(ranked, &top_k(scores, &query.selection), "{level}, {}", space.name(route));
                    }
                }
            }
        }
    }
}

fn selection(k: usize, excluded: &HashSet<Item>) -> Selection<'_> {
    Selection { k, excluded, candidates: Candidates::All }
}
