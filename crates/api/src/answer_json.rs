use axum::body::Bytes;
use serde::{Serialize, Serializer as _};
use tokio::sync::OwnedSemaphorePermit;

use super::Problem;
use super::reservation::{Reservation, check_size};
use super::turns::Turns;
use super::wire::{BatchAnswer, BatchResult, Recommendation};

/// Lists of at most this many values are written at once.
const SHORT: usize = 64;

/// Answers of at most this many bytes keep the room that they were given, which is charged. Others are copied if they left
/// half of it.
const KEPT: usize = 4 << 10;

/// Writes an answer as JSON into the room that was reserved for it. Lists are written in turns with other tasks: a large one
/// takes longer than other clients should wait.
pub(crate) struct JsonAnswer {
    written: Vec<u8>,
    reservation: Reservation,
    turns: Turns,
}

impl JsonAnswer {
    /// An empty answer.
    pub(crate) fn new(reservation: Reservation) -> JsonAnswer {
        JsonAnswer { written: Vec::with_capacity(reservation.bytes()), reservation, turns: Turns::default() }
    }

    /// How many bytes are written.
    pub(crate) fn len(&self) -> usize {
        self.written.len()
    }

    /// Appends bytes as they are.
    pub(crate) fn raw(&mut self, bytes: &[u8]) {
        self.written.extend_from_slice(bytes);
    }

    /// Appends what `write` appends.
    pub(crate) fn append(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        write(&mut self.written);
    }

    /// Appends a short value.
    ///
    /// # Errors
    /// 500 if it cannot be written.
    pub(crate) fn value(&mut self, value: &impl Serialize) -> Result<(), Problem> {
        serde_json::to_writer(&mut self.written, value).map_err(Problem::unwritable)
    }

    /// Appends an object whose last brace the caller writes, after further fields.
    ///
    /// # Errors
    /// As [`value`](JsonAnswer::value).
    pub(crate) fn open_object(&mut self, object: &impl Serialize) -> Result<(), Problem> {
        self.value(object)?;
        self.written.pop();
        Ok(())
    }

    /// Appends a list.
    ///
    /// # Errors
    /// 422 if the answer becomes larger than its room, 500 if it cannot be written.
    pub(crate) async fn list<T: Serialize>(&mut self, values: impl Iterator<Item = T>) -> Result<(), Problem> {
        if values.size_hint().1.is_some_and(|count| count <= SHORT) {
            serde_json::Serializer::new(&mut self.written).collect_seq(values).map_err(Problem::unwritable)?;
            return self.step().await;
        }
        self.raw(b"[");
        for (index, value) in values.enumerate() {
            if index > 0 {
                self.raw(b",");
            }
            self.value(&value)?;
            self.step().await?;
        }
        self.raw(b"]");
        Ok(())
    }

    /// Waits until the answer may be written, as [`Reservation::build_permit`].
    pub(crate) async fn build_permit(&self) -> Option<OwnedSemaphorePermit> {
        self.reservation.build_permit().await
    }

    /// Appends the answer to one request.
    ///
    /// # Errors
    /// As [`list`](JsonAnswer::list).
    pub(crate) async fn recommendation(&mut self, answer: &Recommendation<'_>) -> Result<(), Problem> {
        self.raw(b"{\"items\":");
        self.list(answer.items.iter()).await?;
        let brace = self.written.len();
        self.value(&answer.after_items())?;
        // The object goes on: its own brace becomes a comma.
        if let Some(brace) = self.written.get_mut(brace) {
            *brace = b',';
        }
        check_size(self.written.len(), self.reservation.bytes())
    }

    /// Appends the answer to a batch.
    ///
    /// # Errors
    /// As [`list`](JsonAnswer::list).
    pub(crate) async fn batch(&mut self, answer: &BatchAnswer<'_>) -> Result<(), Problem> {
        self.raw(b"{\"results\":[");
        for (index, result) in answer.results.iter().enumerate() {
            if index > 0 {
                self.raw(b",");
            }
            match result {
                BatchResult::Recommendation(recommendation) => self.recommendation(recommendation).await?,
                BatchResult::Problem(problem) => self.value(problem)?,
            }
            self.step().await?;
        }
        self.raw(b"]}");
        Ok(())
    }

    /// Ends a short piece of work: checks the size, and lets other tasks run if the turn is over.
    ///
    /// # Errors
    /// 422 if the answer is larger than its room.
    pub(crate) async fn step(&mut self) -> Result<(), Problem> {
        self.turns.step().await;
        check_size(self.written.len(), self.reservation.bytes())
    }

    /// The answer's bytes, which are charged until they are sent.
    ///
    /// # Errors
    /// 422 if the answer is larger than its room.
    pub(crate) fn finish(mut self) -> Result<Bytes, Problem> {
        check_size(self.written.len(), self.reservation.bytes())?;
        if self.written.capacity() > KEPT && self.written.capacity() / 2 > self.written.len() {
            self.written.shrink_to_fit();
        }
        Ok(self.reservation.built(self.turns.worked()).hold(self.written))
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Debug;

    use serde_json::json;

    use super::JsonAnswer;
    use crate::answer_budget::{AnswerBudget, AnswerShare};
    use crate::answer_size::AnswerSize;
    use crate::call::Call;
    use crate::deadline::Arrival;
    use crate::reservation::Reservation;
    use crate::testing::Fixture;
    use crate::wire::{BatchAnswer, BatchResult, ExternalId, RecommendRequest};
    use crate::{Code, Problem};

    fn problem<T: Debug>(outcome: Result<T, Problem>) -> (Code, Option<String>) {
        let problem = outcome.unwrap_err();
        (problem.code, problem.field.map(String::from))
    }

    #[tokio::test]
    async fn answers_are_written_in_parts_as_serde_writes_them_whole() {
        let fixture = Fixture::new();
        fixture.reloader.reload(None).await.unwrap();
        let serving = fixture.recommender.serving().unwrap();
        let call = Call { recommender: &fixture.recommender, serving: &serving, arrival: Arrival::now(), id: None };
        let share = AnswerShare::new(&AnswerBudget::new(1 << 20));
        let room = |bytes| {
            let size = AnswerSize { rows: 1, bytes, work: 0 };
            JsonAnswer::new(Reservation::new(&fixture.recommender, &share, size).unwrap())
        };
        let known = ExternalId(serving.live.model.catalogue().ids()[0].clone());
        let mut answers = Vec::new();
        for history in [vec![], vec![known], vec![ExternalId("\"unknown\"".into())]] {
            let request = RecommendRequest { k: Some(30), ..RecommendRequest::new(history) };
            answers.push(call.answer(call.accept(request).unwrap()).await.unwrap().recommendation);
        }
        for answer in &answers {
            let mut json = room(8000);
            json.recommendation(answer).await.unwrap();
            assert_eq!(json.finish().unwrap(), serde_json::to_vec(answer).unwrap());
            let mut json = room(100);
            let full = (Code::InvalidRequest, Some("k".to_owned()));
            assert_eq!(problem(json.recommendation(answer).await), full);
            assert_eq!(problem(json.finish()), full);
        }
        let refused = Problem::new(Code::Overloaded, "\"full\"");
        for count in 0..3 {
            let results = answers.iter().take(count).map(BatchResult::Recommendation);
            let results = results.chain([BatchResult::Problem(refused.body())]).skip(count / 2).collect();
            let batch = BatchAnswer { results };
            let mut json = room(12_000);
            json.batch(&batch).await.unwrap();
            assert_eq!(json.finish().unwrap(), serde_json::to_vec(&batch).unwrap());
        }
        let mut json = room(100);
        json.open_object(&json!({"a": 1})).unwrap();
        json.append(|bytes| bytes.extend_from_slice(b",\"b\":"));
        json.list([2, 3].iter()).await.unwrap();
        json.raw(b"}");
        assert_eq!(json.len(), 17);
        assert_eq!(json.finish().unwrap(), &b"{\"a\":1,\"b\":[2,3]}"[..]);
    }
}
