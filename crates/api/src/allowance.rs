use super::answer_budget::AnswerShare;
use super::body_budget::BodyAllowance;

/// What a listener grants one request. It puts this into the request's extensions.
#[derive(Clone, Debug)]
pub(crate) struct Allowance {
    /// For the request's body.
    pub(crate) body: BodyAllowance,
    /// For the answer: the share of the request's connection.
    pub(crate) answers: AnswerShare,
}
