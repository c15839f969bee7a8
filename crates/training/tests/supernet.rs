//! Training and serving compute the same function, and masked rows have the gradients of their slices.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test says by a panic what is wrong")]

use canet_domain::{Candidates, History, RouteSpace, Selection, top_k};
use canet_model::{Forward, ModelConfig, Positions, Precision, Weights, WidthRule};
use canet_training::{
    Batch, DropoutShares, MaskTables, ParameterOptions, Parameters, Recipe, Sample, SubnetMask, Supernet, one_hot,
};
use tch::{Device, Kind, Tensor};

use canet_testing::{random_history, random_weights, rng, small_config};
use canet_torch::TorchForward;

const OPTIONS: ParameterOptions = ParameterOptions { recipe: Recipe::Paper, tied: false, device: Device::Cpu };

/// A random model, and a history for each of its routes.
struct Setting {
    config: ModelConfig,
    space: RouteSpace,
    weights: Weights,
    histories: Vec<History>,
}

/// The lengths of the histories vary over the whole range.
fn setting(config: ModelConfig, seed: u64) -> Setting {
    let space = config.check().unwrap();
    let mut rng = rng(seed);
    let weights = random_weights(&config, &mut rng);
    let length = |row: usize| 1 + row * 7 % config.max_len;
    let histories = (0..space.len()).map(|row| random_history(config.items, length(row), &mut rng)).collect();
    Setting { config, space, weights, histories }
}

/// Configurations that cover every width rule, every kind of positions, and both values of `embedding_norm`.
fn every_rule() -> impl Iterator<Item = ModelConfig> {
    let rules = [
        (WidthRule::Slice, WidthRule::Slice, Positions::Relative, true),
        (WidthRule::Slice, WidthRule::Full, Positions::Newest, false),
        (WidthRule::Full, WidthRule::Slice, Positions::Oldest, true),
        (WidthRule::Full, WidthRule::Full, Positions::Relative, false),
    ];
    rules.into_iter().map(|(attention_scale, ffn_inner, positions, embedding_norm)| ModelConfig {
        attention_scale,
        ffn_inner,
        positions,
        embedding_norm,
        ..small_config()
    })
}

/// Histories as training samples. Their targets are not used.
fn batch(setting: &Setting, rows: &[usize]) -> Batch {
    let samples: Vec<Sample<'_>> = rows
        .iter()
        .map(|row| setting.histories[*row].items())
        .map(|items| Sample { inputs: items, targets: items })
        .collect();
    Batch::new(&samples, setting.config.max_len, Device::Cpu).unwrap()
}

fn masks(setting: &Setting, routes: &[usize]) -> SubnetMask {
    let tables = MaskTables::new(&setting.config, &setting.space, Device::Cpu).unwrap();
    SubnetMask::PerRow(tables.masks(&one_hot(routes, setting.space.len(), Device::Cpu).unwrap()).unwrap())
}

/// Scores at the newest position of each row: `[B, N + 1]`
fn last_scores(setting: &Setting, parameters: &Parameters, batch: &Batch, mask: &SubnetMask) -> Tensor {
    let net = Supernet { config: &setting.config, parameters, dropout: DropoutShares::NONE };
    net.scores(&net.hidden(batch, mask).unwrap().index_select(0, &batch.newest)).unwrap()
}

fn largest(values: &[f32]) -> f32 {
    values.iter().fold(0.0_f32, |size, value| size.max(value.abs()))
}

fn assert_close(found: &[f32], expected: &[f32], tolerance: f32, what: &str) {
    assert_within(found, expected, tolerance * largest(expected), what);
}

fn assert_within(found: &[f32], expected: &[f32], tolerance: f32, what: &str) {
    for (found, expected) in found.iter().zip(expected) {
        let off = (found - expected).abs();
        assert!(off <= tolerance, "{what}: {found} instead of {expected}, at most {tolerance} off");
    }
}

fn row(tensor: &Tensor, row: usize) -> Vec<f32> {
    Vec::try_from(tensor.get(row as i64).detach()).unwrap()
}

#[test]
fn a_masked_batch_of_all_routes_scores_like_the_slices_in_serving() {
    for config in every_rule() {
        let setting = setting(config, 11);
        let forward =
            TorchForward::load(&setting.config, &setting.weights, Precision::Fp32, canet_model::Device::CPU).unwrap();
        let parameters = Parameters::from_weights(&setting.config, &setting.weights, OPTIONS).unwrap();
        let routes: Vec<usize> = (0..setting.space.len()).collect();
        let masked = last_scores(&setting, &parameters, &batch(&setting, &routes), &masks(&setting, &routes));
        for route in setting.space.routes() {
            let history = &setting.histories[route.index()];
            let served = forward.scores(route, &[history]).unwrap();
            let (served, masked) = (served.row(0).unwrap(), row(&masked, route.index()));
            assert_close(&masked, served, 1e-5, setting.space.name(route));
            let selection = Selection { k: 10, excluded: &Default::default(), candidates: Candidates::All };
            let items = |scores: &[f32]| top_k(scores, &selection).iter().map(|best| best.item).collect::<Vec<_>>();
            assert_eq!(items(&masked), items(served), "{}", setting.space.name(route));
        }
    }
}

#[test]
fn the_router_has_the_same_logits_in_training_and_in_serving() {
    let setting = setting(small_config(), 12);
    let parameters = Parameters::from_weights(&setting.config, &setting.weights, OPTIONS).unwrap();
    let rows: Vec<usize> = (0..setting.histories.len()).collect();
    let net = Supernet { config: &setting.config, parameters: &parameters, dropout: DropoutShares::NONE };
    let trained = net.router_logits(&batch(&setting, &rows)).unwrap();
    let histories: Vec<&History> = setting.histories.iter().collect();
    let served = TorchForward::load(&setting.config, &setting.weights, Precision::Fp32, canet_model::Device::CPU)
        .unwrap()
        .router_logits(&histories)
        .unwrap();
    for (index, served) in served.iter().enumerate() {
        assert_close(&row(&trained, index), served, 1e-5, "router");
    }
}

fn gradients(parameters: &Parameters, loss: &Tensor) -> Vec<(String, Vec<f32>)> {
    loss.backward();
    parameters
        .iter()
        .filter(|(_, tensor)| tensor.grad().defined())
        .map(|(name, tensor)| (name.to_owned(), Vec::try_from(tensor.grad().flatten(0, -1)).unwrap()))
        .collect()
}

/// A loss that depends on every score.
fn loss(scores: &Tensor) -> Tensor {
    let targets = Tensor::ones([scores.size()[0]], (Kind::Int64, Device::Cpu)) * 3;
    scores.cross_entropy_for_logits(&targets)
}

#[test]
fn a_masked_row_has_the_gradients_of_its_slice_and_none_outside_it() {
    for config in every_rule() {
        let setting = setting(config, 13);
        for route in setting.space.routes() {
            let rows = [route.index()];
            let of = |mask: &SubnetMask| {
                let parameters = Parameters::from_weights(&setting.config, &setting.weights, OPTIONS).unwrap();
                let scores = last_scores(&setting, &parameters, &batch(&setting, &rows), mask);
                gradients(&parameters, &loss(&scores))
            };
            let masked = of(&masks(&setting, &rows));
            let sliced = of(&SubnetMask::Slice(setting.space.slice(route)));
            let mut compared = 0;
            // Some gradients are zero except for rounding, because softmax ignores a shift of all keys.
            let floor = 1e-6 * sliced.iter().fold(0.0_f32, |size, (_, values)| size.max(largest(values)));
            for (name, sliced) in &sliced {
                let (_, masked) = masked.iter().find(|(other, _)| other == name).unwrap();
                let tolerance = floor + 1e-4 * largest(sliced);
                assert_within(masked, sliced, tolerance, &format!("{} {name}", setting.space.name(route)));
                compared += 1;
            }
            assert!(compared > 10, "{compared} weights take part");
            for (name, masked) in masked.iter().filter(|(name, _)| !sliced.iter().any(|(other, _)| other == name)) {
                assert!(masked.iter().all(|value| *value == 0.0), "{name} is outside the slice");
            }
        }
    }
}

/// The serving forward has no gradients, so its slope along the masked gradients is computed from two forward passes.
#[test]
fn the_masked_gradients_equal_the_slope_of_the_serving_forward() {
    let setting = setting(small_config(), 14);
    for route in setting.space.routes().step_by(5) {
        let rows = [route.index()];
        let parameters = Parameters::from_weights(&setting.config, &setting.weights, OPTIONS).unwrap();
        let scores = last_scores(&setting, &parameters, &batch(&setting, &rows), &masks(&setting, &rows));
        let gradients = gradients(&parameters, &loss(&scores));
        let step = 1e-3_f32;
        // The slope along the gradient is the norm of the gradient.
        let norm = gradients.iter().flat_map(|(_, values)| values).map(|value| f64::from(value * value)).sum::<f64>();
        let moved = |direction: f32| {
            let mut weights = setting.weights.clone();
            for (name, gradient) in &gradients {
                let mut tensor = weights.get(name).unwrap().clone();
                let along = gradient.iter().map(|value| direction * step * value / norm.sqrt() as f32);
                tensor.data.iter_mut().zip(along).for_each(|(value, change)| *value += change);
                weights.insert(name.clone(), tensor);
            }
            let served =
                TorchForward::load(&setting.config, &weights, Precision::Fp32, canet_model::Device::CPU).unwrap();
            let scores = served.scores(route, &[&setting.histories[route.index()]]).unwrap();
            let scores: Vec<f64> = scores.row(0).unwrap().iter().map(|score| f64::from(*score)).collect();
            let largest = scores.iter().copied().fold(f64::MIN, f64::max);
            largest + scores.iter().map(|score| (score - largest).exp()).sum::<f64>().ln() - scores[3]
        };
        let slope = (moved(1.0) - moved(-1.0)) / (2.0 * f64::from(step));
        let off = (slope - norm.sqrt()).abs() / norm.sqrt();
        assert!(off < 0.02, "{}: slope {slope}, gradient {}", setting.space.name(route), norm.sqrt());
    }
}
