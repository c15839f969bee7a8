//! Access: API keys, other sites' pages, and what answers tell browsers and compress.

use std::io::Read;
use std::net::{SocketAddr, TcpStream};

use canet_api::proto::inference as proto;
use canet_api::{Access, ApiKeys, Connections, Origins};
use serde_json::json;
use tonic::Code;

use super::grpc_client::{Ended, Grpc};
use super::http2_client::Http2;
use super::raw::{RawReply, exchange};
use super::server::{Process, Server, canet, run};
use super::support::write_checkpoint;

const JSON: (&str, &str) = ("content-type", "application/json");

fn keyed() -> Server {
    let access = Access { keys: ApiKeys::new(["old", "new"]), ..Access::default() };
    Server::behind(access, Connections::default())
}

#[test]
fn either_key_opens_the_api_in_either_header() {
    let server = keyed();
    for header in
        [("x-api-key", "old"), ("x-api-key", "new"), ("authorization", "Bearer old"), ("authorization", "bearer new")]
    {
        let reply = server.client.send("POST", "/recommend", &[JSON, header], br#"{"history":[101]}"#);
        assert_eq!(reply.status, 200, "{header:?}");
    }
    let nothing = server.client.send("GET", "/nowhere", &[("x-api-key", "old")], b"");
    assert_eq!(nothing.status, 404);
}

#[test]
fn without_a_key_there_are_probes_and_pages_alone() {
    let server = keyed();
    for path in ["/healthz", "/readyz", "/", "/docs", "/docs/page.js"] {
        assert_eq!(server.client.get(path).status, 200, "{path}");
    }
    let wrong: [&[(&str, &str)]; 5] = [
        &[],
        &[("x-api-key", "older")],
        &[("x-api-key", "")],
        &[("authorization", "Basic old")],
        // The one of its own header counts.
        &[("x-api-key", "wrong"), ("authorization", "Bearer old")],
    ];
    for (method, path) in
        [("POST", "/recommend"), ("GET", "/model"), ("GET", "/metrics"), ("GET", "/openapi.json"), ("GET", "/nowhere")]
    {
        for headers in wrong {
            let reply = server.client.send(method, path, headers, b"");
            assert_eq!((reply.status, &reply.json()["code"]), (401, &json!("unauthorized")), "{path} {headers:?}");
            assert_eq!(reply.header("www-authenticate"), "Bearer");
        }
    }
    // As the inference protocol has it.
    for path in ["/v2", "/v2/models/small", "/v2/models/small/infer", "/v2/nowhere"] {
        let reply = server.client.get(path);
        assert_eq!((reply.status, reply.header("content-type")), (401, "application/json"), "{path}");
        let body = reply.json();
        assert!(body["error"].as_str().is_some_and(|error| error.contains("x-api-key")), "{body}");
        assert_eq!((body.as_object().unwrap().len(), reply.header("www-authenticate")), (1, "Bearer"));
    }
    assert_eq!(server.client.get("/v2x").json()["code"], "unauthorized");
    let scheme = "/components/securitySchemes/key/in";
    let document = server.client.send("GET", "/openapi.json", &[("x-api-key", "new")], b"").json();
    assert_eq!(document.pointer(scheme), Some(&json!("header")));
    assert!(document["paths"]["/recommend"]["post"]["responses"]["401"].is_object());
    assert!(document["paths"]["/healthz"]["get"]["security"].is_null());
}

#[test]
fn the_inference_protocols_probes_need_no_key_and_name_no_model() {
    let server = keyed();
    for path in ["/v2/health/live", "/v2/health/ready", "/v2/models/small/ready", "/v2/models/small/versions/1/ready"] {
        assert_eq!(server.client.get(path).status, 200, "{path}");
    }
    for path in ["/v2/models/large/ready", "/v2/models/large/versions/2/ready", "/v2/models/large/versions/1/ready"] {
        let reply = server.client.get(path);
        let told = reply.json()["error"].as_str().unwrap().to_owned();
        assert!(reply.status == 404 && told.contains("large") && !told.contains("small"), "{path}: {told}");
    }

    let grpc = Grpc::keyed(&server.recommender, &ApiKeys::new(["old"]));
    let method = |name: &str| format!("inference.GRPCInferenceService/{name}");
    let live: Ended<proto::ServerLiveResponse> = grpc.call(&method("ServerLive"), &[], &proto::ServerLiveRequest {});
    let ready: Ended<proto::ServerReadyResponse> =
        grpc.call(&method("ServerReady"), &[], &proto::ServerReadyRequest {});
    assert!(live.answers[0].live && ready.answers[0].ready);
    for (name, serves) in [("small", true), ("large", false)] {
        let asked = proto::ModelReadyRequest { name: name.to_owned(), version: String::new() };
        let ended: Ended<proto::ModelReadyResponse> = grpc.call(&method("ModelReady"), &[], &asked);
        assert_eq!(ended.answers[0].ready, serves, "{ended:?}");
    }
    let asked = proto::ModelMetadataRequest { name: "small".to_owned(), version: String::new() };
    for (headers, code) in [(&[][..], Code::Unauthenticated), (&[("x-api-key", "old")], Code::Ok)] {
        let ended: Ended<proto::ModelMetadataResponse> = grpc.call(&method("ModelMetadata"), headers, &asked);
        assert_eq!(ended.status.code(), code);
    }
}

/// A page of a site that points its own name at this machine: the browser takes the server for a part of the site.
#[test]
fn an_open_server_on_loopback_answers_under_local_names_alone() {
    let directory = tempfile::tempdir().unwrap();
    let model = directory.path().join("small");
    write_checkpoint(&model, 9);
    let get = |address: SocketAddr, path: &str, host: &str| {
        let request = format!("GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
        exchange(address, request.as_bytes()).unwrap()
    };
    // A page can send this too: its content type is no JSON, but the request stays on the page's own site.
    let call = |address: SocketAddr, host: &str| {
        let request = format!(
            "POST /canet.v1.Recommender/GetModel HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\
             content-type: application/grpc\r\nte: trailers\r\ncontent-length: 5\r\n\r\n\0\0\0\0\0"
        );
        exchange(address, request.as_bytes()).unwrap().header("grpc-status").map(str::to_owned)
    };
    let permission_denied = Some("7".to_owned());
    let open = Process::serve(&model, &[]);
    let (http, grpc) = (open.client.address, open.grpc);
    for path in ["/model", "/metrics", "/", "/docs", "/healthz", "/openapi.json", "/v2/models/small", "/nowhere"] {
        let refused = get(http, path, "shop.example");
        let text = String::from_utf8_lossy(&refused.body).into_owned();
        assert!(refused.status == 403 && text.contains("shop.example") && text.contains("--allow-host"), "{refused:?}");
        for host in ["localhost", "127.0.0.1:8080", "[::1]:8080"] {
            assert_ne!(get(http, path, host).status, 403, "{path} {host}");
        }
    }
    assert_eq!([call(grpc, "shop.example"), call(grpc, "localhost")], [permission_denied.clone(), None]);
    assert!(open.client.get("/openapi.json").json()["paths"]["/model"]["get"]["responses"]["403"].is_object());

    let named = Process::serve(&model, &["--allow-host", "canet.internal,other.internal"]);
    for (host, status) in [("canet.internal", 200), ("OTHER.internal:80", 200), ("shop.example", 403)] {
        assert_eq!(get(named.client.address, "/model", host).status, status, "{host}");
    }
    assert_eq!([call(named.grpc, "canet.internal"), call(named.grpc, "shop.example")], [None, permission_denied]);
    for flags in [["--api-key", "key"], ["--allow-host", "*"]] {
        let server = Process::serve(&model, &flags);
        assert_ne!(get(server.client.address, "/model", "shop.example").status, 403, "{flags:?}");
    }
    let (code, stderr) = run(canet(&["serve", "--allow-host", "https://canet.internal", "--model"]).arg(&model));
    assert!(code == Some(64) && stderr.contains("write it as canet.internal"), "{code:?} {stderr}");
}

/// What a browser asks before its page may send JSON with a key.
fn preflight(server: &Server, origin: &str) -> RawReply {
    let request = format!(
        "OPTIONS /recommend HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\norigin: {origin}\r\n\
         access-control-request-method: POST\r\naccess-control-request-headers: content-type,x-api-key\r\n\r\n"
    );
    exchange(server.client.address, request.as_bytes()).unwrap()
}

#[test]
fn pages_of_other_sites_may_ask_only_where_that_is_allowed() {
    let refused = preflight(&Server::start(), "https://shop.example");
    assert_eq!((refused.status, refused.header("access-control-allow-origin")), (405, None));

    let origins = Origins::parse(&["https://shop.example".to_owned(), "http://localhost:3000".to_owned()]).unwrap();
    let access = Access { origins, keys: ApiKeys::new(["key"]), ..Access::default() };
    let server = Server::behind(access, Connections::default());
    for origin in ["https://shop.example", "http://localhost:3000"] {
        let allowed = preflight(&server, origin);
        assert_eq!((allowed.status, allowed.header("access-control-allow-origin")), (200, Some(origin)));
        let headers = allowed.header("access-control-allow-headers").unwrap();
        for header in ["x-api-key", "content-encoding", "inference-header-content-length"] {
            assert!(headers.contains(header), "{header}: {headers}");
        }
    }
    for origin in ["https://shop.example.evil", "http://shop.example", "null"] {
        assert_eq!(preflight(&server, origin).header("access-control-allow-origin"), None, "{origin}");
    }
    // The page may ask and may read the refusal; it still needs the key.
    let reply = server.client.send("GET", "/model", &[("origin", "https://shop.example")], b"");
    assert_eq!((reply.status, reply.header("access-control-allow-origin")), (401, "https://shop.example"));

    let everybody = Origins::parse(&["*".to_owned()]).unwrap();
    let server = Server::behind(Access { origins: everybody, ..Access::default() }, Connections::default());
    assert_eq!(preflight(&server, "https://any.example").header("access-control-allow-origin"), Some("*"));
    for bad in ["shop.example", "https://shop.example/", "https://", "https://a b"] {
        assert!(Origins::parse(&[bad.to_owned()]).is_err(), "{bad}");
    }
}

/// An inference call may have any content type, so a browser sends it for a page of another site without a preflight.
#[test]
fn pages_of_other_sites_may_send_no_inference_call() {
    let body = json!({"inputs": [
        {"name": "history", "datatype": "BYTES", "shape": [1], "data": ["[101]"]},
        {"name": "user", "datatype": "BYTES", "shape": [1], "data": ["alice"]},
    ]});
    let infer = |server: &Server, path: &str, headers: &[(&str, &str)]| {
        let headers = [&[("content-type", "text/plain")][..], headers].concat();
        server.client.send("POST", path, &headers, body.to_string().as_bytes())
    };
    let paths = ["/v2/models/small/infer", "/v2/models/small/versions/1/infer"];
    let (shop, evil) = (("origin", "https://shop.example"), ("origin", "https://evil.example"));
    let cross_site = ("sec-fetch-site", "cross-site");
    let server = Server::start();
    let own = format!("http://{}", server.client.address);
    let own = ("origin", own.as_str());
    for path in paths {
        for headers in [
            &[evil, cross_site][..],
            // An old browser, and one that hides the page.
            &[evil],
            &[cross_site],
            &[("origin", "null")],
            &[("origin", "http://localhost:3000"), ("sec-fetch-site", "same-site")],
        ] {
            let refused = infer(&server, path, headers);
            assert_eq!((refused.status, refused.header("content-type")), (403, "application/json"), "{headers:?}");
            let error = refused.json()["error"].as_str().unwrap_or_default().to_owned();
            assert!(error.contains("--cors-origin"), "{headers:?}: {error}");
        }
        // Clients other than browsers, and pages of the server's own site.
        for headers in [&[][..], &[own], &[own, ("sec-fetch-site", "same-origin")]] {
            assert_eq!(infer(&server, path, headers).status, 200, "{headers:?}");
        }
    }

    let behind = |origin: &str| {
        let origins = Origins::parse(&[origin.to_owned()]).unwrap();
        Server::behind(Access { origins, ..Access::default() }, Connections::default())
    };
    for (allowed, of_evil) in [("https://shop.example", 403), ("*", 200)] {
        let server = behind(allowed);
        for path in paths {
            assert_eq!(infer(&server, path, &[shop, cross_site]).status, 200, "{allowed}");
            assert_eq!(infer(&server, path, &[evil, cross_site]).status, of_evil, "{allowed}");
            assert_eq!(infer(&server, path, &[]).status, 200, "{allowed}");
        }
    }
}

#[test]
fn an_origin_that_no_browser_sends_is_refused_with_the_one_to_write() {
    for (written, sent) in [
        ("https://Shop.Example", "https://shop.example"),
        ("HTTPS://shop.example", "https://shop.example"),
        ("https://shop.example:443", "https://shop.example"),
        ("http://shop.example:80", "http://shop.example"),
        ("http://shop.example:0080", "http://shop.example"),
        ("https://shop.example:08443", "https://shop.example:8443"),
        ("https://me@shop.example", "https://shop.example"),
        ("https://me:secret@shop.example:8443", "https://shop.example:8443"),
        ("https://shop.example/", "https://shop.example"),
        ("https://shop.example/path?q=1", "https://shop.example"),
        ("http://[2001:DB8::1]:80", "http://[2001:db8::1]"),
    ] {
        let refused = Origins::parse(&[written.to_owned()]).unwrap_err();
        assert!(refused.ends_with(&format!("write {sent:?}")), "{written}: {refused}");
        assert!(Origins::parse(&[sent.to_owned()]).is_ok(), "{sent}");
    }
    for sent in ["https://shop.example:80", "http://shop.example:443", "http://[::1]:3000", "capacitor://localhost"] {
        assert!(Origins::parse(&[sent.to_owned()]).is_ok(), "{sent}");
    }
    for none in ["https://shop.example:", "https://shop.example:99999", "https://@"] {
        let refused = Origins::parse(&[none.to_owned()]).unwrap_err();
        assert!(refused.contains("is no origin: write it as"), "{none}: {refused}");
    }
}

#[test]
fn long_answers_are_compressed_for_those_who_ask() {
    let server = Server::start();
    let get = |path: &str, encodings: &str| {
        let request = format!(
            "GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\naccept-encoding: {encodings}\r\n\r\n"
        );
        exchange(server.client.address, request.as_bytes()).unwrap()
    };
    let plain = get("/openapi.json", "identity");
    assert_eq!(plain.header("content-encoding"), None);
    let zipped = get("/openapi.json", "gzip");
    assert_eq!(zipped.header("content-encoding"), Some("gzip"));
    assert!(zipped.body.len() * 3 < plain.body.len(), "{} of {}", zipped.body.len(), plain.body.len());
    let mut text = String::new();
    flate2::read::GzDecoder::new(zipped.body.as_slice()).read_to_string(&mut text).unwrap();
    assert_eq!(text.as_bytes(), plain.body);
    assert_eq!(get("/openapi.json", "br;q=1, gzip;q=0.5").header("content-encoding"), Some("gzip"));
    assert_eq!(get("/openapi.json", "br").header("content-encoding"), None);
    assert_eq!(get("/docs/openapi-explorer.js", "gzip").header("content-encoding"), Some("gzip"));
    // Compressing megabytes would keep other clients waiting.
    let requests = vec![r#"{"history": [], "k": 40}"#; 1000].join(",");
    let body = format!(r#"{{"requests": [{requests}]}}"#);
    let request = format!(
        "POST /recommend/batch HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\naccept-encoding: gzip\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let large = exchange(server.client.address, request.as_bytes()).unwrap();
    assert_eq!((large.status, large.header("content-encoding")), (200, None));
    assert!(large.body.len() > 1 << 20, "{}", large.body.len());
    // A few hundred bytes are sent sooner than compressed.
    assert_eq!(get("/readyz", "gzip, br").header("content-encoding"), None);
    assert_eq!(get("/items?q=103", "gzip, br").header("content-encoding"), None);
}

#[test]
fn answers_tell_browsers_to_be_careful_and_nobody_the_servers_version() {
    let server = Server::start();
    for path in ["/model", "/nowhere", "/healthz", "/docs", "/"] {
        let reply = server.client.get(path);
        assert_eq!(
            (reply.header("x-content-type-options"), reply.header("referrer-policy")),
            ("nosniff", "no-referrer")
        );
        assert!(reply.header("content-security-policy").contains("frame-ancestors 'none'"), "{path}");
        assert!(reply.headers.get("server").is_none() && !reply.text.contains(env!("CARGO_PKG_VERSION")), "{path}");
    }
}

#[test]
fn keys_and_the_operators_token_may_come_from_files() {
    let directory = tempfile::tempdir().unwrap();
    let (model, keys, token) =
        (directory.path().join("small"), directory.path().join("keys"), directory.path().join("token"));
    write_checkpoint(&model, 9);
    std::fs::write(&keys, "old\nnew\n").unwrap();
    std::fs::write(&token, "operator\n").unwrap();
    let [keys, token] = [&keys, &token].map(|path| path.to_str().unwrap());
    let server = Process::serve(&model, &["--api-key", "flag", "--api-key-file", keys, "--admin-token-file", token]);
    for (key, status) in [("flag", 200), ("old", 200), ("new", 200), ("operator", 401)] {
        assert_eq!(server.client.send("GET", "/model", &[("x-api-key", key)], b"").status, status, "{key}");
    }
    for (token, status) in [("operator", 200), ("new", 401)] {
        let bearer = format!("Bearer {token}");
        let reply = server.client.send("POST", "/admin/reload", &[("authorization", &bearer)], b"");
        assert_eq!(reply.status, status, "{token}");
    }
    std::fs::write(keys, "old\nnew \n").unwrap();
    for (flags, words) in [
        (["--api-key-file", keys], "keys, line 2: it may hold printable ASCII"),
        (["--admin-token-file", keys], "keys, line 2: it may hold printable ASCII"),
        (["--admin-token-file", "none"], "none: No such file"),
        (["--api-key", "key\n"], "no space or line break at its start or end"),
    ] {
        let (code, stderr) = run(canet(&["serve", "--listen", "127.0.0.1:0", "--grpc", "127.0.0.1:0", "--model"])
            .arg(&model)
            .args(flags));
        assert_eq!(code, Some(64), "{stderr}");
        assert!(stderr.contains(words), "{stderr}");
    }
}

/// At the level of `debug` in every part, for calls with right and with wrong secrets, over both transports.
#[test]
fn no_secret_is_logged_or_shown() {
    const KEY: &str = "key-6b1f0c9a";
    const TOKEN: &str = "token-93d27e55";
    let directory = tempfile::tempdir().unwrap();
    let [model, keys, token] = ["small", "keys", "token"].map(|name| directory.path().join(name));
    write_checkpoint(&model, 9);
    std::fs::write(&keys, KEY).unwrap();
    std::fs::write(&token, TOKEN).unwrap();
    let [keys, token] = [&keys, &token].map(|path| path.to_str().unwrap());
    let flags = ["--api-key-file", keys, "--admin-token-file", token, "--log", "debug", "--drain-delay", "0"];
    let mut server = Process::launch(&model, &flags);
    while server.client.get("/readyz").status != 200 {}
    let mut shown = String::new();
    for (key, status) in [(KEY.to_owned(), 200), (format!("{KEY}x"), 401)] {
        for (path, body) in [("/recommend", &br#"{"history":[101]}"#[..]), ("/recommend/batch", b"{"), ("/v2", b"")] {
            let method = if body.is_empty() { "GET" } else { "POST" };
            let reply = server.client.send(method, path, &[JSON, ("x-api-key", &key)], body);
            assert_eq!(reply.status == 401, status == 401, "{reply:?}");
            shown += &format!("{reply:?}");
        }
        let mut http2 = Http2::open(TcpStream::connect(server.client.address).unwrap(), 1 << 20).unwrap();
        let call = http2.get("/metrics", &[("x-api-key", &key)]).unwrap();
        let metrics = http2.answer(call).unwrap();
        assert_eq!(metrics.is_some(), status == 200);
        shown += &String::from_utf8_lossy(&metrics.unwrap_or_default());
    }
    for (token, status) in [(TOKEN.to_owned(), 200), (format!("{TOKEN}x"), 401)] {
        let bearer = format!("Bearer {token}");
        let reply = server.client.send("POST", "/admin/reload", &[("authorization", &bearer)], b"");
        assert_eq!(reply.status, status);
        shown += &format!("{reply:?}");
    }
    shown += &std::fs::read_to_string(format!("/proc/{}/cmdline", server.id())).unwrap();
    server.signal("TERM");
    assert_eq!(server.wait().code(), Some(0));
    let log = server.rest_of_log();
    assert!(log.len() > 20 && log.iter().any(|line| line.contains("DEBUG")), "{log:#?}");
    for secret in [KEY, TOKEN] {
        assert!(!shown.contains(secret), "{shown}");
        assert!(log.iter().all(|line| !line.contains(secret)), "{log:#?}");
    }
}
