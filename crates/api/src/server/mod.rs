//! Connections: who gets one, how long its client may take, and TLS.

mod age;
mod bodies;
mod open;
mod stall;
mod tls;

pub use bodies::Bodies;
pub(super) use bodies::Held;
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

use age::Age;
use open::{Answer, Open, QUIET};
use stall::Stall;

/// Largest head of a request over HTTP/1 in bytes, and so what is read ahead of a body.
const HEAD_BYTES: usize = 64 << 10;

/// Largest head of a request over HTTP/2 in bytes.
const HTTP2_HEAD_BYTES: u32 = 64 << 10;

/// Requests that one HTTP/2 connection may have open.
const HTTP2_STREAMS: u32 = 256;

/// How often an HTTP/2 client is asked whether it is still there, and how long it has to say so.
const HTTP2_PING: Duration = Duration::from_secs(30);

/// How a listener treats its connections.
#[derive(Clone)]
pub struct Connections {
    /// Most that are open; more wait in the system's queue until one closes.
    pub most: usize,
    /// How long a client may take.
    pub patience: Patience,
    /// How old they grow, give or take a tenth, before they end with what they are asked by then: a client that never
    /// connects anew would never find a server that came later. `None`: as old as they like.
    pub oldest: Option<Duration>,
    /// Room for what their requests send: one whose body finds none is refused.
    pub bodies: Bodies,
    /// Encrypts them.
    pub tls: Option<Tls>,
}

/// How long a client may take, before its connection is closed or its request refused.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// For the handshake of TLS.
    pub handshake: Duration,
    /// For the head of a request, counted from the connection's start or the last answer, over HTTP/2 from when no
    /// request is open: longer than a proxy keeps an idle connection, so that it is the proxy who closes it.
    pub head: Duration,
    /// For the body of a request to arrive, and to read any more from the connection.
    pub body: Duration,
}

impl Default for Patience {
    fn default() -> Patience {
        Patience { handshake: Duration::from_secs(10), head: Duration::from_secs(75), body: Duration::from_secs(30) }
    }
}

impl Default for Connections {
    fn default() -> Connections {
        Connections { most: 4096, patience: Patience::default(), oldest: None, bodies: Bodies::default(), tls: None }
    }
}

/// How the body of this request is received; in its extensions.
#[derive(Clone, Debug)]
pub(super) struct Receiving {
    /// How long it may take to arrive.
    pub(super) patience: Duration,
    /// What it holds until the request is answered.
    pub(super) held: Arc<Held>,
}

/// Serves `router` over HTTP/1 and HTTP/2 until `stop`, then answers what was asked and ends. Each request has its
/// client's address in its extensions.
pub async fn serve(listener: TcpListener, router: Router, connections: Connections, stop: impl Future<Output = ()>) {
    // Each connection has a receiver, by which it hears of the end and is waited for.
    let open = watch::Sender::new(false);
    let places = Arc::new(Semaphore::new(connections.most));
    let connections = Arc::new(connections);
    let mut stop = pin!(stop);
    loop {
        let next = accept(&listener, &places);
        let (stream, peer, place) = tokio::select! {
            biased;
            () = &mut stop => break,
            accepted = next => accepted,
        };
        // From here the connection is on its own: a slow handshake keeps nobody waiting.
        let (router, connections, stop) = (router.clone(), Arc::clone(&connections), open.subscribe());
        tokio::spawn(async move {
            connect(stream, peer, router, &connections, stop).await;
            drop(place);
        });
    }
    drop(listener);
    open.send_replace(true);
    open.closed().await;
}

/// The next connection, as soon as there is a place for it.
async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> (TcpStream, SocketAddr, Option<OwnedSemaphorePermit>) {
    // The semaphore is never closed.
    let place = Arc::clone(places).acquire_owned().await.ok();
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                // An answer is written whole: waiting for more to send would only delay it.
                let _ = stream.set_nodelay(true);
                return (stream, peer, place);
            }
            // The client went away before its turn.
            Err(error) if is_of_the_client(&error) => {}
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                // Most likely there are no file descriptors left: others must close first.
                sleep(Duration::from_secs(1)).await;
            }
        }
    }
}

fn is_of_the_client(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

/// True, or gone, when the connection is to end with the answers that its client waits for.
type Stop = watch::Receiver<bool>;

async fn stopped(stop: &mut Stop) {
    let _ = stop.wait_for(|is_stopping| *is_stopping).await;
}

async fn connect(stream: TcpStream, peer: SocketAddr, router: Router, connections: &Connections, mut stop: Stop) {
    let Connections { patience, .. } = *connections;
    // Below TLS, whose own buffers would hide that the client does not read.
    let open = Open::new();
    let stream = Stall::new(stream, patience.body, open.clone());
    let Some(tls) = &connections.tls else { return talk(stream, peer, router, connections, open, stop).await };
    let ending = async {
        stopped(&mut stop).await;
        sleep(QUIET).await;
    };
    let accepted = tokio::select! {
        accepted = timeout(patience.handshake, tls.accept(stream)) => accepted,
        () = ending => return tracing::debug!(%peer, "the TLS handshake was not done when the server stopped"),
    };
    match accepted {
        Ok(Ok(stream)) => talk(stream, peer, router, connections, open, stop).await,
        Ok(Err(error)) => tracing::debug!(%peer, %error, "the TLS handshake failed"),
        Err(_) => tracing::debug!(%peer, "the TLS handshake took too long"),
    }
}

/// Answers the requests of one connection.
async fn talk<I>(stream: I, peer: SocketAddr, router: Router, connections: &Connections, open: Open, mut stop: Stop)
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let Connections { patience, oldest, .. } = *connections;
    let age = Age::new(oldest);
    let (router, bodies) = (TowerToHyperService::new(router), connections.bodies.clone());
    let (asking, opening) = (age.clone(), open.clone());
    let service = service_fn(move |mut request: hyper::Request<Incoming>| {
        asking.asked(request.version());
        let asked = opening.request();
        request.extensions_mut().insert(ConnectInfo(peer));
        let held = Arc::new(Held::none_of(&bodies));
        request.extensions_mut().insert(Receiving { patience: patience.body, held: Arc::clone(&held) });
        let (answer, age) = (router.call(request), asking.clone());
        async move {
            let mut answer = answer.await;
            drop(held);
            if let Ok(response) = &mut answer {
                age.close(response);
            }
            answer.map(|response| response.map(|body| Answer { body, _request: asked }))
        }
    });
    let builder = builder(patience);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
    // Which HTTP it speaks is told by its first bytes, for which the builder itself would wait for ever.
    let idle = async {
        sleep(patience.head).await;
        if age.has_asked() {
            std::future::pending::<()>().await;
        }
    };
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = idle => return tracing::debug!(%peer, "a connection asked for nothing"),
        () = last_call(&mut stop, &age, &open, patience.head) => {
            connection.as_mut().graceful_shutdown();
            // Half a head, or a client that does not say that it heard, is waited for no longer than one that does not
            // read; and shortly where the server itself waits.
            let abandoned = async {
                tokio::select! {
                    () = open.quiet(patience.body) => {}
                    () = async { stopped(&mut stop).await; open.quiet(QUIET).await } => {}
                }
            };
            tokio::select! {
                ended = connection => ended,
                () = abandoned => return tracing::debug!(%peer, "a connection that was told to end owed nothing"),
            }
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%peer, error, "a connection broke");
    }
}

/// Waits until a connection should take no more requests: the server stops, its own time is over, or over HTTP/2 no
/// request has been open for `patience`; over HTTP/1 hyper waits no longer for the next head.
async fn last_call(stop: &mut Stop, age: &Age, open: &Open, patience: Duration) {
    let unused = async {
        open.idle(patience).await;
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

fn builder(patience: Patience) -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(patience.head)
        .max_buf_size(HEAD_BYTES)
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(HTTP2_PING)
        .keep_alive_timeout(HTTP2_PING)
        .max_concurrent_streams(HTTP2_STREAMS)
        .max_header_list_size(HTTP2_HEAD_BYTES);
    builder
}
