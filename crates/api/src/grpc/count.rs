use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::{Request, State};
use axum::http::HeaderMap;
use axum::middleware::Next;
use axum::response::Response;
use http_body::{Frame, SizeHint};
use tonic::Code as GrpcCode;

use super::status::refused_by_tonic;
use crate::Code;
use crate::arrival::Arrival;
use crate::observe::{Ending, Observed};
use crate::transport::{Transport, grpc_name};
use canet_serving::Recommender;

/// Counts a call over gRPC when the last of its answer is sent, puts it into a span, and adds to its metadata what
/// answers over HTTP have in their headers. What tonic refuses by itself becomes one of the table's faults.
pub(super) async fn call(State(recommender): State<Arc<Recommender>>, request: Request, next: Next) -> Response {
    let observed = Observed::begin(recommender.metrics(), Transport::Grpc, &request);
    let response = observed.run(answer(request, next, observed.started())).await;
    let (head, body) = response.into_parts();
    // Where nothing but a status is sent, it stands in the headers.
    let mut call = Counted(Some(observed));
    if let Some(code) = status(&head.headers) {
        call.end(code);
    }
    Response::from_parts(head, Body::new(CountedBody { body, call }))
}

async fn answer(mut request: Request, next: Next, arrived: Instant) -> Response {
    let headers = request.headers().clone();
    match Arrival::of(&headers, arrived) {
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

/// A call that is counted once: when it ends, or as cancelled when its client left before.
struct Counted(Option<Observed>);

impl Counted {
    fn end(&mut self, code: GrpcCode) {
        if let Some(observed) = self.0.take() {
            let is_fault =
                Code::ALL.iter().map(|known| known.row()).any(|row| row.grpc == code && row.status.is_server_error());
            observed.end(Ending { code: grpc_name(code), number: i32::from(code).into(), is_fault });
        }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.end(GrpcCode::Cancelled);
    }
}

/// A body whose trailers bring the status.
struct CountedBody {
    body: Body,
    call: Counted,
}

impl HttpBody for CountedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        if let Some(code) = frame.as_ref().and_then(|frame| status(frame.as_ref().ok()?.trailers_ref()?)) {
            self.call.end(code);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
