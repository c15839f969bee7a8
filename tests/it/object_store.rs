//! Models in a bucket: `canet publish`, and `--model s3://` of other commands. moto's server is the store.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::server::{Client, Process, canet, numbered};
use super::support::{draft, script, small_config};

/// Where the tests have their model.
const MODEL: &str = "s3://models/shop/small";

/// Makes a request of a test its store's owner. The store asks for no right signature.
const OWNER: (&str, &str) = (
    "authorization",
    "AWS4-HMAC-SHA256 Credential=AKIAOWNER/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0",
);

/// What a line does with new connections.
#[derive(Clone, Copy, PartialEq)]
enum Line {
    Open,
    /// Breaks each connection after this many bytes from the store.
    Short(u64),
    Cut,
    /// Answers that the credentials have expired.
    Expired,
    Gone,
}

/// A store with an empty bucket `models`, and a line to it that can be cut.
struct Store {
    moto: Child,
    /// The store itself.
    direct: Client,
    line: Arc<Mutex<(Line, Vec<TcpStream>)>>,
    /// The near end of the line.
    address: SocketAddr,
    scratch: TempDir,
}

impl Store {
    fn start() -> Store {
        let mut moto =
            script("s3_server.py").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut port = String::new();
        BufReader::new(moto.stdout.take().unwrap()).read_line(&mut port).unwrap();
        let store = SocketAddr::from(([127, 0, 0, 1], port.trim().parse().unwrap()));
        let direct = Client::new(store);
        assert_eq!(direct.send("PUT", "/models", &[], b"").status, 200);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let line = Arc::new(Mutex::new((Line::Open, Vec::new())));
        let state = Arc::clone(&line);
        thread::spawn(move || carry(&listener, store, &state));
        Store { moto, direct, line, address, scratch: tempfile::tempdir().unwrap() }
    }

    /// Changes the line and ends its connections.
    fn set(&self, line: Line) {
        let mut state = self.line.lock().unwrap();
        state.0 = line;
        for connection in state.1.drain(..) {
            let _ = connection.shutdown(Shutdown::Both);
        }
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.scratch.path().join(name)
    }

    /// Writes the next version of the local model.
    fn write(&self, seed: u64) -> u64 {
        numbered(draft(small_config(), seed)).write(&self.path("small")).unwrap().version
    }

    /// The binary, with the settings of this store.
    fn canet(&self) -> Command {
        let mut command = canet(&[]);
        for name in [
            "AWS_CA_BUNDLE",
            "AWS_SESSION_TOKEN",
            "AWS_PROFILE",
            "AWS_ENDPOINT_URL_S3",
            "HTTP_PROXY",
            "http_proxy",
            "ALL_PROXY",
        ] {
            command.env_remove(name);
        }
        command
            .env("AWS_ENDPOINT_URL", format!("http://{}", self.address))
            .env("AWS_ALLOW_HTTP", "true")
            .env("AWS_ACCESS_KEY_ID", "AKIAEXAMPLE")
            .env("AWS_SECRET_ACCESS_KEY", "never-shown")
            .env("AWS_REGION", "eu-west-1")
            .env("CANET_MODEL_CACHE", self.path("cache"));
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.canet().args(arguments).output().unwrap()
    }

    /// The exit code and the message of a command that must fail.
    fn refusal(&self, arguments: &[&str]) -> (i32, String) {
        let output = self.run(arguments);
        let message = String::from_utf8(output.stderr).unwrap();
        assert!(!message.contains("never-shown"), "{message}");
        (output.status.code().unwrap(), message)
    }

    /// Publishes a version of the local model and returns its address.
    fn publish(&self, more: &[&str]) -> String {
        let local = self.path("small");
        let output = self.run(&[&["publish", local.to_str().unwrap(), MODEL], more].concat());
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    fn serve(&self, flags: &[&str]) -> Process {
        Process::serve_by(self.canet(), Path::new(MODEL), flags)
    }

    /// Replaces or adds an object behind everybody's back.
    fn put(&self, key: &str, bytes: &[u8]) {
        let path = format!("/models/shop/small/{key}");
        let reply = self.direct.send("PUT", &path, &[OWNER, ("content-type", "application/octet-stream")], bytes);
        assert_eq!(reply.status, 200, "{reply:?}");
    }

    fn delete(&self, key: &str) {
        assert_eq!(self.direct.send("DELETE", &format!("/models/shop/small/{key}"), &[OWNER], b"").status, 204);
    }

    /// The keys of the model's objects.
    fn keys(&self) -> Vec<String> {
        let listing = self.direct.send("GET", "/models?list-type=2", &[OWNER], b"").text;
        let keys = listing.split("<Key>").skip(1).map(|rest| rest.split("</Key>").next().unwrap());
        keys.map(|key| key.strip_prefix("shop/small/").unwrap().to_owned()).collect()
    }

    /// The content of an object, which may be no text.
    fn content(&self, key: &str) -> Vec<u8> {
        let url = format!("http://{}/models/shop/small/{key}", self.direct.address);
        ureq::get(&url).header(OWNER.0, OWNER.1).call().unwrap().body_mut().read_to_vec().unwrap()
    }

    /// Whether the store checks who asks. Nobody's credentials are known to it.
    fn check_credentials(&self, checks: bool) {
        let unchecked: &[u8] = if checks { b"0" } else { b"inf" };
        let reply = self.direct.send("POST", "/moto-api/reset-auth", &[("content-type", "text/plain")], unchecked);
        assert_eq!(reply.status, 200, "{reply:?}");
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.set(Line::Gone);
        // Wakes the thread of the line.
        drop(TcpStream::connect(self.address));
        let _ = self.moto.kill();
        let _ = self.moto.wait();
    }
}

/// Carries connections to the store until the line is gone.
fn carry(listener: &TcpListener, store: SocketAddr, state: &Mutex<(Line, Vec<TcpStream>)>) {
    for near in listener.incoming().map_while(Result::ok) {
        let mut state = state.lock().unwrap();
        match state.0 {
            Line::Gone => return,
            Line::Cut => {}
            Line::Expired => drop(thread::spawn(move || answer_expired(near))),
            Line::Open | Line::Short(_) => {
                let most = if let Line::Short(bytes) = state.0 { bytes } else { u64::MAX };
                let far = TcpStream::connect(store).unwrap();
                for ([from, mut to], most) in [([&near, &far], u64::MAX), ([&far, &near], most)]
                    .map(|(ends, most)| (ends.map(|end| end.try_clone().unwrap()), most))
                {
                    thread::spawn(move || {
                        // A cut line ends both ways.
                        let _ = std::io::copy(&mut from.take(most), &mut to);
                        let _ = to.shutdown(Shutdown::Write);
                    });
                }
                state.1.extend([near, far]);
            }
        }
    }
}

/// Answers one request as S3 does once a session token has expired.
fn answer_expired(mut near: TcpStream) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        match near.read(&mut byte) {
            Ok(1) => head.push(byte[0]),
            _ => return,
        }
    }
    let body = "<?xml version=\"1.0\"?><Error><Code>ExpiredToken</Code><Message>The provided token has expired.</Message></Error>";
    let answer =
        format!("HTTP/1.1 400 Bad Request\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len());
    let _ = near.write_all(answer.as_bytes());
}

fn served(client: &Client) -> Value {
    client.recommend(&json!({"history": [101, 105], "k": 3})).json()["model"]["version"].clone()
}

fn reloads(client: &Client, outcome: &str) -> f64 {
    client.metric(&format!("reload_total{{outcome=\"{outcome}\"}}"))
}

const WATCH: [&str; 3] = ["--watch", "--watch-interval", "0.1"];

#[test]
fn a_published_version_is_whole_and_is_never_replaced() {
    let store = Store::start();
    store.write(1);
    assert_eq!(store.publish(&[]), format!("{MODEL}/1"));
    let mut names = ["canet.json", "items.tsv", "probes.safetensors", "titles.tsv", "weights.safetensors"];
    names.sort_unstable();
    assert_eq!(store.keys(), names.map(|name| format!("1/{name}")));
    // The same version again is no change.
    assert_eq!(store.publish(&[]), format!("{MODEL}/1"));

    store.write(2);
    let local = store.path("small");
    let publish = |more: &[&str]| store.refusal(&[&["publish", local.to_str().unwrap(), MODEL], more].concat());
    let (code, message) = publish(&["--as", "1"]);
    assert_eq!(code, 65);
    assert!(
        message.contains(&format!("{MODEL}/1 holds another version")) && message.contains("--as next"),
        "{message}"
    );
    // Another writer's upload broke off: its number is taken, and nobody takes it for a version.
    store.put("2/canet.json.uploading", b"{}");
    store.put("2/weights.safetensors", b"half");
    let (code, message) = publish(&[]);
    assert_eq!(code, 65);
    assert!(message.contains(&format!("{MODEL}/2 has objects of another upload")), "{message}");
    let shown = store.run(&["inspect", "--json", "--model", MODEL]);
    assert_eq!(serde_json::from_slice::<Value>(&shown.stdout).unwrap()["version"], 1);
    // An upload of one's own that broke off is finished.
    store.put("4/canet.json.uploading", &fs::read(local.join("2/canet.json")).unwrap());
    store.put("4/weights.safetensors", b"half");
    assert_eq!(store.publish(&["--as", "4"]), format!("{MODEL}/4"));
    // A job that is tried again publishes no second copy.
    assert_eq!(store.publish(&["--as", "next"]), format!("{MODEL}/4"));
    for _ in 0..2 {
        assert_eq!(store.publish(&["--as", "next", "--version", "1"]), format!("{MODEL}/5"));
    }
    store.put("6/canet.json.uploading", &fs::read(local.join("2/canet.json")).unwrap());
    assert_eq!(store.publish(&["--as", "next"]), format!("{MODEL}/6"));
    assert!(!store.keys().contains(&"4/canet.json.uploading".to_owned()));
    for name in names {
        assert_eq!(fs::read(local.join("2").join(name)).unwrap(), store.content(&format!("4/{name}")), "{name}");
    }
}

#[test]
fn other_commands_read_a_copy_of_a_version_and_copy_it_once() {
    let store = Store::start();
    for seed in 1..=5 {
        store.write(seed);
        store.publish(&[]);
    }
    let inspect = |version: &str| store.run(&["inspect", "--json", "--model", MODEL, "--version", version]);
    let local = store.run(&["inspect", "--json", "--model", store.path("small").to_str().unwrap(), "--version", "5"]);
    assert_eq!(inspect("5").stdout, local.stdout);
    // The copy is used again: the store has no weights any more.
    store.delete("5/weights.safetensors");
    assert_eq!(inspect("5").stdout, local.stdout);
    // A copy that was damaged is replaced.
    let copies = fs::read_dir(store.path("cache")).unwrap().next().unwrap().unwrap().path().join("small");
    assert!(inspect("4").status.success());
    fs::write(copies.join("4/items.tsv"), "damaged").unwrap();
    assert!(inspect("4").status.success());
    // Three copies stay.
    for version in ["3", "2", "1"] {
        assert!(inspect(version).status.success());
    }
    let mut kept: Vec<String> =
        fs::read_dir(&copies).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    kept.sort_unstable();
    assert_eq!(kept, ["1", "2", "3"]);

    for (arguments, code, words) in [
        (["--model", MODEL, "--version", "9"], 65, "there is no version 9; the model has versions 1, 2, 3, 4 and 5"),
        (["--model", MODEL, "--version", "5"], 65, "shop/small/5/weights.safetensors: the file is missing"),
        (["--model", "s3://models/shop", "--version", "1"], 65, "there is no version 1"),
        (["--model", "s3://nowhere/small", "--version", "1"], 69, "the bucket does not exist"),
        (["--model", "s3://", "--version", "1"], 64, "s3://BUCKET/PREFIX"),
    ] {
        let (found, message) = store.refusal(&[&["inspect"][..], &arguments].concat());
        assert_eq!(found, code, "{message}");
        assert!(message.contains(words), "{message}");
    }
    let (code, message) = store.refusal(&["inspect", "--model", "s3://models/shop"]);
    assert!(code == 65 && message.contains("name one of them, as s3://models/shop/small"), "{message}");
    let (code, message) = store.refusal(&["inspect", "--model", "s3://models/shop/small/3"]);
    assert!(
        code == 65 && message.contains("give the model's directory, s3://models/shop/small, and --version 3"),
        "{message}"
    );
}

#[test]
fn a_watched_bucket_serves_each_new_version_that_is_good() {
    let store = Store::start();
    store.write(1);
    store.publish(&[]);
    let server = store.serve(&WATCH);
    assert_eq!(served(&server.client), 1);
    let reply = server.client.get("/model").json();
    assert_eq!((&reply["name"], &reply["version"]), (&json!("small"), &json!(1)));
    store.write(2);
    store.publish(&[]);
    server.log_line("the model serves");
    assert_eq!(served(&server.client), 2);

    // Other bytes than the manifest's, under its name.
    let version = store.write(3);
    let local = store.path("small").join(version.to_string());
    store.put("3/weights.safetensors", b"other bytes");
    for name in ["items.tsv", "probes.safetensors", "canet.json"] {
        store.put(&format!("3/{name}"), &fs::read(local.join(name)).unwrap());
    }
    let line = server.log_line("no model was loaded");
    assert!(line.contains("s3://models/shop/small/3/weights.safetensors: sha256 is"), "{line}");
    assert_eq!((served(&server.client), reloads(&server.client, "rejected")), (json!(2), 1.0));
    // An object that is missing. It is noticed when it comes.
    store.write(4);
    let local = store.path("small").join("4");
    for name in ["weights.safetensors", "probes.safetensors", "canet.json"] {
        store.put(&format!("4/{name}"), &fs::read(local.join(name)).unwrap());
    }
    let line = server.log_line("the version is incomplete");
    assert!(line.contains("s3://models/shop/small/4/items.tsv: the file is missing"), "{line}");
    assert_eq!((served(&server.client), reloads(&server.client, "incomplete")), (json!(2), 1.0));
    store.put("4/items.tsv", &fs::read(local.join("items.tsv")).unwrap());
    server.log_line("the model serves");
    assert_eq!(served(&server.client), 4);
    // An operator's reload takes an earlier version, from the bucket.
    let reply = server.client.post("/admin/reload", &json!({"version": 1}));
    assert_eq!((reply.status, served(&server.client)), (200, json!(1)));
    assert_eq!(server.client.post("/admin/reload", &json!({"version": 9})).status, 404);
}

#[test]
fn a_server_keeps_its_model_while_the_store_fails_and_then_goes_on() {
    let store = Store::start();
    store.write(1);
    store.publish(&[]);
    let server = store.serve(&WATCH);
    store.write(2);
    let mut failed = 0.0;
    for (begin, words) in [
        (&|| store.set(Line::Cut) as (), "the store cannot be reached"),
        (&|| store.set(Line::Expired), "the credentials have expired (ExpiredToken)"),
        (&|| store.check_credentials(true), "the store does not know these credentials (InvalidAccessKeyId)"),
    ] as [(&dyn Fn(), &str); 3]
    {
        begin();
        let line = server.log_line("the store cannot be read");
        assert!(line.contains(words) && line.contains("s3://models/shop/small"), "{line}");
        assert!(!line.contains("never-shown"), "{line}");
        let now = reloads(&server.client, "failed");
        assert!(now > failed, "{now}");
        let reply = server.client.post("/admin/reload", &json!({"version": 1}));
        assert!(reply.status == 503 && reply.text.contains(words), "{reply:?}");
        assert_eq!(served(&server.client), 1);
        failed = reloads(&server.client, "failed");
        store.set(Line::Open);
        store.check_credentials(false);
        server.log_line("the store can be read again");
    }
    store.publish(&[]);
    server.log_line("the model serves");
    assert_eq!(served(&server.client), 2);
}

#[test]
fn a_download_that_breaks_off_goes_on_as_long_as_it_proceeds() {
    let store = Store::start();
    store.write(1);
    store.publish(&[]);
    let weights = fs::metadata(store.path("small/1/weights.safetensors")).unwrap().len();
    // More breaks than the client takes for one call.
    store.set(Line::Short(weights / 12 + 2000));
    assert_eq!(served(&store.serve(&[]).client), 1);
    let copies = fs::read_dir(store.path("cache")).unwrap().next().unwrap().unwrap().path();
    let weights =
        [copies.join("small"), store.path("small")].map(|model| fs::read(model.join("1/weights.safetensors")));
    let [copied, written] = weights.map(Result::unwrap);
    assert!(copied == written);
}

#[test]
fn a_store_that_is_down_at_the_start_is_an_error_unless_there_is_a_copy() {
    let store = Store::start();
    store.write(1);
    store.publish(&[]);
    store.set(Line::Cut);
    let arguments = ["serve", "--listen", "127.0.0.1:0", "--grpc", "127.0.0.1:0", "--device", "cpu", "--model", MODEL];
    let (code, message) = store.refusal(&arguments);
    assert_eq!(code, 69, "{message}");
    let words = ["s3://models/shop/small", "the store cannot be reached", "AWS_ENDPOINT_URL"];
    assert!(words.iter().all(|word| message.contains(word)), "{message}");

    store.set(Line::Open);
    assert_eq!(served(&store.serve(&[]).client), 1);
    store.write(2);
    store.publish(&[]);
    store.set(Line::Cut);
    let server = store.serve(&WATCH);
    assert_eq!((served(&server.client), reloads(&server.client, "served")), (json!(1), 1.0));
    assert!(reloads(&server.client, "failed") >= 1.0);
    store.set(Line::Open);
    server.log_line("the model serves");
    assert_eq!(served(&server.client), 2);
}

#[test]
fn a_store_that_was_down_at_the_start_undoes_neither_a_named_version_nor_a_candidate() {
    let store = Store::start();
    for seed in 1..=2 {
        store.write(seed);
        store.publish(&[]);
    }
    // Leaves a copy of the first version.
    assert_eq!(served(&store.serve(&["--version", "1"]).client), 1);
    store.set(Line::Cut);
    let named = store.serve(&[&["--version", "1"], &WATCH[..]].concat());
    let compared = store.serve(&[&["--candidate", "2", "--candidate-share", "0.5"], &WATCH[..]].concat());
    named.log_line("the store cannot be read");
    store.set(Line::Open);
    // The second version was there before the servers, and nobody wants it for everybody.
    named.log_line("the store can be read again");
    compared.log_line("the candidate answers its share of the users");
    store.write(3);
    store.publish(&[]);
    named.log_line("version=3 digest=");
    assert_eq!((served(&named.client), reloads(&named.client, "served")), (json!(3), 2.0));
    let described = compared.client.get("/model").json();
    assert_eq!((&described["version"], &described["candidate"]["version"]), (&json!(1), &json!(2)));
}
