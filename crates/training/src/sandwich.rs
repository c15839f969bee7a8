use canet_domain::{RouteSpace, Slice};
use canet_model::ModelConfig;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tch::TchError;

use crate::batch::Batch;
use crate::dropout::DropoutShares;
use crate::full_softmax::full_softmax;
use crate::options::SandwichOptions;
use crate::parameters::Parameters;
use crate::sampled_softmax::SampledSoftmax;
use crate::step_loss::{Exit, Exits, StepLoss};
use crate::supernet::Supernet;

/// The objective that trains the slices, independent of any router.
///
/// Each step trains the full slice, one of its shallower exits, and one slice of every other width with random depth
/// and embedding. All but the full slice also learn from the full slice's probabilities. This is the sandwich rule with
/// inplace distillation (Yu & Huang 2019, "Universally Slimmable Networks", arXiv:1903.05134). The published rule draws
/// two widths between the smallest and the largest. Here every width takes part, because narrow slices cost little
/// beside the widest.
///
/// If each slice reads embeddings as wide as its hidden state, every slice takes part. If embedding widths are given,
/// the slices of the widest width take part with the widest embedding alone: those with a narrower one have no loss of
/// their own, and learn only what others teach the weights that they share. In a space of one width, these are all
/// slices with a narrower embedding.
pub(crate) struct Sandwich<'a> {
    pub config: &'a ModelConfig,
    pub space: &'a RouteSpace,
    /// Share of the full slice's activations that is dropped.
    pub dropout: f64,
    pub options: &'a SandwichOptions,
}

/// One forward pass of a step.
struct Pass {
    slice: Slice,
    /// The depths whose hidden states have a loss. They ascend and end with the slice's depth.
    depths: Vec<usize>,
}

/// The part of the loss that is the cross-entropy of the full slice.
pub(crate) const FULL: &str = "full";

/// Weight of the shallower exit's loss. The full slice has 1, and a narrower one has its boost.
const SHALLOWER_WEIGHT: f64 = 0.5;

/// Slices narrower than this many features drop less.
const NARROW: f64 = 64.0;

impl Sandwich<'_> {
    /// The loss of a batch. Draws slices from `seed`, and negatives and dropout from tch's generator.
    ///
    /// # Errors
    /// LibTorch's, if memory runs out.
    pub(crate) fn loss(&self, parameters: &Parameters, batch: &Batch, seed: u64) -> Result<StepLoss, TchError> {
        self.loss_of(&self.draw(&mut ChaCha8Rng::seed_from_u64(seed)), parameters, batch)
    }

    /// The passes of a step. The full slice's is the last.
    fn draw(&self, rng: &mut ChaCha8Rng) -> Vec<Pass> {
        let widest = self.space.widest();
        let Some((widest_hidden, narrower)) = self.space.hidden().split_last() else { return Vec::new() };
        let mut passes: Vec<Pass> = Vec::with_capacity(1 + narrower.len());
        for hidden in narrower {
            let layers = choose(rng, self.space.layers()).unwrap_or(widest.layers);
            let embedding = match self.space.is_coupled() {
                true => *hidden,
                false => choose(rng, self.space.embedding()).unwrap_or(widest.embedding),
            };
            passes.push(Pass { slice: Slice { hidden: *hidden, layers, embedding }, depths: vec![layers] });
        }
        let shallower = self.space.layers().split_last().map_or(&[][..], |(_, shallower)| shallower);
        let depths = choose(rng, shallower).into_iter().chain([widest.layers]).collect();
        passes.push(Pass { slice: Slice { hidden: *widest_hidden, ..widest }, depths });
        passes
    }

    /// The loss of a batch over the given passes. The full slice's must be the last.
    fn loss_of(&self, passes: &[Pass], parameters: &Parameters, batch: &Batch) -> Result<StepLoss, TchError> {
        let widest = self.space.widest();
        let mut exits = Vec::new();
        for Pass { slice, depths } in passes {
            let net = Supernet { config: self.config, parameters, dropout: dropout_of(*slice, self.dropout) };
            for (depth, hidden) in depths.iter().zip(net.exits(batch, *slice, depths)?) {
                let (name, weight) = match (slice.hidden == widest.hidden, *depth == widest.layers) {
                    (true, true) => (FULL, 1.0),
                    (true, false) => ("shallower", SHALLOWER_WEIGHT),
                    (false, _) => ("narrower", self.options.boost().of(slice.hidden, widest.hidden)),
                };
                exits.push(Exit { name, hidden, weight });
            }
        }
        let teacher = exits.pop().ok_or_else(|| TchError::Torch("the route space has no slices".to_owned()))?;
        let exits = Exits { teacher, students: exits, distillation: self.options.distillation };
        match self.options.negatives {
            Some(negatives) => SampledSoftmax::draw(parameters, batch, self.config.items, negatives)?.loss(&exits),
            None => full_softmax(parameters, &batch.targets, &exits),
        }
    }
}

/// What a slice drops if the full slice drops `dropout`. A narrow slice has fewer features to spare, so it drops less.
///
/// Embeddings and blocks are scaled apart. A narrow slice with wide embeddings would otherwise drop little of them, and
/// the embedding table would overfit through the narrow slices.
fn dropout_of(slice: Slice, dropout: f64) -> DropoutShares {
    let at = |width: usize| dropout * (width as f64 / NARROW).min(1.0);
    DropoutShares { embedding: at(slice.embedding), blocks: at(slice.hidden) }
}

/// A random one of several sizes, `None` if there are none.
fn choose(rng: &mut ChaCha8Rng, sizes: &[usize]) -> Option<usize> {
    (!sizes.is_empty()).then(|| sizes[rng.gen_range(0..sizes.len())])
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::Path;

    use canet_domain::Item;
    use canet_model::{HostTensor, Weights};
    use safetensors::SafeTensors;
    use serde::Deserialize;
    use tch::{Device, Tensor};

    use super::*;
    use crate::batch::Sample;
    use crate::parameters::{ParameterOptions, Recipe};

    /// A case of `tests/fixtures/make_sandwich.py`.
    #[derive(Deserialize)]
    struct Case {
        name: String,
        config: ModelConfig,
        tied: bool,
        learnt: bool,
        distillation: f64,
        narrow_boost: f64,
        samples: Vec<(Vec<u32>, Vec<u32>)>,
        /// Hidden width, depths and embedding width of each pass. The full slice's pass is the last.
        passes: Vec<(usize, Vec<usize>, usize)>,
        loss: f64,
    }

    /// The bytes of the fixture file.
    struct Fixture(Vec<u8>);

    impl Fixture {
        fn read() -> Fixture {
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/sandwich.safetensors");
            Fixture(std::fs::read(path).unwrap())
        }

        fn cases(&self) -> Vec<Case> {
            let (_, header) = SafeTensors::read_metadata(&self.0).unwrap();
            serde_json::from_str(&header.metadata().as_ref().unwrap()["cases"]).unwrap()
        }

        /// The tensors of a name prefix, by the rest of their names.
        fn tensors(&self, prefix: &str) -> BTreeMap<String, HostTensor> {
            let file = SafeTensors::deserialize(&self.0).unwrap();
            let named = |name: &str| {
                let view = file.tensor(name).unwrap();
                let (values, _) = view.data().as_chunks();
                let data = values.iter().map(|value| f32::from_le_bytes(*value)).collect();
                HostTensor { shape: view.shape().to_vec(), data }
            };
            let names = file.names().into_iter().filter_map(|name| Some((name, name.strip_prefix(prefix)?)));
            names.map(|(name, rest)| (rest.to_owned(), named(name))).collect()
        }
    }

    fn items(ids: &[u32]) -> Vec<Item> {
        ids.iter().map(|id| Item::new(*id).unwrap()).collect()
    }

    fn values(tensor: &Tensor) -> Vec<f32> {
        Vec::try_from(tensor.flatten(0, -1)).unwrap()
    }

    /// Both softmaxes must agree with PyTorch: with as many negatives as items, the sampled one is the full one.
    #[test]
    fn loss_and_gradients_equal_those_of_pytorch() {
        let fixture = Fixture::read();
        for case in fixture.cases() {
            let mut weights = Weights::default();
            for (name, tensor) in fixture.tensors(&format!("{}.weight.", case.name)) {
                weights.insert(name, tensor);
            }
            let space = case.config.check().unwrap();
            let samples: Vec<[Vec<Item>; 2]> =
                case.samples.iter().map(|(inputs, targets)| [items(inputs), items(targets)]).collect();
            let samples: Vec<Sample<'_>> = samples.iter().map(|[inputs, targets]| Sample { inputs, targets }).collect();
            let batch = Batch::new(&samples, case.config.max_len, Device::Cpu).unwrap();
            let passes: Vec<Pass> = case
                .passes
                .iter()
                .map(|(hidden, depths, embedding)| {
                    let slice = Slice { hidden: *hidden, layers: depths[depths.len() - 1], embedding: *embedding };
                    Pass { slice, depths: depths.clone() }
                })
                .collect();
            for negatives in [None, Some(case.config.items)] {
                let recipe = if case.learnt { Recipe::Paper } else { Recipe::Plain };
                let parameters = ParameterOptions { recipe, tied: case.tied, device: Device::Cpu };
                let parameters = Parameters::from_weights(&case.config, &weights, parameters).unwrap();
                let options =
                    SandwichOptions { negatives, distillation: case.distillation, narrow_boost: case.narrow_boost };
                let sandwich = Sandwich { config: &case.config, space: &space, dropout: 0.0, options: &options };
                let loss = sandwich.loss_of(&passes, &parameters, &batch).unwrap();
                loss.backward().unwrap();
                let found = loss.values().unwrap().total();
                assert!((found - case.loss).abs() < 1e-5 * case.loss, "{}: {found}, not {}", case.name, case.loss);
                let expected = fixture.tensors(&format!("{}.gradient.", case.name));
                let trained = parameters.leaves().filter(|(_, weight)| weight.grad().defined());
                let trained: Vec<&str> = trained.map(|(name, _)| name).collect();
                assert_eq!(trained, expected.keys().collect::<Vec<_>>(), "{}", case.name);
                for (name, gradient) in expected {
                    let found = values(&parameters.get(&name).unwrap().grad());
                    let largest = gradient.data.iter().fold(0.0_f32, |size, value| size.max(value.abs()));
                    for (found, expected) in found.iter().zip(&gradient.data) {
                        let near = (found - expected).abs() <= 1e-6 + 2e-5 * largest;
                        assert!(near, "{}, {negatives:?}, {name}: {found}, not {expected}", case.name);
                    }
                }
            }
        }
    }

    #[test]
    fn each_step_trains_the_full_slice_and_one_of_every_other_width() {
        let case = Fixture::read().cases().swap_remove(0);
        let space = RouteSpace::new(vec![4, 8, 16], vec![1, 2, 3], vec![4, 16]).unwrap();
        let options = SandwichOptions { negatives: None, distillation: 0.5, narrow_boost: 0.0 };
        let sandwich = Sandwich { config: &case.config, space: &space, dropout: 0.0, options: &options };
        let mut seen = std::collections::BTreeSet::new();
        for seed in 0..200 {
            let passes = sandwich.draw(&mut ChaCha8Rng::seed_from_u64(seed));
            assert_eq!(passes.iter().map(|pass| pass.slice.hidden).collect::<Vec<_>>(), [4, 8, 16]);
            assert_eq!(passes[2].slice, space.widest());
            assert_eq!(passes[2].depths[1..], [3]);
            for pass in &passes {
                seen.extend(pass.depths.iter().map(|depth| (pass.slice.hidden, *depth, pass.slice.embedding)));
            }
        }
        // All narrower slices, and all depths of the widest one at its full embedding.
        assert_eq!(seen.len(), 2 * 3 * 2 + 3);
    }
}
