//! `loadtest/run.sh` with the real k6 against the binary.

use std::fs;
use std::path::Path;
use std::process::Command;

use canet_model::{ModelConfig, Positions};
use serde_json::{Value, json};

use super::damaged::truncate;
use super::raw::nobody_at;
use super::server::{Process, numbered};
use super::support::{draft, run_script, small_config};

/// How k6 ends where an objective was broken.
const BROKEN: i32 = 99;

/// A server over versions 1 to `versions` of a small model.
fn server(root: &Path, versions: u64) -> Process {
    for seed in 1..=versions {
        numbered(draft(small_config(), seed)).write(root).unwrap();
    }
    Process::serve(root, &["--version", "1"])
}

/// Runs a scenario: its exit code, what it said, and the summary where it wrote one.
fn run(server: &Process, directory: &Path, settings: &[(&str, &str)]) -> (i32, String, Option<Value>) {
    let out = directory.join("summary");
    let mut command = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("loadtest/run.sh"));
    command
        .env("URL", format!("http://{}", server.client.address))
        .env("GRPC", server.grpc.to_string())
        .env("OUT", &out)
        // Other tests run beside this one: how fast answers are is not what is tested.
        .envs([("SLO_P99_MS", "10000"), ("TIMEOUT_MS", "10000"), ("LATE_MS", "10000")])
        .envs(settings.iter().copied());
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    let summary = fs::read_to_string(out.with_extension("json")).ok();
    (output.status.code().unwrap(), said, summary.map(|text| serde_json::from_str(&text).unwrap()))
}

#[test]
fn a_smoke_run_over_every_route_is_answered_and_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let server = server(&directory.path().join("small"), 1);
    let settings = [("SCENARIO", "smoke"), ("RATE", "100"), ("DURATION", "4s"), ("MIX", "uniform")];
    let (code, said, summary) = run(&server, directory.path(), &settings);
    let summary = summary.unwrap_or_else(|| panic!("no summary: {said}"));
    assert_eq!((code, &summary["failed"]), (0, &json!(0)), "{said}");

    // Of a Poisson process with the mean 400: its standard deviation is 20.
    let answered = summary["answered"].as_f64().unwrap();
    assert!((300.0..500.0).contains(&answered) && summary["requests"] == summary["answered"], "{summary}");
    assert_eq!(server.client.metric("route_latency_seconds_count{route=\"h12-l4-e10\",version=\"1\"}").min(1.0), 1.0);
    let scrape = server.client.get("/metrics").text;
    let asked = scrape.lines().filter(|line| line.starts_with("canet_route_requests_total{reason=\"override\""));
    let rows: Vec<f64> = asked.map(|line| line.rsplit_once(' ').unwrap().1.parse().unwrap()).collect();
    assert!(rows.len() == 24 && rows.iter().all(|rows| *rows > 0.0), "{rows:?}");
    assert_eq!(rows.iter().sum::<f64>(), answered);

    let page = fs::read_to_string(directory.path().join("summary.html")).unwrap();
    assert!(page.contains("smoke: objectives met") && !page.contains("<script"), "{page}");
}

#[test]
fn users_of_sessions_return_to_what_the_server_kept() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("small");
    // Without a stride above 1, users of more items than the model reads would never find their histories again.
    let config = ModelConfig { positions: Positions::Relative, history_stride: 6, layers: vec![2], ..small_config() };
    numbered(draft(config, 1)).write(&root).unwrap();
    let server = Process::serve(&root, &["--route", "full"]);
    let settings = [("SCENARIO", "sessions"), ("RATE", "100"), ("DURATION", "4s"), ("RETURNING", "0.9")];
    let (code, said, summary) = run(&server, directory.path(), &settings);
    let summary = summary.unwrap_or_else(|| panic!("no summary: {said}"));
    assert_eq!((code, &summary["failed"]), (0, &json!(0)), "{said}");
    let (answered, hits) = (summary["answered"].as_f64().unwrap(), server.client.metric("history_cache_hits_total"));
    // A window of 12 items moves every 6 items, which is every third return.
    assert!(hits > 0.3 * answered && hits < 0.9 * answered, "{hits} of {answered}");
    assert!(server.client.metric("reused_flops_total{route=\"h12-l2-e10\"}") > 0.0);
}

#[test]
fn requests_over_grpc_are_answered() {
    let directory = tempfile::tempdir().unwrap();
    let server = server(&directory.path().join("small"), 1);
    let settings = [("SCENARIO", "grpc"), ("RATE", "40"), ("DURATION", "2s")];
    let (code, said, summary) = run(&server, directory.path(), &settings);
    let summary = summary.unwrap_or_else(|| panic!("no summary: {said}"));
    assert_eq!((code, &summary["failed"]), (0, &json!(0)), "{said}");
    let calls = server.client.calls("grpc", "OK");
    assert!(calls > 0.0 && summary["answered"].as_f64() == Some(calls), "{said}");
}

#[test]
fn no_request_fails_while_models_are_replaced_and_a_spoilt_one_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("small");
    let server = server(&root, 3);
    truncate(&root.join("3"));
    let settings = [("SCENARIO", "reload"), ("RATE", "40"), ("DURATION", "4s"), ("RELOAD", "2,1"), ("REFUSED", "3")];
    let (code, said, summary) = run(&server, directory.path(), &settings);
    let summary = summary.unwrap_or_else(|| panic!("no summary: {said}"));
    assert_eq!((code, &summary["failed"]), (0, &json!(0)), "{said}");
    assert_eq!(summary["requests"], summary["answered"]);

    let total = |outcome: &str| server.client.metric(&format!("reload_total{{outcome=\"{outcome}\"}}"));
    // The first load is one.
    let (served, incomplete) = (total("served") - 1.0, total("incomplete"));
    assert!(served >= 2.0 && incomplete >= 2.0, "{said}");
    assert_eq!(summary["reloads"].as_f64().unwrap(), served + incomplete);
}

#[test]
fn steps_find_where_the_objective_is_broken() {
    let directory = tempfile::tempdir().unwrap();
    let server = server(&directory.path().join("small"), 1);
    // No answer takes no time: the first step breaks this objective, and the run still ends well.
    let settings = [("SCENARIO", "step"), ("RATE", "40"), ("STEPS", "2"), ("DURATION", "2s"), ("SLO_P99_MS", "0")];
    let (code, said, summary) = run(&server, directory.path(), &settings);
    let summary = summary.unwrap_or_else(|| panic!("no summary: {said}"));
    assert_eq!(code, 0, "{said}");
    assert_eq!((summary["steps"].as_array().unwrap().len(), &summary["capacity"]), (2, &Value::Null));
    assert_eq!(summary["steps"][1]["offered_rps"], json!(40));
}

#[test]
fn steps_of_users_who_return_find_what_the_server_kept_and_say_when_requests_left() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("small");
    let config = ModelConfig { positions: Positions::Relative, history_stride: 6, layers: vec![2], ..small_config() };
    numbered(draft(config, 1)).write(&root).unwrap();
    let server = Process::serve(&root, &["--route", "full"]);
    let settings = [("SCENARIO", "step-sessions"), ("RATE", "100"), ("STEPS", "2"), ("DURATION", "4s")];
    let (code, said, summary) = run(&server, directory.path(), &settings);
    let summary = summary.unwrap_or_else(|| panic!("no summary: {said}"));
    assert_eq!(code, 0, "{said}");
    let hits = server.client.metric("history_cache_hits_total");
    assert!(hits > 0.2 * summary["answered"].as_f64().unwrap(), "{hits}: {summary}");
    let late = |step: usize| summary["steps"][step]["sent_late"]["max_ms"].as_f64().unwrap();
    assert_eq!(summary["sent_late"]["max_ms"].as_f64().unwrap(), late(0).max(late(1)), "{summary}");
    // No objective was broken, so the last step is the capacity, and no request left later than allowed.
    assert_eq!(
        summary["capacity"],
        json!({"offered_rps": 100, "found_the_end": false, "late": false, "at_least": false})
    );

    // Every request leaves later than no time at all.
    let settings = [&settings[..], &[("LATE_MS", "0")]].concat();
    let (code, said, summary) = run(&server, directory.path(), &settings);
    assert!(code == BROKEN && said.contains("sent late: p99"), "{code} {said}");
    assert_eq!(summary.unwrap()["capacity"]["late"], json!(true));
}

#[test]
fn a_spike_ends_well_only_if_the_objective_holds_again() {
    let directory = tempfile::tempdir().unwrap();
    let server = server(&directory.path().join("small"), 1);
    let settings = [("SCENARIO", "spike"), ("RATE", "20"), ("DURATION", "4s")];
    let (code, said, _) = run(&server, directory.path(), &settings);
    assert_eq!(code, 0, "{said}");
    let (code, said, _) = run(&server, directory.path(), &[&settings[..], &[("SLO_P99_MS", "0")]].concat());
    assert!(code == BROKEN && said.contains("broken: latency{recovered:true}: p(99)<=0"), "{code} {said}");
}

#[test]
fn the_capacity_report_draws_every_curve_of_a_model() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("small");
    numbered(draft(small_config(), 1)).write(&root).unwrap();
    let scripts = Path::new(env!("CARGO_MANIFEST_DIR"));
    let packages = Command::new("python3")
        .current_dir(scripts)
        .args(["scripts/tools.py", "loadtest/requirements.txt"])
        .output()
        .unwrap();
    assert!(packages.status.success(), "{}", String::from_utf8_lossy(&packages.stderr));
    // No answer takes no time, so each curve ends at its first step, however fast this machine is.
    let output = Command::new(String::from_utf8(packages.stdout).unwrap().trim())
        .arg(scripts.join("loadtest/capacity.py"))
        .args(["--model", root.to_str().unwrap(), "--out", directory.path().to_str().unwrap()])
        .args(["--canet", env!("CARGO_BIN_EXE_canet"), "--p99-ms", "0", "--late-ms", "10000"])
        .args(["--steps", "2", "--step-seconds", "0.5", "--coarse-seconds", "0.2", "--scenario-seconds", "0"])
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

    let report = fs::read_to_string(directory.path().join("report.md")).unwrap();
    let picture = fs::read_to_string(directory.path().join("small.svg")).unwrap();
    for (curve, mix) in
        [("routed", "auto"), ("routed, no cache", "auto"), ("always full", "full"), ("always full, no cache", "full")]
    {
        assert!(report.contains(&format!("| {curve} | **0** | - | - | - |")), "{report}");
        assert!(
            report.contains(&format!("### small, {curve}\n")) && picture.contains(&format!(">{curve}<")),
            "{report}"
        );
        let summary = directory.path().join(format!("small-{}.json", curve.replace(',', "").replace(' ', "-")));
        let summary: Value = serde_json::from_str(&fs::read_to_string(summary).unwrap()).unwrap();
        assert_eq!((&summary["mix"], &summary["capacity"]), (&json!(mix), &Value::Null));
        let answered = summary["answered"].as_u64().unwrap();
        assert!(answered > 0 && summary["requests"] == summary["answered"], "{summary}");
    }
}

#[test]
fn an_answer_without_items_is_none_and_files_are_those_of_the_caller() {
    let scratch = tempfile::tempdir().unwrap();
    run_script("loadtest.py", &[scratch.path().to_str().unwrap()]);
}

#[test]
fn a_broken_objective_an_unknown_scenario_and_no_server_are_told_apart() {
    let directory = tempfile::tempdir().unwrap();
    let mut server = server(&directory.path().join("small"), 1);
    let short = [("RATE", "20"), ("DURATION", "1s")];
    let (code, said, _) = run(&server, directory.path(), &[&short[..], &[("SLO_P99_MS", "0")]].concat());
    assert!(code == BROKEN && said.contains("broken: latency: p(99)<=0"), "{code} {said}");

    let (code, said, _) = run(&server, directory.path(), &[("SCENARIO", "earthquake")]);
    assert_eq!(code, 64, "{said}");
    assert!(said.starts_with("SCENARIO=earthquake is none of these scenarios:\n  smoke: "), "{said}");
    let scenarios =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("loadtest/lib/scenarios.js")).unwrap();
    assert_eq!(said.lines().count() - 1, scenarios.matches("about: ").count(), "{said}");

    let (code, said, _) = run(&server, directory.path(), &[&short[..], &[("MIX", "earthquake")]].concat());
    assert!(![0, BROKEN].contains(&code) && said.contains("MIX=earthquake: use uniform, "), "{code} {said}");

    let (_port, nobody) = nobody_at(([127, 0, 0, 1], 0).into());
    let nobody = nobody.to_string();
    let grpc = [("SCENARIO", "grpc"), ("GRPC", nobody.as_str())];
    let (code, said, _) = run(&server, directory.path(), &[&short[..], &grpc].concat());
    assert!(code == BROKEN && said.contains("broken: sent: count>0"), "{code} {said}");

    server.signal("KILL");
    server.wait();
    let _port = nobody_at(server.client.address);
    let (code, said, _) = run(&server, directory.path(), &short);
    assert!(![0, BROKEN].contains(&code) && said.contains("is a server ready there?"), "{code} {said}");
}
