//! The files of a checkpoint. Each mutant stands among sound files and has its own digest in the manifest, so that it is read.

use std::collections::{BTreeSet, HashSet};
use std::fs;

use canet_cpu::CpuBackend;
use canet_domain::{Candidates, History, Item, Selection};
use canet_fuzz::{Outcome, Seed};
use canet_model::checkpoint::{CheckpointDraft, ModelDirectory};
use canet_model::{Model, ModelConfig, Query, RouterConfig};
use canet_testing::{draft, small_config};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::{fuzz, target};

/// Small enough that an edit often meets a byte that counts.
fn config() -> ModelConfig {
    ModelConfig {
        items: 12,
        max_len: 4,
        hidden: vec![4, 6],
        layers: vec![1, 2],
        embedding: vec![4],
        router: RouterConfig { dim: 4, heads: 2, ffn: 8 },
        ..small_config()
    }
}

/// Asks an opened model on every route.
fn exercise(model: &Model) {
    let items = model.catalogue().len();
    assert_eq!(model.catalogue().ids().iter().collect::<BTreeSet<_>>().len(), items);
    let newest: Vec<Item> = [1, items as u32].into_iter().filter_map(Item::new).collect();
    let history = History::in_window(&newest, model.config().window(), 0).unwrap();
    // Logits may overflow.
    if let Ok(choices) = model.route(&[&history], 0.3) {
        assert!(choices[0].route.index() < model.space().len());
    }
    let nothing = HashSet::new();
    let selection = Selection { k: 5, excluded: &nothing, candidates: Candidates::All };
    for route in model.space().routes() {
        let query = Query { history: &history, selection };
        let ranking = &model.rank(&[(route, query)]).unwrap()[0];
        assert!(ranking.len() <= 5 && ranking.iter().all(|ranked| ranked.item.column() <= items));
        // The scores may overflow, and then the model says so.
        if model.is_complete(&query, ranking) {
            assert_eq!(ranking.iter().map(|ranked| ranked.item).collect::<HashSet<_>>().len(), 5.min(items));
        }
    }
}

/// Fuzzes one file of a checkpoint.
fn fuzz_file(name: &'static str, cases: u32, tokens: &[&'static str]) {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("small");
    let draft = draft(config(), 3);
    CheckpointDraft { exclude_seen: false, ..draft }.write(&root).unwrap();
    let version = root.join("1");
    let titles = "x1001\tA title\nx1002\t\nnobody\tAnother\n";
    fs::write(version.join("titles.tsv"), titles).unwrap();
    let (path, manifest_path) = (version.join(name), version.join("canet.json"));
    let manifest: Value = serde_json::from_slice(&fs::read(&manifest_path).unwrap()).unwrap();
    let target = target(name).seed("sound", fs::read(&path).unwrap()).tokens(tokens);
    fuzz(&target, cases, |Seed { bytes, .. }| {
        fs::write(&path, bytes).unwrap();
        if manifest["files"][name].is_object() {
            let mut manifest = manifest.clone();
            manifest["files"][name]["sha256"] = format!("{:x}", Sha256::digest(bytes)).into();
            fs::write(&manifest_path, manifest.to_string()).unwrap();
        }
        match Model::open(&ModelDirectory::open(&root).unwrap(), None, &CpuBackend::single_threaded()) {
            Ok(model) => {
                exercise(&model);
                Outcome::Accepted
            }
            Err(error) => {
                assert!(error.to_string().len() < 64 << 10, "{error}");
                Outcome::Refused(error.to_string())
            }
        }
    });
}

#[test]
fn manifest() {
    let tokens = [
        "null",
        "[]",
        "{}",
        "-1",
        "\"format\":1",
        "\"items\":",
        "\"max_len\":",
        "\"hidden\":[4]",
        "\"layers\":[]",
        "\"embedding\":[]",
        "\"positions\":\"relative\"",
        "\"positions\":\"oldest\"",
        "\"history_stride\":2",
        "\"embedding_norm\":true",
        "\"norm_eps\":0",
        "\"router\":",
        "\"sha256\":",
        "\"calibration\":{\"points\":[]}",
        "\"exclude_seen\":true",
        ",",
        "\"",
    ];
    fuzz_file("canet.json", 600, &tokens);
}

#[test]
fn weights() {
    let tokens = ["F32", "I64", "BOOL", "\"shape\":[]", "\"data_offsets\":[0,0]", "\u{0}\u{0}\u{0}\u{0}", "popularity"];
    fuzz_file("weights.safetensors", 600, &tokens);
}

#[test]
fn probes() {
    let tokens =
        ["F32", "I64", "histories", "routes", "\"shape\":[1,4]", "\"data_offsets\":[0,0]", "\u{1}\u{0}\u{0}\u{0}"];
    fuzz_file("probes.safetensors", 600, &tokens);
}

#[test]
fn items() {
    fuzz_file("items.tsv", 400, &["\n", "\t", "\r\n", "x1001", "\u{feff}", "\u{0}", "\u{85}"]);
}

#[test]
fn titles() {
    fuzz_file("titles.tsv", 400, &["\n", "\t", "\r\n", "x1001\t", "\u{feff}", "\u{0}", "\u{2028}"]);
}
