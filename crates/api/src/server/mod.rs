//! Accepts connections, limits what each client may hold, and speaks TLS.

mod activity;
mod age;
mod answer;
mod frame_budget;
mod places;
mod preface;
mod stalled_stream;
mod tls;
mod write_timeout;

pub use tls::{Tls, TlsError, TlsFiles};

use std::convert::Infallible;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::ConnectInfo;
use axum::http::{HeaderValue, Version, header};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use hyper::body::{Body as _, Incoming};
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use crate::allowance::Allowance;
use crate::answer_budget::{AnswerBudget, AnswerShare};
use crate::body_budget::{BodyAllowance, BodyBudget, BodyPermit};
use activity::{Activity, Patience};
use age::Age;
use answer::AnswerBody;
use canet_serving::metrics::{Disconnect, Metrics};
use places::{Full, Place, PlaceLimits, Places};
use preface::Preface;
use stalled_stream::StreamExecutor;
use write_timeout::WriteTimeout;

/// Largest head of an HTTP/1 request in bytes. hyper reads as much of a body ahead.
const HEAD_BYTES: usize = 64 << 10;

/// Largest head of an HTTP/2 request in bytes.
const HTTP2_HEAD_BYTES: u32 = 64 << 10;

/// Most open requests on one HTTP/2 connection. Clients keep further ones until an earlier one is answered.
const HTTP2_STREAMS: u32 = 64;

/// Most bytes of one answer that wait in the buffer of an HTTP/2 stream.
const HTTP2_BUFFER: usize = 64 << 10;

/// Interval of pings to an HTTP/2 client, and the time that it has to answer one.
const HTTP2_PING: Duration = Duration::from_secs(30);

/// Once the server stops, a connection without an open request ends after this time.
const QUIET: Duration = Duration::from_secs(1);

/// Once the server stops, a client must take more of its answer within this time.
const STOPPING_STALL: Duration = Duration::from_secs(5);

/// Most connections that are accepted after the stop. So many can wait in the system's queue.
const BACKLOG: usize = 4096;

/// How a listener treats its connections.
#[derive(Clone)]
pub struct Connections {
    /// Most open connections. When all are taken, the connection that has been idle longest makes room for a new one. If
    /// none is idle, new ones wait in the system's queue.
    pub max_open: usize,
    /// Most open connections of one client: of one IPv4 address, or of one /64 network of IPv6. `None`: no limit.
    pub max_per_client: Option<NonZeroUsize>,
    /// How long a client may take.
    pub timeouts: Timeouts,
    /// Age at which a connection ends, give or take a tenth, once its open requests are answered. `None`: never. A
    /// client that never reconnects would not find servers that started later.
    pub max_age: Option<Duration>,
    /// Counts connections and those that the server closes. `None`: nothing is counted.
    pub metrics: Option<Arc<Metrics>>,
    /// Limits the bytes of all request bodies together. A body that exceeds it is refused.
    pub body_budget: BodyBudget,
    /// Limits the bytes of all answers together. A request whose answer would exceed it is refused.
    pub answer_budget: AnswerBudget,
    /// Encrypts the connections.
    pub tls: Option<Tls>,
}

/// How long a client may take before its connection is closed or its request is refused.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// For the TLS handshake.
    pub handshake: Duration,
    /// For the first request's head, from the connection's start; over HTTP/2, for the connection's first bytes.
    pub first: Duration,
    /// For the head of each further request. It counts from the last answer; over HTTP/2, from the end of the last open
    /// request. It should be longer than a proxy keeps an idle connection, so that the proxy closes it.
    pub head: Duration,
    /// For the body of a request to arrive, and for the client to take more of an answer.
    pub body: Duration,
}

impl Default for Timeouts {
    fn default() -> Timeouts {
        Timeouts {
            handshake: Duration::from_secs(10),
            first: Duration::from_secs(10),
            head: Duration::from_secs(75),
            body: Duration::from_secs(30),
        }
    }
}

impl Default for Connections {
    fn default() -> Connections {
        Connections {
            max_open: 4096,
            max_per_client: NonZeroUsize::new(2048),
            timeouts: Timeouts::default(),
            max_age: None,
            metrics: None,
            body_budget: BodyBudget::default(),
            answer_budget: AnswerBudget::default(),
            tls: None,
        }
    }
}

/// Serves `app` over HTTP/1 and HTTP/2 until `stop`, then finishes the open requests and returns. Each request has its
/// client's address in its extensions.
pub async fn serve(listener: TcpListener, app: Router, connections: Connections, stop: impl Future<Output = ()>) {
    // Every connection holds a receiver: it learns of the stop there, and `closed` waits until all receivers are gone.
    let open = watch::Sender::new(false);
    let of_client = connections.max_per_client.map_or(usize::MAX, NonZeroUsize::get);
    let places = Places::new(PlaceLimits { all: connections.max_open, of_client });
    let settings = Arc::new(connections);
    let spawn = |Accepted { stream, peer, activity, place }: Accepted| {
        // An answer is written as a whole, so waiting for more bytes would only delay it.
        let _ = stream.set_nodelay(true);
        // The handshake runs in the connection's own task, so that a slow one delays nobody else.
        let connection = Connection { peer, app: app.clone(), settings: Arc::clone(&settings), activity };
        let (stop, counted) = (open.subscribe(), settings.metrics.as_deref().map(Metrics::connection));
        tokio::spawn(async move {
            connection.run(stream, stop).await;
            drop((place, counted));
        });
    };
    let mut stop = pin!(stop);
    loop {
        let (stream, peer) = tokio::select! {
            biased;
            () = &mut stop => break,
            accepted = accept(&listener) => accepted,
        };
        let activity = Activity::new(settings.metrics.clone());
        // The place depends on the client, so the connection is accepted first.
        let place = tokio::select! {
            biased;
            place = places.take(peer.ip(), &activity) => place,
            () = &mut stop => {
                refuse(peer, Full::All, &activity);
                break;
            }
        };
        match place {
            Ok(place) => spawn(Accepted { stream, peer, activity, place }),
            Err(full) => refuse(peer, full, &activity),
        }
    }
    // Clients of the connections in the system's queue think they are connected, and may have sent a request.
    accept_waiting(listener, &places, settings.metrics.as_ref()).into_iter().for_each(spawn);
    open.send_replace(true);
    open.closed().await;
}

/// A connection that has a place.
struct Accepted {
    stream: TcpStream,
    peer: SocketAddr,
    activity: Activity,
    place: Place,
}

/// Accepts the next connection.
async fn accept(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    loop {
        match listener.accept().await {
            Ok(accepted) => return accepted,
            Err(error) if is_disconnect(&error) => {}
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                // Most likely the process has no file descriptors left, and other connections must close first.
                sleep(Duration::from_secs(1)).await;
            }
        }
    }
}

/// Closes the listener, and returns the connections that waited in the system's queue.
fn accept_waiting(listener: TcpListener, places: &Places, metrics: Option<&Arc<Metrics>>) -> Vec<Accepted> {
    let mut waiting = Vec::new();
    // The runtime may not know yet that there are any, so this asks the system.
    let Ok(listener) = listener.into_std() else { return waiting };
    for _ in 0..BACKLOG {
        let (stream, peer) = match listener.accept() {
            Ok(accepted) => accepted,
            Err(error) if is_disconnect(&error) => continue,
            // There are no more, or no file descriptors are left.
            Err(_) => break,
        };
        let activity = Activity::new(metrics.cloned());
        let place = match places.try_take(peer.ip(), &activity) {
            Ok(place) => place,
            Err(full) => {
                refuse(peer, full, &activity);
                continue;
            }
        };
        let stream = stream.set_nonblocking(true).and_then(|()| TcpStream::from_std(stream));
        waiting.extend(stream.ok().map(|stream| Accepted { stream, peer, activity, place }));
    }
    waiting
}

fn refuse(peer: SocketAddr, full: Full, activity: &Activity) {
    let (limit, reason) = match full {
        Full::All => ("--max-connections", Disconnect::Room),
        Full::OfClient => ("--max-connections-per-client", Disconnect::ClientLimit),
    };
    activity.disconnects(reason);
    tracing::debug!(%peer, limit, "a connection was closed because all places are taken");
}

/// Whether the client left before its connection was accepted.
fn is_disconnect(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

/// Becomes true, or closes, when the server stops.
type Stop = watch::Receiver<bool>;

async fn stopped(stop: &mut Stop) {
    let _ = stop.wait_for(|is_stopping| *is_stopping).await;
}

/// One accepted connection.
struct Connection {
    peer: SocketAddr,
    app: Router,
    settings: Arc<Connections>,
    activity: Activity,
}

impl Connection {
    async fn run(self, stream: TcpStream, stop: Stop) {
        let (peer, activity) = (self.peer, self.activity.clone());
        tokio::select! {
            // The connection first: it may hold a request that nobody has read yet.
            biased;
            () = self.secure(stream, stop) => {}
            () = on_wake(activity.asked_to_leave()) => {
                activity.disconnects(Disconnect::Room);
                tracing::debug!(%peer, "an idle connection made room for another one");
            }
        }
    }

    /// Performs the TLS handshake if there is TLS, and answers the requests.
    async fn secure(self, stream: TcpStream, mut stop: Stop) {
        let (peer, timeouts) = (self.peer, self.settings.timeouts);
        // Below TLS, because TLS buffers would hide that the client does not read.
        let stream = WriteTimeout::new(stream, timeouts.body, self.activity.clone());
        let Some(tls) = self.settings.tls.clone() else { return self.talk(stream, stop).await };
        let stopping = async {
            stopped(&mut stop).await;
            sleep(QUIET).await;
        };
        let accepted = tokio::select! {
            accepted = timeout(timeouts.handshake, tls.accept(stream)) => accepted,
            () = stopping => return tracing::debug!(%peer, "the server stopped before the TLS handshake was done"),
        };
        match accepted {
            Ok(Ok(stream)) => self.talk(stream, stop).await,
            Ok(Err(error)) => tracing::debug!(%peer, %error, "the TLS handshake failed"),
            Err(_) => tracing::debug!(%peer, "the TLS handshake took too long"),
        }
    }

    /// Answers the requests of the connection.
    async fn talk<I>(self, stream: I, mut stop: Stop)
    where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (peer, settings, activity) = (self.peer, Arc::clone(&self.settings), self.activity.clone());
        let timeouts = settings.timeouts;
        let age = Age::new(settings.max_age);
        let builder = builder(timeouts, activity.clone());
        let stream = Preface::new(stream, age.clone(), activity.clone());
        let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), self.service(age.clone())));
        // hyper's own limit for heads is the one between requests, and begins after the first bytes.
        let no_request = async {
            sleep(timeouts.first).await;
            if activity.has_requested() || age.is_http2() {
                std::future::pending::<()>().await;
            }
        };
        let ended = tokio::select! {
            // The connection first: a request that has arrived is answered.
            biased;
            ended = connection.as_mut() => ended,
            () = on_wake(no_request) => {
                activity.disconnects(Disconnect::NoRequest);
                return tracing::debug!(%peer, "the connection sent no request");
            }
            patience = on_wake(last_request(&mut stop, &age, &activity, timeouts)) => {
                connection.as_mut().graceful_shutdown();
                tokio::select! {
                    biased;
                    ended = connection => ended,
                    () = quiet(&mut stop, &activity, patience, timeouts) => {
                        if activity.owes() {
                            activity.disconnects(Disconnect::Stalled);
                        }
                        return tracing::debug!(%peer, "the client left the connection open after its shutdown");
                    }
                }
            }
        };
        if let Err(error) = ended {
            // Over HTTP/2 the reset of the stream was counted.
            if !age.is_http2() && write_timeout::is_cause(&*error) {
                activity.disconnects(Disconnect::Stalled);
            }
            tracing::debug!(%peer, error, "the connection broke");
        }
    }

    /// Gives each request of the connection what its budgets allow, and each answer what hyper should know of it.
    fn service(
        self,
        age: Age,
    ) -> impl Service<
        hyper::Request<Incoming>,
        Response = hyper::Response<AnswerBody>,
        Error = Infallible,
        Future: Send + 'static,
    > + Send
    + 'static {
        let Connection { peer, app, settings, activity } = self;
        let bodies = settings.body_budget.peer(peer.ip());
        let answers = AnswerShare::new(&settings.answer_budget);
        let (app, timeout) = (TowerToHyperService::new(app), settings.timeouts.body);
        service_fn(move |mut request: hyper::Request<Incoming>| {
            let is_http2 = request.version() >= Version::HTTP_2;
            let has_body = !request.body().is_end_stream();
            age.received(request.version());
            let open_request = activity.request();
            request.extensions_mut().insert(ConnectInfo(peer));
            let permit = Arc::new(BodyPermit::empty(&bodies));
            // One extension for both: each one is an allocation.
            let body = BodyAllowance { timeout, permit: Arc::clone(&permit) };
            request.extensions_mut().insert(Allowance { body, answers: answers.clone() });
            let (answer, age) = (app.call(request), age.clone());
            async move {
                let mut answer = answer.await;
                // hyper closes an HTTP/1 connection whose body was left unread. Unless the answer says so, the client may
                // send its next request just then, and that request is lost.
                let is_unread = has_body && !permit.is_read();
                drop(permit);
                if let Ok(response) = &mut answer
                    && !is_http2
                    && (is_unread || age.is_over())
                {
                    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
                }
                answer.map(|response| response.map(|body| AnswerBody::new(body, open_request, is_http2)))
            }
        })
    }
}

/// Polls a future only after it was woken itself. The task of a connection wakes for every request, and what watches
/// the connection rarely has anything to do then.
async fn on_wake<F: Future>(future: F) -> F::Output {
    let mut futures = FuturesUnordered::from_iter([future]);
    match futures.next().await {
        Some(output) => output,
        None => std::future::pending().await,
    }
}

/// Waits until a connection has gone on without a change for too long after its shutdown began. The client may hold an
/// incomplete head, ignore the shutdown, or leave an answer untaken.
async fn quiet(stop: &mut Stop, activity: &Activity, patience: Patience, timeouts: Timeouts) {
    tokio::select! {
        () = activity.quiet(patience) => {}
        () = async { stopped(stop).await; activity.quiet(stopping(timeouts)).await } => {}
    }
}

/// Waits until a connection should take no more requests: the server stops, the connection reaches its age, its client
/// leaves an answer untaken, or over HTTP/2 no request was open for some time. Over HTTP/1 hyper itself limits the wait for
/// the next head, and [`WriteTimeout`] the wait for the client to read.
///
/// Returns how long the connection may then go on without a change.
async fn last_request(stop: &mut Stop, age: &Age, activity: &Activity, timeouts: Timeouts) -> Patience {
    let patience = Patience { idle: timeouts.body, stalled: timeouts.body };
    tokio::select! {
        () = async { stopped(stop).await; activity.first_request(QUIET).await } => stopping(timeouts),
        () = age.ended() => patience,
        () = async { age.http2().await; activity.idle(timeouts.head).await } => patience,
        // hyper has forgotten the answer, so the connection goes as soon as all others are taken.
        () = async { age.http2().await; activity.stuck(timeouts.body).await } => {
            Patience { stalled: stopping(timeouts).stalled, ..patience }
        }
    }
}

/// How long a connection may go on without a change once the server stops.
fn stopping(timeouts: Timeouts) -> Patience {
    Patience { idle: QUIET, stalled: timeouts.body.min(STOPPING_STALL) }
}

fn builder(timeouts: Timeouts, activity: Activity) -> Builder<StreamExecutor> {
    let mut builder = Builder::new(StreamExecutor { timeout: timeouts.body, activity });
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(timeouts.head)
        .max_buf_size(HEAD_BYTES)
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(HTTP2_PING)
        .keep_alive_timeout(HTTP2_PING)
        .max_concurrent_streams(HTTP2_STREAMS)
        .max_send_buf_size(HTTP2_BUFFER)
        .max_header_list_size(HTTP2_HEAD_BYTES);
    builder
}
