use canet_domain::RouteSpace;
use canet_model::{Axis, ModelConfig, ModelPart, Parameter, WidthRule};
use tch::{TchError, Tensor};

use crate::parameters::Parameters;

/// How much more a narrow slice learns in a step than the widest one: `(widest / width)^exponent` times.
///
/// A narrow slice has few features, so each has to grow larger. Adam moves a weight by about the learning rate, however large
/// its gradient is, so the rate has to be larger too. A wide slice overfits at such a rate. The slices share their weights, so
/// only the features that a narrow slice has learn at its rate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct NarrowBoost(pub f64);

impl NarrowBoost {
    /// The factor of a width's learning rate and of its loss.
    pub(crate) fn of(self, width: usize, widest: usize) -> f64 {
        (widest as f64 / width.max(1) as f64).powf(self.0)
    }

    /// The factor of each weight's learning rate: `[P]`. `None` if all are 1.
    ///
    /// A feature has the factor of the narrowest slice that contains it. A weight between two features has the smaller one of
    /// their factors. The router's weights have 1.
    ///
    /// # Errors
    /// LibTorch's, if memory runs out.
    pub(crate) fn rates(
        self,
        config: &ModelConfig,
        space: &RouteSpace,
        parameters: &Parameters,
    ) -> Result<Option<Tensor>, TchError> {
        let Some((narrowest, [_, ..])) = space.hidden().split_first().filter(|_| self.0 != 0.0) else {
            return Ok(None);
        };
        let rates = parameters.zeros()?.f_add_scalar(1.0)?; // [P]
        // A tied table comes twice, with the same factors.
        for weight in config.parameters().iter().filter(|weight| weight.part == ModelPart::Backbone) {
            let Parameter { name, shape, axes, .. } = weight;
            let mut part = parameters.part(&rates, name)?;
            let _ = part.f_fill_(self.of(*narrowest, config.width()))?;
            for (dim, (size, axis)) in shape.iter().zip(axes).enumerate() {
                let factors: Vec<f32> = (0..*size)
                    .map(|place| {
                        let feature = feature(*axis, place, config);
                        let width = space.hidden().iter().find(|width| **width > feature);
                        width.map_or(1.0, |width| self.of(*width, config.width())) as f32
                    })
                    .collect();
                let mut broadcast = vec![1; shape.len()];
                broadcast[dim] = *size as i64;
                let factors = Tensor::f_from_slice(&factors)?.f_to_device(parameters.device())?.f_reshape(broadcast)?;
                part.f_copy_(&part.f_minimum(&factors)?)?;
            }
        }
        Ok(Some(rates))
    }
}

/// The place of the hidden state's feature with which a slice has a place of an axis.
fn feature(axis: Axis, place: usize, config: &ModelConfig) -> usize {
    match axis {
        Axis::Embedding | Axis::Hidden => place,
        // A slice of width w has the first w / heads features of each head.
        Axis::HeadedHidden => place % (config.width() / config.heads).max(1) * config.heads,
        Axis::Inner if config.ffn_inner == WidthRule::Full => 0,
        // A slice has four for each feature of its hidden state.
        Axis::Inner => place / 4,
        // Every slice has all of them.
        Axis::Items | Axis::Positions(_) | Axis::Layers | Axis::Heads => 0,
        // The router has no slices.
        Axis::Routes | Axis::RouterHidden | Axis::RouterInner => 0,
    }
}

#[cfg(test)]
mod tests {
    use canet_domain::{Item, Slice};
    use canet_model::{Positions, RouterConfig};
    use tch::{Device, Kind};

    use super::*;
    use crate::batch::{Batch, Sample};
    use crate::dropout::DropoutShares;
    use crate::parameters::{ParameterOptions, Recipe};
    use crate::supernet::Supernet;
    use crate::torch_seed::seed_torch;

    fn config(ffn_inner: WidthRule, positions: Positions) -> ModelConfig {
        ModelConfig {
            items: 6,
            max_len: 4,
            heads: 2,
            hidden: vec![4, 8, 16],
            layers: vec![1, 2],
            embedding: vec![4, 8, 16],
            router: RouterConfig { dim: 4, heads: 2, ffn: 8 },
            attention_scale: WidthRule::Slice,
            ffn_inner,
            positions,
            embedding_norm: true,
            norm_eps: 1e-5,
            history_stride: 1,
        }
    }

    /// The weights that a slice's gradient reaches are those with its factor or a larger one.
    #[test]
    fn each_weight_has_the_factor_of_the_narrowest_slice_that_trains_it() {
        let _generator = seed_torch(1);
        let ids = [1, 2, 3, 4, 5, 6].map(|id| Item::new(id).unwrap());
        let samples =
            [Sample { inputs: &ids[..4], targets: &ids[1..5] }, Sample { inputs: &ids[2..6], targets: &ids[..4] }];
        for (ffn_inner, positions) in [
            (WidthRule::Slice, Positions::Relative),
            (WidthRule::Slice, Positions::Newest),
            (WidthRule::Full, Positions::Relative),
        ] {
            let config = config(ffn_inner, positions);
            let space = config.check().unwrap();
            for tied in [true, false] {
                let options = ParameterOptions { recipe: Recipe::Paper, tied, device: Device::Cpu };
                let boost = NarrowBoost(0.5);
                let fresh = || Parameters::fresh(&config, options).unwrap();
                let rates = boost.rates(&config, &space, &fresh()).unwrap().unwrap();
                for width in space.hidden() {
                    let parameters = fresh();
                    let batch = Batch::new(&samples, config.max_len, Device::Cpu).unwrap();
                    let net = Supernet { config: &config, parameters: &parameters, dropout: DropoutShares::NONE };
                    let slice = Slice { hidden: *width, layers: 2, embedding: *width };
                    let hidden = net.exits(&batch, slice, &[2]).unwrap().swap_remove(0);
                    let scores = net.scores(&hidden).unwrap().log_softmax(-1, Kind::Float);
                    (scores.square().sum(Kind::Float)).backward();
                    for (name, weight) in parameters.leaves().filter(|(name, _)| name.starts_with("backbone.")) {
                        let factors = parameters.part(&rates, name).unwrap();
                        let expected = factors.ge(boost.of(*width, 16) - 1e-6);
                        let mut found = weight.grad().ne(0.0);
                        if name.ends_with("embedding") && found.dim() == 2 {
                            // Padding and positions that no sample has are not trained.
                            found = found.any_dim(0, true).expand_as(&expected);
                        }
                        // A key's bias changes no score, so its gradient is rounding error.
                        let same = name.ends_with("key.bias") || found.eq_tensor(&expected).all().int64_value(&[]) == 1;
                        assert!(same, "{name} at width {width}: {found:?} {expected:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn equal_factors_are_none() {
        let _generator = seed_torch(2);
        let options = ParameterOptions { recipe: Recipe::Plain, tied: true, device: Device::Cpu };
        let config = config(WidthRule::Slice, Positions::Relative);
        let single = ModelConfig { hidden: vec![16], ..config.clone() };
        for (config, boost) in [(&config, NarrowBoost(0.0)), (&single, NarrowBoost(0.5))] {
            let parameters = Parameters::fresh(config, options).unwrap();
            assert!(boost.rates(config, &config.check().unwrap(), &parameters).unwrap().is_none());
        }
    }
}
