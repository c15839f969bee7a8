//! Which backends and precisions the commands accept, and how they name them.

use canet_cpu::Level;
use serde_json::{Value, json};

use super::server::{Process, canet, run};
use super::support::write_checkpoint;

/// LibTorch computes bfloat16 on a CPU too, though slowly. So the rules for GPUs are checked here.
#[cfg(feature = "libtorch")]
#[test]
fn bfloat16_of_libtorch_is_near_float32_on_every_route() {
    use super::support::{
        flagged_configs, full_size_config, odd_config, random_histories, random_weights, relative_distance, rng,
    };
    use canet_cpu::{CpuForward, CpuOptions};
    use canet_domain::History;
    use canet_model::{Device, Forward, Precision};

    for (seed, config) in [odd_config(), full_size_config(300)].into_iter().chain(flagged_configs()).enumerate() {
        let mut rng = rng(1 + seed as u64);
        let weights = random_weights(&config, &mut rng);
        let space = config.check().unwrap();
        let histories = random_histories(&config, 9, &mut rng);
        let batch: Vec<&History> = histories.iter().collect();
        let exact = CpuForward::load(&config, &weights, CpuOptions::fastest(Precision::Fp32, 1)).unwrap();
        let forward = canet_torch::TorchForward::load(&config, &weights, Precision::Bf16, Device::CPU).unwrap();
        for route in space.routes() {
            let (found, expected) = (forward.scores(route, &batch).unwrap(), exact.scores(route, &batch).unwrap());
            // A factor has eight significant bits. The lower bound shows that something is rounded.
            let distance = relative_distance(&found, &expected);
            assert!((1e-4..3e-2).contains(&distance), "{}: {distance}", space.name(route));
        }
        assert!(forward.weight_bytes() < exact.weight_bytes());
    }
}

#[test]
fn an_unknown_backend_is_refused_with_the_possible_values() {
    let directory = tempfile::tempdir().unwrap();
    write_checkpoint(&directory.path().join("small"), 9);
    let mut command = canet(&["serve", "--backend", "onnx"]);
    let (code, stderr) = run(command.arg("--model").arg(directory.path().join("small")));
    assert_eq!(code, Some(64), "{stderr}");
    assert!(stderr.contains("possible values: auto, libtorch, native"), "{stderr}");
}

#[test]
fn bfloat16_is_refused_where_it_would_be_slow() {
    let directory = tempfile::tempdir().unwrap();
    let model = directory.path().join("small");
    write_checkpoint(&model, 9);
    let libtorch =
        if cfg!(feature = "libtorch") { "--precision bf16 on a CPU" } else { "--backend libtorch: this build" };
    for (flags, message) in [
        (["--precision", "bf16", "--backend", "libtorch"], libtorch),
        (["--precision", "fp16", "--backend", "native"], "possible values: fp32, bf16"),
    ] {
        for command in ["serve", "bench", "eval"] {
            let data: &[&str] = if command == "eval" { &["--data", "none"] } else { &[] };
            let mut command = canet(&[&[command, "--device", "cpu"], &flags[..], data].concat());
            let (code, stderr) = run(command.arg("--model").arg(&model));
            assert_eq!(code, Some(64), "{stderr}");
            assert!(stderr.contains(message), "{stderr}");
        }
    }
}

/// On a CPU without instructions for bfloat16, every command refuses it.
#[test]
fn serve_eval_and_bench_name_their_precision() {
    let directory = tempfile::tempdir().unwrap();
    let model = directory.path().join("small");
    write_checkpoint(&model, 9);
    let sequence =
        |user: u32| (0..8).map(|place| format!(" x{}", 1001 + (user * 5 + place * 3) % 40)).collect::<String>();
    let data = directory.path().join("data.txt");
    std::fs::write(&data, (0..20).map(|user| format!("u{user}{}\n", sequence(user))).collect::<String>()).unwrap();
    let output =
        |args: &[&str]| canet(args).args(["--precision", "bf16", "--json", "--model"]).arg(&model).output().unwrap();
    let data = data.to_str().unwrap();
    let bench = output(&["bench", "--seconds", "0.05", "--workload", "full", "--batch", "2"]);
    let eval = output(&["eval", "--data", data, "--route", "full"]);
    if !Level::best().multiplies_bf16() {
        for output in [bench, eval] {
            assert_eq!(output.status.code(), Some(64), "{output:?}");
        }
        return;
    }
    let document = |output: std::process::Output| -> Value {
        assert!(output.status.success(), "{output:?}");
        serde_json::from_slice(&output.stdout).unwrap()
    };
    assert_eq!(document(bench)["results"][0]["precision"], json!("bf16"));
    assert_eq!(document(eval)["users"], json!(20));
    for (flags, precision) in [(&["--precision", "bf16"][..], "bf16"), (&[], "fp32")] {
        let server = Process::serve(&model, flags);
        assert_eq!(server.client.get("/model").json()["precision"], json!(precision));
        assert_eq!(server.client.recommend(&json!({"history": [101, 102]})).status, 200);
    }
}
