use canet_domain::RouteSpace;
use canet_evaluation::SeenItems;
use canet_model::ModelConfig;
use tch::{TchError, Tensor};

use crate::batch::Batch;
use crate::dropout::DropoutShares;
use crate::losses::{balance, budget_distance, expected_share, guide, hits, next_item, sample_routes};
use crate::options::JointOptions;
use crate::parameters::Parameters;
use crate::step_loss::StepLoss;
use crate::subnet_mask::{MaskTables, SubnetMask};
use crate::supernet::Supernet;
use crate::tensors::gather;

/// The objective of the CANet paper ("One Person, One Model", ICDM 2022): router and slices learn together from the
/// loss of the routes that the router draws.
pub(crate) struct Joint<'a> {
    pub config: &'a ModelConfig,
    pub space: &'a RouteSpace,
    pub tables: &'a MaskTables,
    /// Share of activations that is dropped.
    pub dropout: f64,
    pub options: &'a JointOptions,
    /// Share of the full model's FLOPs to spend.
    pub flops_budget: f64,
    /// The rule for items of a user's own history, when the guide asks for the rank of the true item.
    pub seen: SeenItems,
}

/// The part of the loss that is the cross-entropy of the routed slices.
pub(crate) const ROUTED: &str = "routed";

/// A user is easy if the smallest route ranks the true next item among this many best ones, as in the authors' code.
const EASY_RANK: i64 = 10;

impl Joint<'_> {
    /// The loss of a batch. Draws routes and dropout from tch's generator.
    ///
    /// # Errors
    /// LibTorch's, if memory runs out.
    pub(crate) fn loss(&self, parameters: &Parameters, batch: &Batch) -> Result<StepLoss, TchError> {
        let net = Supernet { config: self.config, parameters, dropout: DropoutShares::even(self.dropout) };
        let weights = self.options.weights;

        let logits = net.router_logits(batch)?; // [B, routes]
        let choice = sample_routes(&logits, self.options.temperature)?; // [B, routes]
        let hidden = net.hidden(batch, &SubnetMask::PerRow(self.tables.masks(&choice)?))?; // [T, D]
        let scores = net.scores(&batch.at_scored(&hidden)?)?; // [S, N + 1]
        let routed = next_item(&scores, &batch.targets)?;
        let guide = guide(&logits, &self.easy_rows(parameters, batch)?, self.tables)?;
        let balance = balance(&logits)?;
        let share = expected_share(&logits, batch, &self.config.shape(), self.space)?;

        let distance = budget_distance(&share, self.flops_budget)?;
        let total = routed
            .f_add(&guide.f_mul_scalar(weights.guide)?)?
            .f_add(&balance.f_mul_scalar(weights.balance)?)?
            .f_add(&distance.f_mul_scalar(weights.flops)?)?;
        let parts = vec![(ROUTED, routed), ("guide", guide), ("balance", balance), ("share", share)];
        Ok(StepLoss::whole(total, parts))
    }

    /// 1 for each row whose next item the smallest route ranks high, else 0: `[B]`
    fn easy_rows(&self, parameters: &Parameters, batch: &Batch) -> Result<Tensor, TchError> {
        tch::no_grad(|| {
            let net = Supernet { config: self.config, parameters, dropout: DropoutShares::NONE };
            let smallest = self.space.slice(self.space.smallest());
            let newest = gather(&net.hidden(batch, &SubnetMask::Slice(smallest))?, &batch.newest)?; // [B, h]
            hits(&net.scores(&newest)?, batch, EASY_RANK, self.seen)
        })
    }
}
