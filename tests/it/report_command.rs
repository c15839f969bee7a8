//! `canet report` as a process, on small random checkpoints: its numbers, page and plots.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use canet_data::{Dataset, ReadOptions};
use canet_domain::{History, Item, choose_route};
use canet_evaluation::t_critical;
use canet_model::checkpoint::{BudgetPoint, Calibration, Checkpoint, CheckpointDraft, ModelDirectory};
use canet_model::{Forward, ModelConfig};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::support::{best_mixture, draft, reference, run_script, small_config};

/// Writes sixty users with items x1001 to x1040, and one user with too few items.
fn write_data(path: &Path) {
    let user = |user: usize| {
        let items = (0..4 + user % 9).map(|place| format!("x{}", 1001 + (user * 7 + place * (1 + user % 4)) % 40));
        format!("u{user} {}\n", items.collect::<Vec<_>>().join(" "))
    };
    fs::write(path, (0..60).map(user).collect::<String>() + "short x1001 x1002\n").unwrap();
}

/// A random model with a calibration, whose small budgets favour cheap routes, and with titles that need escaping.
fn model(config: ModelConfig, seed: u64) -> CheckpointDraft {
    let draft = draft(config, seed);
    let routes = draft.config.check().unwrap().len();
    let tilted = |tilt: f32| (0..routes).map(|route| -tilt * route as f32 / routes as f32).collect();
    let points = [(0.1, 9.0), (0.5, 2.0), (0.9, -3.0)];
    let points = points.map(|(budget, tilt)| BudgetPoint { budget, bias: tilted(tilt), route: None, spent: budget });
    let titles = (1001..=1040).map(|id| (format!("x{id}").into(), format!("<b>{id}</b> & \"co\"").into()));
    CheckpointDraft {
        calibration: Some(Calibration { points: points.into() }),
        catalogue: draft.catalogue.clone().with_titles(titles),
        ..draft
    }
}

struct Setting(TempDir);

impl Setting {
    fn new() -> Setting {
        let folder = tempfile::tempdir().unwrap();
        write_data(&folder.path().join("data.txt"));
        model(small_config(), 11).write(&folder.path().join("one")).unwrap();
        model(small_config(), 12).write(&folder.path().join("two")).unwrap();
        let alone = ModelConfig { hidden: vec![8], layers: vec![2], embedding: vec![6], ..small_config() };
        draft(alone, 13).write(&folder.path().join("alone")).unwrap();
        Setting(folder)
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.0.path().join(name)
    }

    fn report(&self, args: &[&str]) -> Output {
        self.canet("report", args)
    }

    /// What `canet eval` prints about a model, without the caution that stands first.
    fn evaluated(&self, model: &str) -> String {
        let text = String::from_utf8(self.canet("eval", &["--model", model]).stdout).unwrap();
        let (caution, verdict) = text.split_once("\n\n").unwrap();
        assert!(caution.starts_with("Caution: "), "{caution}");
        verdict.to_owned()
    }

    fn canet(&self, command: &str, args: &[&str]) -> Output {
        let data: &[&str] = if args.contains(&"--data") { &[] } else { &["--data", "data.txt"] };
        Command::new(env!("CARGO_BIN_EXE_canet"))
            .current_dir(self.0.path())
            .args([command, "--device", "cpu", "--threads", "1"])
            .args(data)
            .args(args)
            .output()
            .unwrap()
    }

    fn json(&self, args: &[&str], file: &str) -> Value {
        let output = self.report(args);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&fs::read(self.path(file)).unwrap()).unwrap()
    }
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is no number"))
}

fn near(found: &Value, expected: f64) {
    assert!((number(found) - expected).abs() < 1e-9 * expected.abs().max(1.0), "{found} is not {expected}");
}

/// NDCG@10 and FLOPs by route, then by user, recomputed from the reference forward's scores.
struct Recomputed {
    values: Vec<Vec<f64>>,
    flops: Vec<Vec<f64>>,
}

impl Recomputed {
    /// The target is each user's item `back` from the end.
    fn of(checkpoint: &Checkpoint, sequences: &[&[Item]], back: usize) -> Recomputed {
        let forward = reference(&checkpoint.config, &checkpoint.weights);
        let (space, shape) = (&checkpoint.space, checkpoint.config.shape());
        let history = |sequence: &[Item]| History::new(&sequence[..sequence.len() - back], 12).unwrap();
        let gain = |route, sequence: &[Item]| -> f64 {
            let scores = forward.scores(route, &[&history(sequence)]).unwrap();
            let (scores, seen) = (scores.row(0).unwrap(), &sequence[..sequence.len() - back]);
            let target = sequence[sequence.len() - back];
            let unseen = (1..=40).map(|id| Item::new(id).unwrap()).filter(|item| !seen.contains(item));
            let rank = unseen.filter(|item| scores[item.column()] > scores[target.column()]).count() + 1;
            if rank > 10 || seen.contains(&target) { 0.0 } else { 1.0 / ((rank + 1) as f64).log2() }
        };
        Recomputed {
            values: space.routes().map(|route| sequences.iter().map(|user| gain(route, user)).collect()).collect(),
            flops: space
                .routes()
                .map(|route| {
                    sequences.iter().map(|user| shape.route_flops(space, route, history(user).len()) as f64).collect()
                })
                .collect(),
        }
    }

    fn means(columns: &[Vec<f64>]) -> Vec<f64> {
        columns.iter().map(|values| mean(values)).collect()
    }
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

fn se(values: &[f64]) -> f64 {
    let (mean, count) = (mean(values), values.len() as f64);
    (values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / (count - 1.0) / count).sqrt()
}

#[test]
fn the_numbers_follow_from_the_scores() {
    let setting = Setting::new();
    let found = setting.json(&["--model", "one", "--out", "out", "--budgets", "0.5,0.3"], "out/report.json");
    assert_eq!((&found["users"], &found["points"][0]["budget"]), (&60.into(), &0.3.into()));
    // The items of users 7, 35 and 43 repeat, so their targets are in their own histories.
    assert_eq!(found["repeated_targets"], 3);
    let checkpoint = ModelDirectory::open(&setting.path("one")).unwrap().load(None).unwrap();
    let data = Dataset::read_known(&setting.path("data.txt"), &checkpoint.catalogue, &ReadOptions::default()).unwrap();
    let users: Vec<&[Item]> = data.sequences.iter().map(Vec::as_slice).filter(|items| items.len() > 2).collect();
    let (validation, test) = (Recomputed::of(&checkpoint, &users, 2), Recomputed::of(&checkpoint, &users, 1));

    let costs = Recomputed::means(&test.flops);
    for (route, values) in test.values.iter().enumerate() {
        let record = &found["routes"][route];
        near(&record["test"]["mean"], mean(values));
        near(&record["test"]["se"], se(values));
        near(&record["validation"], mean(&validation.values[route]));
        near(&record["cost"]["flops"], costs[route]);
        assert!(number(&record["cost"]["seconds"]) > 0.0);
        let over_full: Vec<f64> =
            values.iter().zip(test.values.last().unwrap()).map(|(own, full)| own - full).collect();
        near(&record["over_full"]["se"], se(&over_full));
    }

    // Recompute the router at a budget of .3 with the reference forward.
    let forward = reference(&checkpoint.config, &checkpoint.weights);
    let bias = checkpoint.manifest.calibration.as_ref().unwrap().bias(0.3);
    let choose = |user: &&[Item]| {
        let history = History::new(&user[..user.len() - 1], 12).unwrap();
        let logits = forward.router_logits(&[&history]).unwrap();
        (choose_route(&checkpoint.space, logits.row(0).unwrap(), &bias).route.index(), history.len())
    };
    let choices: Vec<(usize, usize)> = users.iter().map(choose).collect();
    let routed: Vec<f64> = choices.iter().enumerate().map(|(user, (route, _))| test.values[*route][user]).collect();
    let router = |length| checkpoint.config.shape().router_flops(24, length) as f64;
    let spent = choices.iter().enumerate().map(|(user, (route, length))| test.flops[*route][user] + router(*length));
    let spent = mean(&spent.collect::<Vec<f64>>());
    let point = &found["points"][0];
    near(&point["test"]["mean"], mean(&routed));
    near(&point["cost"]["flops"], spent);
    near(&point["saved"], 1.0 - spent / costs.last().unwrap());

    // Half way between two vertices of the hull, no mixture of two other routes is better on validation.
    let vertices: Vec<usize> = {
        let hull = found["models"][0]["hull"].as_array().unwrap();
        hull.iter().map(|name| checkpoint.space.parse(name.as_str().unwrap()).unwrap().index()).collect()
    };
    let (validation_costs, validation_values) =
        (Recomputed::means(&validation.flops), Recomputed::means(&validation.values));
    for pair in vertices.windows(2) {
        let half = f64::midpoint(validation_costs[pair[0]], validation_costs[pair[1]]);
        let (best, _) = best_mixture(&validation_costs, &validation_values, half);
        let own = f64::midpoint(validation_values[pair[0]], validation_values[pair[1]]);
        assert!((best - own).abs() < 1e-9, "{best} and {own}");
    }
    let place = vertices.iter().position(|vertex| costs[*vertex] > spent);
    let place = place.unwrap_or(vertices.len());
    let (low, high) = (vertices[place - 1], *vertices.get(place).unwrap_or(&vertices[place - 1]));
    let share = if low == high { 0.0 } else { (spent - costs[low]) / (costs[high] - costs[low]) };
    let over = |other: &dyn Fn(usize) -> f64| -> Vec<f64> {
        routed.iter().enumerate().map(|(user, value)| value - other(user)).collect()
    };
    let over_hull = over(&|user| (1.0 - share) * test.values[low][user] + share * test.values[high][user]);
    near(&point["over"]["hull"]["mean"], mean(&over_hull));
    near(&point["over"]["hull"]["se"], se(&over_hull));
    near(
        &point["over"]["hull"]["interval"][1],
        mean(&over_hull) + t_critical(users.len() as f64 - 1.0) * se(&over_hull),
    );
    let matched =
        over(&|user| choices.iter().map(|(route, _)| test.values[*route][user]).sum::<f64>() / choices.len() as f64);
    near(&point["over"]["matched"]["mean"], mean(&matched));
    near(&point["over"]["matched"]["se"], se(&matched));
    near(&point["permuted"]["own"], mean(&matched));
    let best = |user: usize| test.values.iter().map(|values| values[user]).fold(0.0, f64::max);
    near(&found["oracle"]["test"]["mean"], mean(&(0..users.len()).map(best).collect::<Vec<_>>()));
    for kind in ["taste", "length", "popularity"] {
        let groups = found["map"]["groups"].as_array().unwrap().iter().filter(|group| group["kind"] == kind);
        assert_eq!(groups.map(|group| group["users"].as_u64().unwrap()).sum::<u64>(), 60, "{kind}");
    }
}

#[test]
fn models_are_averaged_and_compared_with_one_trained_alone() {
    let setting = Setting::new();
    let one = setting.json(&["--model", "one", "--out", "a.html"], "a.json");
    let two = setting.json(&["--model", "two", "--out", "b.html"], "b.json");
    let args = ["--model", "one", "--model", "two", "--trained-alone", "alone", "--out", "both.html"];
    let both = setting.json(&args, "both.json");
    assert_eq!(both["points"].as_array().unwrap().len(), 9);
    for (place, point) in both["points"].as_array().unwrap().iter().enumerate() {
        for against in ["hull", "hull_cross_fitted", "full", "strongest", "matched"] {
            let found = &point["over"][against];
            let [a, b] = [&one, &two].map(|alone| number(&alone["points"][place]["over"][against]["mean"]));
            near(&found["mean"], f64::midpoint(a, b));
            near(&found["spread"], (a - b).abs() / 2_f64.sqrt());
            let [low, high] = [0, 1].map(|end| number(&found["interval"][end]));
            // The interval is at least as wide as the one over users alone.
            assert!(high - low >= 2.0 * 1.96 * number(&found["se"]) - 1e-12);
        }
    }
    let alone = &both["trained_alone"][0];
    assert_eq!((&alone["slice"], &alone["name"]), (&"h8-l2-e6".into(), &"alone".into()));
    let point = &both["points"][alone["point"].as_u64().unwrap() as usize];
    let same = both["routes"].as_array().unwrap().iter().find(|route| route["name"] == alone["slice"]).unwrap();
    for (ours, over) in [(point, "routed_over"), (&both["strongest"], "strongest_over"), (same, "same_slice_over")] {
        near(&alone[over]["mean"], number(&ours["test"]["mean"]) - number(&alone["test"]["mean"]));
    }
    assert_eq!(one["trained_alone"], Value::Array(Vec::new()));
    let text = fs::read_to_string(setting.path("both.html")).unwrap();
    assert!(text.contains("one, version 1; two, version 1") && text.contains("Models trained alone"));
}

#[test]
fn the_page_is_complete_and_works_in_a_browser() {
    let setting = Setting::new();
    let output = setting.report(&["--model", "one", "--trained-alone", "alone", "--out", "out"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let printed = String::from_utf8(output.stdout).unwrap();
    assert!(printed.trim_end().ends_with("out/report.html"), "{printed}");
    // The first line is that of `canet eval`.
    assert_eq!(printed.lines().next(), setting.evaluated("one").lines().next());
    assert!(printed.contains("static mixture of the same FLOPs"), "{printed}");
    assert!(printed.contains("Caution: the model was trained on other data."), "{printed}");
    assert!(printed.contains("3 of 60 targets are in the user's own history and count as misses."), "{printed}");
    let page = fs::read_to_string(setting.path("out/report.html")).unwrap();
    let first = printed.split("\n\n").next().unwrap().replace('\n', " ");
    assert!(page.contains(&format!("<h2>{first}</h2>")), "{first}");
    for text in ["http:", "https:", "<script", "<b>10", "url(", "@import", " src=", "<link"] {
        assert!(!page.contains(text), "the page has {text}");
    }
    assert!(page.contains("&lt;b&gt;10"), "no title is on the page");
    for name in ["flops", "time", "differences", "routes"] {
        let plot = fs::read_to_string(setting.path(&format!("out/report-{name}.svg"))).unwrap();
        assert!(plot.starts_with("<svg xmlns=\"http://www.w3.org/2000/svg\"") && !plot.contains("NaN"), "{name}");
    }
    assert!(!page.contains("NaN") && !page.contains("inf"), "the page has a value that is no number");
    run_script("report.py", &[setting.path("out").to_str().unwrap()]);
}

#[test]
fn without_a_calibration_there_is_one_point_and_the_page_says_so() {
    let setting = Setting::new();
    draft(small_config(), 14).write(&setting.path("plain")).unwrap();
    let found = setting.json(&["--model", "plain", "--out", "plain.html"], "plain.json");
    assert_eq!((found["points"].as_array().unwrap().len(), &found["points"][0]["budget"]), (1, &Value::Null));
    assert!(fs::read_to_string(setting.path("plain.html")).unwrap().contains("no calibration for budgets"));
    let mixed = setting.report(&["--model", "one,plain", "--out", "mixed.html"]);
    assert_eq!(mixed.status.code(), Some(65));
}

#[test]
fn budgets_under_which_no_router_is_asked_are_named() {
    let setting = Setting::new();
    let plain = model(small_config(), 11);
    let mut calibration = plain.calibration.clone().unwrap();
    calibration.points[0].route = Some("h8-l2-e6".to_owned());
    CheckpointDraft { calibration: Some(calibration), ..plain }.write(&setting.path("fixed")).unwrap();
    let output = setting.report(&["--model", "fixed", "--out", "fixed.html", "--budgets", "0.3,0.5"]);
    let printed = String::from_utf8(output.stdout).unwrap();
    // Before the unit stands a space that does not break.
    assert!(printed.contains("It runs one slice for everybody: h8-l2-e6 at 30"), "{printed}");
    let found: Value = serde_json::from_slice(&fs::read(setting.path("fixed.json")).unwrap()).unwrap();
    assert_eq!((&found["points"][0]["fixed"], &found["points"][1]["fixed"]), (&json!(["h8-l2-e6"]), &json!([])));
    // The verdict is that of `canet eval` about the slice; the points are about the router.
    assert_eq!(printed.lines().next(), setting.evaluated("fixed").lines().next());
    let slice = found["routes"].as_array().unwrap().iter().find(|route| route["name"] == "h8-l2-e6").unwrap();
    assert_eq!(found["verdict"]["fixed"], "h8-l2-e6");
    near(&found["verdict"]["routed"]["mean"], number(&slice["test"]["mean"]));
    let router = setting.json(&["--model", "one", "--out", "one.html", "--budgets", "0.3,0.5"], "one.json");
    near(&found["points"][0]["test"]["mean"], number(&router["points"][0]["test"]["mean"]));
}

#[test]
fn a_model_of_one_slice_has_the_verdict_of_eval_and_no_router() {
    let setting = Setting::new();
    let found = setting.json(&["--model", "alone", "--out", "alone.html"], "alone.json");
    let point = &found["points"][0];
    assert_eq!((number(&point["saved"]), number(&found["router"]["flops"])), (0.0, 0.0));
    assert_eq!((&found["verdict"]["routing"], number(&found["verdict"]["compute"])), (&"single_route".into(), 1.0));
    let page = fs::read_to_string(setting.path("alone.html")).unwrap();
    let first = setting.evaluated("alone").split("\n\n").next().unwrap().replace('\n', " ");
    assert!(page.contains(&format!("<h2>{first}</h2>")), "{first}");
    assert!(!page.contains("the router saves"), "a router that never runs saves nothing");
}

#[test]
fn errors_have_their_exit_codes_and_write_nothing() {
    let setting = Setting::new();
    fs::write(setting.path("short.txt"), "u x1001 x1002\n").unwrap();
    let config = ModelConfig { items: 39, ..small_config() };
    draft(config, 15).write(&setting.path("other")).unwrap();
    for (args, code, message) in [
        (&["--out", "x.html"][..], 64, "--model"),
        (&["--model", "one"], 64, "--out"),
        (&["--model", "one", "--out", "x.html", "--budgets", "0"], 64, "above 0 and at most 1"),
        (&["--model", "one", "--out", "data.txt/x.html"], 64, "cannot write"),
        (&["--model", "none", "--out", "x.html"], 65, "none"),
        (&["--model", "one,alone", "--out", "x.html"], 65, "--trained-alone"),
        (&["--model", "one,other", "--out", "x.html"], 65, "different items"),
        (&["--model", "one", "--trained-alone", "other", "--out", "x.html"], 65, "different items"),
        (&["--model", "one", "--out", "x.html", "--data", "short.txt"], 65, "no user has the three interactions"),
    ] {
        let output = setting.report(args);
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{args:?}: {text}");
        assert!(text.contains(message) && output.stdout.is_empty(), "{args:?}: {text}");
        assert!(!setting.path("x.html").exists());
    }
}

#[test]
fn budgets_end_where_the_router_spends_no_more() {
    let setting = Setting::new();
    let plain = model(small_config(), 11);
    let mut calibration = plain.calibration.clone().unwrap();
    // From a budget of half of the full model's FLOPs on, the router chooses alike.
    (calibration.points[2].bias, calibration.points[2].spent) = (calibration.points[1].bias.clone(), 0.5);
    CheckpointDraft { calibration: Some(calibration), ..plain }.write(&setting.path("capped")).unwrap();
    let output = setting.report(&["--model", "capped", "--out", "capped.html"]);
    assert!(output.status.success(), "{output:?}");
    let log = String::from_utf8_lossy(&output.stderr);
    assert!(log.contains("the router spends no more than at a smaller one are left out: 0.6, 0.7, 0.8, 0.9"), "{log}");
    let found: Value = serde_json::from_slice(&fs::read(setting.path("capped.json")).unwrap()).unwrap();
    let budgets: Vec<f64> = found["points"].as_array().unwrap().iter().map(|point| number(&point["budget"])).collect();
    assert_eq!(budgets, [0.1, 0.2, 0.3, 0.4, 0.5]);
    assert_eq!((&found["verdict"]["budget"], &found["seen_items"]), (&0.3.into(), &"excluded".into()));
}
