//! State dicts of every form that PyTorch may have given them, and files made to harm the one who imports them.

#![expect(clippy::unwrap_used, reason = "a test's helper may panic")]

use std::collections::BTreeMap;
use std::fs;
use std::io::{Cursor, Write};

use canet::model::WidthRule;
use canet::model::checkpoint::CheckpointDraft;
use canet::model::import::{Import, ImportError};
use half::{bf16, f16};
use rand::Rng;
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use tempfile::TempDir;
use zip::write::FileOptions;
use zip::{CompressionMethod, ZipWriter};

use super::support::rng;

const ARGS: &str = r#"{"max_len": 2, "d_list": [2], "emb_list": [3], "layer_list": [1], "attn_heads": 1,
    "num_item": 5, "num_user": 7, "dropout": 0.2, "device": "cuda:0", "enable_res_parameter": 1}"#;

/// Names and shapes of the authors' program for `ARGS`, as their modules are nested.
fn their_tensors() -> Vec<(String, Vec<usize>)> {
    let mut list = Vec::new();
    let mut add = |name: String, shape: &[usize]| list.push((name, shape.to_vec()));
    for (part, layer, items, width, ffn) in [("backbone", ".layer", 3, 2, 8), ("router", "", 32, 32, 128)] {
        add(format!("{part}.token.weight"), &[7, items]);
        add(format!("{part}.position.pe.weight"), &[2, items]);
        for linear in ["attn.linear_layers.0", "attn.linear_layers.1", "attn.linear_layers.2", "attn.output_linear"] {
            add(format!("{part}.TRMs.0.{linear}{layer}.weight"), &[width, width]);
            add(format!("{part}.TRMs.0.{linear}{layer}.bias"), &[width]);
        }
        add(format!("{part}.TRMs.0.ffn.linear1{layer}.weight"), &[ffn, width]);
        add(format!("{part}.TRMs.0.ffn.linear1{layer}.bias"), &[ffn]);
        add(format!("{part}.TRMs.0.ffn.linear2{layer}.weight"), &[width, ffn]);
        add(format!("{part}.TRMs.0.ffn.linear2{layer}.bias"), &[width]);
        for skip in ["skipconnect1", "skipconnect2"] {
            add(format!("{part}.TRMs.0.{skip}.a"), &[]);
            add(format!("{part}.TRMs.0.{skip}.norm.weight"), &[width]);
            add(format!("{part}.TRMs.0.{skip}.norm.bias"), &[width]);
        }
    }
    add("backbone.input_projection.layer.weight".to_owned(), &[2, 3]);
    add("backbone.input_projection.layer.bias".to_owned(), &[2]);
    add("backbone.output.layer.weight".to_owned(), &[6, 2]);
    add("backbone.output.layer.bias".to_owned(), &[6]);
    add("router.output_emb.weight".to_owned(), &[1, 32]);
    add("router.output_emb.bias".to_owned(), &[1]);
    add("router.output_depth.weight".to_owned(), &[1, 32]);
    add("router.output_depth.bias".to_owned(), &[1]);
    list
}

/// Values that every element type holds exactly, different for every tensor.
fn values(tensor: usize, shape: &[usize]) -> Vec<f32> {
    (0..shape.iter().product()).map(|place| ((tensor * 5 + place * 3) % 61) as f32 / 16.0 - 1.5).collect()
}

/// A tensor as a pickle describes it.
#[derive(Clone)]
struct Described {
    name: String,
    storage: &'static str,
    key: String,
    count: usize,
    offset: usize,
    shape: Vec<usize>,
    stride: Vec<usize>,
}

/// Writes pickles with the opcodes that `torch.save` uses.
struct Pickle(Vec<u8>);

impl Pickle {
    fn new() -> Pickle {
        Pickle(b"\x80\x02".to_vec())
    }

    fn op(mut self, bytes: &[u8]) -> Pickle {
        self.0.extend_from_slice(bytes);
        self
    }

    fn text(self, text: &str) -> Pickle {
        self.op(b"X").op(&(text.len() as u32).to_le_bytes()).op(text.as_bytes())
    }

    fn int(self, value: usize) -> Pickle {
        self.op(b"J").op(&(value as i32).to_le_bytes())
    }

    fn ints(self, values: &[usize]) -> Pickle {
        values.iter().fold(self.op(b"("), |pickle, value| pickle.int(*value)).op(b"t")
    }

    fn tensor(self, tensor: &Described) -> Pickle {
        self.op(b"ctorch._utils\n_rebuild_tensor_v2\n((")
            .text("storage")
            .op(format!("ctorch\n{}\n", tensor.storage).as_bytes())
            .text(&tensor.key)
            .text("cuda:0")
            .int(tensor.count)
            .op(b"tQ")
            .int(tensor.offset)
            .ints(&tensor.shape)
            .ints(&tensor.stride)
            .op(b"\x89ccollections\nOrderedDict\n)RtR")
    }

    fn state_dict(tensors: &[Described]) -> Vec<u8> {
        let start = Pickle::new().op(b"ccollections\nOrderedDict\n)Rq\x00(");
        let filled = tensors.iter().fold(start, |pickle, tensor| pickle.text(&tensor.name).tensor(tensor));
        // `_metadata` comes as the state of the OrderedDict.
        filled.op(b"u}").text("_metadata").op(b"ccollections\nOrderedDict\n)Rsb.").0
    }
}

struct Archive {
    pickle: Vec<u8>,
    storages: BTreeMap<String, Vec<u8>>,
    byte_order: &'static str,
    compression: CompressionMethod,
}

impl Archive {
    /// A valid state dict: a storage a tensor, of the element type that `storage` names.
    fn valid(storage: &'static str) -> Archive {
        let mut storages = BTreeMap::new();
        let mut described = Vec::new();
        for (place, (name, shape)) in their_tensors().into_iter().enumerate() {
            let values = values(place, &shape);
            storages.insert(place.to_string(), encode(storage, &values));
            let stride = (0..shape.len()).map(|axis| shape[axis + 1..].iter().product()).collect();
            described.push(Described {
                name,
                storage,
                key: place.to_string(),
                count: values.len(),
                offset: 0,
                shape,
                stride,
            });
        }
        let pickle = Pickle::state_dict(&described);
        Archive { pickle, storages, byte_order: "little", compression: CompressionMethod::Stored }
    }

    fn with_pickle(pickle: Vec<u8>) -> Archive {
        Archive { pickle, ..Archive::valid("FloatStorage") }
    }

    fn bytes(&self) -> Vec<u8> {
        let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
        let options = FileOptions::default().compression_method(self.compression);
        let mut add = |name: &str, bytes: &[u8]| {
            zip.start_file(format!("model/{name}"), options).unwrap();
            zip.write_all(bytes).unwrap();
        };
        add("data.pkl", &self.pickle);
        add("byteorder", self.byte_order.as_bytes());
        for (key, bytes) in &self.storages {
            add(&format!("data/{key}"), bytes);
        }
        zip.finish().unwrap().into_inner()
    }

    fn import(&self) -> Result<CheckpointDraft, ImportError> {
        import(&self.bytes(), ARGS)
    }
}

fn encode(storage: &str, values: &[f32]) -> Vec<u8> {
    let encode = |value: &f32| match storage {
        "DoubleStorage" => f64::from(*value).to_le_bytes().to_vec(),
        "HalfStorage" => f16::from_f32(*value).to_le_bytes().to_vec(),
        "BFloat16Storage" => bf16::from_f32(*value).to_le_bytes().to_vec(),
        _ => value.to_le_bytes().to_vec(),
    };
    values.iter().flat_map(encode).collect()
}

fn import(state_dict: &[u8], args: &str) -> Result<CheckpointDraft, ImportError> {
    let folder = tempfile::tempdir().unwrap();
    let [state_dict, args] = [("state_dict.pt", state_dict), ("args.json", args.as_bytes())].map(|(name, bytes)| {
        let path = folder.path().join(name);
        fs::write(&path, bytes).unwrap();
        path
    });
    let (attention_scale, ffn_inner) = (WidthRule::Full, WidthRule::Full);
    Import { state_dict: &state_dict, args: &args, items: None, attention_scale, ffn_inner }.read()
}

/// What must stand under our name: the values of their tensor, less an item table's last row.
fn assert_weight(draft: &CheckpointDraft, ours: &str, theirs: &str) {
    let tensors = their_tensors();
    let place = tensors.iter().position(|(name, _)| name == theirs).unwrap();
    let expected = values(place, &tensors[place].1);
    let found = draft.weights.get(ours).unwrap();
    assert_eq!(found.data, expected[..found.data.len()], "{ours}");
}

#[test]
fn every_element_type_stored_or_deflated() {
    for storage in ["FloatStorage", "DoubleStorage", "HalfStorage", "BFloat16Storage"] {
        for compression in [CompressionMethod::Stored, CompressionMethod::Deflated] {
            let draft = Archive { compression, ..Archive::valid(storage) }.import().unwrap();
            assert_eq!(draft.weights.get("backbone.item_embedding").unwrap().shape, [6, 3]);
            assert_weight(&draft, "backbone.item_embedding", "backbone.token.weight");
            assert_weight(
                &draft,
                "backbone.blocks.0.attention.key.bias",
                "backbone.TRMs.0.attn.linear_layers.1.layer.bias",
            );
            assert_weight(&draft, "backbone.blocks.0.ffn_residual", "backbone.TRMs.0.skipconnect2.a");
            assert_weight(&draft, "router.block.ffn.outer.weight", "router.TRMs.0.ffn.linear2.weight");
            assert_weight(&draft, "router.head.weight", "router.output_emb.weight");
        }
    }
}

#[test]
fn the_same_names_in_safetensors() {
    let tensors = their_tensors();
    let data: Vec<Vec<u8>> =
        tensors.iter().enumerate().map(|(place, (_, shape))| encode("FloatStorage", &values(place, shape))).collect();
    let views = tensors
        .iter()
        .zip(&data)
        .map(|((name, shape), data)| (name, TensorView::new(Dtype::F32, shape.clone(), data).unwrap()));
    let draft = import(&safetensors::serialize(views, None).unwrap(), ARGS).unwrap();
    assert_eq!(draft.weights, Archive::valid("FloatStorage").import().unwrap().weights);
}

/// A transposed view that starts within a storage that other tensors share.
#[test]
fn strides_and_offsets_are_followed() {
    let name = "backbone.input_projection.layer.weight";
    let mut archive = Archive::valid("FloatStorage");
    archive.storages.insert("shared".to_owned(), encode("FloatStorage", &[9.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0]));
    archive.pickle = Pickle::state_dict(&with(name, |tensor| {
        (tensor.key, tensor.count, tensor.offset, tensor.stride) = ("shared".to_owned(), 7, 1, vec![1, 2]);
    }));
    let draft = archive.import().unwrap();
    assert_eq!(draft.weights.get("backbone.input.weight").unwrap().data, [1.0, 3.0, 5.0, 2.0, 4.0, 6.0]);
}

/// The descriptions of a valid state dict, one of them changed.
fn with(name: &str, edit: impl FnOnce(&mut Described)) -> Vec<Described> {
    let mut list: Vec<Described> = their_tensors()
        .into_iter()
        .enumerate()
        .map(|(place, (name, shape))| Described {
            name,
            storage: "FloatStorage",
            key: place.to_string(),
            count: shape.iter().product(),
            offset: 0,
            stride: (0..shape.len()).map(|axis| shape[axis + 1..].iter().product()).collect(),
            shape,
        })
        .collect();
    edit(list.iter_mut().find(|tensor| tensor.name == name).unwrap());
    list
}

#[test]
fn without_residual_parameters_the_scalars_are_one() {
    let args = ARGS.replace("\"enable_res_parameter\": 1", "\"enable_res_parameter\": 0");
    let mut list = with("router.output_depth.bias", |_| {});
    let error = import(&Archive::valid("FloatStorage").bytes(), &args).unwrap_err().to_string();
    assert!(error.contains("unknown [\"backbone.TRMs.0.skipconnect1.a\""), "{error}");
    list.retain(|tensor| !tensor.name.ends_with(".a"));
    let draft = import(&Archive::with_pickle(Pickle::state_dict(&list)).bytes(), &args).unwrap();
    for name in ["backbone.blocks.0.attention_residual", "router.block.ffn_residual"] {
        let scalar = draft.weights.get(name).unwrap();
        assert_eq!((scalar.shape.as_slice(), scalar.data.as_slice()), (&[][..], &[1.0][..]));
    }
}

#[test]
fn external_ids_come_from_a_file() {
    let folder = TempDir::new().unwrap();
    let path = |name: &str| folder.path().join(name);
    fs::write(path("state_dict.pt"), Archive::valid("FloatStorage").bytes()).unwrap();
    fs::write(path("args.json"), ARGS).unwrap();
    let read = |lines: &str| {
        fs::write(path("items.txt"), lines).unwrap();
        Import {
            state_dict: &path("state_dict.pt"),
            args: &path("args.json"),
            items: Some(&path("items.txt")),
            attention_scale: WidthRule::Full,
            ffn_inner: WidthRule::Full,
        }
        .read()
    };
    let draft = read("a\nb\nc\nd d\né").unwrap();
    assert_eq!(draft.catalogue.ids().iter().map(|id| &**id).collect::<Vec<_>>(), ["a", "b", "c", "d d", "é"]);
    for (lines, message) in [
        ("a\nb\n", "items.txt: 2 lines, `num_item` in args.json is 5"),
        ("a\nb\nc\nd\na\n", "items.txt: item id \"a\" stands in the catalogue twice"),
        ("a\nb\n\nd\ne\n", "items.txt: item id \"\" is empty"),
    ] {
        let error = read(lines).unwrap_err().to_string();
        assert!(error.contains(message), "{error}");
    }
}

#[test]
fn arguments_that_do_not_fit_are_refused() {
    let state_dict = Archive::valid("FloatStorage").bytes();
    for (from, to, message) in [
        (
            "\"max_len\": 2",
            "\"max_len\": 3",
            "`backbone.position.pe.weight` has shape [2, 3], args.json makes it [3, 3]",
        ),
        ("\"num_item\": 5", "\"num_item\": 6", "`backbone.output.layer.bias` has shape [6], args.json makes it [7]"),
        ("[1], \"attn", "[2], \"attn", "missing [\"backbone.TRMs.1."),
        ("\"d_list\": [2]", "\"d_list\": []", "`hidden` is empty"),
        ("\"num_item\": 5", "\"num_item\": 99999999999", "`items` is 99999999999"),
        ("\"num_item\": 5, ", "", "missing field `num_item`"),
        ("\"d_list\": [2]", "\"d_list\": [\"2\"]", "invalid type: string"),
    ] {
        assert!(ARGS.contains(from));
        let error = import(&state_dict, &ARGS.replace(from, to)).unwrap_err().to_string();
        assert!(error.contains(message), "{to}: {error}");
    }
}

#[test]
fn pickles_that_ask_for_more_than_tensors_are_refused() {
    let os_system = Pickle::new().op(b"cos\nsystem\n(").text("touch owned").op(b"tR.").0;
    let builtin = Pickle::new().op(b"c__builtin__\neval\n(").text("1").op(b"tR.").0;
    let long_storage = Pickle::new().op(b"ctorch\nLongStorage\n.").0;
    let far_memo = Pickle::new().op(b"}r\xff\xff\xff\xff.").0;
    let no_memo = Pickle::new().op(b"j\x07\x00\x00\x00.").0;
    let long_text = Pickle::new().op(b"X\xff\xff\xff\xffabc").0;
    let long_integer = Pickle::new().op(b"\x8a\x09\x01\x01\x01\x01\x01\x01\x01\x01\x01.").0;
    let hooks = Pickle::new().op(b"ctorch._utils\n_rebuild_tensor_v2\n(}tR.").0;
    let state = Pickle::new().op(b"}}").text("__class__").op(b"}sb.").0;
    let no_tensor = Pickle::new().op(b"}").text("backbone.token.weight").op(b"Ns.").0;
    let not_called = Pickle::new().op(b"ccollections\nOrderedDict\n.").0;
    let below_the_mark = Pickle::new().op(b"K\x01(\x85.").0;
    let list: [(Vec<u8>, &str); 22] = [
        (os_system, "global `os.system` is not allowed"),
        (builtin, "global `__builtin__.eval` is not allowed"),
        (long_storage, "global `torch.LongStorage` is not allowed"),
        (far_memo, "memo entry 4294967295 at byte 3"),
        (no_memo, "memo entry 7 at byte 2"),
        (long_text, "cut or has bytes after its end"),
        (long_integer, "LONG1 at byte 2 has operands"),
        (hooks, "REDUCE at byte"),
        (state, "BUILD at byte"),
        (no_tensor, "entry `backbone.token.weight` is not a tensor"),
        (not_called, "STOP at byte"),
        (below_the_mark, "TUPLE at byte 5"),
        (b"\x80\x04.".to_vec(), "pickle protocol 4"),
        (b"\x80\x02\x93.".to_vec(), "opcode 0x93 at byte 2"),
        (b"\x80\x02i".to_vec(), "opcode 0x69 at byte 2"),
        (b"\x80\x02}.}".to_vec(), "cut or has bytes after its end (at byte 4)"),
        (Vec::new(), "cut or has bytes after its end"),
        (b"\x80\x02s.".to_vec(), "SETITEM at byte 2"),
        (b"\x80\x02u.".to_vec(), "SETITEMS at byte 2"),
        (b"\x80\x02R.".to_vec(), "REDUCE at byte 2"),
        (b"\x80\x02)Q.".to_vec(), "BINPERSID at byte 3"),
        (b"\x80\x02}}.".to_vec(), "STOP at byte"),
    ];
    for (pickle, message) in list {
        let error = Archive::with_pickle(pickle).import().unwrap_err().to_string();
        assert!(error.contains("state_dict.pt: refused: ") && error.contains(message), "{message}: {error}");
    }
    assert!(!std::path::Path::new("owned").exists());
}

/// A million nested tuples neither recurse nor grow without bound.
#[test]
fn deep_pickles_do_not_overflow_the_stack() {
    let mut pickle = Pickle::new().op(b")").0;
    pickle.extend(std::iter::repeat_n(0x85, 1 << 20));
    pickle.push(b'.');
    let error = Archive::with_pickle(pickle).import().unwrap_err().to_string();
    assert!(error.contains("STOP at byte"), "{error}");
}

#[test]
fn tensors_beyond_their_storage_are_refused() {
    const NAME: &str = "backbone.output.layer.weight";
    type Edit = fn(&mut Described);
    let table: [(Edit, &str); 8] = [
        (|tensor| tensor.offset = 1, "REDUCE at byte"),
        (|tensor| tensor.stride = vec![3, 1], "REDUCE at byte"),
        (|tensor| tensor.stride = vec![1 << 30, 1 << 30], "REDUCE at byte"),
        (|tensor| tensor.shape = vec![1 << 30, 1 << 30], "REDUCE at byte"),
        (|tensor| tensor.stride = vec![1], "REDUCE at byte"),
        (|tensor| tensor.count = 13, "`backbone.output.layer.weight` has a storage of another size"),
        (|tensor| tensor.count = 1 << 30, "`backbone.output.layer.weight` has a storage of 4294967296 bytes"),
        (|tensor| tensor.key = "../data.pkl".to_owned(), "entry model/data/../data.pkl, which cannot be read"),
    ];
    for (edit, message) in table {
        let pickle = Pickle::state_dict(&with(NAME, edit));
        let error = Archive::with_pickle(pickle).import().unwrap_err().to_string();
        assert!(error.contains(message), "{message}: {error}");
    }
}

#[test]
fn archives_that_are_none_are_refused() {
    let whole = Archive::valid("FloatStorage").bytes();
    let nan = {
        let mut archive = Archive::valid("FloatStorage");
        archive.storages.insert("0".to_owned(), encode("FloatStorage", &[f32::NAN; 21]));
        archive.bytes()
    };
    let big = Archive { byte_order: "big", ..Archive::valid("FloatStorage") }.bytes();
    let huge_pickle = Archive { compression: CompressionMethod::Deflated, ..Archive::with_pickle(vec![b')'; 5 << 20]) };
    for (bytes, message) in [
        (whole[..whole.len() / 2].to_vec(), "copy it again"),
        (b"not an archive".to_vec(), "neither a zip archive of torch.save nor safetensors"),
        (Vec::new(), "neither a zip archive"),
        (nan, "`backbone.token.weight` holds NaN at place 0"),
        (big, "not written in little-endian order"),
        (huge_pickle.bytes(), "longer than 4194304 bytes"),
    ] {
        let error = import(&bytes, ARGS).unwrap_err().to_string();
        assert!(error.contains(message), "{message}: {error}");
    }
}

/// Whatever byte is changed, the answer is a model or an error, never a panic.
#[test]
fn no_changed_byte_panics() {
    let whole = Archive::valid("HalfStorage").bytes();
    let mut rng = rng(9);
    for _ in 0..400 {
        let mut bytes = whole.clone();
        for _ in 0..rng.gen_range(1..4) {
            // Half of the changes fall on the directory at the end.
            let from = if rng.gen_bool(0.5) { bytes.len().saturating_sub(4500) } else { 0 };
            let place = rng.gen_range(from..bytes.len());
            bytes[place] = if rng.gen_bool(0.3) { 0xff } else { rng.gen_range(0..=255) };
        }
        let _ = import(&bytes, ARGS);
    }
}
