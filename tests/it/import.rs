//! The authors' own checkpoint, imported, gives the scores that their own program gives.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

use canet_domain::{Candidates, History, Item, RouteSpace, Selection, Slice, top_k};
use canet_model::WidthRule;
use canet_model::checkpoint::Tolerance;
use canet_model::import::Import;
use safetensors::SafeTensors;

use super::support::forwards;

/// `tests/fixtures/golden`: a state dict of the authors' program and what that program computes with it.
pub(crate) fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/golden").join(name)
}

/// One of the arrays of `vectors.safetensors`, each value as f64, row-major, with its shape.
pub(crate) fn vectors(name: &str) -> (Vec<usize>, Vec<f64>) {
    let bytes = fs::read(golden("vectors.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let view = file.tensor(name).unwrap();
    let values = match view.dtype() {
        safetensors::Dtype::F32 => {
            view.data().as_chunks().0.iter().map(|value| f32::from_le_bytes(*value).into()).collect()
        }
        _ => view.data().as_chunks().0.iter().map(|value| i64::from_le_bytes(*value) as f64).collect(),
    };
    (view.shape().to_vec(), values)
}

pub(crate) fn golden_histories() -> Vec<History> {
    let (shape, values) = vectors("histories");
    let row = |row: &[f64]| {
        let items: Vec<Item> = row.iter().filter_map(|id| Item::new(*id as u32)).collect();
        History::new(&items, shape[1]).unwrap()
    };
    values.chunks(shape[1]).map(row).collect()
}

pub(crate) fn golden_draft(
    attention_scale: WidthRule,
    ffn_inner: WidthRule,
) -> canet_model::checkpoint::CheckpointDraft {
    let (state_dict, args) = (golden("state_dict.pt"), golden("args.json"));
    Import { state_dict: &state_dict, args: &args, items: None, attention_scale, ffn_inner }
        .read(&canet_cpu::CpuBackend::single_threaded())
        .unwrap()
}

/// The places of the ten best of a row where none of the ten is closer than 1e-4 to its neighbours.
fn clear_top_ten(scores: &[f64]) -> Option<Vec<u32>> {
    let mut order: Vec<usize> = (1..scores.len()).collect();
    order.sort_by(|a, b| scores[*b].total_cmp(&scores[*a]));
    let clear = order[..11].windows(2).all(|pair| scores[pair[0]] - scores[pair[1]] > 1e-4);
    clear.then(|| order[..10].iter().map(|column| *column as u32).collect())
}

fn assert_scores(rule: WidthRule, name: &str) {
    let draft = golden_draft(rule, rule);
    let space = draft.config.check().unwrap();
    let histories = golden_histories();
    let batch: Vec<&History> = histories.iter().collect();
    let (shape, expected) = vectors(name);
    let (routes, rows, columns) = (shape[0], shape[1], shape[2]);
    assert_eq!((routes, rows), (space.len(), histories.len()));
    for (backend, forward) in forwards(&draft.config, &draft.weights) {
        let mut compared = 0;
        for (route, expected) in space.routes().zip(expected.chunks(rows * columns)) {
            let scores = forward.scores(route, &batch).unwrap();
            for (row, (found, expected)) in scores.iter().zip(expected.chunks(columns)).enumerate() {
                let case = format!("{backend}, {} row {row}", space.name(route));
                for (column, (found, expected)) in found.iter().zip(expected).enumerate() {
                    let distance = (f64::from(*found) - expected).abs();
                    assert!(distance <= 1e-4, "{case} column {column}: {found}, {expected}");
                }
                if let Some(expected) = clear_top_ten(expected) {
                    let nothing = HashSet::new();
                    let best = top_k(found, &Selection { k: 10, excluded: &nothing, candidates: Candidates::All });
                    let found: Vec<u32> = best.iter().map(|ranked| ranked.item.id()).collect();
                    assert_eq!(found, expected, "{case}");
                    compared += 1;
                }
            }
        }
        assert!(compared > routes * rows * 9 / 10, "only {compared} rows have a clear top ten");
    }
}

#[test]
fn all_27_routes_give_what_the_authors_training_computes() {
    assert_scores(WidthRule::Full, "scores_full_full");
}

#[test]
fn all_27_routes_give_the_other_function_under_the_other_flags() {
    assert_scores(WidthRule::Slice, "scores_slice_slice");
}

#[test]
fn the_router_gives_the_authors_logits() {
    let draft = golden_draft(WidthRule::Full, WidthRule::Full);
    let histories = golden_histories();
    let (shape, expected) = vectors("router_logits");
    for (backend, forward) in forwards(&draft.config, &draft.weights) {
        let found = forward.router_logits(&histories.iter().collect::<Vec<_>>()).unwrap();
        for (found, expected) in found.iter().zip(expected.chunks(shape[1])) {
            for (found, expected) in found.iter().zip(expected) {
                assert!((f64::from(*found) - expected).abs() <= 1e-4, "{backend}: {found} {expected}");
            }
        }
    }
}

#[test]
fn routes_stand_in_the_authors_order() {
    let space: RouteSpace = golden_draft(WidthRule::Full, WidthRule::Full).config.check().unwrap();
    let (_, sizes) = vectors("routes");
    for (route, sizes) in space.routes().zip(sizes.chunks(3)) {
        let [hidden, layers, embedding] = [0, 1, 2].map(|place| sizes[place] as usize);
        assert_eq!(space.slice(route), Slice { hidden, layers, embedding });
    }
}

#[test]
fn an_imported_model_is_written_and_passes_its_own_probes() {
    let root = tempfile::tempdir().unwrap();
    let checkpoint = golden_draft(WidthRule::Full, WidthRule::Full).write(&root.path().join("golden")).unwrap();
    assert_eq!(checkpoint.catalogue.len(), 300);
    assert_eq!(&*checkpoint.catalogue.ids()[299], "300");
    assert!(checkpoint.catalogue.popularity().iter().all(|count| *count == 0));
    assert_eq!((checkpoint.manifest.data.users, checkpoint.manifest.data.interactions), (Some(500), None));
    assert_eq!(checkpoint.manifest.data.name, "state_dict.pt");
    let lengths: Vec<usize> = checkpoint.probes.histories().map(History::len).collect();
    assert_eq!((lengths.len(), lengths[0], lengths[7]), (8, 1, 20));
    for (backend, forward) in forwards(&checkpoint.config, &checkpoint.weights) {
        let replayed = checkpoint.probes.replay(&*forward, &checkpoint.space, Tolerance::FP32);
        replayed.unwrap_or_else(|error| panic!("{backend}: {error}"));
    }
}
