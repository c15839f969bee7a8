//! What `deploy/` says to Kubernetes, KServe and Docker, checked with the real tools.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};

use super::raw::nobody_at;
use super::server::{Client, Process, numbered};
use super::support::{draft, script, small_config};
use super::tls::{Files, authority, identity};

#[test]
fn the_chart_and_every_manifest_are_valid_and_name_only_flags_that_exist() {
    let helm = Command::new("python3")
        .arg("scripts/helm.py")
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .stderr(Stdio::inherit())
        .output()
        .unwrap();
    assert!(helm.status.success(), "scripts/helm.py failed: its message stands above");
    let scratch = tempfile::tempdir().unwrap();
    let checked = script("manifests.py")
        .arg(String::from_utf8(helm.stdout).unwrap().trim())
        .arg(env!("CARGO_BIN_EXE_canet"))
        .arg(scratch.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&[checked.stdout, checked.stderr].concat()).into_owned();
    assert!(checked.status.success() && said.ends_with("ok\n"), "{said}");
}

#[test]
fn the_images_health_check_follows_the_server() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("small");
    numbered(draft(small_config(), 3)).write(&root).unwrap();
    let mut server = Process::serve(&root, &[]);
    let listen = format!("0.0.0.0:{}", server.client.address.port());
    assert!(healthy(&[("CANET_LISTEN", &listen)]));
    server.signal("KILL");
    server.wait();
    let _port = nobody_at(server.client.address);
    assert!(!healthy(&[("CANET_LISTEN", &listen)]));
}

/// What the health check says in this environment.
fn healthy(environment: &[(&str, &str)]) -> bool {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/healthcheck.sh");
    Command::new(script).envs(environment.iter().copied()).stderr(Stdio::null()).status().unwrap().success()
}

#[test]
fn behind_tls_probes_alone_are_answered_without_it() {
    let authority = authority("one");
    let files = Files::new();
    files.install(&identity(&authority));
    // Not even who has a certificate is asked for it.
    let ca = files.write("ca.pem", &authority.pem());
    let server = files.launch(&["--tls-client-ca", ca.to_str().unwrap(), "--probe-listen", "localhost:0"]);
    let line = server.log_line("answering probes on http://");
    let probes: SocketAddr = line.split("://").nth(1).unwrap().trim().parse().unwrap();
    server.log_line("ready");
    let listen = format!("0.0.0.0:{}", server.client.address.port());
    assert!(!healthy(&[("CANET_LISTEN", &listen)]));
    assert!(healthy(&[("CANET_LISTEN", &listen), ("CANET_PROBE_LISTEN", &probes.to_string())]));
    let client = Client::new(probes);
    assert_eq!((client.get("/healthz").status, client.get("/metrics").status), (200, 404));
    assert_eq!(client.recommend(&serde_json::json!({"history": []})).status, 404);
}
