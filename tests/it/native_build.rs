//! The build without LibTorch, by `make build-native`: it serves what the whole build serves, and says what it lacks.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use super::server::{Process, run};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

fn built() -> PathBuf {
    let output = Command::new("make").args(["--silent", "build-native"]).current_dir(ROOT).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Path::new(ROOT).join("target/native/release/canet")
}

#[test]
fn a_build_without_libtorch_answers_as_the_whole_one_and_says_what_it_lacks() {
    let binary = built();
    let bytes = std::fs::read(&binary).unwrap();
    assert!(!bytes.windows(11).any(|window| window == b"libtorch_cp"), "it is linked against LibTorch");

    let model = Path::new(ROOT).join("models/ml-100k");
    let whole = Process::serve(&model, &["--backend", "native"]);
    let small = Process::serve_by(Command::new(&binary), &model, &[]);
    for route in ["auto", "full", "smallest", "h32-l2-e32"] {
        let request = json!({"history": ["50", "181", "258"], "k": 20, "route": route});
        let [answer, expected] = [&small, &whole].map(|server| server.client.recommend(&request).json());
        assert_eq!(answer, expected);
        assert_eq!(answer["items"].as_array().map(Vec::len), Some(20), "{answer}");
    }

    let refused = |args: &[&str], words: &str| {
        let (code, stderr) = run(Command::new(&binary).args(args));
        assert!(matches!(code, Some(64 | 69)), "{args:?}: {stderr}");
        assert!(stderr.contains(words) && stderr.contains("build"), "{args:?}: {stderr}");
    };
    let model = model.to_str().unwrap();
    refused(&["train", "--data", "none", "--out", "none", "--epochs", "3"], "training needs LibTorch");
    refused(&["bench", "--model", model, "--backend", "libtorch"], "--backend libtorch");
    refused(&["serve", "--model", model, "--device", "cuda"], "device cuda needs LibTorch");
    let inspected = Command::new(&binary).args(["inspect", "--json", "--model", model]).output().unwrap();
    let inspected: Value = serde_json::from_slice(&inspected.stdout).unwrap();
    assert_eq!(inspected["routes"].as_array().map(Vec::len), Some(8));
}
