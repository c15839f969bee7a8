//! Prometheus' rules and Grafana's dashboards, with the real tools: the rules as `promtool` sees them, and every query
//! against a Prometheus that scrapes the binary under load.

use std::path::Path;
use std::process::Command;

use super::server::numbered;
use super::support::{draft, full_size_config};

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Runs a command in the repository that must succeed: what it said.
fn said(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program)
        .args(arguments)
        .current_dir(repository())
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .output()
        .unwrap_or_else(|error| panic!("{program}: {error}: `make test` installs it"));
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{program} {arguments:?}:\n{said}");
    said
}

#[test]
fn every_alert_links_to_its_heading_of_the_runbook() {
    let read = |path: &str| std::fs::read_to_string(repository().join(path)).unwrap();
    let (rules, runbook) = (read("deploy/prometheus/rules.yml"), read("docs/operations.md"));
    let headings: Vec<String> =
        runbook.lines().filter_map(|line| line.strip_prefix("### ")).map(str::to_lowercase).collect();
    let value = |line: &str, key: &str| line.trim().strip_prefix(key).map(|value| value.trim().to_owned());
    let alerts: Vec<String> = rules.lines().filter_map(|line| value(line, "- alert:")).collect();
    let links: Vec<String> = rules.lines().filter_map(|line| value(line, "runbook_url:")).collect();
    assert!(alerts.len() >= 10);
    let expected: Vec<String> =
        alerts.iter().map(|alert| format!("docs/operations.md#{}", alert.to_lowercase())).collect();
    assert_eq!(links, expected);
    for alert in &alerts {
        assert!(headings.contains(&alert.to_lowercase()), "docs/operations.md has no heading {alert}");
    }
}

#[test]
fn promtool_accepts_configuration_and_rules_and_every_alert_fires_when_it_should() {
    said("promtool", &["check", "config", "deploy/prometheus/prometheus.yml"]);
    // --lint-fatal: a duplicate rule is a fault.
    said("promtool", &["check", "rules", "--lint-fatal", "deploy/prometheus/rules.yml"]);
    let tested = said("promtool", &["test", "rules", "deploy/prometheus/rules.test.yml"]);
    assert!(!tested.contains("FAILED"), "{tested}");
    let read = |path: &str| std::fs::read_to_string(repository().join(path)).unwrap();
    let (rules, tests) = (read("deploy/prometheus/rules.yml"), read("deploy/prometheus/rules.test.yml"));
    for alert in rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")) {
        let fires = tests
            .split(&format!("alertname: {alert}\n"))
            .skip(1)
            .any(|test| test.lines().nth(1).is_some_and(|line| line.contains("exp_alerts:")));
        assert!(fires, "no test has {alert} fire");
    }
}

#[test]
fn the_dashboards_are_what_their_script_writes() {
    let script = "import sys; sys.path.insert(0, 'deploy/grafana')\n\
        from dashboards import DASHBOARDS, dashboards, text\n\
        made = {f'{name}.json': text(content) for name, content in dashboards().items()}\n\
        there = {path.name: path.read_text() for path in DASHBOARDS.iterdir()}\n\
        assert made == there, 'run deploy/grafana/dashboards.py'";
    said("python3", &["-c", script]);
}

#[test]
fn every_query_of_the_dashboards_and_of_the_alerts_returns_data() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("m");
    numbered(draft(full_size_config(200), 1)).write(&root).unwrap();
    let list = directory.path().join("queries.md");
    let arguments = [
        "deploy/grafana/live.py",
        "--canet",
        env!("CARGO_BIN_EXE_canet"),
        "--model",
        root.to_str().unwrap(),
        "--seconds",
        "10",
        "--list",
        list.to_str().unwrap(),
    ];
    let said = said("python3", &arguments);
    assert!(said.contains("queries, each with data"), "{said}");
    let listed = std::fs::read_to_string(&list).unwrap();
    let dashboards = ["compute-savings,", "latency-by-route,", "engine,", "checkpoints,", "alert Canet", "record "];
    assert!(dashboards.iter().all(|place| listed.contains(place)), "{listed}");
    // What the load was for: rows were refused, a version was too, and rows were compared with the full model.
    let row = |start: &str| {
        let line =
            listed.lines().find(|line| line.starts_with(start)).unwrap_or_else(|| panic!("no {start}: {listed}"));
        line.trim_end_matches(" |").rsplit([' ']).next().unwrap().parse::<f64>().unwrap()
    };
    for start in
        ["| alert CanetRefuses", "| record service:canet_shadow_overlap:mean_rate1h", "| compute-savings, Saved now"]
    {
        assert!(row(start) > 0.0, "{start} is not above 0: {listed}");
    }
}
