//! Clients of a server with TLS and keys: gRPC's own, and `canet recommend`.

use std::path::Path;

use super::server::canet;
use super::support::run_script;
use super::tls::{Files, authority, identity};

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn a_grpc_client_needs_the_authority_and_a_key() {
    let authority = authority("one");
    let files = Files::new();
    files.install(&identity(&authority));
    let ca = files.write("ca.pem", &authority.pem());
    let server = files.serve(&["--api-key", "opens"]);
    run_script("grpc_secure.py", &[&server.grpc.port().to_string(), text(&ca), "opens"]);
}

#[test]
fn canet_recommend_trusts_a_given_authority_and_shows_a_certificate() {
    let (servers, clients) = (authority("servers"), authority("clients"));
    let files = Files::new();
    files.install(&identity(&servers));
    let ca = files.write("ca.pem", &servers.pem());
    let client_ca = files.write("clients.pem", &clients.pem());
    let member = identity(&clients);
    let own = files.write("own.pem", &member.certificate.pem());
    let key = files.write("own-key.pem", &member.key.serialize_pem());
    let server = files.serve(&["--tls-client-ca", text(&client_ca)]);
    let url = format!("https://localhost:{}", server.client.address.port());
    let ask = |more: &[&str]| {
        let arguments = [&["recommend", "--url", &url, "--history", "101", "--k", "3", "--json"], more].concat();
        let output = canet(&arguments).output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let (code, answer) = ask(&["--ca", text(&ca), "--cert", text(&own), "--key", text(&key)]);
    let answer: serde_json::Value = serde_json::from_str(&answer).unwrap();
    assert_eq!((code, answer["items"].as_array().map(Vec::len)), (Some(0), Some(3)));
    // Without its own certificate the server refuses, without the authority the client does.
    for wrong in [&["--ca", text(&ca)][..], &["--cert", text(&own), "--key", text(&key)], &["--ca", text(&client_ca)]] {
        assert_eq!(ask(wrong), (Some(69), String::new()), "{wrong:?}");
    }
}
