//! bfloat16: close to float32, refused where nothing computes it well, and named wherever it serves.

use std::collections::HashSet;
use std::path::Path;

use canet_cpu::{Level, Native};
use canet_domain::{Candidates, History, Item, Route, Selection};
use canet_model::checkpoint::ModelDirectory;
use canet_model::{Device, Forward, ModelConfig, Precision, Query, Rows, Weights};
use rand::Rng;
use serde_json::{Value, json};

use super::native::{flagged_configs, histories, odd_config};
use super::server::{Process, canet, run};
use super::support::{full_size_config, random_weights, rng, write_checkpoint};

/// The share of the distance of scores to float32's in their spread, over all rows.
fn distance(found: &Rows, exact: &Rows) -> f64 {
    let (mut error, mut spread) = (0.0, 0.0);
    for (found, exact) in found.iter().zip(exact.iter()) {
        let mean = exact.iter().map(|score| f64::from(*score)).sum::<f64>() / exact.len() as f64;
        error += found.iter().zip(exact).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum::<f64>();
        spread += exact.iter().map(|score| (f64::from(*score) - mean).powi(2)).sum::<f64>();
    }
    (error / spread).sqrt()
}

/// LibTorch computes it on a CPU too, only slowly, so that here the rules that CUDA gets are checked.
#[cfg(feature = "libtorch")]
fn libtorch(config: &ModelConfig, weights: &Weights) -> (String, Box<dyn Forward>) {
    let forward = canet_torch::LibTorch::load_in(Precision::Bf16, config, weights, Device::CPU);
    ("libtorch".to_owned(), Box::new(forward.unwrap()))
}

fn forwards(config: &ModelConfig, weights: &Weights) -> Vec<(String, Box<dyn Forward>)> {
    let native = |level: Level| -> (String, Box<dyn Forward>) {
        (format!("native, {level}"), Box::new(Native::load_at((level, Precision::Bf16), config, weights, 2).unwrap()))
    };
    let levels = Level::available().into_iter().map(native);
    #[cfg(feature = "libtorch")]
    let levels = levels.chain([libtorch(config, weights)]);
    levels.collect()
}

#[test]
fn bfloat16_is_near_float32_on_every_route_and_routes_are_the_same_to_the_bit() {
    for (seed, config) in [odd_config(), full_size_config(300)].into_iter().chain(flagged_configs()).enumerate() {
        let mut rng = rng(1 + seed as u64);
        let weights = random_weights(&config, &mut rng);
        let space = config.check().unwrap();
        let histories = histories(&config, 9, &mut rng);
        let batch: Vec<&History> = histories.iter().collect();
        let exact = Native::load_at((Level::best(), Precision::Fp32), &config, &weights, 1).unwrap();
        for (name, forward) in forwards(&config, &weights) {
            for route in space.routes() {
                let (found, exact) = (forward.scores(route, &batch).unwrap(), exact.scores(route, &batch).unwrap());
                // Eight bits a factor; and it is another function, or nothing would be rounded.
                let distance = distance(&found, &exact);
                assert!((1e-4..3e-2).contains(&distance), "{name}, {}: {distance}", space.name(route));
            }
            if name == format!("native, {}", Level::best()) {
                assert_eq!(forward.router_logits(&batch).unwrap(), exact.router_logits(&batch).unwrap());
            }
            assert!(forward.weight_bytes() < exact.weight_bytes());
        }
    }
}

/// Two bytes a weight of a linear layer, four of anything else.
#[test]
fn linear_layers_take_half_the_memory() {
    let config = ModelConfig { hidden: vec![128], ..full_size_config(3000) };
    let weights = random_weights(&config, &mut rng(3));
    let native = |precision| Native::load(precision, &config, &weights, 1).unwrap().weight_bytes();
    // The input layer is not there: its products with the tables are kept instead. Keys are there both ways round.
    let linear = |name: &str| {
        let is = name.starts_with("backbone.") && name.ends_with(".weight") && !name.contains("_norm");
        is && !name.contains("backbone.input")
    };
    let copies = |name: &str| if name.contains("attention.key") { 2 } else { 1 };
    let halved = weights.iter().filter(|(name, _)| linear(name));
    let halved: usize = halved.map(|(name, tensor)| 2 * copies(name) * tensor.data.len()).sum();
    // Panels are padded to 32 outputs.
    let padding = 32 * 128 * 2;
    let saved = native(Precision::Fp32) - native(Precision::Bf16);
    assert!((halved..=halved + padding).contains(&saved), "{saved}, {halved}");
}

/// The shipped model on histories of items that are drawn as often as they were watched.
#[test]
fn a_trained_models_top_ten_hardly_changes() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/ml-100k");
    let checkpoint = ModelDirectory::open(&directory).unwrap().load(None).unwrap();
    let (config, weights) = (&checkpoint.config, &checkpoint.weights);
    let popular = checkpoint.catalogue.by_popularity();
    let mut rng = rng(4);
    let mut history = || {
        let length = rng.gen_range(1..=config.max_len);
        // The n-th item a 1/n as often as the first.
        let item = |rng: &mut rand_chacha::ChaCha8Rng| {
            popular[((popular.len() as f64).powf(rng.gen_range(0.0..1.0)) as usize - 1).min(popular.len() - 1)]
        };
        let items: Vec<Item> = (0..length).map(|_| item(&mut rng)).collect();
        History::new(&items, config.max_len).unwrap()
    };
    let histories: Vec<History> = (0..20).map(|_| history()).collect();
    let nothing = HashSet::new();
    let selection = Selection { k: 10, excluded: &nothing, candidates: Candidates::All };
    let top = |precision| {
        let native = Native::load(precision, config, weights, 1).unwrap();
        let rows: Vec<(Route, Query<'_>)> = checkpoint
            .space
            .routes()
            .flat_map(|route| histories.iter().map(move |history| (route, Query { history, selection })))
            .collect();
        native.rank_mixed(&rows).unwrap()
    };
    let (exact, found) = (top(Precision::Fp32), top(Precision::Bf16));
    let again = exact.iter().zip(&found).map(|(exact, found)| {
        exact.iter().filter(|ranked| found.iter().any(|found| found.item == ranked.item)).count()
    });
    let overlap = again.sum::<usize>() as f64 / (10 * exact.len()) as f64;
    assert!((0.98..1.0).contains(&overlap), "{overlap}");
}

#[test]
fn what_cannot_compute_it_well_is_refused() {
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

/// Where the CPU has no instruction for it, every command says so and ends.
#[test]
fn serve_eval_and_bench_say_in_which_precision_they_compute() {
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
