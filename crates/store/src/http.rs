//! The transport of `object_store`: this project's HTTP client, on threads that may block.

use std::error::Error;
use std::io::{self, Read};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use object_store::client::{
    ClientConfigKey, ClientOptions, HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse,
    HttpResponseBody, HttpService,
};
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use ureq::http::header::CONTENT_LENGTH;
use ureq::http::{Method, Request, Response, request, response};
use ureq::tls::{RootCerts, TlsConfig};
use ureq::{Agent, AsSendBody, Body, SendBody};

/// Longest time in which the store sends or takes nothing.
const STALLED: Duration = Duration::from_secs(20);

/// Longest time for a connection, unless the caller has a shorter one.
const CONNECT: Duration = Duration::from_secs(5);

/// Bytes of a piece of a response, and how many pieces wait for their reader.
const PIECE: usize = 128 << 10;
const PIECES: usize = 4;

/// Makes clients.
#[derive(Debug)]
pub(crate) struct UreqConnector {
    /// The certificates to trust.
    pub(crate) authorities: RootCerts,
}

impl HttpConnector for UreqConnector {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let option = |key| options.get_config_value(&key);
        let allows_http = option(ClientConfigKey::AllowHttp).is_some_and(|value| value == "true");
        let connect = option(ClientConfigKey::ConnectTimeout).and_then(|time| humantime::parse_duration(&time).ok());
        let config = Agent::config_builder()
            .http_status_as_error(false)
            // A signature holds for one address.
            .max_redirects(0)
            .max_redirects_will_error(false)
            .https_only(!allows_http)
            .user_agent(concat!("canet/", env!("CARGO_PKG_VERSION")))
            .timeout_connect(Some(connect.unwrap_or(CONNECT).min(CONNECT)))
            .timeout_recv_response(Some(STALLED))
            .timeout_per_read(Some(STALLED))
            .timeout_per_write(Some(STALLED))
            .tls_config(TlsConfig::builder().root_certs(self.authorities.clone()).build())
            .build();
        Ok(HttpClient::new(UreqService { agent: config.into() }))
    }
}

/// A request got no response.
#[derive(Debug, thiserror::Error)]
#[error("{host}: {cause}")]
pub(crate) struct NoResponse {
    /// The host that was asked.
    pub(crate) host: String,
    /// Whether it may only be asked over TLS.
    pub(crate) needs_tls: bool,
    pub(crate) cause: String,
}

#[derive(Debug)]
struct UreqService {
    agent: Agent,
}

#[async_trait]
impl HttpService for UreqService {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let (head, body) = request.into_parts();
        let pieces: Vec<Bytes> = body.into_data_stream().try_collect().await?;
        let agent = self.agent.clone();
        let response = spawn_blocking(move || send(&agent, head, pieces)).await;
        let (head, body) = response.map_err(|error| broken(HttpErrorKind::Unknown, error))??;
        Ok(Response::from_parts(head, receive(body)))
    }
}

/// Sends a request and waits for the head of its response.
fn send(agent: &Agent, head: request::Parts, pieces: Vec<Bytes>) -> Result<(response::Parts, Body), HttpError> {
    let host = head.uri.authority().map(ToString::to_string).unwrap_or_default();
    let response = match head.method {
        Method::PUT | Method::POST => {
            let length: usize = pieces.iter().map(Bytes::len).sum();
            let mut request = Request::from_parts(
                head,
                SendBody::from_owned_reader(Pieces { rest: pieces.into_iter(), piece: Bytes::new() }),
            );
            request.headers_mut().insert(CONTENT_LENGTH, length.into());
            run(agent, request)
        }
        _ => run(agent, Request::from_parts(head, ())),
    };
    let response = response.map_err(|error| {
        let kind = match &error {
            ureq::Error::Timeout(_) => HttpErrorKind::Timeout,
            ureq::Error::Io(_) | ureq::Error::HostNotFound | ureq::Error::ConnectionFailed => HttpErrorKind::Connect,
            _ => HttpErrorKind::Unknown,
        };
        let needs_tls = matches!(error, ureq::Error::RequireHttpsOnly(_));
        HttpError::new(kind, NoResponse { host, needs_tls, cause: error.to_string() })
    })?;
    Ok(response.into_parts())
}

fn run(agent: &Agent, request: Request<impl AsSendBody>) -> Result<Response<Body>, ureq::Error> {
    agent.run(request)
}

/// Reads the body of a response on a thread that may block, as fast as it is taken.
fn receive(body: Body) -> HttpResponseBody {
    let (sender, mut receiver) = mpsc::channel(PIECES);
    spawn_blocking(move || {
        let mut reader = body.into_reader();
        loop {
            let mut piece = Vec::with_capacity(PIECE);
            let read = (&mut reader).take(PIECE as u64).read_to_end(&mut piece);
            // What came before a break counts, so that the next request goes on behind it.
            let pieces = (!piece.is_empty()).then(|| Ok(Bytes::from(piece)));
            let is_last = !matches!(read, Ok(1..));
            let errors = read.err().map(|error| Err(broken(interruption(&error), error)));
            // The reader left if nobody takes them.
            if pieces.into_iter().chain(errors).any(|piece| sender.blocking_send(piece).is_err()) || is_last {
                return;
            }
        }
    });
    HttpResponseBody::new(StreamBody::new(
        stream::poll_fn(move |context| receiver.poll_recv(context)).map(|piece| piece.map(Frame::data)),
    ))
}

fn interruption(error: &io::Error) -> HttpErrorKind {
    match error.kind() {
        io::ErrorKind::TimedOut => HttpErrorKind::Timeout,
        _ => HttpErrorKind::Interrupted,
    }
}

fn broken(kind: HttpErrorKind, error: impl Error + Send + Sync + 'static) -> HttpError {
    HttpError::new(kind, error)
}

/// The body of a request.
struct Pieces {
    rest: std::vec::IntoIter<Bytes>,
    piece: Bytes,
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() {
            match self.rest.next() {
                Some(piece) => self.piece = piece,
                None => return Ok(0),
            }
        }
        let length = self.piece.len().min(buffer.len());
        buffer[..length].copy_from_slice(&self.piece.split_to(length));
        Ok(length)
    }
}
