use crate::{Estimate, t_critical};

/// A mean over users and over several models, which were trained on the same data and measured on the same users.
#[derive(Clone, Debug, PartialEq)]
pub struct MultiModelEstimate {
    /// Mean over models and users. Its standard error is over users, each with the mean of their values over the models.
    pub estimate: Estimate,
    /// Sample standard deviation of the models' means; `None` for one model.
    pub model_sd: Option<f64>,
    /// The mean over users, by model.
    pub by_model: Vec<f64>,
    users: usize,
}

impl MultiModelEstimate {
    /// Combines one value per user from each model; at least one model.
    pub fn of(models: &[Vec<f64>]) -> MultiModelEstimate {
        let count = models.len().max(1) as f64;
        let users = models.iter().map(Vec::len).min().unwrap_or_default();
        let of_user = |user: usize| models.iter().map(|values| values[user]).sum::<f64>() / count;
        let estimate = Estimate::of(&(0..users).map(of_user).collect::<Vec<f64>>());
        let by_model: Vec<f64> = models.iter().map(|values| Estimate::of(values).mean).collect();
        let model_sd = Estimate::of(&by_model).se.map(|se| se * count.sqrt());
        MultiModelEstimate { estimate, model_sd, by_model, users }
    }

    /// 95 % confidence interval of the mean; `None` for fewer than two users.
    ///
    /// For one model it is Student's t interval over users. For several models it also covers other models from the same
    /// training: the half-width over users and the half-width over models, each with its own degrees of freedom, are
    /// added in quadrature. The variance that both share counts twice, so the interval errs on the wide side.
    ///
    /// The half-width over two models is 12.7 standard errors, over three 4.3: so few models estimate their variance
    /// badly. Summing the variances with the Welch-Satterthwaite degrees of freedom would be too narrow. If two models
    /// agree by chance, the critical value falls to nearly 1.96, and up to 13 % of the intervals miss the true mean.
    pub fn interval(&self) -> Option<[f64; 2]> {
        let over_users = t_critical(self.users as f64 - 1.0) * self.estimate.se?;
        let models = self.by_model.len() as f64;
        let over_models = self.model_sd.map_or(0.0, |sd| t_critical(models - 1.0) * sd / models.sqrt());
        let half_width = over_users.hypot(over_models);
        Some([self.estimate.mean - half_width, self.estimate.mean + half_width])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::close;

    #[test]
    fn one_model_has_an_error_over_users_alone() {
        let found = MultiModelEstimate::of(&[vec![1.0, 2.0, 4.0, 5.0]]);
        close(found.estimate.mean, 3.0);
        let se = (10.0_f64 / 3.0 / 4.0).sqrt();
        close(found.estimate.se.unwrap(), se);
        assert_eq!(found.model_sd, None);
        close(found.interval().unwrap()[0], 3.0 - t_critical(3.0) * se);
        assert_eq!(MultiModelEstimate::of(&[vec![1.0]]).interval(), None);
    }

    #[test]
    fn several_models_have_errors_over_users_and_over_models() {
        // The second model is better by 1 for every user, which adds no error over users.
        let found = MultiModelEstimate::of(&[vec![1.0, 2.0, 4.0, 5.0], vec![2.0, 3.0, 5.0, 6.0]]);
        assert_eq!(found.by_model, [3.0, 4.0]);
        let se = (10.0_f64 / 3.0 / 4.0).sqrt();
        close(found.estimate.se.unwrap(), se);
        close(found.model_sd.unwrap(), 0.5_f64.sqrt());
        // Means of 3 and 4 have a standard error of 0.5 with one degree of freedom.
        let half_width = ((t_critical(3.0) * se).powi(2) + (t_critical(1.0) * 0.5).powi(2)).sqrt();
        close(found.interval().unwrap()[1], 3.5 + half_width);
    }

    #[test]
    fn two_models_leave_one_degree_of_freedom_for_any_number_of_users() {
        let apart = MultiModelEstimate::of(&[vec![1.0; 500], vec![2.0; 500]]);
        let [low, high] = apart.interval().unwrap();
        assert!((high - low - 2.0 * 12.7062 * 0.5).abs() < 1e-3, "{low} to {high}");
        let equal = MultiModelEstimate::of(&[vec![2.0; 9], vec![2.0; 9]]);
        assert_eq!(equal.interval(), Some([2.0, 2.0]));
    }
}
