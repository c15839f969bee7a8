use serde::{Deserialize, Serialize};
use tch::{TchError, Tensor};

use super::batch::Batch;
use super::cut::{Cut, MaskTables};
use super::losses::{
    LossWeights, Losses, balance, expected_share, guide, next_item, over_budget, sample_routes, served_by,
};
use super::options::TrainOptions;
use super::parameters::Parameters;
use super::supernet::Supernet;
use crate::domain::{RouteSpace, Slice};
use crate::model::ModelConfig;

/// What a training step minimises.
pub(super) struct Objective<'a> {
    /// Sizes and flags.
    pub config: &'a ModelConfig,
    /// The routes.
    pub space: &'a RouteSpace,
    /// Constant tables of the masks.
    pub tables: &'a MaskTables,
    /// Loss terms, dropout, budget.
    pub options: &'a TrainOptions,
}

/// A step's loss and what it is made of.
pub(super) struct StepLoss {
    /// What to minimise, with its graph.
    pub total: Tensor,
    /// The same in numbers.
    pub terms: Terms,
}

/// Parts of a loss, in nats where they are entropies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Terms {
    /// Everything, weighted.
    pub total: f64,
    /// Cross-entropy of the next item by the drawn routes.
    pub routed: f64,
    /// Cross-entropy by the full slice, with the sandwich.
    pub full: f64,
    /// Cross-entropy by the smallest slice, with the sandwich.
    pub smallest: f64,
    /// Guide term.
    pub guide: f64,
    /// Balance term.
    pub balance: f64,
    /// Expected share of the full model's FLOPs.
    pub share: f64,
}

impl Terms {
    /// Adds another step's terms, to be averaged.
    pub(super) fn add(&mut self, other: &Terms) {
        *self = self.zip(other, |own, other| own + other);
    }

    /// The mean of `steps` added terms.
    pub(super) fn mean(&self, steps: u64) -> Terms {
        let divisor = steps.max(1) as f64;
        self.zip(self, |own, _| own / divisor)
    }

    fn zip(&self, other: &Terms, combine: impl Fn(f64, f64) -> f64) -> Terms {
        Terms {
            total: combine(self.total, other.total),
            routed: combine(self.routed, other.routed),
            full: combine(self.full, other.full),
            smallest: combine(self.smallest, other.smallest),
            guide: combine(self.guide, other.guide),
            balance: combine(self.balance, other.balance),
            share: combine(self.share, other.share),
        }
    }
}

/// The smallest route serves a user when the true next item is among its 10 best (the authors' constant).
const SERVED_WITHIN: i64 = 10;

impl Objective<'_> {
    /// The loss of a batch. Draws routes and dropout from tch's generator.
    ///
    /// # Errors
    /// LibTorch's, when memory runs out.
    pub(super) fn loss(&self, parameters: &Parameters, batch: &Batch) -> Result<StepLoss, TchError> {
        let net = self.net(parameters, self.options.dropout);
        let LossWeights { guide: guide_weight, balance: balance_weight, flops: flops_weight } = self.options.weights;

        let logits = net.router_logits(batch)?; // [B, routes]
        let choice = sample_routes(&logits, self.options.temperature)?; // [B, routes]
        let routed = self.cross_entropy(&net, batch, &Cut::Mixed(self.tables.masks(&choice)?))?;
        let guide = guide(self.options.losses, &logits, &self.easy_users(parameters, batch)?, self.tables)?;
        let balance = balance(self.options.losses, &logits)?;
        let share = expected_share(&logits, batch, &self.config.shape(), self.space)?;

        let mut total =
            routed.f_add(&guide.f_mul_scalar(guide_weight)?)?.f_add(&balance.f_mul_scalar(balance_weight)?)?;
        if self.options.losses == Losses::Paper {
            let over = over_budget(&share, self.options.flops_budget)?;
            total = total.f_add(&over.f_mul_scalar(flops_weight)?)?;
        }
        let mut terms = Terms::default();
        if self.options.sandwich {
            let full = self.cross_entropy(&net, batch, &Cut::Uniform(self.space.widest()))?;
            let smallest = self.cross_entropy(&net, batch, &Cut::Uniform(self.smallest()))?;
            total = total.f_add(&full)?.f_add(&smallest)?;
            terms.full = full.f_double_value(&[])?;
            terms.smallest = smallest.f_double_value(&[])?;
        }
        terms.total = total.f_double_value(&[])?;
        terms.routed = routed.f_double_value(&[])?;
        terms.guide = guide.f_double_value(&[])?;
        terms.balance = balance.f_double_value(&[])?;
        terms.share = share.f_double_value(&[])?;
        Ok(StepLoss { total, terms })
    }

    fn net<'a>(&'a self, parameters: &'a Parameters, dropout: f64) -> Supernet<'a> {
        Supernet { config: self.config, parameters, dropout }
    }

    fn smallest(&self) -> Slice {
        self.space.slice(self.space.smallest())
    }

    /// Over all real positions.
    fn cross_entropy(&self, net: &Supernet<'_>, batch: &Batch, cut: &Cut) -> Result<Tensor, TchError> {
        let hidden = net.hidden(batch, cut)?.f_flatten(0, 1)?.f_index_select(0, &batch.places)?; // [T, h]
        next_item(&net.scores(&hidden)?, &batch.targets)
    }

    /// Rows whose next item the smallest route already ranks high: [B], 0 or 1.
    fn easy_users(&self, parameters: &Parameters, batch: &Batch) -> Result<Tensor, TchError> {
        tch::no_grad(|| {
            let net = self.net(parameters, 0.0);
            let last = net.hidden(batch, &Cut::Uniform(self.smallest()))?.f_select(1, -1)?; // [B, h]
            served_by(&net.scores(&last)?, batch, SERVED_WITHIN)
        })
    }
}
