//! `canet bench` as a user runs it, on a small random checkpoint.

use std::path::Path;
use std::process::{Command, Output};

use canet_model::checkpoint::{BudgetPoint, Calibration, CheckpointDraft};
use serde_json::{Value, json};

use super::metrics::slice_flops;
use super::support::{BACKENDS, draft, small_config, write_checkpoint};
use super::terminal::assert_fits_a_terminal;

/// Items of every history.
const LENGTH: u64 = 7;

/// Twenty users whose whole sequences have as many items.
fn write_histories(path: &Path) {
    let user = |user: u64| {
        let items: Vec<String> = (0..LENGTH).map(|place| format!("x{}", 1001 + (user * 3 + place) % 40)).collect();
        format!("u{user} {}\n", items.join(" "))
    };
    std::fs::write(path, (0..20).map(user).collect::<String>()).unwrap();
}

fn bench(folder: &Path, args: &[&str]) -> Output {
    if !folder.join("small").exists() {
        write_checkpoint(&folder.join("small"), 11);
    }
    write_histories(&folder.join("histories.txt"));
    let how = ["bench", "--model", "small", "--device", "cpu", "--threads", "2"];
    let mut command = Command::new(env!("CARGO_BIN_EXE_canet"));
    // A flag that a test gives wins over it.
    command.current_dir(folder).env("CANET_SECONDS", "0.1").args(how).args(args).output().unwrap()
}

/// Multiply-adds of the router's products: dim 8, inner width 16, 24 routes.
fn router_flops() -> f64 {
    let last_block = 2 * LENGTH * 64 + 2 * 64 + 2 * LENGTH * 8 + 2 * 8 * 16;
    (2 * (last_block + 8 * 24)) as f64
}

#[test]
fn every_workload_and_batch_has_its_figures() {
    let folder = tempfile::tempdir().unwrap();
    for (backend, executors) in BACKENDS.iter().map(|backend| (*backend, "1")).chain([("native", "2")]) {
        let workloads = "own,full,smallest,uniform,zipf,router,h8-l2-e10";
        let args = ["--workload", workloads, "--batch", "1,5", "--histories", "histories.txt", "--json"];
        let output = bench(folder.path(), &[&args[..], &["--backend", backend, "--executors", executors]].concat());
        assert!(output.status.success(), "{output:?}");
        let document: Value = serde_json::from_slice(&output.stdout).unwrap();
        let gemm = document["gemm_gflops"].as_f64().unwrap();
        // How fast either is depends on what else the machine does in that tenth of a second.
        assert!(gemm > 0.0, "{document}");
        match document["fma_gflops"].as_f64() {
            Some(fma) => assert!(backend == "native" && fma > 0.0, "{document}"),
            None => assert_eq!(backend, "libtorch", "{document}"),
        }
        let results = document["results"].as_array().unwrap();
        let named: Vec<(String, u64)> = results
            .iter()
            .map(|result| (result["workload"].as_str().unwrap().to_owned(), result["batch"].as_u64().unwrap()))
            .collect();
        let expected = workloads.split(',').flat_map(|name| [(name.to_owned(), 1), (name.to_owned(), 5)]);
        assert_eq!(named, expected.collect::<Vec<_>>());
        for result in results {
            assert_eq!(result["backend"], json!(backend));
            assert_eq!((result["executors"].to_string(), &result["precision"]), (executors.to_owned(), &json!("fp32")));
            assert_eq!(result["threads"].to_string(), if executors == "2" { "1" } else { "2" });
            let figure = |name: &str| result[name].as_f64().unwrap();
            let flops = match result["workload"].as_str().unwrap() {
                "full" => Some(slice_flops(12, 4, 10, LENGTH)),
                "smallest" => Some(slice_flops(4, 1, 6, LENGTH)),
                "h8-l2-e10" => Some(slice_flops(8, 2, 10, LENGTH)),
                "router" => Some(0.0),
                _ => None,
            };
            let least = slice_flops(4, 1, 6, LENGTH) + router_flops();
            match flops {
                Some(flops) => assert_eq!(figure("mean_flops"), flops + router_flops(), "{result}"),
                None => assert!(figure("mean_flops") >= least, "{result}"),
            }
            let gflops = figure("mean_flops") * figure("requests_per_second") / 1e9;
            assert!((figure("gflops") / gflops - 1.0).abs() < 1e-9, "{result}");
            assert!(figure("p50_ms") > 0.0 && figure("p99_ms") >= figure("p50_ms"), "{result}");
        }
    }
}

#[test]
fn a_batch_that_outlasts_its_time_is_told_of() {
    let folder = tempfile::tempdir().unwrap();
    let args = ["--workload", "full,router,uniform", "--batch", "1,64", "--seconds", "0.0000001", "--json"];
    let output = bench(folder.path(), &args);
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    for result in document["results"].as_array().unwrap() {
        let figure = |name: &str| result[name].as_f64().unwrap();
        assert!(figure("p50_ms") > 0.0 && figure("mean_flops") > 0.0, "{result}");
        // One batch: the rate is that of the mean latency, which is at least half of the median and at most the longest.
        let (rate, batch) = (figure("requests_per_second"), figure("batch") * 1e3);
        assert!(rate <= 2.001 * batch / figure("p50_ms") && rate >= 0.999 * batch / figure("p99_ms"), "{result}");
    }
}

/// As in a server.
#[test]
fn a_budget_of_one_route_runs_it_without_the_router() {
    let folder = tempfile::tempdir().unwrap();
    let route = Some("h8-l2-e10".to_owned());
    let draft = draft(small_config(), 11);
    let bias = vec![0.0; draft.config.check().unwrap().len()];
    let calibration = Calibration { points: vec![BudgetPoint { budget: 0.3, bias, route, spent: 0.2 }] };
    CheckpointDraft { calibration: Some(calibration), ..draft }.write(&folder.path().join("small")).unwrap();
    let args = ["--workload", "own,sessions,full", "--batch", "2", "--histories", "histories.txt"];
    let document: Value =
        serde_json::from_slice(&bench(folder.path(), &[&args[..], &["--json"]].concat()).stdout).unwrap();
    let flops = |place: usize| document["results"][place]["mean_flops"].as_f64().unwrap();
    assert_eq!(flops(0), slice_flops(8, 2, 10, LENGTH));
    assert_eq!(flops(2), slice_flops(12, 4, 10, LENGTH) + router_flops());
    let table = String::from_utf8(bench(folder.path(), &args).stdout).unwrap();
    assert!(
        table.starts_with("Every request under this budget runs h8-l2-e10, without the router. It answers "),
        "{table}"
    );
    assert_fits_a_terminal(&table);
}

#[test]
fn a_table_is_for_people_and_random_histories_are_as_long_as_the_model_reads() {
    let folder = tempfile::tempdir().unwrap();
    let output = bench(folder.path(), &["--workload", "own,full", "--batch", "1,3"]);
    let table = String::from_utf8(output.stdout).unwrap();
    assert!(table.starts_with("The routed model answers ") && table.contains("/s with 3 in flight, "), "{table}");
    assert_fits_a_terminal(&table);
    assert!(table.contains("4096 random ones of 12 items"), "{table}");
    let row = table.lines().rfind(|line| line.starts_with("full ")).unwrap();
    assert_eq!(row.split_whitespace().nth(1), Some("3"), "{table}");
}

#[test]
fn what_cannot_be_timed_is_named() {
    let folder = tempfile::tempdir().unwrap();
    for (args, named) in [
        (["--workload", "own,h9-l9-e9"], "\"h9-l9-e9\" is unknown: use own, full"),
        (["--batch", "0"], "--batch"),
        (["--seconds", "0"], "--seconds"),
        (["--seconds", "1e30"], "--seconds"),
    ] {
        let output = bench(folder.path(), &args);
        assert_eq!(output.status.code(), Some(64), "{output:?}");
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(stderr.contains(named), "{stderr}");
    }
}
