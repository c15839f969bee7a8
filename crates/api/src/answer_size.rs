use std::collections::HashSet;
use std::ops::AddAssign;

use canet_domain::{TextSizes, json_length};
use canet_serving::{Generation, Serving};

use super::Problem;
use super::validate::{Accepted, Work};

/// Bytes of an answer without its rows, such as the head and the names of an inference answer.
const CALL: usize = 512;

/// Bytes of a row without its items, the model's name and unknown ids; also the bytes of a problem without its texts.
const ROW: usize = 400;

/// Bytes of a dense item and its score, from the ranking until the item is written.
const RANKED: usize = 8;

/// The bytes of a routed row whose writing takes little beside its work on the device.
const ROUTED: usize = 4 << 10;

/// How large an answer may become.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct AnswerSize {
    /// Requests that are answered.
    pub(crate) rows: usize,
    /// An upper bound of the bytes.
    pub(crate) bytes: usize,
    /// The bytes that admission counts: all bytes of cold starts, and what a long ranking has beyond a usual one. The device's
    /// queue limits the rest.
    pub(crate) work: usize,
}

impl AddAssign for AnswerSize {
    fn add_assign(&mut self, other: AnswerSize) {
        self.rows += other.rows;
        self.bytes += other.bytes;
        self.work += other.work;
    }
}

/// How an answer is written. It decides how much memory the answer takes until it is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AnswerForm {
    /// JSON, or a part of it.
    Json,
    /// A message with an owned text for each id and title, and its encoding.
    Message,
    /// The tensors of an inference call, in JSON or as binary data.
    Tensors,
    /// The same in a message with an owned text for each id, and its encoding.
    TensorsMessage,
}

impl AnswerForm {
    /// An upper bound of the bytes of `k` items.
    pub(crate) fn items(self, sizes: &TextSizes, k: usize) -> usize {
        let texts = match self {
            AnswerForm::Json => sizes.ids_and_titles(k),
            AnswerForm::Message => sizes.ids_and_titles(k) * 2,
            AnswerForm::Tensors => sizes.ids(k),
            AnswerForm::TensorsMessage => sizes.ids(k) * 2,
        };
        texts + k * (self.item() + RANKED)
    }

    /// The bytes of one item without its texts.
    fn item(self) -> usize {
        match self {
            // `{"item":"","score":,"title":""},` and a score of up to 20 digits.
            AnswerForm::Json => 32 + 20,
            // The struct, two allocations, and the encoding: three tags, four lengths and a double.
            AnswerForm::Message => 56 + 2 * 16 + 21,
            // A borrowed id and a score, then `"",` and a score of up to 16 digits with its comma.
            AnswerForm::Tensors => 16 + 4 + 3 + 17,
            // A borrowed and an owned id, an allocation and a score, then tag, length and score in the encoding.
            AnswerForm::TensorsMessage => 16 + 24 + 16 + 4 + 8 + 4,
        }
    }

    /// The bytes of one item whose id and title have `text` bytes together.
    pub(crate) fn written_item(self, text: usize) -> usize {
        let texts = match self {
            AnswerForm::Json | AnswerForm::Tensors => text,
            AnswerForm::Message | AnswerForm::TensorsMessage => 2 * text,
        };
        self.item() + texts
    }

    /// The size of the answer to a call with these rows.
    pub(crate) fn answer(self, serving: &Serving, rows: &[Result<Accepted, Problem>]) -> AnswerSize {
        let mut size = AnswerSize { bytes: CALL, ..AnswerSize::default() };
        for row in rows {
            match row {
                Ok(accepted) => size += self.row(serving.generation(accepted.side), accepted),
                Err(problem) => size.bytes += frame(&serving.live) + problem_bytes(problem),
            }
        }
        size
    }

    /// The size of the answer to one request.
    pub(crate) fn row(self, generation: &Generation, accepted: &Accepted) -> AnswerSize {
        let (k, candidates, is_cold) = match &accepted.work {
            Work::Rank(request) => (request.k, request.candidates.as_ref().map(|items| items.len()), false),
            Work::ColdStart(cold, _) => (cold.k, cold.candidates.as_ref().map(HashSet::len), true),
        };
        let k = candidates.map_or(k, |candidates| candidates.min(k));
        let unknown = accepted.history.unknown.iter().map(|id| echoed(id));
        let sizes = accepted.view.as_ref().map_or(&generation.text_sizes, |view| &view.text_sizes);
        let bytes = frame(generation) + self.items(sizes, k) + unknown.sum::<usize>();
        AnswerSize { rows: 1, bytes, work: if is_cold { bytes } else { bytes.saturating_sub(ROUTED) } }
    }

    /// The size of the answer to an inference call with `rows` of `k` items that echoes `id`.
    pub(crate) fn tensors(self, generation: &Generation, rows: usize, k: usize, id: &str) -> AnswerSize {
        let row = ROW + self.items(&generation.text_sizes, k);
        let bytes = CALL + frame(generation) + echoed(id) + rows.saturating_mul(row);
        AnswerSize { rows, bytes, work: rows.saturating_mul(row.saturating_sub(ROUTED)) }
    }
}

/// Bytes of a row apart from its items and unknown ids.
fn frame(generation: &Generation) -> usize {
    ROW + json_length(generation.model.name())
}

/// Bytes of a problem's texts, in memory and as they are sent.
fn problem_bytes(problem: &Problem) -> usize {
    echoed(&problem.detail) + problem.field.as_deref().map_or(0, echoed)
}

/// Bytes of a client's own text in the answer: the text, and its encoding.
fn echoed(text: &str) -> usize {
    24 + text.len() + json_length(text) + 4
}

#[cfg(test)]
mod tests {
    use canet_domain::{Catalogue, Item, Ranked, TextSizes};
    use canet_testing::rng;
    use prost::Message;
    use rand::Rng;

    use super::AnswerForm;
    use crate::answer_budget::{AnswerBudget, AnswerShare};
    use crate::call::Call;
    use crate::deadline::Arrival;
    use crate::grpc::MessageAnswer;
    use crate::proto::canet::v1 as proto;
    use crate::reservation::Reservation;
    use crate::testing::Fixture;
    use crate::turns::Turns;
    use crate::wire::{Best, ExternalId, RankedItems, RecommendRequest};

    /// Texts that JSON writes as they are, with short and with long escapes.
    const LETTERS: [&str; 8] = ["a", "0", "\"", "\\", "\u{1}", "é", "\u{1f980}", " "];

    fn text(longest: usize, rng: &mut impl Rng) -> String {
        (0..rng.gen_range(0..=longest)).map(|_| LETTERS[rng.gen_range(0..LETTERS.len())]).collect()
    }

    fn catalogue(items: usize, rng: &mut impl Rng) -> Catalogue {
        let ids: Vec<Box<str>> = (0..items).map(|id| format!("{id} {}", text(6, rng)).into()).collect();
        let longest = [0, 10, 60][rng.gen_range(0..3)];
        let titled: Vec<Box<str>> = ids.iter().filter(|_| rng.gen_range(0..4) > 0).cloned().collect();
        let titles: Vec<(Box<str>, Box<str>)> = titled.into_iter().map(|id| (id, text(longest, rng).into())).collect();
        let most = [9, u64::MAX][rng.gen_range(0..2)];
        Catalogue::new(ids, (0..items).map(|_| rng.gen_range(0..=most)).collect()).unwrap().with_titles(titles)
    }

    #[test]
    fn estimates_of_items_are_upper_bounds_in_every_form() {
        let mut rng = rng(5);
        for _ in 0..100 {
            let items = rng.gen_range(1..200);
            let catalogue = catalogue(items, &mut rng);
            let sizes = TextSizes::of(&catalogue);
            let k = rng.gen_range(1..=items);
            let first = rng.gen_range(0..=items - k);
            let best: Vec<Item> = catalogue.by_popularity()[first..first + k].to_vec();
            let score = |item| Ranked { item, score: -f32::from_bits(rng.gen_range(0..0x7f80_0000)) };
            let scored: Vec<Ranked> = best.iter().copied().map(score).collect();
            for best in [Best::ByPopularity(best), Best::ByScore(scored)] {
                let ranked = RankedItems::new(&catalogue, best);
                let json = serde_json::to_vec(&ranked).unwrap().len();
                let bound = AnswerForm::Json.items(&sizes, k);
                assert!(json <= bound + 2, "{json} > {bound} for {k} of {items}");
                if k == items {
                    assert!(bound < 3 * json, "{bound} is far above {json}");
                }
                let tensors = serde_json::to_vec(&ranked.ids().collect::<Vec<_>>()).unwrap().len()
                    + serde_json::to_vec(&ranked.scores().collect::<Vec<_>>()).unwrap().len();
                assert!(tensors <= AnswerForm::Tensors.items(&sizes, k) + 4);
                for form in [AnswerForm::Message, AnswerForm::TensorsMessage] {
                    let texts = ranked.iter().map(|item| match form {
                        AnswerForm::Message => item.item.len() + item.title.map_or(0, str::len),
                        _ => item.item.len(),
                    });
                    let written: usize = texts.map(|text| form.written_item(text)).sum();
                    assert!(written <= form.items(&sizes, k), "{form:?}");
                }
            }
        }
    }

    /// A request with some known and some unknown items, of which a few are awkward.
    fn request(known: &[Box<str>], rng: &mut impl Rng) -> RecommendRequest {
        let id = |rng: &mut dyn rand::RngCore| match rng.gen_range(0..3) {
            0 => ExternalId(known[rng.gen_range(0..known.len())].clone()),
            _ => ExternalId(text_of(rng).into()),
        };
        let history = (0..rng.gen_range(0..12)).map(|_| id(rng)).collect();
        RecommendRequest { k: Some(rng.gen_range(1..=known.len() as u64)), ..RecommendRequest::new(history) }
    }

    fn text_of(rng: &mut dyn rand::RngCore) -> String {
        let mut rng = rng;
        text(20, &mut rng)
    }

    #[tokio::test]
    async fn estimates_of_rows_are_upper_bounds_of_the_answers() {
        let fixture = Fixture::new();
        fixture.reloader.reload(None).await.unwrap();
        let serving = fixture.recommender.serving().unwrap();
        let generation = &serving.live;
        let call = Call { recommender: &fixture.recommender, serving: &serving, arrival: Arrival::now(), id: None };
        let share = AnswerShare::new(&AnswerBudget::default());
        let mut rng = rng(6);
        for _ in 0..100 {
            let accepted = call.accept(request(generation.model.catalogue().ids(), &mut rng)).unwrap();
            let [json, message] = [AnswerForm::Json, AnswerForm::Message].map(|form| form.row(generation, &accepted));
            let answered = call.answer(accepted).await.unwrap().recommendation;
            let written = serde_json::to_vec(&answered).unwrap().len();
            assert!(written <= json.bytes, "{written} > {json:?}: {answered:?}");
            let reservation = Reservation::new(&fixture.recommender, &share, message).unwrap();
            let answer = MessageAnswer::new(&reservation);
            let response = answer.response(answered, &mut Turns::default()).await.unwrap();
            let heap: usize = response.items.iter().map(|item| item.item.len() + size_of::<proto::RankedItem>()).sum();
            let written = response.encoded_len() + heap;
            assert!(written <= message.bytes, "{written} > {message:?}: {response:?}");
        }
    }

    #[tokio::test]
    async fn cold_starts_and_long_rankings_are_work_and_usual_rankings_are_not() {
        let fixture = Fixture::new();
        fixture.reloader.reload(None).await.unwrap();
        let serving = fixture.recommender.serving().unwrap();
        let generation = &serving.live;
        let call = Call { recommender: &fixture.recommender, serving: &serving, arrival: Arrival::now(), id: None };
        let known = ExternalId(generation.model.catalogue().ids()[0].clone());
        let size = async |history: Vec<ExternalId>| {
            let rows = call.accept_all([std::future::ready(Ok(RecommendRequest::new(history)))].into_iter()).await;
            AnswerForm::Json.answer(&serving, &rows)
        };
        let (cold, routed) = (size(Vec::new()).await, size(vec![known.clone()]).await);
        assert_eq!((cold.rows, routed.rows, routed.work), (1, 1, 0));
        assert!(cold.work > 0 && cold.work < cold.bytes);
        let long = size([vec![known], vec![ExternalId("unknown".repeat(1000).into()); 10]].concat()).await;
        assert!(long.work > 0 && long.work < long.bytes, "{long:?}");
        assert_eq!(AnswerForm::Tensors.tensors(generation, 100, 10, "").work, 0);
    }
}
