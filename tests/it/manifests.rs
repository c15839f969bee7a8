//! What `deploy/` says to Kubernetes, KServe and Docker, checked with the real tools.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};

use super::raw::nobody_at;
use super::server::{Client, Process, numbered};
use super::support::{draft, script, small_config};
use super::tls::{Files, authority, identity};

/// The path of helm.
fn helm() -> String {
    let helm = Command::new("python3")
        .arg("scripts/helm.py")
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .stderr(Stdio::inherit())
        .output()
        .unwrap();
    assert!(helm.status.success(), "scripts/helm.py failed: its message stands above");
    String::from_utf8(helm.stdout).unwrap().trim().to_owned()
}

#[test]
fn the_chart_and_every_manifest_are_valid_and_name_only_flags_that_exist() {
    let scratch = tempfile::tempdir().unwrap();
    let checked =
        script("manifests.py").arg(helm()).arg(env!("CARGO_BIN_EXE_canet")).arg(scratch.path()).output().unwrap();
    let said = String::from_utf8_lossy(&[checked.stdout, checked.stderr].concat()).into_owned();
    assert!(checked.status.success() && said.ends_with("ok\n"), "{said}");
}

#[test]
fn the_chart_gives_values_to_the_server_as_they_are_and_those_of_the_watch_only_with_it() {
    let scratch = tempfile::tempdir().unwrap();
    let values = scratch.path().join("values.yaml");
    let text = "model: {version: 20261130, maxRegression: 0.1, candidate: {version: 20261129}}\n\
        settings: {WATCH_INTERVAL: 60, JUDGE_MEMORY: 268435456, DEGRADE: true, CATALOGUE: /c.csv}\n\
        prometheusRule: {enabled: true, objectiveSeconds: 1}\n";
    fs::write(&values, text).unwrap();
    let chart = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/helm/canet");
    let rendered = |further: &[&str]| {
        let mut template = Command::new(helm());
        template.args(["template", "demo"]).arg(&chart).arg("--values").arg(&values);
        let output = template.args(further).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let variable = |name: &str, value: &str| format!("- {{name: CANET_{name}, value: \"{value}\"}}\n");
    let (pinned, watching) = (rendered(&[]), rendered(&["--set", "model.version="]));
    for (name, value) in [("JUDGE_MEMORY", "268435456"), ("DEGRADE", "true"), ("CATALOGUE", "/c.csv")] {
        assert!(
            pinned.contains(&variable(name, value)) && watching.contains(&variable(name, value)),
            "{name}: {pinned}"
        );
    }
    assert!(pinned.contains(&variable("VERSION", "20261130")) && pinned.contains(&variable("CANDIDATE", "20261129")));
    // A server without --watch would not start with these.
    for (name, value) in [("WATCH_INTERVAL", "60"), ("MAX_REGRESSION", "0.1")] {
        assert!(!pinned.contains(name) && watching.contains(&variable(name, value)), "{name}: {pinned}");
    }
    // Servers write the bound 1, and Prometheus 3 stores it as 1.0.
    assert!(pinned.contains(r#"le=~"1|1\\.0""#) && !pinned.contains(r#"le="1""#), "{pinned}");
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
