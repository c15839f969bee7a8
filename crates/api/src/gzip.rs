use std::convert::Infallible;
use std::future::Future;
use std::io::Write;
use std::ops::RangeInclusive;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::{self, Body, HttpBody};
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use flate2::Compression;
use flate2::write::GzEncoder;
use futures_util::future::{Either, MapOk, TryFutureExt};
use tower::{Layer, Service};

use super::allowance::Allowance;
use super::answer_budget::AnswerShare;
use super::{Code, Problem};

/// Sizes in bytes of the answers that are compressed. Below, the headers outweigh the gain. Above, compressing would keep
/// other requests of the runtime's thread waiting.
const COMPRESSED: RangeInclusive<u64> = 1024..=1 << 20;

/// Sends answers as gzip to clients that take it.
///
/// An answer is compressed as a whole before its first byte is sent. A compressor that waits for its client would hold some
/// hundred kilobytes for each answer that nobody reads. The compressed bytes count against the answers of the connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Gzip;

#[derive(Clone, Debug)]
pub(crate) struct GzipService<S>(S);

impl<S> Layer<S> for Gzip {
    type Service = GzipService<S>;

    fn layer(&self, service: S) -> GzipService<S> {
        GzipService(service)
    }
}

type Boxed = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

impl<S> Service<Request> for GzipService<S>
where
    S: Service<Request, Response = Response, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response;
    type Error = Infallible;
    type Future = Either<MapOk<S::Future, fn(Response) -> Response>, Boxed>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        if !accepts_gzip(request.headers()) {
            return Either::Left(self.0.call(request).map_ok(varying as fn(Response) -> Response));
        }
        let answers = Allowance::answers(request.extensions());
        let answer = self.0.call(request);
        Either::Right(Box::pin(async move { Ok(compressed(varying(answer.await?), &answers).await) }))
    }
}

/// Tells caches that the answer depends on `accept-encoding`, if it does.
fn varying(mut response: Response) -> Response {
    let mut given = response.headers().get_all(header::VARY).iter();
    if fits(&response) && !given.any(|names| names == "accept-encoding") {
        response.headers_mut().append(header::VARY, HeaderValue::from_static("accept-encoding"));
    }
    response
}

/// Whether an answer is of a size that is compressed, and not compressed yet.
fn fits(response: &Response) -> bool {
    let size = response.body().size_hint().exact();
    size.is_some_and(|bytes| COMPRESSED.contains(&bytes)) && !response.headers().contains_key(header::CONTENT_ENCODING)
}

/// The answer as gzip, or as it is if there is no room for the compressed bytes.
async fn compressed(response: Response, answers: &AnswerShare) -> Response {
    if !fits(&response) {
        return response;
    }
    let (mut head, body) = response.into_parts();
    let Ok(plain) = body::to_bytes(body, usize::MAX).await else {
        return Problem::new(Code::Internal, "the answer broke off").into_response();
    };
    let mut encoder = GzEncoder::new(Vec::with_capacity(plain.len() / 2), Compression::fast());
    let zipped = encoder.write_all(&plain).and_then(|()| encoder.finish());
    let Some(zipped) = zipped.ok().and_then(|zipped| answers.hold(zipped).ok()) else {
        return Response::from_parts(head, Body::from(plain));
    };
    head.headers.remove(header::CONTENT_LENGTH);
    head.headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    Response::from_parts(head, Body::from(zipped))
}

/// Whether the client takes gzip, by name or by `*`, with a weight above 0 (RFC 9110, 12.5.3).
pub(crate) fn accepts_gzip(headers: &HeaderMap) -> bool {
    let weight = |name: &str| {
        let given = headers.get_all(header::ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
        given.flat_map(|list| list.split(',')).find_map(|coding| {
            let (given, parameter) = coding.split_once(';').unwrap_or((coding, ""));
            let weight = parameter.trim().strip_prefix("q=").map_or(Some(1.0), |weight| weight.parse::<f32>().ok());
            given.trim().eq_ignore_ascii_case(name).then_some(weight.unwrap_or_default())
        })
    };
    weight("gzip").or_else(|| weight("*")).is_some_and(|weight| weight > 0.0)
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use axum::body::{Body, to_bytes};
    use axum::http::{HeaderMap, HeaderValue, header};
    use axum::response::Response;

    use super::{accepts_gzip, compressed, varying};
    use crate::answer_budget::{AnswerBudget, AnswerShare};

    const TEXT: &[u8] = &[b'a'; 4000];

    fn has(response: &Response, name: header::HeaderName) -> Option<&str> {
        response.headers().get(name).map(|value| value.to_str().unwrap())
    }

    #[tokio::test]
    async fn answers_are_compressed_while_there_is_room_for_them() {
        let answers = AnswerShare::new(&AnswerBudget::default());
        let zipped = compressed(varying(Response::new(Body::from(TEXT))), &answers).await;
        assert_eq!(has(&zipped, header::CONTENT_ENCODING), Some("gzip"));
        assert_eq!(has(&zipped, header::VARY), Some("accept-encoding"));
        let (bytes, mut text) = (to_bytes(zipped.into_body(), usize::MAX).await.unwrap(), Vec::new());
        flate2::read::GzDecoder::new(&bytes[..]).read_to_end(&mut text).unwrap();
        assert!(bytes.len() < 100 && text == TEXT);

        let full = AnswerShare::new(&AnswerBudget::new(8));
        let plain = compressed(varying(Response::new(Body::from(TEXT))), &full).await;
        assert_eq!(has(&plain, header::CONTENT_ENCODING), None);
        assert_eq!(to_bytes(plain.into_body(), usize::MAX).await.unwrap(), TEXT);
        let short = compressed(varying(Response::new(Body::from(&TEXT[..1000]))), &answers).await;
        assert_eq!((has(&short, header::CONTENT_ENCODING), has(&short, header::VARY)), (None, None));
    }

    #[test]
    fn gzip_is_sent_to_clients_that_take_it() {
        let accepts = |value: &'static str| {
            accepts_gzip(&HeaderMap::from_iter([(header::ACCEPT_ENCODING, HeaderValue::from_static(value))]))
        };
        for value in ["gzip", "br, GZIP;q=0.1", "*", "br;q=1.0, *;q=0.5"] {
            assert!(accepts(value), "{value}");
        }
        for value in ["", "br", "identity", "gzip;q=0", "*, gzip;q=0", "gzip;q=x"] {
            assert!(!accepts(value), "{value}");
        }
        assert!(!accepts_gzip(&HeaderMap::new()));
    }
}
