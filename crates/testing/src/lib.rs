//! Small random models for tests and benches, which then need no training and no files.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a failed test panics")]

mod oracle;

pub use oracle::{OracleAnswers, any_config};

use std::path::Path;

use canet_cpu::{CpuForward, CpuOptions};
use canet_domain::{Catalogue, History, Item, RouteSpace};
use canet_model::checkpoint::{Checkpoint, CheckpointDraft, DataRecord, MetricsRecord, Probes};
use canet_model::{HostTensor, ModelConfig, Positions, Precision, RouterConfig, Rows, Weights, WidthRule};
use rand::distributions::Uniform;
use rand::{Rng, RngCore, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// A random generator with the same values on every machine.
pub fn rng(seed: u64) -> ChaCha8Rng {
    ChaCha8Rng::seed_from_u64(seed)
}

/// 24 routes over 40 items. A forward pass takes microseconds.
pub fn small_config() -> ModelConfig {
    ModelConfig {
        items: 40,
        max_len: 12,
        heads: 2,
        hidden: vec![4, 8, 12],
        layers: vec![1, 2, 3, 4],
        embedding: vec![6, 10],
        router: RouterConfig { dim: 8, heads: 2, ffn: 16 },
        attention_scale: WidthRule::Slice,
        ffn_inner: WidthRule::Slice,
        positions: Positions::Newest,
        embedding_norm: false,
        history_stride: 1,
        norm_eps: ModelConfig::NORM_EPS,
    }
}

/// The default 36 routes over `items` items, histories of up to 50.
pub fn full_size_config(items: usize) -> ModelConfig {
    ModelConfig {
        items,
        max_len: 50,
        heads: 4,
        hidden: vec![64, 96, 128],
        layers: vec![2, 4, 6, 8],
        embedding: vec![64, 96, 128],
        router: RouterConfig::default(),
        ..small_config()
    }
}

/// Sizes that are not multiples of a vector or a panel. Some exceed one.
pub fn odd_config() -> ModelConfig {
    ModelConfig {
        items: 701,
        max_len: 75,
        heads: 3,
        hidden: vec![15, 51, 105],
        layers: vec![1, 3],
        embedding: vec![1, 37, 70],
        router: RouterConfig { dim: 33, heads: 3, ffn: 41 },
        attention_scale: WidthRule::Full,
        ffn_inner: WidthRule::Full,
        ..small_config()
    }
}

/// Models with every kind of positions, with and without a norm of the embedding. Two have odd sizes, and three are narrow with
/// two heads. The embeddings of one are as wide as its hidden states.
pub fn flagged_configs() -> Vec<ModelConfig> {
    let narrow = ModelConfig {
        heads: 2,
        hidden: vec![16, 32],
        layers: vec![1, 2],
        embedding: vec![16, 64],
        ..full_size_config(300)
    };
    let odd = |positions, embedding_norm| ModelConfig { positions, embedding_norm, norm_eps: 1e-3, ..odd_config() };
    vec![
        odd(Positions::Relative, true),
        odd(Positions::Oldest, false),
        ModelConfig { positions: Positions::Relative, ..narrow.clone() },
        ModelConfig { positions: Positions::Relative, embedding_norm: true, embedding: vec![], ..narrow.clone() },
        ModelConfig { positions: Positions::Newest, embedding_norm: true, norm_eps: 1e-12, ..narrow },
    ]
}

/// Random weights. Residual scales and norms are around 1. All others are uniform around 0, and large enough that every
/// sublayer affects the scores.
pub fn random_weights(config: &ModelConfig, rng: &mut impl RngCore) -> Weights {
    let mut weights = Weights::default();
    for parameter in config.parameters() {
        let scale = parameter.name.ends_with("_residual") || parameter.name.ends_with("_norm.weight");
        let (centre, spread) = match (scale, parameter.shape.as_slice()) {
            (true, _) => (1.0, 0.4),
            // The output of a linear map is then about as large as its input.
            (false, [_, input]) if !parameter.name.contains("embedding") => (0.0, (3.0 / *input as f32).sqrt()),
            (false, _) => (0.0, 1.0),
        };
        let count = parameter.shape.iter().product();
        let values = Uniform::new_inclusive(centre - spread, centre + spread);
        let data = rng.sample_iter(values).take(count).collect();
        weights.insert(parameter.name, HostTensor { shape: parameter.shape, data });
    }
    weights
}

/// `length` random items of a catalogue of `items`.
pub fn random_history(items: usize, length: usize, rng: &mut impl RngCore) -> History {
    let list: Vec<Item> = (0..length).map(|_| item(rng.gen_range(1..=items as u32))).collect();
    History::new(&list, length).unwrap()
}

/// Random histories of random lengths up to the model's.
pub fn random_histories(config: &ModelConfig, count: usize, rng: &mut ChaCha8Rng) -> Vec<History> {
    (0..count).map(|_| random_history(config.items, rng.gen_range(1..=config.max_len), rng)).collect()
}

/// The root mean square error of scores over all rows, relative to the spread of the exact scores.
pub fn relative_distance(found: &Rows, exact: &Rows) -> f64 {
    let (mut error, mut spread) = (0.0, 0.0);
    for (found, exact) in found.iter().zip(exact.iter()) {
        let mean = exact.iter().map(|score| f64::from(*score)).sum::<f64>() / exact.len() as f64;
        error += found.iter().zip(exact).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum::<f64>();
        spread += exact.iter().map(|score| (f64::from(*score) - mean).powi(2)).sum::<f64>();
    }
    (error / spread).sqrt()
}

/// The item of a dense id, which must not be 0.
pub fn item(id: u32) -> Item {
    Item::new(id).unwrap()
}

/// A catalogue with the external ids `x1001`, `x1002` and so on, none of which is a dense id. Every other item has a title,
/// and the last item is the most popular.
pub fn catalogue(items: usize) -> Catalogue {
    let id = |index: usize| -> Box<str> { format!("x{}", 1001 + index).into() };
    let titles = (0..items).step_by(2).map(|index| (id(index), format!("Title {}", index + 1).into()));
    Catalogue::new((0..items).map(id).collect(), (1..=items as u64).collect()).unwrap().with_titles(titles)
}

/// A random model, ready to be written.
pub fn draft(config: ModelConfig, seed: u64) -> CheckpointDraft {
    let mut rng = rng(seed);
    let weights = random_weights(&config, &mut rng);
    let forward = CpuForward::load(&config, &weights, CpuOptions::fastest(Precision::Fp32, 1)).unwrap();
    let space: RouteSpace = config.check().unwrap();
    let lengths = [1, 2, config.max_len.div_ceil(2), config.max_len];
    let histories = lengths.map(|length| random_history(config.items, length.min(config.max_len), &mut rng));
    CheckpointDraft {
        probes: Probes::record(&forward, &space, &histories).unwrap(),
        catalogue: catalogue(config.items),
        data: DataRecord {
            name: "random".to_owned(),
            sha256: "0".repeat(64),
            parsed_sha256: None,
            users: Some(5),
            items: config.items as u64,
            interactions: Some(820),
        },
        metrics: MetricsRecord::default(),
        calibration: None,
        training: None,
        exclude_seen: true,
        config,
        weights,
    }
}

/// The part of a model that [`overflowing`] breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BrokenPart {
    /// The scores of every route.
    Backbone,
    /// The router's logits.
    Router,
}

/// Weights that make one part of a model compute NaN for every history of up to three items that has a given one. For histories
/// without it the model is sound. No weight exceeds the limit of checkpoints. The configuration must have a table of positions and no norm of the embedding.
pub fn overflowing_weights(weights: &Weights, broken: Item, part: BrokenPart) -> Weights {
    let name = match part {
        BrokenPart::Backbone => "backbone",
        BrokenPart::Router => "router",
    };
    let mut weights = weights.clone();
    // The item alone has these features. A product of two numbers of this size, or the sum of a few, overflows.
    let features = weights.get(&format!("{name}.item_embedding")).unwrap().shape[1] - 2;
    let features = if part == BrokenPart::Backbone { 2 } else { features };
    let mut fill = |tensor: String, features: usize, value: &dyn Fn(usize) -> f32| {
        let mut filled = weights.get(&tensor).unwrap().clone();
        let columns = filled.shape[1];
        for (row, values) in filled.data.chunks_mut(columns).enumerate() {
            values[..features.min(columns)].fill(value(row));
        }
        weights.insert(tensor, filled);
    };
    let of_item = |row: usize| if row == broken.column() { Weights::LARGEST } else { 0.0 };
    fill(format!("{name}.item_embedding"), features, &of_item);
    fill(format!("{name}.position_embedding"), features, &|_| 0.0);
    match part {
        BrokenPart::Backbone => fill("backbone.input.weight".to_owned(), features, &|_| Weights::LARGEST),
        BrokenPart::Router => {
            // Attention weighs all items alike, so that the item always counts.
            fill("router.block.attention.key.weight".to_owned(), usize::MAX, &|_| 0.0);
            fill("router.block.attention.query.weight".to_owned(), features, &|_| 0.0);
            fill("router.block.attention.value.weight".to_owned(), features, &|_| Weights::LARGEST);
        }
    }
    weights
}

/// A model with [`overflowing_weights`], ready to be written. Its probes do not contain the item.
pub fn overflowing(draft: CheckpointDraft, broken: Item, part: BrokenPart) -> CheckpointDraft {
    let weights = overflowing_weights(&draft.weights, broken, part);
    let forward = CpuForward::load(&draft.config, &weights, CpuOptions::fastest(Precision::Fp32, 1)).unwrap();
    let space = draft.config.check().unwrap();
    let histories = draft.probes.histories().map(|history| {
        let items = history.items().iter().map(|item| if *item == broken { Item::new(1).unwrap() } else { *item });
        History::new(&items.collect::<Vec<_>>(), draft.config.max_len).unwrap()
    });
    let probes = Probes::record(&forward, &space, &histories.collect::<Vec<_>>()).unwrap();
    CheckpointDraft { weights, probes, ..draft }
}

/// Writes the next version of a random model at `root`.
pub fn write_checkpoint(root: &Path, seed: u64) -> Checkpoint {
    draft(small_config(), seed).write(root).unwrap()
}

/// The best value of any mixture of two routes that costs at most `cost` on average, and the routes' shares in it.
/// Tries every pair.
pub fn best_mixture(costs: &[f64], values: &[f64], cost: f64) -> (f64, Vec<f64>) {
    let mut best = (f64::NEG_INFINITY, Vec::new());
    for a in 0..costs.len() {
        for b in 0..costs.len() {
            let share = match costs[b] - costs[a] {
                span if span > 0.0 => ((cost - costs[a]) / span).clamp(0.0, 1.0),
                _ => 0.0,
            };
            let spent = costs[a] + share * (costs[b] - costs[a]);
            let value = values[a] + share * (values[b] - values[a]);
            if spent <= cost + 1e-9 && value > best.0 {
                let mut shares = vec![0.0; costs.len()];
                shares[a] += 1.0 - share;
                shares[b] += share;
                best = (value, shares);
            }
        }
    }
    best
}
