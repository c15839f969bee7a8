use std::time::{Duration, Instant, SystemTime};

use serde::{Serialize, Serializer};

use super::observe::CallId;
use super::wire::{RankedItems, Recommendation};
use canet_serving::{AnswerLog, CallRow, Times};

/// What the answer log says of a request besides its answer.
pub(crate) struct Asked<'a> {
    /// The call's id.
    pub(crate) id: Option<&'a CallId>,
    /// The request's place in its call, from 0.
    pub(crate) place: usize,
    pub(crate) user: Option<&'a str>,
    pub(crate) k: usize,
    /// The budget that the request named.
    pub(crate) budget: Option<f64>,
    /// Whether the request narrowed the choice by candidates, a filter or quotas.
    pub(crate) narrowed: bool,
    pub(crate) arrived: Instant,
}

/// Writes an answer to the log, if it is in the sample.
pub(crate) fn write(log: &AnswerLog, asked: &Asked<'_>, answer: &Recommendation<'_>, times: Times) {
    let request_id = asked.id.map_or("", CallId::as_str);
    if !log.samples(asked.user, CallRow { request_id, place: asked.place }) {
        return;
    }
    log.offer(&line(request_id, asked, answer, times));
}

/// One line of the answer log. `docs/live-accuracy.md` documents the fields.
///
/// The keys are written as they stand, because a serializer would look for what to escape in each of them.
fn line(request_id: &str, asked: &Asked<'_>, answer: &Recommendation<'_>, times: Times) -> Vec<u8> {
    let mut line = Line(Vec::with_capacity(512 + 32 * answer.items.len()));
    line.put("{\"time\":", &humantime::format_rfc3339_millis(SystemTime::now()).to_string());
    line.put(",\"request_id\":", request_id);
    line.put(",\"row\":", &asked.place);
    line.put(",\"user\":", &asked.user);
    line.put(",\"model\":", answer.model.name);
    line.put(",\"version\":", &answer.model.version);
    line.put(",\"route\":", &answer.route.name);
    line.put(",\"reason\":", answer.route.reason);
    line.put(",\"confidence\":", &answer.route.confidence);
    line.put(",\"budget\":", &asked.budget);
    line.put(",\"k\":", &asked.k);
    line.put(",\"candidates\":", &asked.narrowed);
    line.put(",\"history\":", &answer.history.used);
    line.put(",\"items\":", &Ids(&answer.items));
    line.put(",\"scores\":", &Scores(&answer.items));
    line.put(",\"queue_us\":", &microseconds(times.queue));
    line.put(",\"router_us\":", &microseconds(times.router));
    line.put(",\"forward_us\":", &microseconds(times.forward));
    line.put(",\"total_us\":", &microseconds(asked.arrived.elapsed()));
    line.0.extend_from_slice(b"}\n");
    line.0
}

struct Line(Vec<u8>);

impl Line {
    /// Writes what precedes a value, then the value as JSON.
    fn put(&mut self, before: &'static str, value: &(impl Serialize + ?Sized)) {
        self.0.extend_from_slice(before.as_bytes());
        // Writing to memory cannot fail, and every value here can be written.
        let written = serde_json::to_writer(&mut self.0, value);
        debug_assert!(written.is_ok());
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
