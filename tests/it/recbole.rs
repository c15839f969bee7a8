//! A SASRec that RecBole trained gives RecBole's scores (`tests/fixtures/make_recbole.py`).

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

use canet_domain::{History, Item};
use canet_model::checkpoint::{Checkpoint, ModelDirectory};
use safetensors::SafeTensors;
use serde_json::Value;
use tempfile::TempDir;

use super::server::canet;
use super::support::forwards;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/recbole").join(name)
}

/// RecBole's histories, in its dense ids, and the scores of all items and the padding.
fn recbole() -> Vec<(Vec<u32>, Vec<f32>)> {
    let bytes = fs::read(fixture("scores.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let [histories, scores] = ["histories", "scores"].map(|name| file.tensor(name).unwrap());
    let ids: Vec<i64> = histories.data().as_chunks().0.iter().map(|id| i64::from_le_bytes(*id)).collect();
    let values: Vec<f32> = scores.data().as_chunks().0.iter().map(|value| f32::from_le_bytes(*value)).collect();
    let rows = ids.chunks(histories.shape()[1]).zip(values.chunks(scores.shape()[1]));
    let history = |ids: &[i64]| ids.iter().map(|id| *id as u32).take_while(|id| *id > 0).collect();
    rows.map(|(ids, scores)| (history(ids), scores.to_vec())).collect()
}

/// External ids in RecBole's order, as RecBole says them.
fn ids() -> Vec<String> {
    fs::read_to_string(fixture("items.txt")).unwrap().lines().map(str::to_owned).collect()
}

fn import(out: &Path, flags: &[&str]) -> Output {
    let mut command = canet(&["import", "--recbole"]);
    command.arg(fixture("sasrec.pth")).arg("--data").arg(fixture("shop.inter")).arg("--out").arg(out);
    command.args(flags).output().unwrap()
}

fn imported(flags: &[&str]) -> (TempDir, Checkpoint) {
    let scratch = tempfile::tempdir().unwrap();
    let out = scratch.path().join("sasrec");
    let output = import(&out, flags);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(String::from_utf8_lossy(&output.stdout).ends_with("sasrec/1: 1 route over 60 items\n"));
    let checkpoint = ModelDirectory::open(&out).unwrap().load(None).unwrap();
    (scratch, checkpoint)
}

#[test]
fn every_backend_gives_recboles_scores() {
    let (_scratch, checkpoint) = imported(&[]);
    let rows = recbole();
    assert!(rows.iter().any(|(history, _)| history.len() == 1));
    assert!(rows.iter().any(|(history, _)| history.len() > 2 * checkpoint.config.max_len));
    // RecBole's id of an item counts its appearance in the file, ours the order of the numbers.
    let names = ids();
    let item = |id: u32| checkpoint.catalogue.item(&names[id as usize - 1]).unwrap();
    let history = |ids: &[u32]| {
        let items: Vec<Item> = ids.iter().map(|id| item(*id)).collect();
        History::new(&items, checkpoint.config.max_len).unwrap()
    };
    let histories: Vec<History> = rows.iter().map(|(ids, _)| history(ids)).collect();
    for (backend, forward) in forwards(&checkpoint.config, &checkpoint.weights) {
        for route in checkpoint.space.routes() {
            let found = forward.scores(route, &histories.iter().collect::<Vec<_>>()).unwrap();
            for (found, (ids, expected)) in found.iter().zip(&rows) {
                for (id, expected) in (1..).zip(&expected[1..]) {
                    let found = found[item(id).column()];
                    assert!((found - expected).abs() <= 1e-4, "{backend}, {} items: {found} {expected}", ids.len());
                }
            }
        }
    }
}

#[test]
fn an_imported_model_ranks_as_recbole_does() {
    let (scratch, checkpoint) = imported(&[]);
    let names = ids();
    let rows = recbole();
    let users = scratch.path().join("users.txt");
    let line = |(user, (history, _)): (usize, &(Vec<u32>, Vec<f32>))| {
        let items: Vec<&str> = history.iter().map(|id| names[*id as usize - 1].as_str()).collect();
        format!("u{user} {}\n", items.join(" "))
    };
    fs::write(&users, rows.iter().enumerate().map(line).collect::<String>()).unwrap();
    let mut rank = canet(&["rank", "--device", "cpu", "--include-seen", "--k", "60", "--model"]);
    let output = rank.arg(scratch.path().join("sasrec")).arg("--data").arg(&users).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let lines: Vec<Value> = output.stdout.split(|byte| *byte == b'\n').flat_map(serde_json::from_slice).collect();
    assert_eq!(lines.len(), rows.len());
    for (line, (_, expected)) in lines.iter().zip(&rows) {
        let items = line["items"].as_array().unwrap();
        assert_eq!(items.len(), 60);
        for item in items {
            let place = names.iter().position(|name| item["item"] == name.as_str()).unwrap();
            let distance = item["score"].as_f64().unwrap() - f64::from(expected[place + 1]);
            assert!(distance.abs() <= 1e-4, "{item}: {}", expected[place + 1]);
        }
    }
    assert_eq!(
        checkpoint.manifest.data.interactions,
        Some(fs::read_to_string(fixture("shop.inter")).unwrap().lines().count() as u64 - 1)
    );
}

#[test]
fn the_order_comes_from_the_data_or_from_a_file() {
    let (_one, from_data) = imported(&[]);
    let items = fixture("items.txt");
    let (_other, from_file) = imported(&["--items", items.to_str().unwrap()]);
    let names: Vec<u32> = from_data.catalogue.ids().iter().map(|id| id.parse().unwrap()).collect();
    assert!(names.is_sorted() && !ids().is_sorted());
    assert_eq!(from_data.weights, from_file.weights);
    assert_eq!(from_data.catalogue.ids(), from_file.catalogue.ids());
    assert_eq!(from_data.catalogue.popularity(), from_file.catalogue.popularity());
    // The items of all interactions but each user's last two.
    let lines = fs::read_to_string(fixture("shop.inter")).unwrap();
    let users: std::collections::HashSet<&str> =
        lines.lines().skip(1).filter_map(|line| line.split('\t').next()).collect();
    let counted: u64 = from_data.catalogue.popularity().iter().sum();
    assert_eq!(counted as usize, lines.lines().count() - 1 - 2 * users.len());
}

#[test]
fn data_with_other_items_are_refused() {
    let scratch = tempfile::tempdir().unwrap();
    let without_one = format!("item_id!={}", ids()[0]);
    for (flags, message) in [
        (&["--where", &without_one][..], "59 items, the model has 60; select the interactions that RecBole trained on"),
        (&["--items", "/dev/null"], "/dev/null: 0 lines, the model has 60 items"),
        (&["--heads", "2"], "`n_heads` is 3, and 2 heads are asked for"),
    ] {
        let output = import(&scratch.path().join("m"), flags);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(65), "{said}");
        assert!(said.contains(message), "{said}");
    }
    let output = canet(&["import", "--recbole", "x.pth", "--out"]).arg(scratch.path().join("m")).output().unwrap();
    assert_eq!(output.status.code(), Some(64), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(!scratch.path().join("m").exists());
}
