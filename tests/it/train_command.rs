//! `canet train` as a user runs it: to the end, with bad flags and bad data.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use canet_model::checkpoint::ModelDirectory;
use serde_json::Value;
use tempfile::TempDir;

use super::server::canet;

/// Users who walk around a ring of 30 items, each from an own start, and never pass it twice: what comes next is
/// certain.
pub(super) fn ring(directory: &Path) -> PathBuf {
    let mut lines = String::new();
    for user in 0..60 {
        for step in 0..20 {
            writeln!(lines, "u{user} i{}", (user * 7 + step) % 30).unwrap();
        }
    }
    let path = directory.join("ring.txt");
    fs::write(&path, lines).unwrap();
    path
}

/// A training of a few seconds.
pub(super) fn train(data: &Path, out: &Path, more: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_canet"));
    let small = [("MAX_LEN", "8"), ("HEADS", "2"), ("HIDDEN", "4,8"), ("LAYERS", "1,2"), ("EMBEDDING", "4,8")];
    let short = [("EPOCHS", "6"), ("BATCH_SIZE", "16"), ("LR", "0.02"), ("WARMUP_STEPS", "10"), ("DROPOUT", "0.1")];
    // Flags that a test gives win over these.
    for (name, value) in [("DEVICE", "cpu"), ("THREADS", "1")].iter().chain(&small).chain(&short) {
        command.env(format!("CANET_{name}"), value);
    }
    command.arg("train").arg("--data").arg(data).arg("--out").arg(out).args(more);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

pub(super) fn finish(mut command: Command) -> Output {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output
}

/// What each epoch came to, from the run log of version 1.
pub(super) fn curve(out: &Path) -> Vec<Value> {
    let log = fs::read_to_string(out.join("1.train.jsonl")).unwrap();
    let events = log.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    events
        .filter(|event| event["event"] == "epoch")
        .map(|mut event| {
            for timed in ["elapsed_seconds", "tokens_per_second"] {
                assert!(event[timed].take().as_f64().unwrap() > 0.0, "{timed}");
            }
            event
        })
        .collect()
}

#[test]
fn a_trained_model_learns_what_is_certain_and_is_written_as_the_next_version() {
    let scratch = TempDir::new().unwrap();
    let data = ring(scratch.path());
    let out = scratch.path().join("ring");
    let printed = finish(train(&data, &out, &[])).stdout;
    assert_eq!(String::from_utf8(printed).unwrap().trim(), out.join("1").to_str().unwrap());
    finish(train(&data, &out, &["--epochs", "1", "--preset", "paper"]));

    let models = ModelDirectory::open(&out).unwrap();
    assert_eq!(models.versions().unwrap(), [1, 2]);
    let first = models.load(Some(1)).unwrap();
    let test = first.manifest.metrics.test.unwrap();
    assert!(test["auto.ndcg@10"] > 0.9, "{test:?}");
    assert!(test["auto.ndcg@10"] > test["popularity.ndcg@10"] + 0.1, "{test:?}");
    let budgets: Vec<f64> = first.manifest.calibration.unwrap().points.iter().map(|point| point.budget).collect();
    assert_eq!(budgets, [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]);
}

/// Without distillation, and with one route alone.
#[test]
fn every_variant_of_the_preset_makes_a_model_that_serves() {
    let scratch = TempDir::new().unwrap();
    let data = ring(scratch.path());
    let variants: [&[&str]; 2] = [
        &["--distillation", "0", "--settle-epochs", "0", "--negatives", "8"],
        &["--hidden", "8", "--layers", "2", "--embedding", "8"],
    ];
    for (place, flags) in variants.iter().enumerate() {
        let out = scratch.path().join(place.to_string());
        let log = finish(train(&data, &out, &[&["--epochs", "3"], *flags].concat())).stderr;
        // A model of one route has no budget to speak of.
        let log = String::from_utf8(log).unwrap();
        let settled = log.lines().find(|line| line.starts_with("settle, epoch 1/3: "));
        assert!(settled.is_none_or(|line| !line.contains('(') && !line.contains("budget")), "{log}");
        assert_eq!(settled.is_some(), place == 1, "{log}");
        let checkpoint = ModelDirectory::open(&out).unwrap().load(None).unwrap();
        let points = checkpoint.manifest.calibration.unwrap().points;
        // A greater budget never spends less.
        assert!(points.is_sorted_by_key(|point| point.spent), "{flags:?}: {points:?}");
        let metrics = checkpoint.manifest.metrics.test.unwrap();
        assert!(metrics["auto.hr@10"] > metrics["popularity.hr@10"], "{flags:?}: {metrics:?}");
    }
}

#[test]
fn items_are_scored_by_the_table_by_which_they_are_read() {
    let scratch = TempDir::new().unwrap();
    let data = ring(scratch.path());
    let variants: [(&[&str], bool); 4] = [
        (&[], true),
        (&["--tie-embeddings", "false"], false),
        (&["--embedding", "4"], false),
        (&["--preset", "paper"], false),
    ];
    for (place, (flags, tied)) in variants.into_iter().enumerate() {
        let out = scratch.path().join(place.to_string());
        finish(train(&data, &out, &[&["--epochs", "1"], flags].concat()));
        let weights = ModelDirectory::open(&out).unwrap().load(None).unwrap().weights;
        let [read, scored] = ["item_embedding", "output.weight"].map(|name| weights.get(&format!("backbone.{name}")));
        assert_eq!(read.unwrap().data == scored.unwrap().data, tied, "{flags:?}");
    }
}

#[test]
fn time_that_runs_out_still_leaves_a_checkpoint() {
    let scratch = TempDir::new().unwrap();
    let data = ring(scratch.path());
    let out = scratch.path().join("hurried");
    // Numbers whose sums and products no machine word holds are no reason to fall over.
    let most = u64::MAX.to_string();
    let endless = ["--epochs", "--patience", "--settle-epochs"].map(|flag| [flag, &most]).concat();
    finish(train(&data, &out, &[&endless[..], &["--max-minutes", "0.02"]].concat()));
    let checkpoint = ModelDirectory::open(&out).unwrap().load(None).unwrap();
    let log = fs::read_to_string(out.join("1.train.jsonl")).unwrap();
    assert_eq!(checkpoint.manifest.cut_short_after(), Some(curve(&out).len() as u64));
    for command in [&["inspect"][..], &["eval", "--data", data.to_str().unwrap(), "--threads", "1"]] {
        let output = finish(canet(&[command, &["--model", out.to_str().unwrap()]].concat()));
        let printed = String::from_utf8(output.stdout).unwrap();
        assert!(printed.contains("--max-minutes ended the training"), "{printed}");
    }
    assert!(log.lines().last().unwrap().contains(r#""reason":"max_minutes""#), "{log}");
    // The log counts the distillation steps that ran, not those that were planned.
    for event in log.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()) {
        if event["event"] == "taught" {
            assert!(event["steps"].as_u64().unwrap() <= event["of"].as_u64().unwrap(), "{event}");
        }
    }
}

/// Two routers on copies of one supernet; the first is what an unbroken run makes.
#[test]
fn a_run_stops_after_a_stage_and_goes_on_with_other_flags_for_the_next_ones() {
    let scratch = TempDir::new().unwrap();
    let data = ring(scratch.path());
    let [straight, broken, copy] = ["straight", "broken", "copy"].map(|name| scratch.path().join(name));
    finish(train(&data, &straight, &[]));

    let paused = finish(train(&data, &broken, &["--stop-after", "supernet"]));
    assert!(String::from_utf8_lossy(&paused.stderr).contains("without --stop-after"), "{paused:?}");
    assert!(paused.stdout.is_empty() && !broken.join("1").exists(), "{paused:?}");
    let again = finish(train(&data, &broken, &["--stop-after", "supernet"]));
    assert!(again.stdout.is_empty() && !broken.join("1").exists(), "{again:?}");
    let work = copy.join(".training");
    fs::create_dir_all(&work).unwrap();
    for entry in fs::read_dir(broken.join(".training")).unwrap().map(Result::unwrap) {
        fs::copy(entry.path(), work.join(entry.file_name())).unwrap();
    }
    let resumed = String::from_utf8(finish(train(&data, &broken, &[])).stderr).unwrap();
    assert!(resumed.contains("resuming in the stage router\n"), "{resumed}");
    assert_eq!(curve(&broken), curve(&straight));

    // What the supernet was trained with stands; what comes after it does not.
    let refused = train(&data, &copy, &["--distillation", "0.1"]).output().unwrap();
    let message = String::from_utf8_lossy(&refused.stderr);
    let differs = "--distillation 0.5 (now 0.1): give its values to continue it";
    assert!(refused.status.code() == Some(64) && message.contains(differs), "{message}");
    let sizes = train(&data, &copy, &["--seed", "2", "--hidden", "8"]).output().unwrap();
    let message = String::from_utf8_lossy(&sizes.stderr);
    assert!(message.contains("--hidden 4,8 (now 8)") && message.contains("--seed 1 (now 2)"), "{message}");
    finish(train(&data, &copy, &["--settle-epochs", "1", "--flops-budget", "0.35"]));
    let [settled, supernet] = [curve(&copy), curve(&straight)];
    assert_eq!(settled.len(), 6 + 1);
    assert_eq!(settled[..6], supernet[..6]);
    let calibration = ModelDirectory::open(&copy).unwrap().load(None).unwrap().manifest.calibration.unwrap();
    assert!(calibration.points.iter().any(|point| (point.budget - 0.35).abs() < 1e-9), "{calibration:?}");
}

/// In the run's log and in the checkpoint, the defaults too.
#[test]
fn how_a_model_was_trained_is_recorded() {
    let scratch = TempDir::new().unwrap();
    let data = ring(scratch.path());
    let out = scratch.path().join("ring");
    finish(train(&data, &out, &["--epochs", "1", "--seed", "7", "--negatives", "16", "--max-minutes", "5"]));
    let log = fs::read_to_string(out.join("1.train.jsonl")).unwrap();
    let start: Value = serde_json::from_str(log.lines().next().unwrap()).unwrap();
    assert_eq!((&start["event"], &start["program"]), (&"start".into(), &env!("CARGO_PKG_VERSION").into()));
    let options = &start["options"];
    for (name, expected) in
        [("seed", Value::from(7)), ("epochs", 1.into()), ("dropout", 0.1.into()), ("tied", true.into())]
    {
        assert_eq!(options[name], expected, "{name}: {options}");
    }
    assert_eq!((&options["preset"], &options["sandwich"]["negatives"]), (&"utility".into(), &16.into()));
    assert_eq!((&start["config"]["hidden"][1], &start["max_minutes"]), (&8.into(), &5.0.into()));

    let manifest = ModelDirectory::open(&out).unwrap().load(None).unwrap().manifest;
    assert_eq!(start["data_sha256"], manifest.data.sha256);
    assert_eq!(start["parsed_sha256"], manifest.data.parsed_sha256.unwrap());
    let recorded = manifest.training.unwrap();
    assert_eq!(recorded.program, env!("CARGO_PKG_VERSION"));
    assert_eq!(serde_json::to_value(&recorded.options).unwrap(), *options);

    let inspect = |more: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_canet"));
        command.args(["inspect", "--model"]).arg(&out).args(more);
        String::from_utf8(finish(command).stdout).unwrap()
    };
    let shown: Value = serde_json::from_str(&inspect(&["--json"])).unwrap();
    assert_eq!(shown["training"]["options"], *options);
    assert!(inspect(&[]).contains("preset \"utility\""), "{}", inspect(&[]));
}

#[test]
fn what_was_read_and_what_was_passed_over_is_said() {
    let scratch = TempDir::new().unwrap();
    let data = ring(scratch.path());
    let broken = fs::read_to_string(&data).unwrap() + "alone\nu1 i1 i2\n";
    fs::write(&data, broken).unwrap();
    let log = finish(train(&data, &scratch.path().join("out"), &["--epochs", "1", "--skip-bad-lines"])).stderr;
    let log = String::from_utf8(log).unwrap();
    for line in [
        "form         `user item` lines",
        "lines        1202, 2 bad ones skipped",
        "users        60",
        "items        30",
    ] {
        assert!(log.contains(&format!("canet: {line}\n")), "{line} is not in {log}");
    }
    assert!(log.contains("canet: interactions 1200, none repeats an item"), "{log}");
    assert!(log.contains("canet: 2 bad lines skipped: "), "{log}");
}

#[test]
fn a_header_without_a_moment_is_remarked_on() {
    let scratch = TempDir::new().unwrap();
    let data = scratch.path().join("untimed.csv");
    let pairs = fs::read_to_string(ring(scratch.path())).unwrap().replace(' ', ",");
    fs::write(&data, format!("user,item,price\n{}", pairs.replace('\n', ",1\n"))).unwrap();
    let log = finish(train(&data, &scratch.path().join("out"), &["--epochs", "1"])).stderr;
    let log = String::from_utf8(log).unwrap();
    let remark = "no time column (found: user, item, price): the order of lines is taken as time";
    assert!(log.contains(remark), "{log}");
}

#[test]
fn bad_flags_and_bad_data_end_with_their_code_and_say_what_to_do() {
    let scratch = TempDir::new().unwrap();
    let data = ring(scratch.path());
    let single = scratch.path().join("single.txt");
    fs::write(&single, (0..10).map(|user| format!("u{user} i{user}\n")).collect::<String>()).unwrap();
    let few = scratch.path().join("few.txt");
    fs::write(&few, "a x y z\nb x y z\n").unwrap();
    let pairs = scratch.path().join("pairs.txt");
    fs::write(&pairs, (0..10).map(|user| format!("u{user} i{user}\nu{user} j{user}\n")).collect::<String>()).unwrap();
    let missing = scratch.path().join("missing.txt");
    let table: [(&Path, &[&str], i32, &str); 17] = [
        (&data, &["--hidden", "8,4"], 64, "hidden"),
        (&data, &["--hidden", "4,9"], 64, "heads"),
        (&data, &["--max-len", "0"], 64, "max_len"),
        (&data, &["--dropout", "1"], 64, "--dropout"),
        (&data, &["--flops-budget", "0"], 64, "--flops-budget"),
        (&data, &["--tie-embeddings", "true", "--embedding", "4"], 64, "--tie-embeddings"),
        (&data, &["--device", "tpu"], 64, "tpu"),
        (&data, &["--stop-after", "lunch"], 64, "--stop-after"),
        (&data, &["--preset", "paper", "--negatives", "64"], 64, "--negatives is a flag of --preset utility"),
        (&data, &["--stop-after", "joint"], 64, "the preset has no such stage, but supernet, router, settle, newest"),
        (&data, &["--max-minutes", "1e30"], 64, "--max-minutes"),
        (&data, &["--max-minutes", "0"], 64, "--max-minutes"),
        (&data, &["--where", "event=buy"], 65, "`user item` lines have no named columns, which --where needs"),
        (&few, &[], 65, "few.txt: too few to train on (users: 2, items: 3)"),
        (&single, &[], 65, "nothing to learn"),
        (&pairs, &[], 65, "nobody to validate on"),
        (&missing, &[], 65, "missing.txt"),
    ];
    for (data, flags, code, words) in table {
        let output = train(data, &scratch.path().join("out"), flags).output().unwrap();
        let message = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{flags:?}: {message}");
        assert!(message.contains(words), "{flags:?}: {message}");
    }
    let version = scratch.path().join("mine/3");
    fs::create_dir_all(&version).unwrap();
    fs::write(version.join("canet.json"), "{}").unwrap();
    let output = train(&data, &version, &[]).output().unwrap();
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(64) && message.contains("this is one version of a model"), "{message}");
    assert!(!message.contains("epoch 1/"), "{message}");
    let output = train(&data, Path::new("s3://shop/model"), &[]).output().unwrap();
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(64) && message.contains("canet publish"), "{message}");
}

#[test]
fn a_training_that_diverges_at_its_end_says_what_to_change() {
    let scratch = TempDir::new().unwrap();
    let data = ring(scratch.path());
    let steep = ["--epochs", "1", "--warmup-steps", "0", "--lr", "1e9"];
    let cases = [
        ("supernet", [&steep[..], &["--settle-epochs", "0"]].concat(), "a lower --lr or a longer --warmup-steps"),
        ("joint", [&steep[..], &["--preset", "paper"]].concat(), "a lower --lr or a longer --warmup-steps"),
        ("settle", ["--epochs", "1", "--settle-lr", "1e9", "--settle-epochs", "1"].to_vec(), "a lower --settle-lr"),
    ];
    for (stage, flags, advice) in cases {
        let out = scratch.path().join(stage);
        let output = train(&data, &out, &flags).output().unwrap();
        let message = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(64), "{message}");
        for words in [&format!("training diverged in epoch 1 of the stage {stage}"), advice, "--restart"] {
            assert!(message.contains(words), "{words}: {message}");
        }
        assert!(!out.join("1").exists());
    }
}

#[test]
fn a_training_that_needs_more_memory_than_there_is_does_not_start() {
    let scratch = TempDir::new().unwrap();
    let (data, out) = (ring(scratch.path()), scratch.path().join("out"));
    // 7 TB of weights and moments.
    let huge = ["--hidden", "8192", "--embedding", "8192", "--layers", "256"];
    let output = train(&data, &out, &huge).output().unwrap();
    let message = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(69), "{message}");
    for words in ["training needs about", "are available", "--batch-size", "--skip-memory-check"] {
        assert!(message.contains(words), "{words}: {message}");
    }
    assert!(!out.exists());
    let output = finish(train(&data, &out, &["--epochs", "1"]));
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(message.contains("interactions 1200") && message.contains("training needs about"), "{message}");
}

/// The headline of the verdict, which stands at the end of standard error, and the lines that follow it.
fn verdict(log: &[u8]) -> Vec<String> {
    let log = String::from_utf8(log.to_vec()).unwrap();
    let (before, _) = log.rsplit_once("\n\nrun ").unwrap_or_else(|| panic!("{log}"));
    let headline = before.rsplit("\n\n").next().unwrap();
    let following = log[before.len()..].lines().map(str::to_owned);
    [headline.replace('\n', " ")].into_iter().chain(following).collect()
}

/// A shop's log: 200 users and 150 products. Two of three times the next product is the one that goes with the last one, and
/// else any product.
fn shop(directory: &Path) -> PathBuf {
    let mut lines = String::new();
    let mut draw = {
        // A linear congruential generator (Knuth's MMIX).
        let mut state = 1_u64;
        move |below: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % below
        }
    };
    for user in 0..200 {
        let mut product = draw(150);
        for _ in 0..12 {
            writeln!(lines, "u{user} p{product}").unwrap();
            product = if draw(3) < 2 { (7 * product + 11) % 150 } else { draw(150) };
        }
    }
    let path = directory.join("shop.txt");
    fs::write(&path, lines).unwrap();
    path
}

#[test]
fn a_markov_chain_that_is_better_comes_first() {
    let scratch = TempDir::new().unwrap();
    let (data, out) = (shop(scratch.path()), scratch.path().join("shop"));
    let output = finish(train(&data, &out, &["--epochs", "2"]));
    let lines = verdict(&output.stderr);
    assert!(lines[0].starts_with("A Markov chain beats this model: NDCG@10 ."), "{lines:#?}");
    let log = String::from_utf8_lossy(&output.stderr);
    // The loss is one number with a name and a unit, and the score says what it is the score of.
    for words in [
        "supernet, epoch 1/2: cross-entropy of the full slice ",
        "(mean of h4-l1-e4, h4-l2-e8, h8-l2-e8)",
        " of the run left\n",
        "router: it explains ",
        "settle, epoch 1/3: ",
        "(routed at a budget of 30 %, ",
    ] {
        assert!(log.contains(words), "{words:?} is not in {log}");
    }
    assert!(lines.iter().all(|line| !line.starts_with("Next: ")), "{lines:#?}");

    let mut eval = Command::new(env!("CARGO_BIN_EXE_canet"));
    let arguments = ["--device", "cpu", "--threads", "1"];
    eval.args(["eval", "--data"]).arg(&data).arg("--model").arg(&out).args(arguments);
    let mut json = Command::new(env!("CARGO_BIN_EXE_canet"));
    json.args(["eval", "--json", "--data"]).arg(&data).arg("--model").arg(&out).args(arguments);
    let text = String::from_utf8(finish(eval).stdout).unwrap();
    assert!(text.starts_with("A Markov chain beats this model: NDCG@10 ."), "{text}");
    assert!(!text.contains("HR@10"), "the tables are for --verbose: {text}");
    let document: Value = serde_json::from_slice(&finish(json).stdout).unwrap();
    let found = &document["verdict"];
    assert_eq!(found["headline"], text.split("\n\n").next().unwrap().replace('\n', " "));
    assert_eq!(found["unbeaten"], serde_json::json!({"name": "markov", "wins": true, "full_beats": false}));
    assert_eq!(found["serve"], Value::Null);
    let mean = |name: &str| {
        let runs = document["runs"].as_array().unwrap();
        runs.iter().find(|run| run["route"] == name).unwrap()["ndcg@10"]["mean"].as_f64().unwrap()
    };
    for (name, rival) in [("full", "full"), ("markov", "markov"), ("popularity", "popularity")] {
        let difference = found[rival]["difference"]["mean"].as_f64().unwrap();
        assert!((difference - (mean("auto") - mean(name))).abs() < 1e-12, "{name}: {found}");
    }
}

/// Users who buy the same three products again and again, each their own three of 30.
fn repeats(directory: &Path) -> PathBuf {
    let mut lines = String::new();
    for user in 0..60 {
        for step in 0..15 {
            writeln!(lines, "u{user} i{}", (user * 7 + step % 3) % 30).unwrap();
        }
    }
    let path = directory.join("repeats.txt");
    fs::write(&path, lines).unwrap();
    path
}

#[test]
fn repeat_purchases_count_if_items_of_the_history_are_included() {
    let scratch = TempDir::new().unwrap();
    let data = repeats(scratch.path());
    let [without, with] = ["without", "with"].map(|name| scratch.path().join(name));
    let short = ["--settle-epochs", "1"];
    let log = finish(train(&data, &without, &[&short[..], &["--epochs", "1"]].concat())).stderr;
    let lines = verdict(&log);
    assert!(lines[0].starts_with("This model is not shown to beat "), "{lines:#?}");
    assert!(lines.iter().any(|line| line.starts_with("100 % of the test items are repeats: ")), "{lines:#?}");
    let given = format!("--data {} --out {} --settle-epochs 1 --epochs 1", data.display(), without.display());
    let again = format!("Next: canet train {given} --include-seen");
    assert!(lines.contains(&again), "{lines:#?}");

    let flags = [&short[..], &["--epochs", "20", "--include-seen"]].concat();
    let lines = verdict(&finish(train(&data, &with, &flags)).stderr);
    assert!(lines.iter().all(|line| !line.contains("are repeats")), "{lines:#?}");
    let manifest = ModelDirectory::open(&with).unwrap().load(None).unwrap().manifest;
    let test = manifest.metrics.test.unwrap();
    assert!(!manifest.exclude_seen && test["full.ndcg@10"] > 0.6, "{test:?}");
    // What comes next is certain after the last two items, and nearly so after one.
    assert!(test["markov.ndcg@10"] > 0.6, "{test:?}");

    // The checkpoint's rule is the default, and a flag wins over it.
    let eval = |flags: &[&str]| -> Value {
        let mut command = Command::new(env!("CARGO_BIN_EXE_canet"));
        command.args(["eval", "--json", "--device", "cpu", "--threads", "1", "--route", "full,markov", "--data"]);
        command.arg(&data).arg("--model").arg(&with).args(flags);
        serde_json::from_slice(&finish(command).stdout).unwrap()
    };
    let ndcg = |document: &Value, run: usize| document["runs"][run]["ndcg@10"]["mean"].as_f64().unwrap();
    let (own, excluded) = (eval(&[]), eval(&["--include-seen=false"]));
    assert_eq!((&own["seen_items"], &excluded["seen_items"]), (&"included".into(), &"excluded".into()));
    assert!((ndcg(&own, 0) - test["full.ndcg@10"]).abs() < 0.02 && ndcg(&own, 1) > 0.6, "{own}");
    assert_eq!((ndcg(&excluded, 0), ndcg(&excluded, 1)), (0.0, 0.0));
    assert_eq!(eval(&["--include-seen"]), own);
}
