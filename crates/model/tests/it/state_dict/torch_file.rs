//! Hand-made files of `torch.save`: a model of the authors' program with 5 items.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Cursor, Write};

use canet_model::WidthRule;
use canet_model::checkpoint::CheckpointDraft;
use canet_model::import::{Import, ImportError};
use half::{bf16, f16};
use zip::write::FileOptions;
use zip::{CompressionMethod, ZipWriter};

pub(super) const ARGS: &str = r#"{"max_len": 2, "d_list": [2], "emb_list": [3], "layer_list": [1], "attn_heads": 1,
    "num_item": 5, "num_user": 7, "dropout": 0.2, "device": "cuda:0", "enable_res_parameter": 1}"#;

/// The authors' names and shapes for `ARGS`.
pub(super) fn their_tensors() -> Vec<(String, Vec<usize>)> {
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

/// Values that every element type holds exactly. Each tensor has its own.
pub(super) fn values(tensor: usize, shape: &[usize]) -> Vec<f32> {
    (0..shape.iter().product()).map(|place| ((tensor * 5 + place * 3) % 61) as f32 / 16.0 - 1.5).collect()
}

/// A tensor as a pickle describes it.
#[derive(Clone)]
pub(super) struct Described {
    pub(super) name: String,
    pub(super) storage: &'static str,
    pub(super) key: String,
    pub(super) count: usize,
    pub(super) offset: usize,
    pub(super) shape: Vec<usize>,
    pub(super) stride: Vec<usize>,
}

/// Writes pickles with the opcodes that `torch.save` uses.
pub(super) struct Pickle(pub(super) Vec<u8>);

impl Pickle {
    pub(super) fn new() -> Pickle {
        Pickle(b"\x80\x02".to_vec())
    }

    pub(super) fn op(mut self, bytes: &[u8]) -> Pickle {
        self.0.extend_from_slice(bytes);
        self
    }

    pub(super) fn text(self, text: &str) -> Pickle {
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

    pub(super) fn state_dict(tensors: &[Described]) -> Vec<u8> {
        let start = Pickle::new().op(b"ccollections\nOrderedDict\n)Rq\x00(");
        let filled = tensors.iter().fold(start, |pickle, tensor| pickle.text(&tensor.name).tensor(tensor));
        // `_metadata` is the state of the OrderedDict.
        filled.op(b"u}").text("_metadata").op(b"ccollections\nOrderedDict\n)Rsb.").0
    }
}

pub(super) struct Archive {
    pub(super) pickle: Vec<u8>,
    pub(super) storages: BTreeMap<String, Vec<u8>>,
    pub(super) byte_order: &'static str,
    pub(super) compression: CompressionMethod,
}

impl Archive {
    /// A valid state dict, with one storage of the named type a tensor.
    pub(super) fn valid(storage: &'static str) -> Archive {
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

    pub(super) fn with_pickle(pickle: Vec<u8>) -> Archive {
        Archive { pickle, ..Archive::valid("FloatStorage") }
    }

    pub(super) fn bytes(&self) -> Vec<u8> {
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

    pub(super) fn import(&self) -> Result<CheckpointDraft, ImportError> {
        import(&self.bytes(), ARGS)
    }
}

pub(super) fn encode(storage: &str, values: &[f32]) -> Vec<u8> {
    let encode = |value: &f32| match storage {
        "DoubleStorage" => f64::from(*value).to_le_bytes().to_vec(),
        "HalfStorage" => f16::from_f32(*value).to_le_bytes().to_vec(),
        "BFloat16Storage" => bf16::from_f32(*value).to_le_bytes().to_vec(),
        _ => value.to_le_bytes().to_vec(),
    };
    values.iter().flat_map(encode).collect()
}

pub(super) fn import(state_dict: &[u8], args: &str) -> Result<CheckpointDraft, ImportError> {
    let folder = tempfile::tempdir().unwrap();
    let [state_dict, args] = [("state_dict.pt", state_dict), ("args.json", args.as_bytes())].map(|(name, bytes)| {
        let path = folder.path().join(name);
        fs::write(&path, bytes).unwrap();
        path
    });
    let (attention_scale, ffn_inner) = (WidthRule::Full, WidthRule::Full);
    Import { state_dict: &state_dict, args: &args, items: None, attention_scale, ffn_inner }
        .read(&canet_cpu::CpuBackend::single_threaded())
}

/// The tensors of a valid state dict, one of them changed.
pub(super) fn with(name: &str, edit: impl FnOnce(&mut Described)) -> Vec<Described> {
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
