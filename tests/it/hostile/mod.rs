//! What hostile clients do to the binary, and what other clients notice of it meanwhile.
//!
//! Every attack comes without a key from addresses of its own (127.0.0.2 and up), as it would from the network; other
//! clients come from 127.0.0.1, and connect anew for each call, as probes do.

mod answers;
mod bodies;
mod connections;
mod floods;
mod stalled;

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use canet_api::proto::canet::v1 as proto;
use canet_model::ModelConfig;
use prost::Message;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use serde_json::{Value, json};
use tokio::net::TcpSocket;
use tokio::runtime::Runtime;

use super::grpc_client::frame;
use super::http2_client::Http2;
use super::raw::{RawReply, post};
use super::server::{HANGS, Process, canet, numbered};
use super::support::{draft, small_config};
use super::tls::{authority, config, identity};

/// The most resident memory that a server may take. It is counted, not limited: an address space limit (`ulimit -v`) would
/// count what LibTorch and the allocator map and never touch, and a control group needs root.
const MEMORY: u64 = 512 << 20;

/// The longest that `/healthz` may take for half of the probes, on a machine that runs the server whenever it can run.
const HEALTHZ: Duration = Duration::from_millis(250);

/// The same for a small request. It also waits for the device, by default for up to 250 ms.
const SMALL: Duration = Duration::from_millis(500);

/// How much longer a build without optimisation may take.
const UNOPTIMISED: f64 = if cfg!(debug_assertions) { 4.0 } else { 1.0 };

/// Rounds of probes once an attack stands.
const ROUNDS: usize = 20;

/// Items of the model that is attacked, as many as MovieLens-100K has.
const ITEMS: usize = 1682;

/// Whether connections are encrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Security {
    Plain,
    Tls,
}

/// The listeners of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Port {
    Http,
    Grpc,
}

trait Stream: Read + Write + Send {}

impl<S: Read + Write + Send> Stream for S {}

/// A server under attack.
struct Target {
    process: Process,
    tls: Option<Arc<ClientConfig>>,
    /// What the small request is answered with.
    items: Vec<String>,
    _directory: tempfile::TempDir,
}

/// An attack as it goes on.
struct Stage {
    /// How many of its parts are in place.
    standing: AtomicUsize,
    is_over: Mutex<bool>,
    ended: Condvar,
}

impl Stage {
    /// A part of the attack is in place.
    fn stand(&self) {
        self.standing.fetch_add(1, Ordering::Relaxed);
    }

    fn standing(&self) -> usize {
        self.standing.load(Ordering::Relaxed)
    }

    /// Waits for a while, and returns whether the attack is over.
    fn waits(&self, time: Duration) -> bool {
        let is_over = self.is_over.lock().unwrap();
        *self.ended.wait_timeout_while(is_over, time, |is_over| !*is_over).unwrap().0
    }

    fn is_over(&self) -> bool {
        *self.is_over.lock().unwrap()
    }

    /// A part of the attack is in place, and lasts to the end.
    fn hold(&self) {
        self.stand();
        drop(self.ended.wait_while(self.is_over.lock().unwrap(), |is_over| !*is_over).unwrap());
    }
}

impl Target {
    fn start(security: Security) -> Target {
        Target::with(security, &[])
    }

    /// A server with the limits that it has unless told, and more flags.
    fn with(security: Security, flags: &[&str]) -> Target {
        let directory = tempfile::tempdir().unwrap();
        let model = directory.path().join("small");
        numbered(draft(ModelConfig { items: ITEMS, ..small_config() }, 7)).write(&model).unwrap();
        let mut all = vec!["--backend", "native", "--threads", "1", "--queue-limit-ms", "250"];
        all.extend(flags);
        let files = ["cert.pem", "key.pem"].map(|name| directory.path().join(name));
        let [certificate, key] = files.each_ref().map(|path| path.to_str().unwrap());
        let tls = (security == Security::Tls).then(|| {
            let authority = authority("hostile");
            let own = identity(&authority);
            std::fs::write(certificate, own.certificate.pem()).unwrap();
            std::fs::write(key, own.key.serialize_pem()).unwrap();
            all.extend(["--tls-cert", certificate, "--tls-key", key]);
            Arc::new(config(&authority, None))
        });
        let process = Process::serve_by(canet(&[]), &model, &all);
        let mut target = Target { process, tls, items: Vec::new(), _directory: directory };
        target.items = target.recommend_by_http("before any attack").unwrap();
        assert_eq!(target.items.len(), 5);
        target.assert_answered("before any attack", || target.recommend_by_grpc("before any attack"));
        target
    }

    fn security(&self) -> Security {
        if self.tls.is_some() { Security::Tls } else { Security::Plain }
    }

    fn address(&self, port: Port) -> SocketAddr {
        match port {
            Port::Http => self.process.client.address,
            Port::Grpc => self.process.grpc,
        }
    }

    /// Connects from 127.0.0.`client`.
    fn connect(&self, port: Port, client: u8) -> io::Result<Box<dyn Stream>> {
        self.secure(connect_from(client, self.address(port))?)
    }

    /// Speaks TLS on a connection if the server does.
    fn secure(&self, tcp: std::net::TcpStream) -> io::Result<Box<dyn Stream>> {
        let Some(tls) = &self.tls else { return Ok(Box::new(tcp)) };
        let name = ServerName::try_from("localhost").unwrap();
        let session = ClientConnection::new(Arc::clone(tls), name).map_err(io::Error::other)?;
        Ok(Box::new(StreamOwned::new(session, tcp)))
    }

    /// Opens a connection of HTTP/2 whose streams begin with this window.
    fn http2(&self, port: Port, client: u8, window: u32) -> io::Result<Http2<Box<dyn Stream>>> {
        Http2::open(self.connect(port, client)?, window)
    }

    /// Sends a request of HTTP/1.1 that asks to close the connection.
    fn exchange(&self, request: &[u8]) -> Option<RawReply> {
        let mut stream = self.connect(Port::Http, 1).ok()?;
        // The server may refuse before it has read all.
        let _ = stream.write_all(request).and_then(|()| stream.flush());
        RawReply::parse(&read_all(&mut stream))
    }

    /// The value of a series.
    fn metric(&self, series: &str) -> f64 {
        let reply = self.exchange(b"GET /metrics HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").unwrap();
        super::server::metric(&String::from_utf8_lossy(&reply.body), series)
    }

    /// The items of [`small`]; `None` where the server is overloaded.
    fn recommend_by_http(&self, name: &str) -> Option<Vec<String>> {
        let reply = self.exchange(&small()).unwrap_or_else(|| panic!("{name}: a request was not answered"));
        assert!([200, 429].contains(&reply.status), "{name}: {reply:?}");
        (reply.status == 200).then(|| items(&reply))
    }

    /// The same over gRPC; `None` where the call is refused.
    fn recommend_by_grpc(&self, name: &str) -> Option<Vec<String>> {
        let request = proto::RecommendRequest {
            history: vec!["101".to_owned(), "103".to_owned()],
            k: Some(5),
            ..Default::default()
        };
        let ask = || -> io::Result<Option<Vec<u8>>> {
            let mut connection = self.http2(Port::Grpc, 1, 1 << 16)?;
            let message = frame(&request.encode_to_vec());
            let stream = connection.post("/canet.v1.Recommender/Recommend", GRPC, &message)?;
            connection.answer(stream)
        };
        let body = ask().unwrap_or_else(|error| panic!("{name}: over gRPC: {error}"));
        // What is refused has no message.
        let body = body.filter(|body| body.len() > 5)?;
        let answer = proto::RecommendResponse::decode(&body[5..]).unwrap();
        Some(answer.items.into_iter().map(|item| item.item).collect())
    }

    /// Asks until there is an answer, as a client does that is told to retry. On a busy machine a queue of 250 ms is
    /// short; the time that retries take counts.
    fn assert_answered(&self, name: &str, ask: impl Fn() -> Option<Vec<String>>) {
        let began = Instant::now();
        let items = std::iter::repeat_with(ask)
            .take_while(|_| began.elapsed() < HANGS)
            .find_map(|items| items)
            .unwrap_or_else(|| panic!("{name}: the server refuses every request"));
        assert_eq!(items, self.items, "{name}");
    }

    /// Asks the server what other clients ask it, until each of the `parts` of the attack stands and then [`ROUNDS`] times
    /// more, and afterwards for a larger answer.
    ///
    /// # Panics
    /// Where another client notices the attack, or the server takes too much memory.
    fn withstand(&self, name: &str, parts: usize, attack: impl FnOnce(&Stage) + Send) {
        let stage = Stage { standing: AtomicUsize::new(0), is_over: Mutex::new(false), ended: Condvar::new() };
        let before = cpu(self.process.id());
        let (mut probes, mut calls, mut left) = (Vec::new(), Vec::new(), ROUNDS);
        thread::scope(|scope| {
            // Also where a probe panics.
            let over = Over(&stage);
            let attacker = scope.spawn(|| attack(&stage));
            let start = Instant::now();
            while left > 0 {
                assert!(
                    start.elapsed() < HANGS,
                    "{name}: {} of {parts} parts stand, {left} rounds are left",
                    stage.standing()
                );
                let began = Stopwatch::start();
                let reply = self.exchange(HEALTHZ_REQUEST);
                assert_eq!(reply.map(|reply| reply.status), Some(200), "{name}: /healthz after {:?}", began.elapsed());
                probes.push(began.elapsed());
                let began = Stopwatch::start();
                self.assert_answered(name, || self.recommend_by_http(name));
                self.assert_answered(name, || self.recommend_by_grpc(name));
                calls.push(began.elapsed() / 2);
                let peak = self.process.peak();
                assert!(peak < MEMORY, "{name}: {peak} bytes of memory");
                let stands = stage.standing() >= parts || attacker.is_finished();
                left -= usize::from(stands);
            }
            drop(over);
        });
        let slowdown = slowdown(before, cpu(self.process.id()));
        let (probes, calls) = (median(probes), median(calls));
        println!(
            "{name}: /healthz {probes:?}, small {calls:?}, slowdown {slowdown:.1}, {} MB",
            self.process.peak() >> 20
        );
        assert!(probes < HEALTHZ.mul_f64(slowdown), "{name}: /healthz took {probes:?} at a slowdown of {slowdown}");
        assert!(calls < SMALL.mul_f64(slowdown), "{name}: requests took {calls:?} at a slowdown of {slowdown}");
        // What the attackers held is given back once the server has noticed that they left.
        let began = Instant::now();
        let large = post("/recommend/batch", json!({"requests": vec![cold_start(); 10]}).to_string().as_bytes());
        while self.exchange(&large).is_none_or(|reply| reply.status != 200) {
            assert!(began.elapsed() < HANGS, "{name}: nothing was given back");
        }
    }
}

/// Ends an attack.
struct Over<'a>(&'a Stage);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        *self.0.is_over.lock().unwrap() = true;
        self.0.ended.notify_all();
    }
}

const HEALTHZ_REQUEST: &[u8] = b"GET /healthz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";

const JSON: &str = "application/json";
const GRPC: &str = "application/grpc";

/// What other clients ask for.
fn small() -> Vec<u8> {
    post("/recommend", br#"{"history":["101","103"],"k":5}"#)
}

/// The largest answer that one row has. It is by popularity, and so needs no forward.
fn cold_start() -> Value {
    json!({"history": [], "k": ITEMS})
}

fn items(reply: &RawReply) -> Vec<String> {
    let body: Value = serde_json::from_slice(&reply.body).unwrap_or_default();
    let items = body["items"].as_array().cloned().unwrap_or_default();
    items.iter().filter_map(|item| item["item"].as_str().map(str::to_owned)).collect()
}

/// A call that is small and asks for some 16 MB.
struct Large {
    port: Port,
    path: &'static str,
    content_type: &'static str,
    body: Vec<u8>,
}

impl Large {
    /// As many of the largest rows as a batch may have.
    const ROWS: usize = 155;

    fn batch() -> Large {
        let body = json!({"requests": vec![cold_start(); Large::ROWS]}).to_string().into_bytes();
        Large { port: Port::Http, path: "/recommend/batch", content_type: JSON, body }
    }

    fn inference() -> Large {
        let history =
            json!({"name": "history", "datatype": "BYTES", "shape": [Large::ROWS], "data": vec!["[]"; Large::ROWS]});
        let k = json!({"name": "k", "datatype": "INT64", "shape": [1], "data": [ITEMS]});
        let body = json!({"inputs": [history, k]}).to_string().into_bytes();
        Large { port: Port::Http, path: "/v2/models/small/infer", content_type: JSON, body }
    }

    fn grpc(path: &'static str) -> Large {
        let row = proto::RecommendRequest { k: Some(ITEMS as u64), ..Default::default() };
        // The messages of both methods have the same form.
        let message = proto::RecommendBatchRequest { requests: vec![row; Large::ROWS] };
        Large { port: Port::Grpc, path, content_type: GRPC, body: frame(&message.encode_to_vec()) }
    }

    /// One of each kind.
    fn all() -> [Large; 4] {
        [
            Large::batch(),
            Large::inference(),
            Large::grpc("/canet.v1.Recommender/RecommendBatch"),
            Large::grpc("/canet.v1.Recommender/RecommendStream"),
        ]
    }

    /// It over HTTP/1.1, on a connection that stays open.
    fn http1(&self, fields: &str) -> Vec<u8> {
        let Large { path, content_type, body, .. } = self;
        let length = body.len();
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: localhost\r\n{fields}content-type: {content_type}\r\n\
             content-length: {length}\r\n\r\n"
        );
        [head.as_bytes(), body].concat()
    }
}

/// Connects from 127.0.0.`client`.
fn connect_from(client: u8, address: SocketAddr) -> io::Result<std::net::TcpStream> {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    let runtime = RUNTIME.get_or_init(|| {
        // Many clients at once.
        rlimit::increase_nofile_limit(1 << 16).unwrap();
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
    });
    let stream = if client == 1 {
        // The address that the system chooses. The time of a probe must not depend on when the runtime's thread runs.
        std::net::TcpStream::connect_timeout(&address, HANGS)?
    } else {
        let connected = runtime.block_on(async {
            let socket = TcpSocket::new_v4()?;
            socket.bind((Ipv4Addr::new(127, 0, 0, client), 0).into())?;
            tokio::time::timeout(HANGS, socket.connect(address)).await?
        });
        let stream = connected?.into_std()?;
        stream.set_nonblocking(false)?;
        stream
    };
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(HANGS))?;
    stream.set_write_timeout(Some(HANGS))?;
    Ok(stream)
}

/// What comes until the connection ends, however that is.
fn read_all(stream: &mut impl Read) -> Vec<u8> {
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes);
    bytes
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

/// Measures how long the server takes: the time without that for which this thread waited for a core. The attackers and
/// other tests keep the cores busy.
struct Stopwatch {
    began: Instant,
    waited: Duration,
}

impl Stopwatch {
    fn start() -> Stopwatch {
        Stopwatch { waited: Stopwatch::waited(), began: Instant::now() }
    }

    fn elapsed(&self) -> Duration {
        let waited = Stopwatch::waited().saturating_sub(self.waited);
        self.began.elapsed().saturating_sub(waited)
    }

    /// How long this thread has waited for a core since it began.
    fn waited() -> Duration {
        let times = schedule_times(Path::new("/proc/thread-self"));
        times.map_or(Duration::ZERO, |(_, waited)| Duration::from_nanos(waited))
    }
}

/// The nanoseconds for which the threads of a process ran, and for which they waited for a core.
fn cpu(process: u32) -> (u64, u64) {
    let tasks = std::fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten();
    let times = tasks.filter_map(|task| schedule_times(&task.path()));
    times.fold((0, 0), |(ran, waited), time| (ran + time.0, waited + time.1))
}

/// The same for one thread, by its directory.
fn schedule_times(thread: &Path) -> Option<(u64, u64)> {
    let text = std::fs::read_to_string(thread.join("schedstat")).ok()?;
    let mut numbers = text.split(' ').map(|number| number.trim().parse::<u64>());
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

/// How much longer the server took than on a machine where a thread that can run does. Other tests keep the cores
/// busy too; a bound in milliseconds alone would measure them.
fn slowdown(before: (u64, u64), after: (u64, u64)) -> f64 {
    let (ran, waited) = (after.0.saturating_sub(before.0), after.1.saturating_sub(before.1));
    UNOPTIMISED * (1.0 + waited as f64 / ran.max(1) as f64)
}
