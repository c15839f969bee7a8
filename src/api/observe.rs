use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::{Request, State};
use axum::http::{HeaderName, HeaderValue, Version, header};
use axum::middleware::Next;
use axum::response::Response;

use super::{TRANSPORT, request_id};
use crate::serving::{Recommender, Times};

const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");

/// Counts a call, and adds `x-request-id` and `server-timing` to its answer, whatever the answer is.
///
/// While draining an answer also closes its connection: a client that keeps one open would otherwise send its next
/// request just when the server closes it, and that request would be lost.
pub(super) async fn call(State(recommender): State<Arc<Recommender>>, request: Request, next: Next) -> Response {
    let started = Instant::now();
    let metrics = recommender.metrics();
    let in_flight = metrics.in_flight();
    let id = request_id::of(request.headers());
    let keeps_alive = request.version() <= Version::HTTP_11;
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());

    let mut response = next.run(request).await;

    let total = started.elapsed();
    let status = response.status();
    metrics.call(TRANSPORT, status.as_str(), total);
    drop(in_flight);
    let total_ms = milliseconds(total);
    tracing::debug!(%method, path, status = status.as_u16(), request_id = ?id, total_ms, "answered");
    let times = response.extensions_mut().remove::<Times>().unwrap_or_default();
    let headers = response.headers_mut();
    if let Ok(timing) = HeaderValue::try_from(server_timing(times, total)) {
        headers.insert(SERVER_TIMING, timing);
    }
    headers.insert(request_id::HEADER, id);
    if keeps_alive && recommender.is_draining() {
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// The stages in milliseconds; what a call did not go through took 0.
fn server_timing(times: Times, total: Duration) -> String {
    let [queue, router, forward, total] = [times.queue, times.router, times.forward, total].map(milliseconds);
    format!("queue;dur={queue:.3}, router;dur={router:.3}, forward;dur={forward:.3}, total;dur={total:.3}")
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}
