use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tch::{TchError, Tensor};

use super::batch::Batch;
use super::contrast::{Contrast, SoftTargets};
use super::options::SandwichOptions;
use super::parameters::Parameters;
use super::supernet::Supernet;
use super::terms::StepLoss;
use crate::domain::RouteSpace;
use crate::model::ModelConfig;

/// Every slice learns, whatever the router will choose: each step trains the full slice, one of its shallower exits,
/// the smallest slice, and one drawn slice with its shallowest exit (the sandwich rule of Yu & Huang 2019). All but the
/// full one also learn from the full one's probabilities.
pub(super) struct Sandwich<'a> {
    /// Sizes and flags.
    pub config: &'a ModelConfig,
    /// The routes.
    pub space: &'a RouteSpace,
    /// Share of activations dropped.
    pub dropout: f64,
    /// How slices learn.
    pub options: &'a SandwichOptions,
}

impl Sandwich<'_> {
    /// The loss of a batch. Draws slices by `seed`, negatives and dropout from tch's generator.
    ///
    /// # Errors
    /// LibTorch's, when memory runs out.
    pub(super) fn loss(&self, parameters: &Parameters, batch: &Batch, seed: u64) -> Result<StepLoss, TchError> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let net = Supernet { config: self.config, parameters, dropout: self.dropout };
        let contrast = Contrast::draw(parameters, batch, self.config.items, self.options.negatives)?;

        let widest = self.space.widest();
        let shallower = self.space.layers().split_last().map_or(&[][..], |(_, shallower)| shallower);
        let mut depths: Vec<usize> = draw(&mut rng, shallower).into_iter().collect();
        depths.push(widest.layers);
        let mut exits = net.exits(batch, widest, &depths)?;
        let full = exits.pop().ok_or_else(|| TchError::Torch("a slice without layers".to_owned()))?;
        let full = contrast.scores(&full)?;
        let mut total = full.cross_entropy()?;
        let mut parts = vec![("full", total.shallow_clone())];
        let learn = Learn { contrast: &contrast, soft: full.probabilities()?, distillation: self.options.distillation };
        for exit in exits {
            let loss = learn.loss(&exit)?;
            total = total.f_add(&loss.f_mul_scalar(EXIT_WEIGHT)?)?;
            parts.push(("exit", loss));
        }

        let smallest = self.space.slice(self.space.smallest());
        if smallest != widest {
            let loss = learn.mean(&net.exits(batch, smallest, &[smallest.layers])?)?;
            total = total.f_add(&loss)?;
            parts.push(("smallest", loss));
            let drawn = rng.gen_range(0..self.space.len());
            if let Some(route) = self.space.route(drawn) {
                let slice = self.space.slice(route);
                let shallowest = self.space.layers().first().copied().unwrap_or(slice.layers);
                let exits = net.exits(batch, slice, &[shallowest, slice.layers])?;
                let loss = learn.mean(&exits)?;
                total = total.f_add(&loss)?;
                parts.push(("drawn", loss));
            }
        }
        Ok(StepLoss { total, parts })
    }
}

/// Weight of an exit beside the slice that it belongs to.
const EXIT_WEIGHT: f64 = 0.5;

/// How the slices of one step learn.
struct Learn<'a> {
    contrast: &'a Contrast,
    soft: SoftTargets,
    distillation: f64,
}

impl Learn<'_> {
    /// The loss of hidden states, [T, h].
    fn loss(&self, hidden: &Tensor) -> Result<Tensor, TchError> {
        let scores = self.contrast.scores(hidden)?;
        match self.distillation > 0.0 {
            true => scores.distilled(&self.soft, self.distillation),
            false => scores.cross_entropy(),
        }
    }

    /// The mean loss of several.
    fn mean(&self, hidden: &[Tensor]) -> Result<Tensor, TchError> {
        let losses = hidden.iter().map(|hidden| self.loss(hidden)).collect::<Result<Vec<_>, _>>()?;
        Tensor::f_stack(&losses, 0)?.f_mean(tch::Kind::Float)
    }
}

/// One of several, `None` of none.
fn draw(rng: &mut ChaCha8Rng, sizes: &[usize]) -> Option<usize> {
    (!sizes.is_empty()).then(|| sizes[rng.gen_range(0..sizes.len())])
}
