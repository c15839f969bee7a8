//! Connections on which nothing is asked do not keep their places, nor hold up the end.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use canet_api::{self, Access, Connections, Timeouts, Tls, TlsFiles};
use canet_model::ModelConfig;
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::http2::{self, DATA, Frame, GOAWAY, HEADERS, OK, SETTINGS, frame, get, open};
use super::raw::{RawReply, connect, post, read_to_close};
use super::server::{ROOMY, Server, numbered};
use super::support::{draft, reference, small_config};
use super::tls::{authority, identity};

/// Short enough to be waited for.
const PATIENCE: Duration = Duration::from_secs(1);

/// A client of HTTP/2 that has sent its settings and these frames, and acknowledges nothing.
fn http2(address: SocketAddr, frames: &[u8]) -> TcpStream {
    let mut stream = connect(address);
    open(&mut stream, &[frame(SETTINGS, 0, 0, &[]), frames.to_vec()]);
    stream
}

/// A request to `/recommend` whose body begins so.
fn recommend(body: &[u8]) -> Vec<u8> {
    [http2::post(1, "/recommend", "application/json"), frame(DATA, 0, 1, body)].concat()
}

/// Reads up to a head or a farewell: its frame's type and payload.
fn next(stream: &mut TcpStream) -> (u8, Vec<u8>) {
    loop {
        let next = Frame::read(stream).unwrap().expect("GOAWAY comes before the end");
        if matches!(next.kind, HEADERS | GOAWAY) {
            return (next.kind, next.payload);
        }
    }
}

#[test]
fn over_http2_a_connection_without_an_open_request_ends_and_one_with_goes_on() {
    // The half-sent body may take as long as the test does.
    let timeouts = Timeouts { head: PATIENCE, body: LONG, ..Timeouts::default() };
    let server = Server::behind(Access::default(), Connections { timeouts, ..Connections::default() });
    let body = br#"{"history":[101]}"#;
    let mut busy = http2(server.client.address, &recommend(&body[..4]));
    let mut idle = http2(server.client.address, &get(1, "/healthz"));
    let (kind, head) = next(&mut idle);
    assert_eq!((kind, head[0]), (HEADERS, OK));
    assert_eq!(next(&mut idle).0, GOAWAY);

    // The other one has been open for longer, and is answered before it is told to go.
    busy.write_all(&frame(DATA, 1, 1, &body[4..])).unwrap();
    let (kind, head) = next(&mut busy);
    assert_eq!((kind, head[0]), (HEADERS, OK));
    assert_eq!(next(&mut busy).0, GOAWAY);
}

/// In which nothing but the end closes a connection.
pub(crate) const LONG: Duration = Duration::from_secs(600);

/// A listener of `app` that ends when it is told, and what ends with it.
pub(crate) fn listen(
    runtime: &Runtime,
    app: Router,
    connections: Connections,
    mut stopped: watch::Receiver<()>,
) -> (SocketAddr, JoinHandle<()>) {
    let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
    let address = listener.local_addr().unwrap();
    let stopped = async move { drop(stopped.changed().await) };
    (address, runtime.spawn(canet_api::serve(listener, app, connections, stopped)))
}

pub(crate) fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}

#[test]
fn at_the_end_connections_that_are_owed_nothing_close_and_others_are_answered() {
    let server = Server::start();
    let directory = tempfile::tempdir().unwrap();
    let [certificates, key] = ["cert.pem", "key.pem"].map(|name| directory.path().join(name));
    let own = identity(&authority("test"));
    std::fs::write(&certificates, own.certificate.pem()).unwrap();
    std::fs::write(&key, own.key.serialize_pem()).unwrap();
    let tls = Tls::load(TlsFiles { certificates, key, client_authorities: None }).unwrap();

    let runtime = runtime();
    let (stop, stopped) = watch::channel(());
    let timeouts = Timeouts { handshake: LONG, first: LONG, head: LONG, body: LONG };
    let [(plain, plain_ended), (secured, secured_ended)] = [None, Some(tls)].map(|tls| {
        let connections = Connections { timeouts, tls, ..Connections::default() };
        listen(&runtime, canet_api::app(&server.recommender, Access::default()), connections, stopped.clone())
    });

    let request = post("/recommend", br#"{"history":[101]}"#);
    let mut asking = connect(plain);
    asking.write_all(&request[..request.len() - 1]).unwrap();
    let mut waiting: Vec<TcpStream> = ["", "PRI * HT", "POST /recommend HTTP/1.1\r\nhost: can"]
        .map(|sent| {
            let mut stream = connect(plain);
            stream.write_all(sent.as_bytes()).unwrap();
            stream
        })
        .into();
    // One that was answered, and does not say that it heard of the end.
    let mut answered = http2(plain, &get(1, "/healthz"));
    assert_eq!(next(&mut answered).0, HEADERS);
    waiting.extend([answered, http2(plain, &[]), connect(secured)]);
    while server.client.metric("requests_in_flight") < 1.0 {}
    stop.send_replace(());
    for stream in &mut waiting {
        read_to_close(stream);
    }
    runtime.block_on(secured_ended).unwrap();

    assert!(!plain_ended.is_finished());
    asking.write_all(&request[request.len() - 1..]).unwrap();
    assert_eq!(RawReply::parse(&read_to_close(&mut asking)).unwrap().status, 200);
    runtime.block_on(plain_ended).unwrap();
}

#[test]
fn an_answer_on_its_way_is_not_cut_off_at_the_end() {
    let draft = numbered(draft(ModelConfig { items: 5_000, ..small_config() }, 11));
    let forward = reference(&draft.config, &draft.weights);
    let server = Server::with(draft, Arc::new(forward), ROOMY);
    let runtime = runtime();
    let (stop, stopped) = watch::channel(());
    let timeouts = Timeouts { handshake: LONG, first: LONG, head: LONG, body: LONG };
    let app = canet_api::app(&server.recommender, Access::default());
    let (address, ended) = listen(&runtime, app, Connections { timeouts, ..Connections::default() }, stopped);

    // By popularity, which is quick; more than the system keeps for a connection.
    let body = json!({"requests": vec![json!({"history": [], "k": 5_000}); 52]}).to_string();
    let mut slow = connect(address);
    slow.write_all(&post("/recommend/batch", body.as_bytes())).unwrap();
    let mut answer = vec![0];
    slow.read_exact(&mut answer).unwrap();
    let mut idle = connect(address);
    idle.write_all(b"GET ").unwrap();
    stop.send_replace(());
    read_to_close(&mut idle);
    // Nobody has read for as long as others were given, and the rest comes all the same.
    answer.extend(read_to_close(&mut slow));
    let reply = RawReply::parse(&answer).unwrap();
    let results = serde_json::from_slice::<Value>(&reply.body).unwrap()["results"].clone();
    assert_eq!(results.as_array().unwrap().len(), 52);
    runtime.block_on(ended).unwrap();
}
