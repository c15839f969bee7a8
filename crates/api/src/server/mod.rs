//! Accepts connections, limits what each client may hold, and speaks TLS.

mod activity;
mod age;
mod tls;
mod write_timeout;

pub use tls::{Tls, TlsError, TlsFiles};

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::ConnectInfo;
use hyper::body::Incoming;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{sleep, timeout};

use crate::attached::Attached;
use crate::body_budget::{BodyAllowance, BodyBudget, BodyPermit};
use activity::{Activity, QUIET};
use age::Age;
use write_timeout::WriteTimeout;

/// Largest head of an HTTP/1 request in bytes. hyper reads as much of a body ahead.
const HEAD_BYTES: usize = 64 << 10;

/// Largest head of an HTTP/2 request in bytes.
const HTTP2_HEAD_BYTES: u32 = 64 << 10;

/// Most open requests on one HTTP/2 connection.
const HTTP2_STREAMS: u32 = 256;

/// Interval of pings to an HTTP/2 client, and the time that it has to answer one.
const HTTP2_PING: Duration = Duration::from_secs(30);

/// How a listener treats its connections.
#[derive(Clone)]
pub struct Connections {
    /// Most open connections. More wait in the system's queue until one closes.
    pub max_open: usize,
    /// How long a client may take.
    pub timeouts: Timeouts,
    /// Age at which a connection ends, give or take a tenth, once its open requests are answered. `None`: never. A
    /// client that never reconnects would not find servers that started later.
    pub max_age: Option<Duration>,
    /// Limits the bytes of all request bodies together. A body that exceeds it is refused.
    pub body_budget: BodyBudget,
    /// Encrypts the connections.
    pub tls: Option<Tls>,
}

/// How long a client may take before its connection is closed or its request is refused.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// For the TLS handshake.
    pub handshake: Duration,
    /// For the head of a request. It counts from the connection's start or the last answer; over HTTP/2, from the end
    /// of the last open request. It should be longer than a proxy keeps an idle connection, so that the proxy closes it.
    pub head: Duration,
    /// For the body of a request to arrive, and for the client to read anything more.
    pub body: Duration,
}

impl Default for Timeouts {
    fn default() -> Timeouts {
        Timeouts { handshake: Duration::from_secs(10), head: Duration::from_secs(75), body: Duration::from_secs(30) }
    }
}

impl Default for Connections {
    fn default() -> Connections {
        Connections {
            max_open: 4096,
            timeouts: Timeouts::default(),
            max_age: None,
            body_budget: BodyBudget::default(),
            tls: None,
        }
    }
}

/// Serves `app` over HTTP/1 and HTTP/2 until `stop`, then finishes the open requests and returns. Each request has its
/// client's address in its extensions.
pub async fn serve(listener: TcpListener, app: Router, connections: Connections, stop: impl Future<Output = ()>) {
    // Every connection holds a receiver: it learns of the stop there, and `closed` waits until all receivers are gone.
    let open = watch::Sender::new(false);
    let slots = Arc::new(Semaphore::new(connections.max_open));
    let connections = Arc::new(connections);
    let mut stop = pin!(stop);
    loop {
        let next = accept(&listener, &slots);
        let (stream, peer, slot) = tokio::select! {
            biased;
            () = &mut stop => break,
            accepted = next => accepted,
        };
        // The handshake runs in the connection's own task, so that a slow one delays nobody else.
        let connection = Connection { peer, app: app.clone(), settings: Arc::clone(&connections) };
        let stop = open.subscribe();
        tokio::spawn(async move {
            connection.run(stream, stop).await;
            drop(slot);
        });
    }
    drop(listener);
    open.send_replace(true);
    open.closed().await;
}

/// Accepts the next connection once a slot is free.
async fn accept(
    listener: &TcpListener,
    slots: &Arc<Semaphore>,
) -> (TcpStream, SocketAddr, Option<OwnedSemaphorePermit>) {
    // Nothing closes the semaphore.
    let slot = Arc::clone(slots).acquire_owned().await.ok();
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                // An answer is written as a whole, so waiting for more bytes would only delay it.
                let _ = stream.set_nodelay(true);
                return (stream, peer, slot);
            }
            Err(error) if is_disconnect(&error) => {}
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                // Most likely the process has no file descriptors left, and other connections must close first.
                sleep(Duration::from_secs(1)).await;
            }
        }
    }
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
}

impl Connection {
    async fn run(self, stream: TcpStream, mut stop: Stop) {
        let (peer, timeouts) = (self.peer, self.settings.timeouts);
        // Below TLS, because TLS buffers would hide that the client does not read.
        let activity = Activity::new();
        let stream = WriteTimeout::new(stream, timeouts.body, activity.clone());
        let Some(tls) = self.settings.tls.clone() else { return self.talk(stream, activity, stop).await };
        let stopping = async {
            stopped(&mut stop).await;
            sleep(QUIET).await;
        };
        let accepted = tokio::select! {
            accepted = timeout(timeouts.handshake, tls.accept(stream)) => accepted,
            () = stopping => return tracing::debug!(%peer, "the server stopped before the TLS handshake was done"),
        };
        match accepted {
            Ok(Ok(stream)) => self.talk(stream, activity, stop).await,
            Ok(Err(error)) => tracing::debug!(%peer, %error, "the TLS handshake failed"),
            Err(_) => tracing::debug!(%peer, "the TLS handshake took too long"),
        }
    }

    /// Answers the requests of the connection.
    async fn talk<I>(self, stream: I, activity: Activity, mut stop: Stop)
    where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let Connection { peer, app, settings } = self;
        let timeouts = settings.timeouts;
        let age = Age::new(settings.max_age);
        let bodies = settings.body_budget.peer(peer.ip());
        let app = TowerToHyperService::new(app);
        let (service_age, service_activity) = (age.clone(), activity.clone());
        let service = service_fn(move |mut request: hyper::Request<Incoming>| {
            service_age.received(request.version());
            let open_request = service_activity.request();
            request.extensions_mut().insert(ConnectInfo(peer));
            let permit = Arc::new(BodyPermit::empty(&bodies));
            let allowance = BodyAllowance { timeout: timeouts.body, permit: Arc::clone(&permit) };
            request.extensions_mut().insert(allowance);
            let (answer, age) = (app.call(request), service_age.clone());
            async move {
                let mut answer = answer.await;
                drop(permit);
                if let Ok(response) = &mut answer {
                    age.close(response);
                }
                answer.map(|response| response.map(|body| Attached { body, attachment: open_request }))
            }
        });
        let builder = builder(timeouts);
        let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
        // The first bytes tell the HTTP version, and the builder itself would wait for them for ever.
        let no_request = async {
            sleep(timeouts.head).await;
            if age.has_received() {
                std::future::pending::<()>().await;
            }
        };
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = no_request => return tracing::debug!(%peer, "the connection sent no request"),
            () = last_request(&mut stop, &age, &activity, timeouts.head) => {
                connection.as_mut().graceful_shutdown();
                // The client may hold an incomplete head or ignore the shutdown. It gets as long as one that does not
                // read, and only a short time once the server stops.
                let quiet = async {
                    tokio::select! {
                        () = activity.quiet(timeouts.body) => {}
                        () = async { stopped(&mut stop).await; activity.quiet(QUIET).await } => {}
                    }
                };
                tokio::select! {
                    ended = connection => ended,
                    () = quiet => return tracing::debug!(%peer, "the client left the connection open after its shutdown"),
                }
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%peer, error, "the connection broke");
        }
    }
}

/// Waits until a connection should take no more requests: the server stops, the connection reaches its age, or over
/// HTTP/2 no request was open for `idle`. Over HTTP/1 hyper itself limits the wait for the next head.
async fn last_request(stop: &mut Stop, age: &Age, activity: &Activity, idle: Duration) {
    let unused = async {
        activity.idle(idle).await;
        if !age.is_http2() {
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        () = stopped(stop) => {}
        () = age.ended() => {}
        () = unused => {}
    }
}

fn builder(timeouts: Timeouts) -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
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
        .max_header_list_size(HTTP2_HEAD_BYTES);
    builder
}
