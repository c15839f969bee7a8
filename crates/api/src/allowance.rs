use axum::http::Extensions;

use super::answer_budget::{AnswerBudget, AnswerShare};
use super::body_budget::BodyAllowance;

/// What a listener grants one request. It puts this into the request's extensions.
#[derive(Clone, Debug)]
pub(crate) struct Allowance {
    /// For the request's body.
    pub(crate) body: BodyAllowance,
    /// For the answer: the share of the request's connection.
    pub(crate) answers: AnswerShare,
}

impl Allowance {
    /// The share for the answers to a request with these extensions. A request that no listener accepted has a budget of its
    /// own.
    pub(crate) fn answers(extensions: &Extensions) -> AnswerShare {
        let granted = extensions.get::<Allowance>().map(|allowance| allowance.answers.clone());
        granted.unwrap_or_else(|| AnswerShare::new(&AnswerBudget::default()))
    }
}
