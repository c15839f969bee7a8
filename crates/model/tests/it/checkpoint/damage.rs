//! Damaged checkpoints are refused with a message that names the file and the fault.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::path::Path;

use canet_model::checkpoint::{Fault, ModelDirectory};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use canet_testing::write_checkpoint;

const WEIGHTS: &str = "weights.safetensors";
const ITEMS: &str = "items.tsv";
const PROBES: &str = "probes.safetensors";

type Damage = fn(&Path);

/// The error of reading a checkpoint after damaging it.
fn refusal(damage: Damage) -> String {
    let root = tempfile::tempdir().unwrap();
    write_checkpoint(root.path(), 21);
    damage(&root.path().join("1"));
    ModelDirectory::open(root.path()).unwrap().load(None).unwrap_err().to_string()
}

fn assert_refused(table: &[(&str, Damage, &[&str])]) {
    for (name, damage, words) in table {
        let error = refusal(*damage);
        assert!(words.iter().all(|word| error.contains(word)), "{name}: {error}");
    }
}

fn edit_bytes(path: &Path, edit: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).unwrap();
    edit(&mut bytes);
    fs::write(path, bytes).unwrap();
}

fn edit_manifest(directory: &Path, edit: impl FnOnce(&mut Value)) {
    edit_bytes(&directory.join("canet.json"), |bytes| {
        let mut manifest = serde_json::from_slice(bytes).unwrap();
        edit(&mut manifest);
        *bytes = serde_json::to_vec(&manifest).unwrap();
    });
}

/// Corrects the digest of a file, so that only its content is at fault.
fn reseal(directory: &Path, file: &str) {
    let digest = Sha256::digest(fs::read(directory.join(file)).unwrap());
    let digest: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    edit_manifest(directory, |manifest| manifest["files"][file]["sha256"] = json!(digest));
}

fn edit_sealed(directory: &Path, file: &str, edit: impl FnOnce(&mut Vec<u8>)) {
    edit_bytes(&directory.join(file), edit);
    reseal(directory, file);
}

#[derive(Clone)]
struct Tensor {
    dtype: Dtype,
    shape: Vec<usize>,
    data: Vec<u8>,
}

fn edit_tensors(directory: &Path, file: &str, edit: impl FnOnce(&mut BTreeMap<String, Tensor>)) {
    edit_sealed(directory, file, |bytes| {
        let parsed = SafeTensors::deserialize(bytes).unwrap();
        let mut tensors: BTreeMap<String, Tensor> = parsed
            .tensors()
            .into_iter()
            .map(|(name, view)| {
                (name, Tensor { dtype: view.dtype(), shape: view.shape().to_vec(), data: view.data().to_vec() })
            })
            .collect();
        edit(&mut tensors);
        let views = tensors
            .iter()
            .map(|(name, tensor)| (name, TensorView::new(tensor.dtype, tensor.shape.clone(), &tensor.data).unwrap()));
        *bytes = safetensors::serialize(views, None).unwrap();
    });
}

/// Overwrites one value of a tensor.
fn set(directory: &Path, file: &str, name: &str, place: usize, value: &[u8]) {
    edit_tensors(directory, file, |tensors| {
        let start = place * value.len();
        tensors.get_mut(name).unwrap().data[start..start + value.len()].copy_from_slice(value);
    });
}

#[test]
fn bytes_that_were_lost_or_changed() {
    assert_refused(&[
        (
            "truncated weights",
            |d| edit_bytes(&d.join(WEIGHTS), |b| b.truncate(b.len() / 2)),
            &[WEIGHTS, "the file ends early"],
        ),
        ("flipped weights", |d| edit_bytes(&d.join(WEIGHTS), |b| *b.last_mut().unwrap() ^= 1), &[WEIGHTS, "sha256 is"]),
        ("flipped header", |d| edit_bytes(&d.join(WEIGHTS), |b| b[40] ^= 1), &[WEIGHTS, "sha256 is"]),
        ("flipped items", |d| edit_bytes(&d.join(ITEMS), |b| b[3] ^= 1), &[ITEMS, "sha256 is", "copy it again"]),
        ("flipped probes", |d| edit_bytes(&d.join(PROBES), |b| *b.last_mut().unwrap() ^= 1), &[PROBES, "sha256 is"]),
        ("flipped manifest", |d| edit_bytes(&d.join("canet.json"), |b| b[0] ^= 1), &["canet.json", "line 1"]),
        ("truncated manifest", |d| edit_bytes(&d.join("canet.json"), |b| b.truncate(99)), &["canet.json", "EOF"]),
        ("empty weights", |d| edit_sealed(d, WEIGHTS, Vec::clear), &[WEIGHTS, "shorter than a header"]),
        ("cut and resealed", |d| edit_sealed(d, WEIGHTS, |b| b.truncate(b.len() - 4)), &[WEIGHTS, "bytes of values"]),
        ("longer and resealed", |d| edit_sealed(d, WEIGHTS, |b| b.push(0)), &[WEIGHTS, "bytes of values"]),
        (
            "a huge header",
            |d| edit_sealed(d, WEIGHTS, |b| b[..8].fill(0xff)),
            &[WEIGHTS, "a header of 18446744073709551615"],
        ),
        ("no manifest", |d| fs::remove_file(d.join("canet.json")).unwrap(), &["canet.json", "missing"]),
        ("no weights", |d| fs::remove_file(d.join(WEIGHTS)).unwrap(), &[WEIGHTS, "missing"]),
        ("no items", |d| fs::remove_file(d.join(ITEMS)).unwrap(), &[ITEMS, "missing"]),
        ("no probes", |d| fs::remove_file(d.join(PROBES)).unwrap(), &[PROBES, "missing"]),
        (
            "a directory for weights",
            |d| {
                fs::remove_file(d.join(WEIGHTS)).unwrap();
                fs::create_dir(d.join(WEIGHTS)).unwrap();
            },
            &[WEIGHTS, "not a regular file"],
        ),
        (
            "a terabyte of holes",
            |d| OpenOptions::new().write(true).open(d.join(WEIGHTS)).unwrap().set_len(1 << 40).unwrap(),
            &[WEIGHTS, "1099511627776 bytes, at most"],
        ),
    ]);
}

#[test]
fn weights_that_are_not_the_configurations() {
    const NAME: &str = "backbone.blocks.0.ffn_norm.bias";
    assert_refused(&[
        ("NaN", |d| set(d, WEIGHTS, NAME, 2, &f32::NAN.to_le_bytes()), &[WEIGHTS, NAME, "NaN at place 2"]),
        ("infinity", |d| set(d, WEIGHTS, NAME, 0, &f32::INFINITY.to_le_bytes()), &[WEIGHTS, NAME, "inf at place 0"]),
        (
            "finite, but its square is not",
            |d| set(d, WEIGHTS, "backbone.item_embedding", 13, &3e38_f32.to_le_bytes()),
            &[
                WEIGHTS,
                "backbone.item_embedding",
                "300000000000000000000000000000000000000 at place 13",
                "at most 1.8446743e19",
            ],
        ),
        ("missing", |d| edit_tensors(d, WEIGHTS, |t| drop(t.remove(NAME))), &[WEIGHTS, NAME, "is missing"]),
        (
            "extra",
            |d| {
                edit_tensors(d, WEIGHTS, |tensors| {
                    let copy = tensors[NAME].clone();
                    tensors.insert("backdoor".to_owned(), copy);
                });
            },
            &[WEIGHTS, "`backdoor` is not part of this file"],
        ),
        (
            "wrong shape",
            |d| edit_tensors(d, WEIGHTS, |t| t.get_mut(NAME).unwrap().shape = vec![3, 4]),
            &[WEIGHTS, NAME, "[3, 4], it must be [12]"],
        ),
        (
            "wrong type",
            |d| edit_tensors(d, WEIGHTS, |t| t.get_mut(NAME).unwrap().dtype = Dtype::I32),
            &[WEIGHTS, NAME, "is I32, it must be F32"],
        ),
        (
            "negative popularity",
            |d| set(d, WEIGHTS, "popularity", 5, &(-1_i64).to_le_bytes()),
            &[WEIGHTS, "`popularity` holds -1 at place 5"],
        ),
        (
            "popular padding",
            |d| set(d, WEIGHTS, "popularity", 0, &9_i64.to_le_bytes()),
            &[WEIGHTS, "`popularity` holds 9 at place 0"],
        ),
    ]);
}

#[test]
fn manifests_that_make_no_sense() {
    assert_refused(&[
        (
            "positions",
            |d| edit_manifest(d, |m| m["config"]["positions"] = json!("middle")),
            &["config.positions: unknown"],
        ),
        ("width", |d| edit_manifest(d, |m| m["config"]["hidden"][1] = json!("8")), &["config.hidden[1]: invalid type"]),
        ("newer format", |d| edit_manifest(d, |m| m["format"] = json!(2)), &["`format` is 2, this program reads 1"]),
        ("unknown field", |d| edit_manifest(d, |m| m["note"] = json!("hi")), &["unknown field `note`"]),
        (
            "unknown in config",
            |d| edit_manifest(d, |m| m["config"]["dropout"] = json!(0)),
            &["unknown field `dropout`"],
        ),
        (
            "no config",
            |d| edit_manifest(d, |m| drop(m.as_object_mut().unwrap().remove("config"))),
            &["missing field `config`"],
        ),
        (
            "a path out",
            |d| edit_manifest(d, |m| m["files"]["../../etc/passwd"] = json!({ "sha256": "" })),
            &["unknown field `../../etc/passwd`"],
        ),
        (
            "no items",
            |d| edit_manifest(d, |m| m["config"]["items"] = json!(0)),
            &["`items` is 0: it must be from 1 to"],
        ),
        (
            "a trillion items",
            |d| edit_manifest(d, |m| m["config"]["items"] = json!(1e12 as u64)),
            &["`items` is 1000000000000"],
        ),
        ("2 billion items", |d| edit_manifest(d, |m| m["config"]["items"] = json!(2_000_000_000)), &[WEIGHTS, "shape"]),
        ("no length", |d| edit_manifest(d, |m| m["config"]["max_len"] = json!(0)), &["`max_len` is 0"]),
        (
            "a million layers",
            |d| edit_manifest(d, |m| m["config"]["layers"] = json!([1, 1_000_000])),
            &["`layers` is 1000000"],
        ),
        (
            "falling widths",
            |d| edit_manifest(d, |m| m["config"]["hidden"] = json!([8, 4])),
            &["`hidden` must be ascending"],
        ),
        ("odd heads", |d| edit_manifest(d, |m| m["config"]["heads"] = json!(3)), &["`hidden` has 4, which 3 heads"]),
        (
            "negative",
            |d| edit_manifest(d, |m| m["config"]["items"] = json!(-1)),
            &["canet.json: config.items: invalid value"],
        ),
        (
            "another rule",
            |d| edit_manifest(d, |m| m["config"]["ffn_inner"] = json!("half")),
            &["unknown variant `half`"],
        ),
    ]);
}

#[test]
fn calibrations_that_make_no_sense() {
    assert_refused(&[
        (
            "none",
            |d| edit_manifest(d, |m| m["calibration"] = json!({ "points": [] })),
            &["`calibration.points` is empty"],
        ),
        (
            "short",
            |d| {
                edit_manifest(d, |m| {
                    m["calibration"] = json!({"points": [{"budget": 0.3, "bias": [0], "spent": 0.3}]});
                });
            },
            &["`calibration.points[0].bias` has 1 values for 24 routes"],
        ),
        (
            "falling",
            |d| {
                edit_manifest(d, |m| {
                    let point = |budget| json!({"budget": budget, "bias": vec![0; 24], "spent": 0.3});
                    m["calibration"] = json!({"points": [point(0.4), point(0.3)]});
                });
            },
            &["`calibration.points[1].budget` is not above"],
        ),
        (
            "too large for float32",
            |d| {
                edit_manifest(d, |m| {
                    let point = json!({"budget": 0.4, "bias": vec![1e200; 24], "spent": 0.3});
                    m["calibration"] = json!({"points": [point]});
                });
            },
            &["canet.json: calibration.points[0].bias[0]: number out of range"],
        ),
        (
            "a bias whose sums are not finite",
            |d| {
                edit_manifest(d, |m| {
                    let point = json!({"budget": 0.4, "bias": vec![-3e38; 24], "spent": 0.3});
                    m["calibration"] = json!({"points": [point]});
                });
            },
            &["`calibration.points[0].bias[0]` is not finite or beyond ±1e30"],
        ),
        (
            "nothing to spend",
            |d| {
                edit_manifest(d, |m| {
                    let point = json!({"budget": 0.0, "bias": vec![0; 24], "spent": 0.3});
                    m["calibration"] = json!({"points": [point]});
                });
            },
            &["`calibration.points[0].budget` is 0"],
        ),
    ]);
}

#[test]
fn catalogues_that_make_no_sense() {
    assert_refused(&[
        ("fewer", |d| edit_sealed(d, ITEMS, |b| drop(b.drain(..6))), &[ITEMS, "39 item ids, `config.items` says 40"]),
        (
            "no end",
            |d| edit_sealed(d, ITEMS, |b| b.truncate(b.len() - 1)),
            &[ITEMS, "line 40: does not end with a line break"],
        ),
        ("not text", |d| edit_sealed(d, ITEMS, |b| b[7] = 0xff), &[ITEMS, "line 2: not UTF-8"]),
        (
            "repeated",
            |d| edit_sealed(d, ITEMS, |b| b.copy_within(..6, 6)),
            &[ITEMS, "\"x1001\" stands in the catalogue twice"],
        ),
        (
            "empty id",
            |d| {
                edit_sealed(d, ITEMS, |b| {
                    b.drain(..5);
                });
            },
            &[ITEMS, "item id \"\" is empty"],
        ),
        ("far too long", |d| edit_sealed(d, ITEMS, |b| b.resize(50_000, b'x')), &[ITEMS, "50000 bytes, at most 41000"]),
    ]);
}

#[test]
fn probes_that_make_no_sense() {
    assert_refused(&[
        (
            "none",
            |d| {
                edit_tensors(d, PROBES, |tensors| {
                    for tensor in tensors.values_mut() {
                        tensor.shape[0] = 0;
                        tensor.data.clear();
                    }
                });
            },
            &[PROBES, "0 probes: from 1 to 256"],
        ),
        ("no routes", |d| edit_tensors(d, PROBES, |t| drop(t.remove("routes"))), &[PROBES, "0 probes"]),
        ("no scores", |d| edit_tensors(d, PROBES, |t| drop(t.remove("scores"))), &[PROBES, "`scores` is missing"]),
        (
            "unknown item",
            |d| set(d, PROBES, "histories", 11, &41_i64.to_le_bytes()),
            &[PROBES, "`histories[0]` is not"],
        ),
        (
            "padding inside",
            |d| set(d, PROBES, "histories", 47, &0_i64.to_le_bytes()),
            &[PROBES, "`histories[3]` is not"],
        ),
        (
            "an empty history",
            |d| set(d, PROBES, "histories", 11, &0_i64.to_le_bytes()),
            &[PROBES, "`histories[0]` is not"],
        ),
        (
            "unknown route",
            |d| set(d, PROBES, "routes", 1, &24_i64.to_le_bytes()),
            &[PROBES, "`routes[1]` is not from 0 to 23"],
        ),
        ("negative route", |d| set(d, PROBES, "routes", 1, &(-1_i64).to_le_bytes()), &[PROBES, "`routes[1]`"]),
        ("unknown best", |d| set(d, PROBES, "items", 10, &41_i64.to_le_bytes()), &[PROBES, "`items[1]`"]),
        ("NaN score", |d| set(d, PROBES, "scores", 0, &f32::NAN.to_le_bytes()), &[PROBES, "`scores[0]`"]),
        ("rising scores", |d| set(d, PROBES, "scores", 9, &1e9_f32.to_le_bytes()), &[PROBES, "`scores[0]`"]),
    ]);
}

/// Every file is cut at many lengths, as a copy leaves it that is not done.
#[test]
fn a_version_whose_files_end_early_is_incomplete_and_a_damaged_one_is_not() {
    let root = tempfile::tempdir().unwrap();
    write_checkpoint(root.path(), 21);
    let load = || ModelDirectory::open(root.path()).unwrap().load(None).unwrap_err();
    for name in ["canet.json", WEIGHTS, ITEMS, PROBES] {
        let path = root.path().join("1").join(name);
        let whole = fs::read(&path).unwrap();
        // The line break at the end of the manifest may be missing.
        for length in (0..whole.len() - 1).step_by(1 + whole.len() / 40).chain([7, 8, whole.len() - 2]) {
            fs::write(&path, &whole[..length]).unwrap();
            let error = load();
            assert_eq!(error.fault(), Fault::Incomplete, "{name}, {length} bytes: {error}");
            assert!(error.to_string().contains(name), "{length} bytes: {error}");
        }
        fs::remove_file(&path).unwrap();
        assert_eq!(load().fault(), Fault::Incomplete, "no {name}");
        let mut flipped = whole.clone();
        flipped[whole.len() / 2] ^= 0x80;
        fs::write(&path, flipped).unwrap();
        let error = load();
        assert_eq!(error.fault(), Fault::Rejected, "{error}");
        fs::write(&path, whole).unwrap();
    }
}

#[test]
fn a_bad_titles_file_costs_titles_alone() {
    let root = tempfile::tempdir().unwrap();
    write_checkpoint(root.path(), 22);
    let path = root.path().join("1/titles.tsv");
    let load = || ModelDirectory::open(root.path()).unwrap().load(None).unwrap();
    /// Contents, the titles of items 1, 2 and 3, and what is said.
    type Case<'a> = (&'a [u8], [Option<&'a str>; 3], Option<&'a str>);
    let table: [Case<'_>; 6] = [
        (b"\xef\xbb\xbfx1001\tA\nx1002\tB\n", [Some("A"), Some("B"), None], None),
        (b"x1001\tA\r\n\r\n \t\nx1003\tC", [Some("A"), None, Some("C")], None),
        (b"", [None; 3], None),
        (
            b"x1001\tA\nx1002 B\nx1003\t\xff\n",
            [Some("A"), None, None],
            Some("skipped 2 of the lines, the first is line 2: no tab"),
        ),
        (b"\xff\xfex\x001\n", [None; 3], Some("line 1: not UTF-8 text")),
        (&[b'x'; 1_500_000], [None; 3], Some("1500000 bytes, at most")),
    ];
    for (text, titles, words) in table {
        fs::write(&path, text).unwrap();
        let checkpoint = load();
        let found = [1, 2, 3].map(|id| checkpoint.catalogue.title(canet_testing::item(id)));
        assert_eq!(found, titles, "{}", String::from_utf8_lossy(&text[..text.len().min(40)]));
        let fault = checkpoint.titles_fault.map(|fault| fault.to_string());
        match words {
            None => assert_eq!(fault, None),
            Some(words) => assert!(
                fault.as_ref().is_some_and(|fault| fault.contains(words) && fault.contains("titles.tsv")),
                "{fault:?}"
            ),
        }
    }
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    assert!(load().titles_fault.unwrap().to_string().contains("not a regular file"));
}

/// The titles have no digest, so they may be added or removed later.
#[test]
fn titles_may_come_and_go() {
    let root = tempfile::tempdir().unwrap();
    let digest = write_checkpoint(root.path(), 22).digest;
    let titles = root.path().join("1/titles.tsv");
    let load = || ModelDirectory::open(root.path()).unwrap().load(None).unwrap();
    let first = canet_testing::item(1);
    assert_eq!(load().catalogue.title(first), Some("Title 1"));
    fs::remove_file(&titles).unwrap();
    assert_eq!(load().catalogue.title(first), None);
    fs::write(&titles, "unknown\tNobody\nx1001\tAnother, with a\ttab\n").unwrap();
    assert_eq!(load().catalogue.title(first), Some("Another, with a\ttab"));
    assert_eq!(load().digest, digest);
}
