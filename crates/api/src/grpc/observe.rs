use std::task::{Context, Poll};
use std::time::Instant;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::HeaderMap;
use axum::middleware::Next;
use axum::response::Response;
use tonic::Code as GrpcCode;

use super::status::refused_by_tonic;
use crate::Code;
use crate::answer_budget::MessageCharge;
use crate::attached::{Attached, Attachment, PolledFrame};
use crate::deadline::Arrival;
use crate::observe::{Ending, Observed, Observer};
use crate::transport::{Transport, grpc_name};

/// Counts a call over gRPC once its answer is sent, traces it, and adds to its metadata the headers of HTTP answers.
/// tonic's own refusals become errors of the table.
pub(super) async fn grpc(State(observer): State<Observer>, mut request: Request, next: Next) -> Response {
    let observed = Observed::begin(&observer, Transport::Grpc, &mut request);
    let mut response = observed.run(answer(request, next, observed.started())).await;
    let charge = response.extensions_mut().remove::<MessageCharge>();
    let mut call = CountedCall { observed: Some(observed), charge };
    // An answer without a message has its status in the headers.
    if let Some(code) = status(response.headers()) {
        call.end(code);
    }
    response.map(|body| Body::new(Attached { body, attachment: call }))
}

async fn answer(mut request: Request, next: Next, arrived: Instant) -> Response {
    let headers = request.headers().clone();
    match Arrival::of_head(&headers, arrived) {
        Ok(arrival) => request.extensions_mut().insert(arrival),
        Err(problem) => return problem.into_grpc(),
    };
    let response = next.run(request).await;
    match refused_by_tonic(&response, &headers) {
        Some(problem) => problem.into_grpc(),
        None => response,
    }
}

fn status(headers: &HeaderMap) -> Option<GrpcCode> {
    headers.get("grpc-status").map(|code| GrpcCode::from_bytes(code.as_bytes()))
}

/// Counts a call once: with the status in its trailers, or as cancelled if the client leaves before. The bytes of its answer
/// are charged until they are sent.
struct CountedCall {
    observed: Option<Observed>,
    charge: Option<MessageCharge>,
}

impl CountedCall {
    fn end(&mut self, code: GrpcCode) {
        let Some(observed) = self.observed.take() else { return };
        let mut mappings = Code::ALL.iter().map(|known| known.mapping());
        let is_fault = mappings.any(|mapping| mapping.grpc == code && mapping.status.is_server_error());
        observed.end(Ending { code: grpc_name(code), number: i32::from(code).into(), is_fault });
    }
}

impl Attachment for CountedCall {
    fn on_frame(&mut self, polled: PolledFrame, _context: &mut Context<'_>) -> PolledFrame {
        if let Poll::Ready(Some(Ok(frame))) = &polled
            && let Some(code) = frame.trailers_ref().and_then(status)
        {
            self.end(code);
        }
        let Some(charge) = &self.charge else { return polled };
        polled.map_ok(|frame| frame.map_data(|part| charge.hold(part)))
    }
}

impl Drop for CountedCall {
    fn drop(&mut self) {
        self.end(GrpcCode::Cancelled);
    }
}
