//! `canet eval` as a process, on a small random checkpoint.

use std::path::Path;
use std::process::{Command, Output};

use canet_data::{Dataset, ReadOptions};
use canet_domain::{History, Item};
use canet_model::Forward;
use canet_model::checkpoint::ModelDirectory;
use serde_json::Value;

use super::support::{reference, write_checkpoint};
use super::terminal::assert_fits_a_terminal;

/// Writes thirty users with items x1001 to x1040, one user with too few items and one with an unknown item.
fn write_data(path: &Path) {
    let user = |user: usize| {
        let items = (0..4 + user % 9).map(|place| format!("x{}", 1001 + (user * 7 + place * (1 + user % 4)) % 40));
        format!("u{user} {}\n", items.collect::<Vec<_>>().join(" "))
    };
    std::fs::write(path, (0..30).map(user).collect::<String>() + "short x1001 x1002\nstranger y1 x1003\n").unwrap();
}

struct Setting(tempfile::TempDir);

impl Setting {
    fn new() -> Setting {
        let folder = tempfile::tempdir().unwrap();
        write_checkpoint(&folder.path().join("small"), 11);
        write_data(&folder.path().join("data.txt"));
        Setting(folder)
    }

    fn eval(&self, args: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_canet"))
            .current_dir(self.0.path())
            .args(["eval", "--model", "small", "--data", "data.txt", "--device", "cpu", "--threads", "1"])
            .args(args)
            .output()
            .unwrap()
    }

    fn json(&self, args: &[&str]) -> Value {
        let output = self.eval(&[args, &["--json"]].concat());
        assert!(output.status.success(), "{output:?}");
        serde_json::from_slice(&output.stdout).unwrap()
    }
}

fn run<'v>(document: &'v Value, name: &str) -> &'v Value {
    document["runs"].as_array().unwrap().iter().find(|run| run["route"] == name).unwrap()
}

#[test]
fn the_json_document_has_every_run() {
    let document = Setting::new().json(&[]);
    assert_eq!((&document["users"], &document["split"]), (&30.into(), &"test".into()));
    let names: Vec<&str> =
        document["runs"].as_array().unwrap().iter().map(|run| run["route"].as_str().unwrap()).collect();
    let first = ["auto", "full", "smallest", "random", "random-matched", "popularity", "markov", "h4-l1-e6"];
    assert_eq!(names[..8], first);
    // The model has 3 x 4 x 2 routes.
    assert_eq!(names.len(), 7 + 24);
    for run in document["runs"].as_array().unwrap() {
        for metric in ["ndcg", "hr", "mrr"].map(|name| [5, 10, 20].map(|k| format!("{name}@{k}"))).concat() {
            assert!((0.0..=1.0).contains(&run[&metric]["mean"].as_f64().unwrap()) && run[&metric]["se"].is_f64());
        }
        assert!(run["mrr"]["mean"].as_f64().unwrap() > 0.0);
    }
    let (auto, matched) = (run(&document, "auto"), run(&document, "random-matched"));
    assert_eq!(auto["shares"], matched["shares"]);
    let shares: f64 = auto["shares"].as_object().unwrap().values().map(|share| share.as_f64().unwrap()).sum();
    assert!((shares - 1.0).abs() < 1e-9);
    let saved = 1.0 - auto["flops"].as_f64().unwrap() / auto["full_flops"].as_f64().unwrap();
    assert!((auto["saved"].as_f64().unwrap() - saved).abs() < 1e-12);
    // The run `full` and the run of the largest route are the same.
    let (full, widest) = (run(&document, "full"), run(&document, "h12-l4-e10"));
    assert_eq!((&full["ndcg@10"], &full["flops"]), (&widest["ndcg@10"], &full["full_flops"]));
    assert_eq!(full["shares"], serde_json::json!({ "h12-l4-e10": 1.0 }));
    assert_eq!(run(&document, "markov")["flops"], Value::Null);
    let comparisons = document["comparisons"].as_array().unwrap();
    assert!(comparisons.len() == names.len() - 1 && comparisons.iter().all(|pair| pair["a"] == "auto"));
}

#[test]
fn flags_choose_the_runs_and_the_comparisons() {
    let setting = Setting::new();
    let pair = ["--compare", "full,markov", "--metric", "hr@20"];
    let document = setting.json(&[&["--route", "smallest,h8-l2-e6", "--split", "validation"][..], &pair].concat());
    let names: Vec<&Value> = document["runs"].as_array().unwrap().iter().map(|run| &run["route"]).collect();
    assert_eq!(names, ["smallest", "h8-l2-e6", "full", "markov"]);
    assert_eq!(document["split"], "validation");
    let pair = &document["comparisons"][0];
    assert_eq!((&pair["a"], &pair["b"], &pair["metric"]), (&"full".into(), &"markov".into(), &"hr@20".into()));
    let mean = |name| run(&document, name)["hr@20"]["mean"].as_f64().unwrap();
    let difference = pair["difference"]["mean"].as_f64().unwrap();
    assert!((difference - (mean("full") - mean("markov"))).abs() < 1e-12);
}

#[test]
fn the_seed_changes_the_document_and_the_batch_size_does_not() {
    let setting = Setting::new();
    let first = setting.eval(&["--json", "--seed", "5"]).stdout;
    assert_eq!(first, setting.eval(&["--json", "--seed", "5", "--batch-size", "3"]).stdout);
    assert_ne!(first, setting.eval(&["--json", "--seed", "6"]).stdout);
}

/// Mean NDCG@10 over each user's last targets on the full route, recomputed from the reference scores.
fn means_by_user(folder: &Path, targets: usize) -> Vec<f64> {
    let checkpoint = ModelDirectory::open(&folder.join("small")).unwrap().load(None).unwrap();
    let forward = reference(&checkpoint.config, &checkpoint.weights);
    let data = Dataset::read_known(&folder.join("data.txt"), &checkpoint.catalogue, &ReadOptions::default()).unwrap();
    let gain = |sequence: &[Item], place: usize| -> f64 {
        let history = History::new(&sequence[..place], checkpoint.config.max_len).unwrap();
        let scores = forward.scores(checkpoint.space.full(), &[&history]).unwrap();
        let (scores, target) = (scores.row(0).unwrap(), sequence[place]);
        let seen = &sequence[..place];
        let unseen = (1..=40).map(|id| Item::new(id).unwrap()).filter(|item| !seen.contains(item));
        let rank = unseen.filter(|item| scores[item.column()] > scores[target.column()]).count() + 1;
        if rank > 10 || seen.contains(&target) { 0.0 } else { 1.0 / ((rank + 1) as f64).log2() }
    };
    let eligible = data.sequences.iter().filter(|sequence| sequence.len() >= 3);
    eligible
        .map(|sequence| {
            let places = sequence.len().saturating_sub(targets).max(1)..sequence.len();
            let count = places.len() as f64;
            places.map(|place| gain(sequence, place)).sum::<f64>() / count
        })
        .collect()
}

#[test]
fn several_targets_of_a_user_are_one_observation() {
    let setting = Setting::new();
    let document = setting.json(&["--route", "full,markov,auto", "--holdout", "3", "--compare", "full,markov"]);
    let users = means_by_user(setting.0.path(), 3);
    assert_eq!((&document["users"], &document["positions"], &document["holdout"]), (&30.into(), &90.into(), &3.into()));
    let mean = users.iter().sum::<f64>() / 30.0;
    let variance = users.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / 29.0;
    let found = &run(&document, "full")["ndcg@10"];
    for (key, expected) in [("mean", mean), ("se", (variance / 30.0).sqrt())] {
        assert!((found[key].as_f64().unwrap() - expected).abs() < 1e-9, "{key}: {found}, {expected}");
    }
    assert!(document["warning"].as_str().unwrap().contains("has learnt some of the targets"));
    assert_eq!(document["comparisons"][0]["a"], "full");

    // `--holdout 1` is the default, leave-one-out. The model was made from no data, and the baselines are fitted to these.
    assert_eq!(setting.eval(&["--json"]).stdout, setting.eval(&["--json", "--holdout", "1"]).stdout);
    let plain = setting.json(&["--route", "full"]);
    assert_eq!(plain["positions"], 30);
    assert!(plain["warning"].as_str().unwrap().contains("trained on other data"), "{plain}");
    let tables = String::from_utf8(setting.eval(&["--route", "full", "--holdout", "2"]).stdout).unwrap();
    assert!(tables.contains("(60 targets, up to 2 of each user)") && tables.contains("Caution"), "{tables}");
    let validation = setting.json(&["--route", "full", "--holdout", "2", "--split", "validation"]);
    assert!(validation["warning"].as_str().unwrap().contains("has learnt some of the targets"));
    let validation = setting.json(&["--route", "full", "--split", "validation"]);
    assert!(validation["warning"].as_str().unwrap().contains("to fit the router"), "{validation}");
}

#[test]
fn the_tables_name_every_run_and_the_log_counts_dropped_interactions() {
    let output = Setting::new().eval(&["--route", "auto,full,random"]);
    let tables = String::from_utf8(output.stdout).unwrap();
    for text in ["30 users, test split", "NDCG@10", "auto - full", "auto - random", "Routes that auto chose"] {
        assert!(tables.contains(text), "{tables}");
    }
    let log = String::from_utf8(output.stderr).unwrap();
    assert!(log.contains("interactions dropped because the model does not know their items: 1"), "{log}");
    assert!(log.contains("no calibration"), "{log}");
}

/// The eighth user's items repeat after ten steps, so the user's target is also their first item.
#[test]
fn repeated_targets_and_multiple_comparisons_get_a_caveat() {
    let setting = Setting::new();
    let tables = String::from_utf8(setting.eval(&["--route", "auto,full,random"]).stdout).unwrap();
    assert!(tables.contains("1 of 30 targets are in the user's own history and count as misses."), "{tables}");
    assert!(tables.contains("2 comparisons over the same 30 users"), "{tables}");
    assert_eq!(setting.json(&["--route", "full"])["repeated_targets"], 1);

    let validation = setting.eval(&["--split", "validation", "--route", "auto,full"]);
    let tables = String::from_utf8(validation.stdout).unwrap();
    assert!(!tables.contains("count as misses") && !tables.contains("over the same 30 users: if"), "{tables}");
}

#[test]
fn a_header_without_a_timestamp_gets_a_remark() {
    let setting = Setting::new();
    std::fs::write(setting.0.path().join("untimed.csv"), "user,item\nu,x1001\nu,x1002\nu,x1003\n").unwrap();
    let lines = setting.eval(&["--route", "full"]);
    assert!(!String::from_utf8_lossy(&lines.stderr).contains("timestamp"), "{lines:?}");
    let output = Command::new(env!("CARGO_BIN_EXE_canet"))
        .current_dir(setting.0.path())
        .args(["eval", "--model", "small", "--data", "untimed.csv", "--route", "full", "--device", "cpu"])
        .output()
        .unwrap();
    let log = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && log.contains("untimed.csv: no time column (found: user, item)"), "{log}");
}

#[test]
fn errors_have_their_exit_codes() {
    let setting = Setting::new();
    std::fs::write(setting.0.path().join("short.txt"), "u x1001 x1002\n").unwrap();
    for (args, code, message) in [
        (&["--route", "h9-l9-e9"][..], 64, "\"h9-l9-e9\" is no run"),
        (&["--compare", "auto"], 64, "two runs separated by a comma"),
        (&["--compare", "auto,statics"], 64, "not statics"),
        (&["--metric", "auc"], 64, "use one of ndcg@5"),
        (&["--flops-budget", "0"], 64, "above 0 and at most 1"),
        (&["--holdout", "0"], 64, "--holdout"),
        (&["--version", "9"], 65, "9"),
        (&["--data", "absent.txt"], 65, "absent.txt: no such file"),
        (&["--data", "short.txt"], 65, "no user has the three interactions"),
        (&["--device", "tpu"], 64, "unknown"),
    ] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_canet"));
        command.current_dir(setting.0.path()).args(["eval", "--model", "small"]);
        if !args.contains(&"--data") {
            command.args(["--data", "data.txt"]);
        }
        let output = command.args(args).output().unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{args:?}: {text}");
        assert!(text.contains(message) && output.stdout.is_empty(), "{args:?}: {text}");
    }
}

#[test]
fn the_verdict_leads_and_tables_follow_if_asked_for() {
    let setting = Setting::new();
    let text = |args: &[&str]| {
        let output = setting.eval(args);
        assert!(output.status.success(), "{output:?}");
        (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    let (plain, log) = text(&[]);
    let (verbose, _) = text(&["--verbose"]);
    assert!(!plain.contains("HR@10") && plain.contains("Markov chain") && plain.contains("NDCG@10"), "{plain}");
    assert!(verbose.contains("The 20 best items") && verbose.contains("auto - random-matched"), "{verbose}");
    assert_eq!(verbose.lines().next(), plain.lines().next());
    assert_fits_a_terminal(&verbose);
    // Without a terminal a line for each run shows the progress.
    for run in ["auto", "full", "popularity", "markov", "the best single slice"] {
        assert!(log.contains(&format!("evaluating {run}\n")), "{run}: {log}");
    }
    let document = setting.json(&[]);
    let verdict = &document["verdict"];
    let mut paragraphs = plain.split("\n\n").map(|text| text.replace('\n', " "));
    let caution = paragraphs.next().unwrap();
    assert!(caution.starts_with("Caution: the model was trained on other data."), "{caution}");
    assert_eq!(verdict["headline"], paragraphs.next().unwrap());
    assert_eq!((&verdict["metric"], &verdict["users"]), (&"ndcg@10".into(), &30.into()));

    // The single slice is the best on validation among those that cost no more than the routed run on test.
    let limit = run(&document, "auto")["flops"].as_f64().unwrap();
    let validation = setting.json(&["--split", "validation"]);
    assert_eq!(validation["verdict"], Value::Null);
    let value = |name: &str| run(&validation, name)["ndcg@10"]["mean"].as_f64().unwrap();
    let slices = document["runs"].as_array().unwrap()[7..].iter();
    let affordable = slices.filter(|run| run["flops"].as_f64().unwrap() <= limit);
    let best = affordable.map(|run| value(run["route"].as_str().unwrap())).fold(0.0, f64::max);
    let chosen = verdict["slice"]["name"].as_str().unwrap();
    assert!((value(chosen) - best).abs() < 1e-12 && run(&document, chosen)["flops"].as_f64().unwrap() <= limit);
    let difference = verdict["slice"]["difference"]["mean"].as_f64().unwrap();
    let mean = |name: &str| run(&document, name)["ndcg@10"]["mean"].as_f64().unwrap();
    assert!((difference - (mean("auto") - mean(chosen))).abs() < 1e-12);
    let saved = run(&document, "auto")["saved"].as_f64().unwrap();
    assert!((verdict["saved"].as_f64().unwrap() - saved).abs() < 1e-12);

    // Chosen runs have no verdict.
    assert_eq!(setting.json(&["--route", "auto,full,popularity,markov"])["verdict"], Value::Null);
}
