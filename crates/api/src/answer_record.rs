use std::time::{Duration, Instant, SystemTime};

use serde::{Serialize, Serializer};

use super::observe::CallId;
use super::wire::{RankedItems, Recommendation};
use canet_serving::{AnswerLog, Times};

/// What the answer log says of a request besides its answer.
pub(crate) struct Asked<'a> {
    /// The call's id.
    pub(crate) id: Option<&'a CallId>,
    /// The request's place in its call, from 0.
    pub(crate) place: usize,
    pub(crate) user: Option<&'a str>,
    pub(crate) k: usize,
    /// Whether the request named the items to choose from.
    pub(crate) candidates: bool,
    pub(crate) arrived: Instant,
}

/// One line of the answer log. `docs/live-accuracy.md` documents the fields.
#[derive(Serialize)]
struct AnswerRecord<'a> {
    time: String,
    request_id: &'a str,
    row: usize,
    user: Option<&'a str>,
    model: &'a str,
    version: u64,
    route: Option<&'a str>,
    reason: &'static str,
    confidence: Option<f32>,
    k: usize,
    candidates: bool,
    history: usize,
    items: Ids<'a>,
    scores: Scores<'a>,
    queue_us: u64,
    router_us: u64,
    forward_us: u64,
    total_us: u64,
}

/// Writes an answer to the log, if it is in the sample.
pub(crate) fn write(log: &AnswerLog, asked: &Asked<'_>, answer: &Recommendation<'_>, times: Times) {
    let request_id = asked.id.map_or("", CallId::as_str);
    if !log.samples(asked.user, (request_id, asked.place)) {
        return;
    }
    let record = AnswerRecord {
        time: humantime::format_rfc3339_millis(SystemTime::now()).to_string(),
        request_id,
        row: asked.place,
        user: asked.user,
        model: answer.model.name,
        version: answer.model.version,
        route: answer.route.name,
        reason: answer.route.reason,
        confidence: answer.route.confidence,
        k: asked.k,
        candidates: asked.candidates,
        history: answer.history.used,
        items: Ids(&answer.items),
        scores: Scores(&answer.items),
        queue_us: microseconds(times.queue),
        router_us: microseconds(times.router),
        forward_us: microseconds(times.forward),
        total_us: microseconds(asked.arrived.elapsed()),
    };
    let mut line = Vec::with_capacity(512 + 32 * answer.items.len());
    // Nothing in a record can fail: all keys are text.
    if serde_json::to_writer(&mut line, &record).is_ok() {
        line.push(b'\n');
        log.offer(&line);
    }
}

/// Whole ones: a fraction takes longer to write.
fn microseconds(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

struct Ids<'a>(&'a RankedItems<'a>);

impl Serialize for Ids<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.ids())
    }
}

struct Scores<'a>(&'a RankedItems<'a>);

impl Serialize for Scores<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.scores())
    }
}
