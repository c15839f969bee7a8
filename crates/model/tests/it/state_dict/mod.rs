//! State dicts in every form that PyTorch writes.

mod hostile;
mod torch_file;

use std::fs;

use canet_model::WidthRule;
use canet_model::checkpoint::CheckpointDraft;
use canet_model::import::Import;
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use tempfile::TempDir;
use zip::CompressionMethod;

use self::torch_file::{ARGS, Archive, Pickle, encode, import, their_tensors, values, with};

/// Checks that a weight has the values of the authors' tensor, without the last row of an item table.
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

/// A transposed view starts in the middle of a storage.
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
        .read(&canet_cpu::CpuBackend::single_threaded())
    };
    let draft = read("a\nb\nc\nd d\né").unwrap();
    assert_eq!(draft.catalogue.ids().iter().map(|id| &**id).collect::<Vec<_>>(), ["a", "b", "c", "d d", "é"]);
    for (lines, message) in [
        ("a\nb\n", "items.txt: 2 lines, the model has 5 items"),
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
            "`backbone.position.pe.weight` has shape [2, 3], in the authors' model of this args.json it has [3, 3]",
        ),
        (
            "\"num_item\": 5",
            "\"num_item\": 6",
            "`backbone.output.layer.bias` has shape [6], in the authors' model of this args.json it has [7]",
        ),
        ("[1], \"attn", "[2], \"attn", "missing [\"backbone.TRMs.1."),
        ("\"d_list\": [2]", "\"d_list\": []", "`hidden` is empty"),
        ("\"num_item\": 5", "\"num_item\": 99999999999", "`items` is 99999999999"),
        ("\"num_item\": 5, ", "", "missing field `num_item`"),
        ("\"d_list\": [2]", "\"d_list\": [\"2\"]", "args.json: d_list[0]: invalid type: string"),
    ] {
        assert!(ARGS.contains(from));
        let error = import(&state_dict, &ARGS.replace(from, to)).unwrap_err().to_string();
        assert!(error.contains(message), "{to}: {error}");
    }
}
