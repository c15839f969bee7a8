use std::collections::HashMap;
use std::fmt::{self, Display};
use std::hash::{BuildHasher, RandomState};
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use axum::extract::{MatchedPath, Request, State};
use axum::http::{Extensions, HeaderMap, HeaderName, HeaderValue, Version, header};
use axum::middleware::Next;
use axum::response::Response;
use futures_util::FutureExt;
use tracing::{Instrument, Span, field};

use super::traceparent::TraceParent;
use super::transport::Transport;
use super::{Code, Problem, traceparent};
use canet_serving::metrics::{Counted, EndpointSeries, Metrics};
use canet_serving::{Recommender, Times};

/// Carries a call's id, in requests and in answers.
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

pub(crate) const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");

/// Longest request id that is accepted, because ids go into logs.
const MAX_ID: usize = 128;

/// The endpoint of a call whose path is none, in metrics and spans.
pub(crate) const UNKNOWN: &str = "*";

/// Longest path and method in logs and spans, in bytes.
const MAX_LOGGED: usize = 128;

/// What the layers that observe calls need.
#[derive(Clone)]
pub(crate) struct Observer {
    pub(crate) recommender: Arc<Recommender>,
    pub(crate) calls: CallSeries,
    /// Writes the answer to a call whose handler panicked.
    pub(crate) refuse: fn(Problem) -> Response,
}

/// A call's id, in the extensions of its request if the server logs answers.
#[derive(Clone)]
pub(crate) struct CallId(HeaderValue);

impl CallId {
    /// The id of a request's call.
    pub(crate) fn of(extensions: &Extensions) -> Option<CallId> {
        extensions.get().cloned()
    }

    pub(crate) fn as_str(&self) -> &str {
        // An id is printable ASCII.
        self.0.to_str().unwrap_or_default()
    }
}

/// The series that count the calls behind one layer.
#[derive(Clone)]
pub(crate) struct CallSeries {
    /// By path, if the layer is in front of several endpoints.
    by_path: Arc<HashMap<&'static str, Arc<EndpointSeries>>>,
    /// Of the layer's only endpoint, or of paths that are no endpoint.
    other: Arc<EndpointSeries>,
}

impl CallSeries {
    /// Of one endpoint.
    pub(crate) fn one(metrics: &Metrics, transport: Transport, endpoint: &str) -> CallSeries {
        CallSeries { by_path: Arc::default(), other: series(metrics, transport, endpoint) }
    }

    /// Of several endpoints, whose templates are their paths.
    pub(crate) fn several(metrics: &Metrics, transport: Transport, paths: &[&'static str]) -> CallSeries {
        let by_path = paths.iter().map(|path| (*path, series(metrics, transport, path))).collect();
        CallSeries { by_path: Arc::new(by_path), other: series(metrics, transport, UNKNOWN) }
    }

    fn of(&self, path: &str) -> Arc<EndpointSeries> {
        Arc::clone(self.by_path.get(path).unwrap_or(&self.other))
    }
}

fn series(metrics: &Metrics, transport: Transport, endpoint: &str) -> Arc<EndpointSeries> {
    Arc::new(metrics.endpoint(transport.label(), endpoint, transport.codes()))
}

/// Counts a call over HTTP, traces it, and adds `x-request-id`, `server-timing` and `traceparent` to its answer.
///
/// While the server drains, every answer closes its HTTP/1 connection. Otherwise a client could send its next request
/// just when the server closes the connection, and that request would be lost.
pub(crate) async fn http(State(observer): State<Observer>, mut request: Request, next: Next) -> Response {
    let keeps_alive = request.version() <= Version::HTTP_11;
    let observed = Observed::begin(&observer, Transport::Http, &mut request);
    let mut response = observed.run(next.run(request)).await;
    if keeps_alive && observer.recommender.is_draining() {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    let status = response.status();
    let (number, is_fault) = (status.as_u16().into(), status.is_server_error());
    observed.end(Ending { code: status.as_str(), number, is_fault });
    response
}

/// A call that is being answered.
pub(crate) struct Observed {
    series: Arc<EndpointSeries>,
    refuse: fn(Problem) -> Response,
    started: Instant,
    /// Counts the call as in flight until this drops, however the call ends.
    _in_flight: Counted,
    id: HeaderValue,
    trace: Option<TraceParent>,
    span: Span,
}

/// How a call ended, in its transport's terms.
pub(crate) struct Ending<'a> {
    pub(crate) code: &'a str,
    pub(crate) number: i64,
    /// Whether the server caused it.
    pub(crate) is_fault: bool,
}

impl Observed {
    /// Begins a call that arrives now.
    pub(crate) fn begin(observer: &Observer, transport: Transport, request: &mut Request) -> Observed {
        let started = Instant::now();
        let id = request_id(request.headers());
        let span = span(request, &id);
        let trace = TraceParent::begin(request.headers(), &span, &span_name(transport, request));
        if let Some(TraceParent { trace_id, parent_id, span_id, .. }) = &trace {
            span.record("trace_id", trace_id).record("span_id", span_id).record("parent_id", parent_id);
        }
        let series = observer.calls.of(request.uri().path());
        if observer.recommender.answer_log().is_some() {
            request.extensions_mut().insert(CallId(id.clone()));
        }
        let _in_flight = observer.recommender.metrics().in_flight();
        Observed { series, refuse: observer.refuse, started, _in_flight, id, trace, span }
    }

    /// When the call arrived.
    pub(crate) fn started(&self) -> Instant {
        self.started
    }

    /// Runs the handler in the call's span and adds the headers that every answer has. A panic becomes an error.
    pub(crate) async fn run(&self, answer: impl Future<Output = Response>) -> Response {
        let answer = AssertUnwindSafe(answer.instrument(self.span.clone())).catch_unwind().await;
        let mut response = answer.unwrap_or_else(|_| self.panicked());
        let times = response.extensions_mut().remove::<Times>().unwrap_or_default();
        self.span.record("queue_ms", milliseconds(times.queue)).record("forward_ms", milliseconds(times.forward));
        let headers = response.headers_mut();
        if let Ok(timing) = HeaderValue::try_from(server_timing(times, self.started.elapsed())) {
            headers.insert(SERVER_TIMING, timing);
        }
        headers.insert(REQUEST_ID, self.id.clone());
        if let Some(next) = self.trace.as_ref().and_then(TraceParent::next) {
            headers.insert(traceparent::HEADER, next);
        }
        response
    }

    /// The panic hook writes the panic itself to standard error.
    fn panicked(&self) -> Response {
        tracing::error!(request_id = ?self.id, "a request handler panicked");
        (self.refuse)(Problem::new(Code::Internal, Code::Internal.typical_detail()))
    }

    /// Counts the call and closes its span.
    pub(crate) fn end(self, Ending { code, number, is_fault }: Ending<'_>) {
        let total = self.started.elapsed();
        self.series.call(code, total);
        // Signed, because the exporter writes unsigned numbers as text.
        self.span.record("status", number).record("total_ms", milliseconds(total));
        if is_fault {
            self.span.record("otel.status_code", "ERROR");
        }
        self.span.in_scope(|| tracing::debug!("answered"));
    }
}

/// The client's id if it is 1 to 128 printable ASCII characters, else a new one.
fn request_id(headers: &HeaderMap) -> HeaderValue {
    let usable = |id: &&HeaderValue| (1..=MAX_ID).contains(&id.len()) && id.to_str().is_ok();
    headers.get(REQUEST_ID).filter(usable).cloned().unwrap_or_else(new_request_id)
}

/// Joins a random number of the process and a counter: unique without a random number for each call.
fn new_request_id() -> HeaderValue {
    static PROCESS: LazyLock<u64> = LazyLock::new(|| RandomState::new().hash_one(std::process::id()));
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let id = format!("{:016x}-{:x}", *PROCESS, COUNT.fetch_add(1, Ordering::Relaxed));
    HeaderValue::try_from(id).unwrap_or_else(|_| HeaderValue::from_static("unknown"))
}

/// The span's name at the collector: method and path template over HTTP, service and method over gRPC. `*` stands for
/// an unknown endpoint. Nothing formats it unless spans are exported.
fn span_name(transport: Transport, request: &Request) -> impl Display {
    let endpoint = request.extensions().get::<MatchedPath>();
    fmt::from_fn(move |f| match transport {
        Transport::Http => {
            write!(f, "{} {}", logged(request.method().as_str()), endpoint.map_or(UNKNOWN, MatchedPath::as_str))
        }
        // One gRPC endpoint is a whole service, so the template lacks the method.
        Transport::Grpc => {
            f.write_str(endpoint.map_or(UNKNOWN, |_| logged(request.uri().path().trim_start_matches('/'))))
        }
    })
}

/// The span of a call. Empty fields are recorded when the call is answered.
///
/// Only the log line of a call and the collector read the span. If neither is enabled, the span does not exist and
/// costs nothing.
fn span(request: &Request, id: &HeaderValue) -> Span {
    tracing::debug_span!(
        "request",
        method = %logged(request.method().as_str()),
        path = logged(request.uri().path()),
        request_id = ?id,
        trace_id = field::Empty,
        parent_id = field::Empty,
        span_id = field::Empty,
        route = field::Empty,
        status = field::Empty,
        queue_ms = field::Empty,
        forward_ms = field::Empty,
        total_ms = field::Empty,
        otel.name = field::Empty,
        otel.kind = field::Empty,
        otel.status_code = field::Empty,
    )
}

/// The start of a text that a client chose.
fn logged(text: &str) -> &str {
    &text[..text.floor_char_boundary(MAX_LOGGED)]
}

/// The duration of each stage in milliseconds. A stage that the call skipped took 0.
fn server_timing(times: Times, total: Duration) -> String {
    // Formatting four floats would cost each call a microsecond; integers are cheaper.
    let [queue, router, forward, total] = [times.queue, times.router, times.forward, total].map(|time| {
        let microseconds = time.as_micros() as u64;
        fmt::from_fn(move |f| write!(f, "{}.{:03}", microseconds / 1000, microseconds % 1000))
    });
    format!("queue;dur={queue}, router;dur={router}, forward;dur={forward}, total;dur={total}")
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use axum::http::{HeaderMap, HeaderValue};

    use super::{REQUEST_ID, Times, new_request_id, request_id, server_timing};

    #[test]
    fn usable_request_ids_are_kept() {
        let id = |given: &str| {
            let headers = HeaderMap::from_iter([(REQUEST_ID, HeaderValue::from_bytes(given.as_bytes()).unwrap())]);
            request_id(&headers)
        };
        let longest = "x".repeat(128);
        for given in ["a", "b c", &longest] {
            assert_eq!(id(given), given);
        }
        for given in ["", "é", &"x".repeat(129)] {
            assert_ne!(id(given).as_bytes(), given.as_bytes());
        }
        assert_ne!(new_request_id(), new_request_id());
    }

    #[test]
    fn server_timing_is_in_milliseconds() {
        let [queue, router, forward] = [1500, 7, 0].map(Duration::from_micros);
        assert_eq!(
            server_timing(Times { queue, router, forward }, Duration::from_millis(12)),
            "queue;dur=1.500, router;dur=0.007, forward;dur=0.000, total;dur=12.000"
        );
    }
}
