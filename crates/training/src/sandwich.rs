use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tch::TchError;

use super::batch::Batch;
use super::dropout::DropoutShares;
use super::full_softmax::{Exit, full_softmax};
use super::options::SandwichOptions;
use super::parameters::Parameters;
use super::sampled_softmax::SampledSoftmax;
use super::supernet::Supernet;
use super::terms::StepLoss;
use canet_domain::{RouteSpace, Slice};
use canet_model::ModelConfig;

/// Every slice learns, whatever the router will choose: each step trains the full slice, one of its shallower exits, and
/// a slice of every other width, whose depth and embedding are drawn (the sandwich rule of Yu & Huang 2019, with all
/// widths in place of two drawn ones: narrow slices cost little beside the widest). All but the full slice also learn
/// from the full one's probabilities.
pub(crate) struct Sandwich<'a> {
    /// Sizes and flags.
    pub config: &'a ModelConfig,
    /// The routes.
    pub space: &'a RouteSpace,
    /// Share of the full slice's activations that is dropped.
    pub dropout: f64,
    /// How slices learn.
    pub options: &'a SandwichOptions,
}

/// One pass through the network.
struct Pass {
    slice: Slice,
    /// The depths at which the loss is taken, ascending; the last is the slice's.
    depths: Vec<usize>,
}

impl Sandwich<'_> {
    /// The loss of a batch. Draws slices by `seed`, negatives and dropout from tch's generator.
    ///
    /// # Errors
    /// LibTorch's, when memory runs out.
    pub(crate) fn loss(&self, parameters: &Parameters, batch: &Batch, seed: u64) -> Result<StepLoss, TchError> {
        self.loss_of(&self.draw(&mut ChaCha8Rng::seed_from_u64(seed)), parameters, batch)
    }

    /// The passes of a step, the widest last.
    fn draw(&self, rng: &mut ChaCha8Rng) -> Vec<Pass> {
        let widest = self.space.widest();
        let Some((widest_hidden, narrower)) = self.space.hidden().split_last() else { return Vec::new() };
        let mut passes: Vec<Pass> = Vec::with_capacity(1 + narrower.len());
        for hidden in narrower {
            let layers = draw(rng, self.space.layers()).unwrap_or(widest.layers);
            let embedding = draw(rng, self.space.embedding()).unwrap_or(widest.embedding);
            passes.push(Pass { slice: Slice { hidden: *hidden, layers, embedding }, depths: vec![layers] });
        }
        let shallower = self.space.layers().split_last().map_or(&[][..], |(_, shallower)| shallower);
        let depths = draw(rng, shallower).into_iter().chain([widest.layers]).collect();
        passes.push(Pass { slice: Slice { hidden: *widest_hidden, ..widest }, depths });
        passes
    }

    /// The loss of a batch by these passes, of which the last is the full slice's.
    fn loss_of(&self, passes: &[Pass], parameters: &Parameters, batch: &Batch) -> Result<StepLoss, TchError> {
        let widest = self.space.widest();
        let mut exits = Vec::new();
        for Pass { slice, depths } in passes {
            let net = Supernet { config: self.config, parameters, dropout: dropout_of(*slice, self.dropout) };
            for (depth, hidden) in depths.iter().zip(net.exits(batch, *slice, depths)?) {
                let (name, weight) = match (slice.hidden == widest.hidden, *depth == widest.layers) {
                    (true, true) => ("full", 1.0),
                    (true, false) => ("shallower", EXIT_WEIGHT),
                    (false, _) => ("narrower", 1.0),
                };
                exits.push(Exit { name, hidden, weight });
            }
        }
        let teacher = exits.pop().ok_or_else(|| TchError::Torch("a step without slices".to_owned()))?;
        let (exits, distillation) = ((&teacher, exits.as_slice()), self.options.distillation);
        match self.options.negatives {
            Some(negatives) => {
                SampledSoftmax::draw(parameters, batch, self.config.items, negatives)?.loss(exits, distillation)
            }
            None => full_softmax(parameters, &batch.targets, exits, distillation),
        }
    }
}

/// Weight of a shallower exit beside the full slice.
const EXIT_WEIGHT: f64 = 0.5;

/// What a slice drops, of what the widest ones drop: less where there are fewer features to spare. A narrow slice that
/// reads wide embeddings drops as much of them as the others do, or the table would fit the training data by way of the
/// narrow slices.
fn dropout_of(slice: Slice, dropout: f64) -> DropoutShares {
    let at = |width: usize| dropout * (width as f64 / NARROW).min(1.0);
    DropoutShares { embedding: at(slice.embedding), blocks: at(slice.hidden) }
}

/// The width below which a slice drops less.
const NARROW: f64 = 64.0;

/// One of several, `None` of none.
fn draw(rng: &mut ChaCha8Rng, sizes: &[usize]) -> Option<usize> {
    (!sizes.is_empty()).then(|| sizes[rng.gen_range(0..sizes.len())])
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::Path;

    use safetensors::SafeTensors;
    use serde::Deserialize;
    use tch::{Device, Tensor};

    use super::*;
    use crate::Recipe;
    use crate::batch::Sample;
    use canet_domain::Item;
    use canet_model::{HostTensor, Weights};

    /// A case of `make_sandwich.py`.
    #[derive(Deserialize)]
    struct Case {
        name: String,
        config: ModelConfig,
        tied: bool,
        learnt: bool,
        distillation: f64,
        samples: Vec<(Vec<u32>, Vec<u32>)>,
        /// Hidden width, depths and embedding width of each pass, the full slice's last.
        passes: Vec<(usize, Vec<usize>, usize)>,
        loss: f64,
    }

    /// The fixture's file as a whole.
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

        /// Tensors whose names begin with a prefix, which is cut off.
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

    /// Loss and gradients of every weight, with the whole catalogue and with as many draws as there are items, which is
    /// the same softmax by other code.
    #[test]
    fn loss_and_gradients_are_those_of_pytorch() {
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
                let parameters = Parameters::from_weights(&weights, recipe, case.tied, Device::Cpu).unwrap();
                let options = SandwichOptions { negatives, distillation: case.distillation };
                let sandwich = Sandwich { config: &case.config, space: &space, dropout: 0.0, options: &options };
                let loss = sandwich.loss_of(&passes, &parameters, &batch).unwrap();
                loss.backward().unwrap();
                let found = loss.terms().unwrap().total();
                assert!((found - case.loss).abs() < 1e-5 * case.loss, "{}: {found}, not {}", case.name, case.loss);
                let wanted = fixture.tensors(&format!("{}.gradient.", case.name));
                let learnt: Vec<&str> =
                    parameters.leaves().filter(|(_, at)| at.grad().defined()).map(|at| at.0).collect();
                assert_eq!(learnt, wanted.keys().collect::<Vec<_>>(), "{}", case.name);
                for (name, gradient) in wanted {
                    let found = values(&parameters.get(&name).unwrap().grad());
                    let largest = gradient.data.iter().fold(0.0_f32, |size, value| size.max(value.abs()));
                    for (found, wanted) in found.iter().zip(&gradient.data) {
                        let near = (found - wanted).abs() <= 1e-6 + 2e-5 * largest;
                        assert!(near, "{}, {negatives:?}, {name}: {found}, not {wanted}", case.name);
                    }
                }
            }
        }
    }

    #[test]
    fn each_step_trains_the_full_slice_and_one_of_every_other_width() {
        let case = Fixture::read().cases().swap_remove(0);
        let space = RouteSpace::new(vec![4, 8, 16], vec![1, 2, 3], vec![4, 16]).unwrap();
        let options = SandwichOptions { negatives: None, distillation: 0.5 };
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
        // Every narrower slice, and every depth of the widest one at its full embedding.
        assert_eq!(seen.len(), 2 * 3 * 2 + 3);
    }
}
