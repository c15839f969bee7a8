use super::{Estimate, t_reach};

/// A number that several models of the same data were measured for, on the same users.
#[derive(Clone, Debug, PartialEq)]
pub struct Replicated {
    /// Mean over the models and the users, with the standard error over users of each user's mean over the models.
    pub estimate: Estimate,
    /// Standard deviation over the models; `None` for one.
    pub spread: Option<f64>,
    /// The mean over users, by model.
    pub by_model: Vec<f64>,
    users: usize,
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
        Replicated { estimate, spread, by_model, users }
    }

    /// 95 % interval of the mean, by Student's t distribution. Where there are several models it covers what other models
    /// would have given too: how far the error over users and that over models reach, each by its own degrees of freedom,
    /// are added as squares. What both share counts twice, which errs on the wide side. `None` under two users.
    ///
    /// Two or three models know little of their own variance, so theirs reaches 12.7 or 4.3 standard errors and not 1.96.
    /// A sum of variances with Welch and Satterthwaite's degrees of freedom is not taken: models that agree by chance bring
    /// it near 1.96, and of two models' intervals it leaves up to 13 % without the truth.
    pub fn interval(&self) -> Option<[f64; 2]> {
        let over_users = t_reach(self.users as f64 - 1.0) * self.estimate.se?;
        let models = self.by_model.len() as f64;
        let over_models = self.spread.map_or(0.0, |spread| t_reach(models - 1.0) * spread / models.sqrt());
        let reach = over_users.hypot(over_models);
        Some([self.estimate.mean - reach, self.estimate.mean + reach])
    }
}
