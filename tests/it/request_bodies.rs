//! What a request's body may be packed in, and the memory that bodies share.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use canet_api::{Access, BodyBudget, Connections, Timeouts};
use flate2::Compression;
use flate2::bufread::{GzEncoder, ZlibEncoder};
use serde_json::{Value, json};
use tokio::net::TcpSocket;

use super::raw::{RawReply, exchange, post, read_to_close};
use super::server::{Process, Reply, Server};
use super::support::write_checkpoint;

const JSON: (&str, &str) = ("content-type", "application/json");

/// `{"history":["103","131"],"k":3}` by Node's brotli and by the command `zstd -19`.
const BROTLI: &[u8] = b"\x0b\x0f\x80{\"history\":[\"103\",\"131\"],\"k\":3}\x03";
const ZSTD: &[u8] = b"(\xb5/\xfd$\x1f\xf9\x00\x00{\"history\":[\"103\",\"131\"],\"k\":3}\xfa\x83\xc3/";

fn all(mut packed: impl Read) -> Vec<u8> {
    let mut bytes = Vec::new();
    packed.read_to_end(&mut bytes).unwrap();
    bytes
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    all(GzEncoder::new(bytes, Compression::best()))
}

#[test]
fn compressed_bodies_are_unpacked_by_every_endpoint() {
    let server = Server::start();
    let send = |path: &str, coding: &str, body: &[u8]| {
        server.client.send("POST", path, &[JSON, ("content-encoding", coding)], body)
    };
    let request = json!({"history": ["103", "131"], "k": 3});
    let answer = server.client.recommend(&request).json();
    let zlib = |bytes: &[u8]| all(ZlibEncoder::new(bytes, Compression::best()));
    let text = request.to_string();
    for (coding, body) in [
        ("gzip", gzip(text.as_bytes())),
        ("deflate", zlib(text.as_bytes())),
        ("br", BROTLI.to_vec()),
        ("zstd", ZSTD.to_vec()),
        ("identity", text.clone().into_bytes()),
    ] {
        let reply = send("/recommend", coding, &body);
        assert_eq!((reply.status, reply.json()), (200, answer.clone()), "{coding}");
    }
    let batch = json!({"requests": [request]}).to_string();
    assert_eq!(
        send("/recommend/batch", "gzip", &gzip(batch.as_bytes())).json()["results"][0]["items"],
        answer["items"]
    );

    // The inference protocol's clients pack JSON and binary data together. The header counts unpacked bytes.
    let input = json!({"name": "history", "datatype": "BYTES", "shape": [1], "parameters": {"binary_data_size": 17}});
    let k = json!({"name": "k", "datatype": "INT64", "shape": [1], "data": [3]});
    let head = json!({"inputs": [input, k]}).to_string();
    let body = gzip(&[head.as_bytes(), &13_u32.to_le_bytes(), b"[\"103\",\"131\"]"].concat());
    let length = head.len().to_string();
    let headers = [("content-encoding", "gzip"), ("inference-header-content-length", length.as_str())];
    let reply = server.client.send("POST", "/v2/models/small/infer", &headers, &body);
    assert_eq!(reply.status, 200, "{reply:?}");
    let items: Vec<&Value> = answer["items"].as_array().unwrap().iter().map(|item| &item["item"]).collect();
    assert_eq!(reply.json()["outputs"][0]["data"], json!(items));
}

#[test]
fn bodies_that_cannot_be_unpacked_are_refused_with_the_codings_that_can() {
    let server = Server::start();
    let send = |path: &str, coding: &str, body: &[u8]| {
        server.client.send("POST", path, &[JSON, ("content-encoding", coding)], body)
    };
    let detail = |reply: &Reply| reply.json()["detail"].as_str().unwrap_or_default().to_owned();
    for coding in ["lzma", "compress", "gzip, br"] {
        let reply = send("/recommend", coding, b"{\"history\":[101]}");
        assert_eq!((reply.status, reply.header("accept-encoding")), (415, "gzip, deflate, br, zstd"), "{coding}");
        assert!(detail(&reply).contains(coding) && detail(&reply).contains("gzip, deflate, br, zstd"), "{reply:?}");
    }
    let reply = send("/v2/models/small/infer", "lzma", b"{}");
    assert_eq!((reply.status, reply.header("accept-encoding")), (415, "gzip, deflate, br, zstd"));
    assert!(reply.json()["error"].as_str().is_some_and(|error| error.contains("lzma")), "{reply:?}");
    // A wrong content type says nothing of encodings.
    let reply = server.client.send("POST", "/recommend", &[("content-encoding", "gzip")], &gzip(b"{}"));
    assert!(reply.status == 415 && reply.headers.get("accept-encoding").is_none(), "{reply:?}");

    for (coding, body) in [("gzip", &b"{\"history\":[101]}"[..]), ("br", b"\xff\xff"), ("zstd", &ZSTD[..20])] {
        let reply = send("/recommend", coding, body);
        assert!(reply.status == 400 && detail(&reply).contains(coding), "{reply:?}");
    }
    // A megabyte of zeros in each kilobyte.
    let bomb = gzip(&vec![b'0'; 64 << 20]);
    assert!(bomb.len() < 70 << 10);
    for path in ["/recommend", "/recommend/batch", "/v2/models/small/infer"] {
        assert_eq!(send(path, "gzip", &bomb).status, 413, "{path}");
    }
    assert_eq!(server.client.recommend(&json!({"history": [101]})).status, 200);
}

#[test]
fn a_reload_may_be_asked_for_in_any_coding() {
    let directory = tempfile::tempdir().unwrap();
    let model = directory.path().join("small");
    write_checkpoint(&model, 9);
    let server = Process::serve(&model, &[]);
    let packed = gzip(b"{\"version\": null}");
    for (body, coding) in [(&packed[..], "gzip"), (b"", "gzip"), (b"null", "identity")] {
        let reply = server.client.send("POST", "/admin/reload", &[JSON, ("content-encoding", coding)], body);
        assert_eq!((reply.status, &reply.json()["version"]), (200, &json!(1)), "{reply:?}");
    }
}

/// A connection from an address of loopback, which is a peer of its own.
fn connect_from(runtime: &tokio::runtime::Runtime, peer: &str, server: SocketAddr) -> TcpStream {
    let stream = runtime.block_on(async {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(format!("{peer}:0").parse().unwrap()).unwrap();
        socket.connect(server).await.unwrap()
    });
    let stream = stream.into_std().unwrap();
    stream.set_nonblocking(false).unwrap();
    stream
}

/// Half-sent bodies of one peer fill its part of the room, and nobody else's.
#[test]
fn half_sent_bodies_of_one_peer_leave_room_for_all_others() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    // No half-sent body is refused for its pace.
    let timeouts = Timeouts { body: Duration::from_secs(3600), ..Timeouts::default() };
    let connections = Connections { body_budget: BodyBudget::new(8 << 20), timeouts, ..Connections::default() };
    let server = Server::behind(Access::default(), connections);
    let address = server.client.address;
    let large = post("/recommend", format!("{{\"history\":[101]{}}}", " ".repeat((1 << 20) - 20)).as_bytes());
    // More than the whole room. Those that find no room are read to their end and answered.
    let begin = || {
        let mut stream = connect_from(&runtime, "127.0.0.2", address);
        stream.write_all(&large[..large.len() - 1]).unwrap();
        stream
    };
    let mut half_sent: Vec<TcpStream> = (0..12).map(|_| begin()).collect();
    let whole = |peer: &str, request: &[u8]| {
        let mut stream = connect_from(&runtime, peer, address);
        stream.write_all(request).unwrap();
        RawReply::parse(&read_to_close(&mut stream)).unwrap().status
    };
    // The peer has its part once another of its bodies is refused.
    while whole("127.0.0.2", &large) == 200 {
        half_sent.push(begin());
    }
    for _ in 0..20 {
        assert_eq!(whole("127.0.0.3", &large), 200);
        assert_eq!(whole("127.0.0.2", &post("/recommend", b"{\"history\":[101]}")), 200);
    }
    let statuses = half_sent.iter_mut().map(|stream| {
        stream.write_all(&large[large.len() - 1..]).unwrap();
        RawReply::parse(&read_to_close(stream)).unwrap().status
    });
    let taken = statuses.filter(|status| *status == 200).count();
    // Seven eighths of the room are for large bodies, and a peer may hold as much as it leaves.
    assert!((2..=4).contains(&taken), "{taken}");
    assert_eq!(exchange(address, &large).unwrap().status, 200);
}
