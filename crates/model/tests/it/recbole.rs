//! Checkpoints of RecBole: what is read, what is skipped, what is refused, and the scores.

use std::fs;
use std::io::{Cursor, Read, Write};
use std::path::{Path, PathBuf};

use canet_domain::{History, Item};
use canet_model::checkpoint::{CheckpointDraft, DataRecord};
use canet_model::import::{ImportError, RecBoleImport};
use canet_model::{Forward, Positions};
use safetensors::SafeTensors;
use zip::write::FileOptions;
use zip::{CompressionMethod, ZipArchive, ZipWriter};

use super::native;

/// The entries of an archive of `torch.save`.
struct Checkpoint(Vec<(String, Vec<u8>)>);

impl Checkpoint {
    /// `tests/fixtures/recbole/sasrec.pth`, which RecBole wrote.
    fn saved() -> Checkpoint {
        let mut zip = ZipArchive::new(Cursor::new(fs::read(fixture("sasrec.pth")).unwrap())).unwrap();
        let entry = |place| {
            let mut entry = zip.by_index(place).unwrap();
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).unwrap();
            (entry.name().to_owned(), bytes)
        };
        Checkpoint((0..150).map(entry).collect())
    }

    fn pickle(&mut self) -> &mut Vec<u8> {
        &mut self.0.iter_mut().find(|(name, _)| name.ends_with("data.pkl")).unwrap().1
    }

    /// Puts another text of the same length in every place of a text.
    fn replaced(mut self, from: &str, to: &str) -> Checkpoint {
        assert_eq!(from.len(), to.len());
        let pickle = self.pickle();
        let places: Vec<usize> =
            (0..=pickle.len() - from.len()).filter(|place| pickle[*place..].starts_with(from.as_bytes())).collect();
        assert!(!places.is_empty(), "{from}");
        places.iter().for_each(|place| pickle[*place..place + to.len()].copy_from_slice(to.as_bytes()));
        self
    }

    fn import(&self, heads: Option<usize>) -> Result<CheckpointDraft, ImportError> {
        self.import_with(heads, 60)
    }

    fn import_with(&self, heads: Option<usize>, items: usize) -> Result<CheckpointDraft, ImportError> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("sasrec.pth");
        let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
        for (name, bytes) in &self.0 {
            zip.start_file(name, FileOptions::default().compression_method(CompressionMethod::Stored)).unwrap();
            zip.write_all(bytes).unwrap();
        }
        fs::write(&file, zip.finish().unwrap().into_inner()).unwrap();
        RecBoleImport {
            file: &file,
            heads,
            ids: None,
            data: Path::new("shop.inter"),
            items: (0..items).map(|item| (format!("item {item}").into(), item as u64)).collect(),
            // The last item appears first.
            order: (1..=items as u32).rev().filter_map(Item::new).collect(),
            selected: false,
            record: record(items),
        }
        .read(&canet_cpu::CpuBackend::single_threaded())
    }

    fn refused(&self, heads: Option<usize>) -> String {
        self.import(heads).unwrap_err().to_string()
    }
}

fn record(items: usize) -> DataRecord {
    DataRecord {
        name: "shop".to_owned(),
        sha256: "0".repeat(64),
        parsed_sha256: None,
        users: None,
        items: items as u64,
        interactions: None,
    }
}

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/recbole").join(name)
}

/// RecBole's histories in its dense ids, oldest first, and the scores of the padding and all items.
fn recbole_scores() -> Vec<(Vec<u32>, Vec<f32>)> {
    let bytes = fs::read(fixture("scores.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let [histories, scores] = ["histories", "scores"].map(|name| file.tensor(name).unwrap());
    let ids: Vec<i64> = histories.data().as_chunks().0.iter().map(|id| i64::from_le_bytes(*id)).collect();
    let values: Vec<f32> = scores.data().as_chunks().0.iter().map(|value| f32::from_le_bytes(*value)).collect();
    let rows = ids.chunks(histories.shape()[1]).zip(values.chunks(scores.shape()[1]));
    let history = |ids: &[i64]| ids.iter().map(|id| *id as u32).take_while(|id| *id > 0).collect();
    rows.map(|(ids, scores)| (history(ids), scores.to_vec())).collect()
}

/// The items have one order in RecBole's table and another in the data.
#[test]
fn scores_are_those_of_recbole() {
    let names = fs::read_to_string(fixture("items.txt")).unwrap();
    let names: Vec<&str> = names.lines().collect();
    let mut sorted = names.clone();
    sorted.sort_unstable();
    let dense = |name: &str| Item::new(sorted.iter().position(|id| *id == name).unwrap() as u32 + 1).unwrap();
    let draft = RecBoleImport {
        file: &fixture("sasrec.pth"),
        heads: None,
        ids: None,
        data: Path::new("shop.inter"),
        items: sorted.iter().map(|name| ((*name).into(), 1)).collect(),
        order: names.iter().map(|name| dense(name)).collect(),
        selected: false,
        record: record(names.len()),
    }
    .read(&canet_cpu::CpuBackend::single_threaded())
    .unwrap();
    assert!(draft.catalogue.ids().iter().map(|id| &**id).eq(sorted.iter().copied()));
    let forward = native(&draft.config, &draft.weights);
    let route = draft.config.check().unwrap().full();
    let mut lengths = Vec::new();
    for (ids, expected) in recbole_scores() {
        let items: Vec<Item> = ids.iter().map(|id| dense(names[*id as usize - 1])).collect();
        let history = History::new(&items, draft.config.max_len).unwrap();
        let found = forward.scores(route, &[&history]).unwrap();
        let found = found.row(0).unwrap();
        assert_eq!(found.len(), expected.len());
        for (name, expected) in names.iter().zip(&expected[1..]) {
            let found = found[dense(name).column()];
            assert!((found - expected).abs() <= 1e-4, "{} items, {name}: {found} {expected}", ids.len());
        }
        lengths.push(ids.len());
    }
    assert!(lengths.len() == 80 && lengths.contains(&1) && lengths.contains(&24));
}

#[test]
fn sizes_come_from_the_tensors_and_flags_from_the_configuration() {
    let draft = Checkpoint::saved().import(None).unwrap();
    let config = &draft.config;
    assert_eq!((config.items, config.max_len, config.heads), (60, 10, 3));
    assert_eq!((config.hidden.as_slice(), config.layers.as_slice(), config.routes()), (&[24][..], &[2][..], 1));
    assert_eq!((config.positions, config.embedding_norm, config.norm_eps), (Positions::Oldest, true, 1e-12));
    assert_eq!((&*draft.catalogue.ids()[59], draft.catalogue.popularity()[59]), ("item 59", 59));
}

#[test]
fn what_is_not_computed_is_refused_by_name() {
    for (from, to, message) in [
        ("gelu", "relu", "`hidden_act` is \"relu\"; only gelu is computed"),
        ("SASRec", "NARMxx", "`model` is \"NARMxx\"; only SASRec can be imported"),
        ("trm_encoder.layer.1.", "trm_encoder.layer.4.", "missing [\"trm_encoder.layer.1."),
        ("trm_encoder.layer.1.", "trm_encoder.layer.x.", "unknown [\"trm_encoder.layer.x."),
        ("item_embedding.weight", "item_embeddinx.weight", "missing [\"item_embedding.weight\"]"),
        ("_rebuild_tensor_v2", "_rebuild_tensor_v3", "the state dict's entry `item_embedding.weight` is not a tensor"),
    ] {
        let error = Checkpoint::saved().replaced(from, to).refused(None);
        assert!(error.contains(message), "{to}: {error}");
    }
    let mut nested = Checkpoint::saved();
    *nested.pickle() = b"\x80\x04}\x8c\x0astate_dictK\x01s.".to_vec();
    assert!(nested.refused(None).contains("entry `state_dict` is not a tensor"));
    let mut newer = Checkpoint::saved();
    newer.pickle()[1] = 5;
    assert!(newer.refused(None).contains("pickle protocol 5"));
}

#[test]
fn heads_are_asked_for_if_the_configuration_does_not_say() {
    let unsaid = || Checkpoint::saved().replaced("n_heads", "x_heads");
    assert!(
        unsaid()
            .refused(None)
            .contains("`n_heads` is not in the file; give the number of attention heads with --heads")
    );
    assert_eq!(unsaid().import(Some(4)).unwrap().config.heads, 4);
    assert!(unsaid().refused(Some(5)).contains("5 heads do not divide"));
    let error = Checkpoint::saved().refused(Some(4));
    assert!(error.contains("`n_heads` is 3, and 4 heads are asked for; leave --heads out"), "{error}");
}

#[test]
fn other_data_and_sorted_data_do_not_give_the_order() {
    let error = Checkpoint::saved().import_with(None, 59).unwrap_err().to_string();
    assert!(error.contains("shop.inter: 59 items, the model has 60; select the interactions"), "{error}");
    // `rm_dup_inter` gets the value of another setting: both names are as long.
    let sorted = Checkpoint::saved().replaced("rm_dup_inter", "xm_dup_inter").replaced("valid_metric", "rm_dup_inter");
    let error = sorted.refused(None);
    assert!(error.contains("`rm_dup_inter` is set, so that RecBole sorts the interactions"), "{error}");
    // Both least numbers of interactions share the text.
    let error = Checkpoint::saved().replaced("[0,inf)", "[3,inf)").refused(None);
    assert!(error.contains("`user_inter_num_interval` is set, so that RecBole left interactions out"), "{error}");
}

/// Cut and changed pickles give a model or an error, never a panic.
#[test]
fn no_changed_pickle_panics() {
    let whole = Checkpoint::saved().pickle().clone();
    let mut checkpoint = Checkpoint::saved();
    for place in (0..whole.len()).step_by(331) {
        *checkpoint.pickle() = whole[..place].to_vec();
        let _ = checkpoint.refused(None);
        for value in [0xff, whole[place].wrapping_add(1), b'0', b'R'] {
            checkpoint.pickle().clone_from(&whole);
            checkpoint.pickle()[place] = value;
            let _ = checkpoint.import(None);
        }
    }
}
