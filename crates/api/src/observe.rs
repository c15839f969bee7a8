use std::fmt::{self, Display};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderName, HeaderValue, Version, header};
use axum::middleware::Next;
use axum::response::Response;
use futures_util::FutureExt;
use tracing::{Instrument, Span, field};

use super::traceparent::TraceParent;
use super::transport::Transport;
use super::{Code, Problem, headers, request_id, traceparent};
use canet_serving::metrics::{InFlight, Metrics};
use canet_serving::{Recommender, Times};

const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");

/// Counts a call over HTTP, puts it into a span, and adds `x-request-id`, `server-timing` and, where it is in a trace,
/// `traceparent` to its answer, whatever the answer is, and what browsers are told.
///
/// While draining an answer also closes its connection: a client that keeps one open would otherwise send its next
/// request just when the server closes it, and that request would be lost.
pub(crate) async fn call(State(recommender): State<Arc<Recommender>>, request: Request, next: Next) -> Response {
    let keeps_alive = request.version() <= Version::HTTP_11;
    let observed = Observed::begin(recommender.metrics(), Transport::Http, &request);
    let mut response = headers::secure(observed.run(next.run(request)).await);
    if keeps_alive && recommender.is_draining() {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    let status = response.status();
    let (number, is_fault) = (status.as_u16().into(), status.is_server_error());
    observed.end(Ending { code: status.as_str(), number, is_fault });
    response
}

/// A call that is being answered.
pub(crate) struct Observed {
    metrics: Arc<Metrics>,
    transport: Transport,
    refusal: fn(Problem) -> Response,
    started: Instant,
    /// Until this drops, however the call ends.
    _in_flight: InFlight,
    id: HeaderValue,
    trace: Option<TraceParent>,
    span: Span,
}

/// How a call ended, as its transport says it.
pub(crate) struct Ending<'a> {
    pub(crate) code: &'a str,
    pub(crate) number: i64,
    /// Whether it was not the client's doing.
    pub(crate) is_fault: bool,
}

impl Observed {
    /// A call that arrives now.
    pub(crate) fn begin(metrics: &Arc<Metrics>, transport: Transport, request: &Request) -> Observed {
        let started = Instant::now();
        let id = request_id::of(request.headers());
        let span = span(request, &id);
        let trace = TraceParent::begin(request.headers(), &span, &name(transport, request));
        if let Some(TraceParent { trace_id, parent_id, span_id, .. }) = &trace {
            span.record("trace_id", trace_id).record("span_id", span_id).record("parent_id", parent_id);
        }
        let _in_flight = metrics.in_flight();
        let refusal = transport.refusal(request.uri().path());
        Observed { metrics: Arc::clone(metrics), transport, refusal, started, _in_flight, id, trace, span }
    }

    /// When the call arrived.
    pub(crate) fn started(&self) -> Instant {
        self.started
    }

    /// Answers the call in its span, and adds the headers that every answer has. A panic is answered as a fault.
    pub(crate) async fn run(&self, answer: impl Future<Output = Response>) -> Response {
        let answer = AssertUnwindSafe(answer.instrument(self.span.clone())).catch_unwind().await;
        let mut response = answer.unwrap_or_else(|_| self.panicked());
        let times = response.extensions_mut().remove::<Times>().unwrap_or_default();
        self.span.record("queue_ms", milliseconds(times.queue)).record("forward_ms", milliseconds(times.forward));
        let headers = response.headers_mut();
        if let Ok(timing) = HeaderValue::try_from(server_timing(times, self.started.elapsed())) {
            headers.insert(SERVER_TIMING, timing);
        }
        headers.insert(request_id::HEADER, self.id.clone());
        if let Some(next) = self.trace.as_ref().and_then(TraceParent::next) {
            headers.insert(traceparent::HEADER, next);
        }
        response
    }

    /// The panic itself is on standard error.
    fn panicked(&self) -> Response {
        tracing::error!(request_id = ?self.id, "a request handler panicked");
        (self.refusal)(Problem::new(Code::Internal, "the server failed on this request"))
    }

    /// The call is answered.
    pub(crate) fn end(self, Ending { code, number, is_fault }: Ending<'_>) {
        let total = self.started.elapsed();
        self.metrics.call(self.transport.label(), code, total);
        // Signed: the exporter writes what is unsigned as text.
        self.span.record("status", number).record("total_ms", milliseconds(total));
        if is_fault {
            self.span.record("otel.status_code", "ERROR");
        }
        self.span.in_scope(|| tracing::debug!("answered"));
    }
}

/// What a collector calls the call: its method and endpoint, or in gRPC its service and method; `*` is none that is
/// there. It is written where there is a collector alone.
fn name(transport: Transport, request: &Request) -> impl Display {
    let endpoint = request.extensions().get::<MatchedPath>();
    fmt::from_fn(move |f| match transport {
        Transport::Http => write!(f, "{} {}", request.method(), endpoint.map_or("*", MatchedPath::as_str)),
        // The endpoint is a whole service.
        Transport::Grpc => f.write_str(endpoint.map_or("*", |_| request.uri().path().trim_start_matches('/'))),
    })
}

/// The span of a call; what is not known yet is recorded when it is answered. Only the log line of a call and
/// collectors read it: where neither is asked for it does not exist, and costs nothing.
fn span(request: &Request, id: &HeaderValue) -> Span {
    tracing::debug_span!(
        "request",
        method = %request.method(),
        path = request.uri().path(),
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

/// The stages in milliseconds; what a call did not go through took 0.
fn server_timing(times: Times, total: Duration) -> String {
    // By whole numbers: each call writes these four, and decimals of a float cost it a microsecond.
    let [queue, router, forward, total] = [times.queue, times.router, times.forward, total].map(|time| {
        let microseconds = time.as_micros() as u64;
        fmt::from_fn(move |f| write!(f, "{}.{:03}", microseconds / 1000, microseconds % 1000))
    });
    format!("queue;dur={queue}, router;dur={router}, forward;dur={forward}, total;dur={total}")
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}
