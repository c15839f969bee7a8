use std::time::Duration;

use prometheus::{Histogram, IntCounter, IntCounterVec};

use super::Metrics;

/// The series of one endpoint over one transport. They are resolved once, so that no call looks up a label.
#[derive(Debug)]
pub struct EndpointSeries {
    transport: &'static str,
    endpoint: Box<str>,
    requests: IntCounterVec,
    /// The counters by code.
    answered: Vec<(String, IntCounter)>,
    duration: Histogram,
}

impl Metrics {
    /// The series of an endpoint, which exist from now on. `codes` are the codes that its calls may end with.
    pub fn endpoint(
        &self,
        transport: &'static str,
        endpoint: &str,
        codes: impl IntoIterator<Item = String>,
    ) -> EndpointSeries {
        let requests = self.requests_total.clone();
        let counter = |code: String| {
            let counter = requests.with_label_values(&[transport, endpoint, &code]);
            (code, counter)
        };
        EndpointSeries {
            answered: codes.into_iter().map(counter).collect(),
            duration: self.request_duration_seconds.with_label_values(&[transport, endpoint]),
            transport,
            endpoint: endpoint.into(),
            requests,
        }
    }
}

impl EndpointSeries {
    /// Counts an answered call.
    pub fn call(&self, code: &str, took: Duration) {
        match self.answered.iter().find(|(known, _)| known == code) {
            Some((_, counter)) => counter.inc(),
            None => self.requests.with_label_values(&[self.transport, &self.endpoint, code]).inc(),
        }
        self.duration.observe(took.as_secs_f64());
    }
}
