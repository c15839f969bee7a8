use super::Estimate;

/// Standard errors to either side of a mean that hold 95 % of a normal distribution.
const WITHIN: f64 = 1.96;

/// A number that several models of the same data were measured for, on the same users.
#[derive(Clone, Debug, PartialEq)]
pub struct Replicated {
    /// Mean over the models and the users, with the standard error over users of each user's mean over the models.
    pub estimate: Estimate,
    /// Standard deviation over the models; `None` for one.
    pub spread: Option<f64>,
    /// The mean over users, by model.
    pub by_model: Vec<f64>,
}

impl Replicated {
    /// Of one value a user from each model, at least one model.
    pub fn of(models: &[Vec<f64>]) -> Replicated {
        let count = models.len().max(1) as f64;
        let users = models.iter().map(Vec::len).min().unwrap_or_default();
        let of_user = |user: usize| models.iter().map(|values| values[user]).sum::<f64>() / count;
        let estimate = Estimate::of(&(0..users).map(of_user).collect::<Vec<f64>>());
        let by_model: Vec<f64> = models.iter().map(|values| Estimate::of(values).mean).collect();
        let spread = Estimate::of(&by_model).se.map(|se| se * count.sqrt());
        Replicated { estimate, spread, by_model }
    }

    /// 95 % interval of the mean, by the normal distribution. Where there are several models it covers what other models
    /// would have given too: the variances over users and over models are added, which counts what both share twice
    /// and so errs on the wide side. `None` under two users.
    pub fn interval(&self) -> Option<[f64; 2]> {
        let over_models = self.spread.map_or(0.0, |spread| spread.powi(2) / self.by_model.len() as f64);
        let reach = WITHIN * (self.estimate.se?.powi(2) + over_models).sqrt();
        Some([self.estimate.mean - reach, self.estimate.mean + reach])
    }
}
