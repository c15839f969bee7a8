use std::sync::atomic::{AtomicUsize, Ordering};

use crate::Problem;
use crate::answer_size::AnswerForm;
use crate::proto::canet::v1 as proto;
use crate::reservation::{Reservation, check_size};
use crate::turns::Turns;
use crate::wire::{HistoryUsed, RankedItem, Recommendation, Score};

/// Writes the messages of one call's answer into the room that was reserved for it. Rows may be written at the same time.
pub(crate) struct MessageAnswer {
    /// Bytes that were reserved.
    most: usize,
    /// Bytes of the items so far.
    written: AtomicUsize,
}

impl MessageAnswer {
    /// An empty answer.
    pub(crate) fn new(reservation: &Reservation) -> MessageAnswer {
        MessageAnswer { most: reservation.bytes(), written: AtomicUsize::new(0) }
    }

    /// Writes the answer to one request, in turns with other tasks.
    ///
    /// # Errors
    /// 422 if the answer becomes larger than its room.
    pub(crate) async fn response(
        &self,
        answer: Recommendation<'_>,
        turns: &mut Turns,
    ) -> Result<proto::RecommendResponse, Problem> {
        let mut items = Vec::with_capacity(answer.items.len());
        for RankedItem { item, score, title } in answer.items.iter() {
            self.take(AnswerForm::Message.written_item(item.len() + title.map_or(0, str::len)))?;
            items.push(proto::RankedItem {
                item: item.to_owned(),
                score: match score {
                    Score::Logit(score) => score.into(),
                    Score::Popularity(count) => count as f64,
                },
                title: title.map(str::to_owned),
            });
            turns.step().await;
        }
        let HistoryUsed { used, unknown } = answer.history;
        Ok(proto::RecommendResponse {
            items,
            route: Some(proto::RouteTaken {
                name: answer.route.name.map(str::to_owned),
                reason: answer.route.reason.to_owned(),
                confidence: answer.route.confidence,
            }),
            compute: Some(proto::Compute {
                flops: answer.compute.flops,
                full_flops: answer.compute.full_flops,
                saved: answer.compute.saved,
                reused: answer.compute.reused,
            }),
            model: Some(proto::ModelVersion { name: answer.model.name.to_owned(), version: answer.model.version }),
            history: Some(proto::HistoryUsed {
                used: used as u64,
                unknown: unknown.into_iter().map(String::from).collect(),
            }),
        })
    }

    /// Writes the outcome of one row. A row that does not fit becomes a problem.
    pub(crate) async fn result(
        &self,
        outcome: Result<Recommendation<'_>, Problem>,
        turns: &mut Turns,
    ) -> proto::RecommendResult {
        use proto::recommend_result::Outcome;
        let written = match outcome {
            Ok(recommendation) => self.response(recommendation, turns).await,
            Err(problem) => Err(problem),
        };
        turns.step().await;
        let outcome = match written {
            Ok(response) => Outcome::Recommendation(response),
            Err(problem) => Outcome::Problem(problem.into()),
        };
        proto::RecommendResult { outcome: Some(outcome) }
    }

    fn take(&self, bytes: usize) -> Result<(), Problem> {
        let written = self.written.fetch_add(bytes, Ordering::Relaxed) + bytes;
        check_size(written, self.most)
    }
}
