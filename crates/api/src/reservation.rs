use std::time::Duration;

use tokio::sync::OwnedSemaphorePermit;

use super::Problem;
use super::answer_budget::{AnswerCharge, AnswerShare, SMALL};
use super::answer_size::AnswerSize;
use canet_serving::metrics::Rejected;
use canet_serving::{AnswerTicket, Recommender};

/// The room for one call's answer and, if the answer is large, its place in the queue. A call gets it before it ranks.
pub(crate) struct Reservation {
    charge: AnswerCharge,
    ticket: Option<AnswerTicket>,
}

impl Reservation {
    /// Reserves the room for an answer. One that may become larger than one answer is allowed gets that much. Its writer calls
    /// [`check_size`], which stops it where it does.
    ///
    /// # Errors
    /// 429 if too much work waits, or if other answers use up the room. The rows are counted as refused.
    pub(crate) fn new(
        recommender: &Recommender,
        share: &AnswerShare,
        AnswerSize { rows, bytes, work }: AnswerSize,
    ) -> Result<Reservation, Problem> {
        let bytes = bytes.min(share.most());
        let ticket = if work > SMALL { Some(recommender.admit_answer(rows, bytes)?) } else { None };
        let charge = share.charge(bytes).inspect_err(|_| recommender.metrics().rejected(Rejected::Unread, rows))?;
        Ok(Reservation { charge, ticket })
    }

    /// The bytes that the answer may take.
    pub(crate) fn bytes(&self) -> usize {
        self.charge.bytes()
    }

    /// Waits until the answer may be built, which lasts as long as the permit. A small answer waits for none.
    pub(crate) async fn build_permit(&self) -> Option<OwnedSemaphorePermit> {
        match &self.ticket {
            Some(ticket) => ticket.build_permit().await,
            None => None,
        }
    }

    /// The answer is built: leaves the queue. `worked` is the time that it took, if it was long enough to be timed.
    pub(crate) fn built(self, worked: Option<Duration>) -> AnswerCharge {
        if let (Some(ticket), Some(worked)) = (self.ticket, worked) {
            ticket.built(worked);
        }
        self.charge
    }

    /// The room, and the place in the queue for whoever builds the answer.
    pub(crate) fn split(self) -> (AnswerCharge, Option<AnswerTicket>) {
        (self.charge, self.ticket)
    }
}

/// Checks that an answer of which `bytes` are written fits into a room of `most`.
///
/// # Errors
/// 422 if it does not. Waiting does not help.
pub(crate) fn check_size(bytes: usize, most: usize) -> Result<(), Problem> {
    if bytes <= most {
        return Ok(());
    }
    let detail =
        format!("the answer would take more than {most} bytes, as much as one answer may: ask for fewer items");
    Err(Problem::invalid("k", detail))
}
