//! Servers to ask over HTTP: one in this process on a free port, and the binary itself.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use canet_api::{self, Access, Connections};
use canet_domain::{BatchBy, Catalogue};
use canet_model::checkpoint::{Checkpoint, CheckpointDraft};
use canet_model::{Forward, Model};
use canet_serving::metrics::Metrics;
use canet_serving::{Generation, Limits, Policy, Recommender, RecommenderOptions};
use serde_json::Value;
use tokio::runtime::Runtime;

use super::support::{draft, reference, small_config};

/// Longer than anything takes on a busy machine. What takes longer hangs, and the test says where.
pub(crate) const HANGS: Duration = Duration::from_secs(300);

/// Tries until an attempt returns something. A busy machine may hold a test up for longer than a server waits, and what
/// a server does without a request takes a while.
///
/// # Panics
/// If no attempt has returned anything after [`HANGS`].
#[track_caller]
pub(crate) fn retry<T>(mut attempt: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = attempt() {
            return found;
        }
        assert!(began.elapsed() < HANGS, "no attempt has succeeded in {HANGS:?}");
        thread::yield_now();
    }
}

/// Limits that no test runs into by accident.
pub(crate) const ROOMY: Limits =
    Limits { executors: 1, max_batch: 8, queue_limit: Duration::from_secs(3600), degrade: false };

/// What `canet serve` does unless told.
pub(crate) const POLICY: Policy = Policy { budget: 0.3, batch_by: BatchBy::Width };

/// An answer over HTTP.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: ureq::http::HeaderMap,
    pub(crate) text: String,
}

impl Reply {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).unwrap_or_else(|| panic!("no {name}: {self:?}")).to_str().unwrap()
    }

    /// The external ids that were recommended, in order.
    pub(crate) fn items(&self) -> Vec<String> {
        let body = self.json();
        let items = body["items"].as_array().unwrap_or_else(|| panic!("no items: {self:?}"));
        items.iter().map(|item| item["item"].as_str().unwrap().to_owned()).collect()
    }
}

/// Asks one server; connections are kept between calls.
#[derive(Clone)]
pub(crate) struct Client {
    agent: ureq::Agent,
    pub(crate) address: SocketAddr,
}

impl Client {
    pub(crate) fn new(address: SocketAddr) -> Client {
        Client {
            agent: ureq::Agent::config_builder().http_status_as_error(false).timeout_global(Some(HANGS)).build().into(),
            address,
        }
    }

    pub(crate) fn get(&self, path: &str) -> Reply {
        self.send("GET", path, &[], b"")
    }

    pub(crate) fn post(&self, path: &str, body: &Value) -> Reply {
        self.send("POST", path, &[("content-type", "application/json")], body.to_string().as_bytes())
    }

    pub(crate) fn recommend(&self, body: &Value) -> Reply {
        self.post("/recommend", body)
    }

    pub(crate) fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Reply {
        self.try_send(method, path, headers, body).unwrap_or_else(|error| panic!("{method} {path}: {error}"))
    }

    pub(crate) fn try_send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Result<Reply, ureq::Error> {
        let uri = format!("http://{}{path}", self.address);
        let mut request = ureq::http::Request::builder().method(method).uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        // A method without a body must not have an empty one either.
        let mut response = match method {
            "GET" | "HEAD" | "OPTIONS" | "DELETE" => self.agent.run(request.body(())?)?,
            _ => self.agent.run(request.body(body)?)?,
        };
        let text = response.body_mut().read_to_string()?;
        Ok(Reply { status: response.status().as_u16(), headers: response.headers().clone(), text })
    }

    /// How many calls over a transport ended with a code.
    pub(crate) fn calls(&self, transport: &str, code: &str) -> f64 {
        calls(&self.get("/metrics").text, transport, code)
    }

    /// The value of a series, as `stage_duration_seconds_count{stage="queue"}` without the prefix; labels stand in the
    /// order of their names.
    pub(crate) fn metric(&self, series: &str) -> f64 {
        let text = self.get("/metrics").text;
        metric(&text, series)
    }
}

/// How many calls over a transport ended with a code, at all endpoints together.
pub(crate) fn calls(scrape: &str, transport: &str, code: &str) -> f64 {
    let labels = [format!("code=\"{code}\""), format!("transport=\"{transport}\"")];
    let of_family = scrape.lines().filter_map(|line| line.strip_prefix("canet_requests_total{")?.rsplit_once("} "));
    let counted: Vec<f64> = of_family
        .filter(|(series, _)| labels.iter().all(|label| series.contains(label)))
        .map(|(_, value)| value.parse().unwrap())
        .collect();
    assert!(!counted.is_empty(), "no calls over {transport} with {code} in\n{scrape}");
    counted.iter().sum()
}

/// The value of a series in a scrape.
pub(crate) fn metric(scrape: &str, series: &str) -> f64 {
    let line = scrape.lines().find_map(|line| line.strip_prefix("canet_")?.strip_prefix(series)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no series {series} in\n{scrape}")).parse().unwrap()
}

/// How a [`Server`] serves.
pub(crate) struct ServerOptions {
    pub(crate) policy: Policy,
    pub(crate) limits: Limits,
    pub(crate) recommender: RecommenderOptions,
    pub(crate) access: Access,
    pub(crate) connections: Connections,
    pub(crate) metrics: Arc<Metrics>,
}

impl Default for ServerOptions {
    fn default() -> ServerOptions {
        ServerOptions {
            policy: POLICY,
            limits: ROOMY,
            recommender: RecommenderOptions::default(),
            access: Access::default(),
            connections: Connections::default(),
            metrics: Arc::new(canet_api::metrics().unwrap()),
        }
    }
}

/// A server in this process.
pub(crate) struct Server {
    pub(crate) client: Client,
    pub(crate) recommender: Arc<Recommender>,
    pub(crate) checkpoint: Checkpoint,
    _runtime: Runtime,
    _directory: tempfile::TempDir,
}

impl Server {
    /// A small random model whose ids are decimal numbers from 101 on.
    pub(crate) fn start() -> Server {
        Server::small(ServerOptions::default())
    }

    /// The small model, with other options of the recommender.
    pub(crate) fn start_with(recommender: RecommenderOptions) -> Server {
        Server::small(ServerOptions { recommender, ..ServerOptions::default() })
    }

    /// The small model, with other options.
    pub(crate) fn small(options: ServerOptions) -> Server {
        let draft = numbered(draft(small_config(), 11));
        let forward = Arc::new(reference(&draft.config, &draft.weights));
        Server::open(options, draft, forward)
    }

    /// Serves `draft`'s catalogue and routes over any forward, within limits.
    pub(crate) fn with(draft: CheckpointDraft, forward: Arc<dyn Forward>, limits: Limits) -> Server {
        Server::under(POLICY, draft, forward, limits)
    }

    /// The same under another policy.
    pub(crate) fn under(policy: Policy, draft: CheckpointDraft, forward: Arc<dyn Forward>, limits: Limits) -> Server {
        Server::open(ServerOptions { policy, limits, ..ServerOptions::default() }, draft, forward)
    }

    /// The small model, with other access rules and connections.
    pub(crate) fn behind(access: Access, connections: Connections) -> Server {
        Server::small(ServerOptions { access, connections, ..ServerOptions::default() })
    }

    /// Serves `draft`'s catalogue and routes over any forward.
    pub(crate) fn open(options: ServerOptions, draft: CheckpointDraft, forward: Arc<dyn Forward>) -> Server {
        let ServerOptions { policy, limits, recommender, access, connections, metrics } = options;
        let directory = tempfile::tempdir().unwrap();
        let checkpoint = draft.write(&directory.path().join("small")).unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let connections = Connections { metrics: Some(Arc::clone(&metrics)), ..connections };
        let (recommender, address) = runtime.block_on(async {
            let (recommender, _) = Recommender::start(limits, recommender, Arc::clone(&metrics)).unwrap();
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let router = canet_api::app(&recommender, access);
            tokio::spawn(canet_api::serve(listener, router, connections, std::future::pending()));
            (recommender, address)
        });
        recommender.serve(Generation::new(Model::with_forward(checkpoint.clone(), forward), policy, &metrics));
        Server { client: Client::new(address), recommender, checkpoint, _runtime: runtime, _directory: directory }
    }

    /// The value of a series, without a connection that would be counted.
    pub(crate) fn metric(&self, series: &str) -> f64 {
        metric(&self.recommender.metrics().render().unwrap(), series)
    }
}

/// The same model with the ids 101, 102, ...: numbers that are no dense ids. Popularity rises with the id.
pub(crate) fn numbered(draft: CheckpointDraft) -> CheckpointDraft {
    let items = draft.config.items as u64;
    let ids = (101..101 + items).map(|id| id.to_string().into()).collect();
    let titles = (101..101 + items).step_by(2).map(|id| (id.to_string().into(), format!("Film {id}").into()));
    let catalogue = Catalogue::new(ids, (1..=items).collect()).unwrap().with_titles(titles);
    CheckpointDraft { catalogue, ..draft }
}

/// The binary, serving; killed when dropped.
pub(crate) struct Process {
    child: Child,
    log: Mutex<Log>,
    pub(crate) client: Client,
    /// Where it speaks gRPC.
    pub(crate) grpc: SocketAddr,
}

impl Process {
    /// Starts `canet serve` on free ports and waits until it is ready.
    pub(crate) fn serve(model: &Path, flags: &[&str]) -> Process {
        Process::serve_by(canet(&[]), model, flags)
    }

    /// The same by another binary.
    pub(crate) fn serve_by(binary: Command, model: &Path, flags: &[&str]) -> Process {
        let process = Process::launch_by(binary, model, flags);
        process.log_line("ready");
        process
    }

    /// Starts `canet serve` on free ports and waits until it listens: the model is still being loaded.
    pub(crate) fn launch(model: &Path, flags: &[&str]) -> Process {
        Process::launch_by(canet(&[]), model, flags)
    }

    /// The same by another binary.
    pub(crate) fn launch_by(mut binary: Command, model: &Path, flags: &[&str]) -> Process {
        // A busy machine refuses nobody, unless a test is about that.
        if !flags.contains(&"--queue-limit-ms") {
            binary.env("CANET_QUEUE_LIMIT_MS", "60000");
        }
        let mut child = binary
            .args(["serve", "--listen", "127.0.0.1:0", "--grpc", "127.0.0.1:0", "--device", "cpu"])
            .arg("--model")
            .arg(model)
            .args(flags)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (sender, lines) = channel();
        let stderr = child.stderr.take().unwrap();
        // Reads to the end, so that the server never blocks on a full pipe.
        thread::spawn(move || {
            BufReader::new(stderr).lines().map_while(Result::ok).for_each(|line| drop(sender.send(line)));
        });
        let mut log = Log { early: VecDeque::new(), lines };
        let [grpc, http] = log.addresses();
        Process { child, log: Mutex::new(log), client: Client::new(http), grpc }
    }

    /// Waits for a log line that has `text` in it.
    pub(crate) fn log_line(&self, text: &str) -> String {
        self.log.lock().unwrap().wait_for(text)
    }

    /// The lines that nobody waited for, until the process closes its log.
    pub(crate) fn rest_of_log(&self) -> Vec<String> {
        let mut log = self.log.lock().unwrap();
        let early: Vec<String> = log.early.drain(..).collect();
        early.into_iter().chain(log.lines.iter()).collect()
    }

    pub(crate) fn signal(&self, name: &str) {
        let status = Command::new("kill").args([&format!("-{name}"), &self.child.id().to_string()]).status().unwrap();
        assert!(status.success());
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Bytes of memory that it had at most since it began or since [`forget_peak`](Process::forget_peak).
    pub(crate) fn peak(&self) -> u64 {
        self.memory("VmHWM:")
    }

    /// Begins to look for the most memory anew, from what it has now.
    pub(crate) fn forget_peak(&self) -> u64 {
        std::fs::write(format!("/proc/{}/clear_refs", self.child.id()), "5").unwrap();
        self.peak()
    }

    pub(crate) fn wait(&mut self) -> ExitStatus {
        self.wait_for(HANGS).expect("the process ends")
    }

    /// How it ended, or `None` if it still runs after `time`.
    pub(crate) fn wait_for(&mut self, time: Duration) -> Option<ExitStatus> {
        let began = Instant::now();
        loop {
            let ended = self.child.try_wait().unwrap();
            if ended.is_some() || began.elapsed() > time {
                return ended;
            }
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// Bytes of a line of its status, as `VmRSS:`.
    pub(crate) fn memory(&self, line: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let value = status.lines().find_map(|text| text.strip_prefix(line)).unwrap();
        value.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() << 10
    }

    /// The descriptors that it has open.
    pub(crate) fn descriptors(&self) -> Vec<u64> {
        let entries = std::fs::read_dir(format!("/proc/{}/fd", self.child.id())).unwrap();
        entries.map(|entry| entry.unwrap().file_name().to_str().unwrap().parse().unwrap()).collect()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

/// A program that ends with its test, however that ends.
pub(crate) struct Killed(pub(crate) Child);

impl Drop for Killed {
    fn drop(&mut self) {
        end(&mut self.0);
    }
}

fn end(child: &mut Child) {
    // It may have ended already.
    let _ = child.kill();
    let _ = child.wait();
}

/// The log of a process, line by line.
struct Log {
    /// Lines that came before the addresses.
    early: VecDeque<String>,
    lines: Receiver<String>,
}

impl Log {
    /// The addresses of gRPC and of HTTP. Keeps the lines before them, since a server loads its model meanwhile.
    fn addresses(&mut self) -> [SocketAddr; 2] {
        let mut found = [None, None];
        while let [None, _] | [_, None] = found {
            let Ok(line) = self.lines.recv_timeout(HANGS) else {
                panic!("the server does not listen: {:#?}", self.early)
            };
            // Over TLS they are grpcs and https.
            let place = ["listening on grpc", "listening on http"].iter().position(|scheme| line.contains(scheme));
            match place {
                Some(place) => {
                    let address = line.split("://").nth(1).unwrap().split(['"', ' ']).next().unwrap();
                    found[place] = Some(address.parse().unwrap());
                }
                None => self.early.push_back(line),
            }
        }
        found.map(Option::unwrap)
    }

    /// The next line that has `text` in it.
    fn wait_for(&mut self, text: &str) -> String {
        let mut seen = Vec::new();
        while let Some(line) = self.early.pop_front().or_else(|| self.lines.recv_timeout(HANGS).ok()) {
            if line.contains(text) {
                return line;
            }
            seen.push(line);
        }
        panic!("no {text:?} in {seen:#?}");
    }
}

/// The binary with arguments and without the test's environment of flags.
pub(crate) fn canet(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_canet"));
    command.args(arguments).stdin(Stdio::null());
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("CANET_") {
            command.env_remove(name);
        }
    }
    command
}

/// Runs the binary to its end: its exit code and standard error.
pub(crate) fn run(command: &mut Command) -> (Option<i32>, String) {
    let mut child = command.stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    let mut stderr = String::new();
    child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
    (child.wait().unwrap().code(), stderr)
}
