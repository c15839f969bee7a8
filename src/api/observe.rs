use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderName, HeaderValue, Version, header};
use axum::middleware::Next;
use axum::response::Response;
use tracing::{Instrument, Span, field};

use super::traceparent::TraceParent;
use super::transport::Transport;
use super::{request_id, traceparent};
use crate::serving::{Recommender, Times};

const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");

/// Counts a call, puts it into a span, and adds `x-request-id`, `server-timing` and, where the caller is in a trace,
/// `traceparent` to its answer, whatever the answer is.
///
/// While draining an answer also closes its connection: a client that keeps one open would otherwise send its next
/// request just when the server closes it, and that request would be lost.
pub(super) async fn call(State(recommender): State<Arc<Recommender>>, request: Request, next: Next) -> Response {
    let started = Instant::now();
    let metrics = recommender.metrics();
    let in_flight = metrics.in_flight();
    let id = request_id::of(request.headers());
    let keeps_alive = request.version() <= Version::HTTP_11;
    let span = span(&request, &id);
    let path = request.extensions().get::<MatchedPath>().map_or("*", MatchedPath::as_str);
    let trace = TraceParent::begin(request.headers(), &span, &format_args!("{} {path}", request.method()));
    if let Some(TraceParent { trace_id, parent_id, span_id, .. }) = &trace {
        span.record("trace_id", trace_id).record("span_id", span_id).record("parent_id", parent_id);
    }

    let mut response = next.run(request).instrument(span.clone()).await;

    let total = started.elapsed();
    let status = response.status();
    metrics.call(Transport::Http.label(), status.as_str(), total);
    drop(in_flight);
    let times = response.extensions_mut().remove::<Times>().unwrap_or_default();
    // Signed: the exporter writes what is unsigned as text.
    span.record("status", i64::from(status.as_u16()));
    if status.is_server_error() {
        span.record("otel.status_code", "ERROR");
    }
    span.record("queue_ms", milliseconds(times.queue));
    span.record("forward_ms", milliseconds(times.forward));
    span.record("total_ms", milliseconds(total));
    span.in_scope(|| tracing::debug!("answered"));
    let headers = response.headers_mut();
    if let Ok(timing) = HeaderValue::try_from(server_timing(times, total)) {
        headers.insert(SERVER_TIMING, timing);
    }
    headers.insert(request_id::HEADER, id);
    if let Some(next) = trace.as_ref().and_then(TraceParent::next) {
        headers.insert(traceparent::HEADER, next);
    }
    if keeps_alive && recommender.is_draining() {
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// The span of a call; what is not known yet is recorded when it is answered.
fn span(request: &Request, id: &HeaderValue) -> Span {
    tracing::info_span!(
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
    let [queue, router, forward, total] = [times.queue, times.router, times.forward, total].map(milliseconds);
    format!("queue;dur={queue:.3}, router;dur={router:.3}, forward;dur={forward:.3}, total;dur={total:.3}")
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}
