use tch::{TchError, Tensor};

use super::batch::{Batch, gather};
use super::cut::{Cut, MaskTables};
use super::dropout::DropoutShares;
use super::losses::{LossWeights, Losses};
use super::losses::{balance, expected_share, guide, next_item, over_budget, sample_routes, served_by};
use super::options::JointOptions;
use super::parameters::Parameters;
use super::supernet::Supernet;
use super::terms::StepLoss;
use canet_domain::RouteSpace;
use canet_model::ModelConfig;

/// The paper's objective: router and slices learn together, by the loss of the routes that are drawn.
pub(crate) struct Joint<'a> {
    /// Sizes and flags.
    pub config: &'a ModelConfig,
    /// The routes.
    pub space: &'a RouteSpace,
    /// Constant tables of the masks.
    pub tables: &'a MaskTables,
    /// Share of activations dropped.
    pub dropout: f64,
    /// Loss terms.
    pub options: &'a JointOptions,
    /// Share of the full model's FLOPs to spend.
    pub flops_budget: f64,
}

/// The smallest route serves a user when the true next item is among its 10 best (the authors' constant).
const SERVED_WITHIN: i64 = 10;

impl Joint<'_> {
    /// The loss of a batch. Draws routes and dropout from tch's generator.
    ///
    /// # Errors
    /// LibTorch's, when memory runs out.
    pub(crate) fn loss(&self, parameters: &Parameters, batch: &Batch) -> Result<StepLoss, TchError> {
        let net = Supernet { config: self.config, parameters, dropout: DropoutShares::even(self.dropout) };
        let LossWeights { guide: guide_weight, balance: balance_weight, flops: flops_weight } = self.options.weights;

        let logits = net.router_logits(batch)?; // [B, routes]
        let choice = sample_routes(&logits, self.options.temperature)?; // [B, routes]
        let hidden = net.hidden(batch, &Cut::Mixed(self.tables.masks(&choice)?))?; // [T, D]
        let routed = next_item(&net.scores(&batch.at_scored(&hidden)?)?, &batch.targets)?;
        let guide = guide(self.options.losses, &logits, &self.easy_users(parameters, batch)?, self.tables)?;
        let balance = balance(self.options.losses, &logits)?;
        let share = expected_share(&logits, batch, &self.config.shape(), self.space)?;

        let mut total =
            routed.f_add(&guide.f_mul_scalar(guide_weight)?)?.f_add(&balance.f_mul_scalar(balance_weight)?)?;
        if self.options.losses == Losses::Paper {
            let over = over_budget(&share, self.flops_budget)?;
            total = total.f_add(&over.f_mul_scalar(flops_weight)?)?;
        }
        let parts = vec![("routed", routed), ("guide", guide), ("balance", balance), ("share", share)];
        Ok(StepLoss::whole(total, parts))
    }

    /// Rows whose next item the smallest route already ranks high: [B], 0 or 1.
    fn easy_users(&self, parameters: &Parameters, batch: &Batch) -> Result<Tensor, TchError> {
        tch::no_grad(|| {
            let net = Supernet { config: self.config, parameters, dropout: DropoutShares::NONE };
            let smallest = self.space.slice(self.space.smallest());
            let last = gather(&net.hidden(batch, &Cut::Uniform(smallest))?, &batch.newest)?; // [B, h]
            served_by(&net.scores(&last)?, batch, SERVED_WITHIN)
        })
    }
}
