//! The list of components that `make sbom` writes.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

/// Writes the list for a build with these features and reads it.
fn components(flags: &[&str]) -> BTreeMap<String, Value> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("sbom.json");
    let mut command = Command::new("python3");
    command.arg(root.join("scripts/sbom.py")).args(flags).arg("--out").arg(&path).env("PYTHONDONTWRITEBYTECODE", "1");
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let document: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    assert_eq!((&document["bomFormat"], &document["specVersion"]), (&"CycloneDX".into(), &"1.6".into()));
    let components = document["components"].as_array().unwrap().iter();
    components.map(|component| (component["bom-ref"].as_str().unwrap().to_owned(), component.clone())).collect()
}

#[test]
fn every_component_has_its_licence_and_the_checksum_of_the_lock_file() {
    let lock = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.lock")).unwrap();
    let (whole, native) = (components(&[]), components(&["--no-default-features"]));
    let named = |list: &BTreeMap<String, Value>, name: &str| list.values().any(|component| component["name"] == name);
    for (name, in_whole, in_native) in [
        ("tch", true, false),
        ("torch", true, false),
        ("axum", true, true),
        ("uplot", true, true),
        ("proptest", false, false),
    ] {
        assert_eq!((named(&whole, name), named(&native, name)), (in_whole, in_native), "{name}");
    }
    for (reference, component) in &whole {
        assert!(component["licenses"][0]["expression"].is_string(), "{reference}");
        let own = component["name"].as_str().unwrap().starts_with("canet-");
        match component["hashes"][0]["content"].as_str() {
            Some(checksum) if reference.starts_with("pkg:cargo/") => assert!(lock.contains(checksum), "{reference}"),
            Some(checksum) => assert_eq!(checksum.len(), 64, "{reference}"),
            None => assert!(own, "{reference}"),
        }
    }
    // Every component of the smaller build is one of the larger build.
    assert!(native.keys().all(|reference| whole.contains_key(reference)));
}
