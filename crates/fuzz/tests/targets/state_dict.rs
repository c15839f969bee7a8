//! The importer of the authors' checkpoints: the archive, the pickle in it, safetensors, and the arguments.

use std::fs::{self, File};
use std::io::{Cursor, Write};
use std::path::Path;

use canet_cpu::CpuBackend;
use canet_fuzz::Outcome;
use canet_model::WidthRule;
use canet_model::import::Import;
use zip::CompressionMethod;
use zip::write::FileOptions;

use super::{corpus, fuzz, target};

fn import(state_dict: &Path, args: &Path) -> Outcome {
    let import = Import { state_dict, args, items: None, attention_scale: WidthRule::Full, ffn_inner: WidthRule::Full };
    match import.read(&CpuBackend::single_threaded()) {
        Ok(draft) => {
            draft.weights.check(&draft.config).unwrap();
            assert_eq!(draft.catalogue.len(), draft.config.items);
            Outcome::Accepted
        }
        Err(error) => {
            assert!(error.to_string().len() < 64 << 10, "{error}");
            Outcome::Refused(error.to_string())
        }
    }
}

#[test]
fn state_dicts() {
    let directory = tempfile::tempdir().unwrap();
    let args = corpus("arguments").join("args.json");
    let target = target("state-dict").tokens(&[
        "PK\u{3}\u{4}",
        "PK\u{1}\u{2}",
        "PK\u{5}\u{6}",
        "tiny/data/0",
        "F32",
        "BOOL",
        "shape",
    ]);
    fuzz(&target, 500, |seed| {
        let path = directory.path().join("state_dict");
        fs::write(&path, &seed.bytes).unwrap();
        import(&path, &args)
    });
}

/// The mutants stand in a sound archive, whose checksums are right.
#[test]
fn pickles() {
    let directory = tempfile::tempdir().unwrap();
    let args = corpus("arguments").join("args.json");
    let sound = fs::read(corpus("state-dict").join("tiny.pt")).unwrap();
    let sound = zip::ZipArchive::new(Cursor::new(sound)).unwrap();
    let tokens = [
        "\u{80}\u{2}",
        "}",
        ")",
        "(",
        "t",
        "u",
        "s",
        "R",
        "Q",
        "b",
        ".",
        "N",
        "q\u{0}",
        "h\u{0}",
        "K\u{1}",
        "\u{85}",
        "\u{86}",
        "\u{87}",
        "ctorch\nFloatStorage\n",
        "ctorch\nHalfStorage\n",
        "cos\nsystem\n",
        "ccollections\nOrderedDict\n",
        "X\u{3}\u{0}\u{0}\u{0}abc",
    ];
    let target = target("pickle").tokens(&tokens);
    fuzz(&target, 500, |seed| {
        let path = directory.path().join("state_dict.pt");
        // Reading an entry changes the archive's place.
        let mut sound = sound.clone();
        let mut archive = zip::ZipWriter::new(File::create(&path).unwrap());
        let stored = FileOptions::default().compression_method(CompressionMethod::Stored);
        archive.start_file("tiny/data.pkl", stored).unwrap();
        archive.write_all(&seed.bytes).unwrap();
        for place in 0..sound.len() {
            let entry = sound.by_index_raw(place).unwrap();
            if !entry.name().ends_with("data.pkl") {
                archive.raw_copy_file(entry).unwrap();
            }
        }
        archive.finish().unwrap();
        import(&path, &args)
    });
}

#[test]
fn arguments() {
    let directory = tempfile::tempdir().unwrap();
    let state_dict = corpus("state-dict").join("tiny.pt");
    let target =
        target("arguments").tokens(&["null", "[]", "{}", "-1", "1.5", "[4, 8]", "\"max_len\":", "\"num_item\":", ","]);
    fuzz(&target, 500, |seed| {
        let path = directory.path().join("args.json");
        fs::write(&path, &seed.bytes).unwrap();
        import(&state_dict, &path)
    });
}
