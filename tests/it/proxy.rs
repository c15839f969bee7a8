//! The nginx configuration of `docs/network.md`, in front of a server. Without nginx the test has nothing to run and says so.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::Arc;

use canet_api::proto::canet::v1 as proto;
use canet_api::proto::inference;
use prost::Message;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};

use super::grpc_client::frame;
use super::http2_client::Http2;
use super::raw::{RawReply, connect};
use super::server::{Killed, Process};
use super::tls::{Files, authority, config, identity};

/// The first block of nginx's language that has a whole configuration.
fn documented() -> &'static str {
    let page = include_str!("../../docs/network.md");
    let mut blocks = page.split("```nginx\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    blocks.find(|block| block.contains("events {")).unwrap()
}

fn nginx() -> Option<&'static str> {
    ["nginx", "/usr/sbin/nginx"].into_iter().find(|name| {
        Command::new(name)
            .arg("-v")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success())
    })
}

#[test]
fn the_documented_configuration_passes_calls_on_and_keeps_the_rest_inside() {
    let nginx = nginx().expect("nginx is needed: `make test` installs it for root on Debian or Ubuntu");
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let authority = authority("proxy");
    let own = identity(&authority);
    std::fs::write(path("cert.pem"), own.certificate.pem()).unwrap();
    std::fs::write(path("key.pem"), own.key.serialize_pem()).unwrap();
    // A server without TLS: the proxy ends it.
    let files = Files::new();
    let server = Process::serve(&files.path("small"), &[]);
    // nginx takes no port 0. The port is free when this is dropped.
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("{kind}_temp_path {};\n", path(kind)))
        .concat();
    let mut text = documented().to_owned();
    for (from, to) in [
        ("http {", format!("http {{\naccess_log off;\n{temporary}")),
        ("server 127.0.0.1:8080;", format!("server {};", server.client.address)),
        ("server 127.0.0.1:8081;", format!("server {};", server.grpc)),
        ("listen 443 ssl http2;", format!("listen {address} ssl http2;")),
        ("/etc/nginx/recommend.example.pem", path("cert.pem")),
        ("/etc/nginx/recommend.example.key", path("key.pem")),
    ] {
        assert_eq!(text.matches(from).count(), 1, "{from}");
        text = text.replace(from, &to);
    }
    std::fs::write(path("nginx.conf"), text).unwrap();
    let directives = format!("daemon off; master_process off; pid {};", path("pid"));
    let mut command = Command::new(nginx);
    command.args(["-p", &path(""), "-c", &path("nginx.conf"), "-e", "stderr", "-g", &directives]);
    let check = Command::new(nginx).args(command.get_args()).arg("-t").output().unwrap();
    assert!(check.status.success(), "{}", String::from_utf8_lossy(&check.stderr));
    let _nginx = Killed(command.spawn().unwrap());

    let tls = Arc::new(config(&authority, None));
    let ask = |request: &str| exchange(address, &tls, request);
    let body = r#"{"history":["101"],"k":3}"#;
    let recommend = format!(
        "POST /recommend HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    );
    let reply = ask(&recommend);
    assert_eq!(reply.status, 200, "{reply:?}");
    assert_eq!(reply.header("x-request-id").map(str::len), Some(32), "nginx names the request: {reply:?}");
    for (path, status) in
        [("/", 200), ("/model", 200), ("/metrics", 404), ("/healthz", 404), ("/readyz", 404), ("/admin/reload", 404)]
    {
        let reply = ask(&format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"));
        assert_eq!(reply.status, status, "{path}: {reply:?}");
    }
    let large = recommend.replace(&format!("content-length: {}", body.len()), "content-length: 1048577");
    assert_eq!(ask(&large).status, 413);

    let mut http2 = Arc::unwrap_or_clone(tls);
    http2.alpn_protocols = vec![b"h2".to_vec()];
    let http2 = Arc::new(http2);
    let mut connection = Http2::open(secured(address, &http2), 1 << 16).unwrap();
    let request = proto::RecommendRequest { history: vec!["101".to_owned()], k: Some(3), ..Default::default() };
    let message = frame(&request.encode_to_vec());
    let stream = connection.post("/canet.v1.Recommender/Recommend", "application/grpc", &message).unwrap();
    let answer = connection.answer(stream).unwrap().expect("a message");
    assert_eq!(proto::RecommendResponse::decode(&answer[5..]).unwrap().items.len(), 3);
    let path = "/inference.GRPCInferenceService/ServerMetadata";
    let stream = connection.post(path, "application/grpc", &frame(&[])).unwrap();
    let answer = connection.answer(stream).unwrap().expect("a message");
    assert_eq!(inference::ServerMetadataResponse::decode(&answer[5..]).unwrap().name, "canet");
}

/// Connects as soon as nginx listens.
fn secured(address: SocketAddr, config: &Arc<ClientConfig>) -> impl Read + Write + use<> {
    let name = ServerName::try_from("localhost").unwrap();
    let tcp = std::iter::repeat_with(|| TcpStream::connect(address)).take(1_000_000).find_map(Result::ok);
    drop(tcp.expect("nginx listens"));
    StreamOwned::new(ClientConnection::new(Arc::clone(config), name).unwrap(), connect(address))
}

fn exchange(address: SocketAddr, config: &Arc<ClientConfig>, request: &str) -> RawReply {
    let mut stream = secured(address, config);
    let _ = stream.write_all(request.as_bytes());
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes);
    RawReply::parse(&bytes).expect("an answer")
}
