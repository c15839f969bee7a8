//! What `deploy/` says to Kubernetes, KServe and Docker, checked with the real tools.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};

use super::server::{Process, numbered};
use super::support::{draft, script, small_config};

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
    let healthy = |address: SocketAddr| {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/healthcheck.sh");
        let listen = format!("0.0.0.0:{}", address.port());
        Command::new(script).env("CANET_LISTEN", listen).stderr(Stdio::null()).status().unwrap().success()
    };
    let address = server.client.address;
    assert!(healthy(address));
    server.signal("KILL");
    server.wait();
    assert!(!healthy(address));
}
