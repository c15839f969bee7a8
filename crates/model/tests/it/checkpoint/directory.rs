//! Finding versions, and the errors if there are none.

use std::fs;

use canet_model::checkpoint::ModelDirectory;

use canet_testing::write_checkpoint;

#[test]
fn a_wrong_path_is_answered_with_the_right_one() {
    let root = tempfile::tempdir().unwrap();
    let model = root.path().join("ml");
    write_checkpoint(&model, 1);
    fs::create_dir(root.path().join("empty")).unwrap();
    for (path, words) in [
        ("none", vec!["none: no such model directory", "canet train"]),
        ("empty", vec!["empty: holds no version", "empty/1"]),
        ("ml/1", vec!["ml/1: this is one version", "/ml, and --version 1"]),
        ("ml/1/canet.json", vec!["not a directory"]),
        ("ml/1/canet.json/x", vec!["not a directory"]),
        (".", vec!["holds models, not versions", "/ml"]),
    ] {
        let error = ModelDirectory::open(&root.path().join(path)).unwrap_err().to_string();
        assert!(words.iter().all(|word| error.contains(word)), "{path}: {error}");
    }
    let error = ModelDirectory::open(&model).unwrap().load(Some(4)).unwrap_err().to_string();
    assert!(error.contains("there is no version 4; the model has version 1"), "{error}");
}

#[test]
fn only_plain_numbers_are_versions() {
    let root = tempfile::tempdir().unwrap();
    write_checkpoint(root.path(), 1);
    for name in ["0", "02", "+3", "4.bak", "-5", "latest", "99999999999999999999"] {
        fs::create_dir(root.path().join(name)).unwrap();
    }
    fs::write(root.path().join("7"), "a file").unwrap();
    let directory = ModelDirectory::open(root.path()).unwrap();
    assert_eq!(directory.versions().unwrap(), [1]);
    assert_eq!(directory.list().unwrap().ignored, ["+3", "-5", "0", "02", "4.bak", "99999999999999999999"]);
    assert_eq!(write_checkpoint(root.path(), 2).version, 8, "the number of the file is taken");
}

#[test]
fn an_error_says_which_names_are_no_versions() {
    let root = tempfile::tempdir().unwrap();
    for name in ["0001", "v4", ".hidden1", "lost+found"] {
        fs::create_dir(root.path().join(name)).unwrap();
    }
    let error = ModelDirectory::open(root.path()).unwrap_err().to_string();
    assert!(error.contains("(ignored: \"0001\", \"v4\"; a version's name is a whole number from 1"), "{error}");
}

#[test]
fn a_version_is_not_written_into_a_version() {
    let root = tempfile::tempdir().unwrap();
    write_checkpoint(root.path(), 1);
    let draft = canet_testing::draft(canet_testing::small_config(), 1);
    let error = draft.write(&root.path().join("1")).unwrap_err().to_string();
    assert!(error.contains("this is one version of a model"), "{error}");
}
