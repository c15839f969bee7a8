//! A recorded load over every transport while versions come and go: each row that was sent is answered once, by one version that
//! served at that time, and the answer log says the same.
//!
//! `CANET_TEST_CHAOS=50 cargo test --release --test it exactly_once::` makes fifty times as many reloads.

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpStream;
use std::sync::{Condvar, Mutex};
use std::thread;
use std::time::Instant;

use canet_api::proto::canet::v1 as proto;
use prost::Message;
use serde_json::{Value, json};

use super::chaos::rounds;
use super::grpc_client::{frame, unframed};
use super::http2_client::Http2;
use super::server::{Client, Process, numbered};
use super::support::{draft, small_config};

/// Reloads of a round.
const RELOADS: u64 = 8;

/// Rows of a call that has several.
const ROWS: usize = 3;

/// Where the calls go, as metrics name it.
const ENDPOINTS: [&str; 4] =
    ["/recommend", "/recommend/batch", "/v2/models/{name}/infer", "/canet.v1.Recommender/RecommendStream"];

/// A row as its client saw it.
struct Answered {
    user: String,
    version: u64,
    items: Vec<String>,
    sent: Instant,
    received: Instant,
}

/// When a version may have served: from the call that loaded it to the answer of the call that replaced it.
struct Served {
    version: u64,
    from: Instant,
    to: Option<Instant>,
}

/// One call over a transport for these users: the version and the items of each.
type Call = fn(&Process, &Client, &[String]) -> Vec<(u64, Vec<String>)>;

/// A history that differs between users.
fn history(user: &str) -> Vec<String> {
    let number = user.bytes().map(u32::from).sum::<u32>();
    (0..=number % 5).map(|place| (101 + (number * 7 + place * 3) % 40).to_string()).collect()
}

fn items(answer: &Value) -> Vec<String> {
    let items = answer["items"].as_array().unwrap_or_else(|| panic!("{answer}"));
    items.iter().map(|item| item["item"].as_str().unwrap().to_owned()).collect()
}

fn row(user: &str) -> Value {
    json!({"history": history(user), "user": user, "k": 3})
}

fn one(_: &Process, client: &Client, users: &[String]) -> Vec<(u64, Vec<String>)> {
    let ask = |user: &String| {
        let reply = client.recommend(&row(user));
        assert_eq!(reply.status, 200, "{reply:?}");
        let answer = reply.json();
        (answer["model"]["version"].as_u64().unwrap(), items(&answer))
    };
    users[..1].iter().map(ask).collect()
}

fn batch(_: &Process, client: &Client, users: &[String]) -> Vec<(u64, Vec<String>)> {
    let rows: Vec<Value> = users.iter().map(|user| row(user)).collect();
    let reply = client.post("/recommend/batch", &json!({"requests": rows}));
    assert_eq!(reply.status, 200, "{reply:?}");
    let answer = reply.json();
    let results = answer["results"].as_array().unwrap();
    results.iter().map(|result| (result["model"]["version"].as_u64().unwrap(), items(result))).collect()
}

fn infer(_: &Process, client: &Client, users: &[String]) -> Vec<(u64, Vec<String>)> {
    let histories: Vec<String> = users.iter().map(|user| json!(history(user)).to_string()).collect();
    let tensor =
        |name: &str, data: Value| json!({"name": name, "datatype": "BYTES", "shape": [users.len()], "data": data});
    let k = json!({"name": "k", "datatype": "INT64", "shape": [1], "data": [3]});
    let body = json!({"inputs": [tensor("history", json!(histories)), tensor("user", json!(users)), k]});
    let reply = client.post("/v2/models/small/infer", &body);
    assert_eq!(reply.status, 200, "{reply:?}");
    let answer = reply.json();
    let version = answer["model_version"].as_str().unwrap().parse().unwrap();
    let outputs = answer["outputs"].as_array().unwrap();
    let ranked = outputs.iter().find(|output| output["name"] == "items").unwrap()["data"].as_array().unwrap();
    let texts = |row: &[Value]| row.iter().map(|item| item.as_str().unwrap().to_owned()).collect();
    ranked.chunks(3).map(|row| (version, texts(row))).collect()
}

fn stream(process: &Process, _: &Client, users: &[String]) -> Vec<(u64, Vec<String>)> {
    let requests = users.iter().map(|user| proto::RecommendRequest {
        history: history(user),
        user: Some(user.clone()),
        k: Some(3),
        ..Default::default()
    });
    let message = proto::RecommendStreamRequest { requests: requests.collect() };
    let mut connection = Http2::open(TcpStream::connect(process.grpc).unwrap(), 1 << 20).unwrap();
    let call = connection
        .post("/canet.v1.Recommender/RecommendStream", "application/grpc", &frame(&message.encode_to_vec()))
        .unwrap();
    let body = connection.answer(call).unwrap().expect("status 200");
    let mut rows = vec![None; users.len()];
    for answer in unframed::<proto::RecommendStreamResponse>(&body) {
        let result = answer.result.unwrap().outcome;
        let Some(proto::recommend_result::Outcome::Recommendation(found)) = result else { panic!("{result:?}") };
        let items = found.items.into_iter().map(|item| item.item).collect();
        let before = rows[answer.index as usize].replace((found.model.unwrap().version, items));
        assert!(before.is_none(), "row {} is answered twice", answer.index);
    }
    rows.into_iter().map(|row| row.expect("every row is answered")).collect()
}

/// How far the load is. It ends with the reloads, and where a client or a reload fails.
#[derive(Default)]
struct Load {
    state: Mutex<LoadState>,
    changed: Condvar,
}

#[derive(Default)]
struct LoadState {
    /// Calls that each client has made.
    calls: [u64; 4],
    has_ended: bool,
}

impl Load {
    fn has_ended(&self) -> bool {
        self.state.lock().unwrap().has_ended
    }

    fn called(&self, client: usize) {
        self.state.lock().unwrap().calls[client] += 1;
        self.changed.notify_all();
    }

    /// Waits until each client has been answered again: also by a call that began after this one.
    fn wait_for_all(&self) {
        let state = self.state.lock().unwrap();
        let before = state.calls;
        let waits = |state: &mut LoadState| {
            !state.has_ended && state.calls.iter().zip(before).any(|(calls, before)| *calls < before + 2)
        };
        drop(self.changed.wait_while(state, waits).unwrap());
    }
}

/// Ends the load when it drops.
struct End<'a>(&'a Load);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.state.lock().unwrap().has_ended = true;
        self.0.changed.notify_all();
    }
}

/// Calls until the load ends, each time for users of its own.
fn call_on(process: &Process, (place, name, call): (usize, &str, Call), load: &Load) -> Vec<Answered> {
    let _end = End(load);
    let client = Client::new(process.client.address);
    let mut answered = Vec::new();
    let mut number = 0;
    while !load.has_ended() {
        let users: Vec<String> = (number..number + ROWS).map(|number| format!("{name} {number}")).collect();
        number += ROWS;
        let sent = Instant::now();
        let rows = call(process, &client, &users);
        let received = Instant::now();
        answered.extend(users.into_iter().zip(rows).map(|(user, (version, items))| Answered {
            user,
            version,
            items,
            sent,
            received,
        }));
        load.called(place);
    }
    answered
}

/// Reloads one version after the other. Version 1 serves since `began`. Each version answers all clients.
fn reload(client: &Client, reloads: u64, load: &Load, began: Instant) -> Vec<Served> {
    let _end = End(load);
    load.wait_for_all();
    let mut served = vec![Served { version: 1, from: began, to: None }];
    for number in 0..reloads {
        let version = 2 - number % 2;
        let from = Instant::now();
        let reply = client.post("/admin/reload", &json!({"version": version}));
        assert_eq!(reply.status, 200, "{reply:?}");
        served.last_mut().unwrap().to = Some(Instant::now());
        served.push(Served { version, from, to: None });
        load.wait_for_all();
    }
    served
}

#[test]
fn each_row_is_answered_once_by_a_version_that_served_then() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("small");
    for seed in [3, 4] {
        numbered(draft(small_config(), seed)).write(&root).unwrap();
    }
    let log = directory.path().join("log");
    let log_flag = ["--answer-log", log.to_str().unwrap()];
    let flags = [&["--version", "1", "--drain-delay", "0", "--queue-limit-ms", "60000"], &log_flag[..]].concat();
    let mut server = Process::serve(&root, &flags);
    let (load, began) = (Load::default(), Instant::now());
    let calls: [(usize, &str, Call); 4] =
        [(0, "http", one), (1, "batch", batch), (2, "infer", infer), (3, "stream", stream)];
    let (served, answered) = thread::scope(|scope| {
        let workers = calls.map(|call| {
            let (server, load) = (&server, &load);
            scope.spawn(move || call_on(server, call, load))
        });
        let served = scope.spawn(|| reload(&server.client, RELOADS * rounds(1), &load, began));
        let answered: Vec<Answered> = workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect();
        (served.join().unwrap(), answered)
    });
    for row in &answered {
        let served_then = |served: &&Served| {
            served.version == row.version && served.from <= row.received && served.to.is_none_or(|to| row.sent <= to)
        };
        assert!(
            served.iter().any(|served| served_then(&served)),
            "{}: version {} did not serve",
            row.user,
            row.version
        );
        assert_eq!(row.items.len(), 3, "{}", row.user);
    }
    for version in [1, 2] {
        assert!(answered.iter().any(|row| row.version == version), "version {version} answered nothing");
    }
    // Every call that a client made is counted once.
    let rows = |name: &str| answered.iter().filter(|row| row.user.starts_with(name)).count();
    let sent = rows("http") + (rows("batch") + rows("infer") + rows("stream")) / ROWS;
    let scrape = server.client.get("/metrics").text;
    let counted = scrape.lines().filter(|line| {
        let is_one = |path: &&str| line.contains(&format!("endpoint=\"{path}\""));
        line.starts_with("canet_requests_total{") && ENDPOINTS.iter().any(is_one)
    });
    let counted: f64 = counted.map(|line| line.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap()).sum();
    assert_eq!(counted, sent as f64, "calls that were counted and sent");
    server.signal("TERM");
    assert_eq!(server.wait().code(), Some(0));

    let mut logged: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for file in fs::read_dir(&log).unwrap() {
        for line in fs::read_to_string(file.unwrap().path()).unwrap().lines() {
            let line: Value = serde_json::from_str(line).unwrap();
            logged.entry(line["user"].as_str().unwrap().to_owned()).or_default().push(line);
        }
    }
    assert_eq!(logged.len(), answered.len(), "users of the log and of the clients");
    for row in &answered {
        let lines = &logged[&row.user];
        assert_eq!(lines.len(), 1, "{}: {lines:?}", row.user);
        assert_eq!(
            (&lines[0]["version"], &lines[0]["items"]),
            (&json!(row.version), &json!(row.items)),
            "{}",
            row.user
        );
    }
    println!("{} rows, {} reloads", answered.len(), served.len() - 1);
}
