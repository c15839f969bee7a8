//! The rules of the source tree that the compiler does not check: which floor may import which, where LibTorch,
//! HTTP and the environment may be named, and how long a file may be.

mod paths;
mod tokens;

use std::fs;
use std::path::{Path, PathBuf};

use paths::{NamedPath, paths};
use tokens::{Token, tokens};

/// The floors from the ground up; those of one row are siblings and do not know each other.
const FLOORS: [&[&str]; 7] =
    [&["domain"], &["telemetry"], &["model", "data"], &["evaluation"], &["serving", "training"], &["api"], &["app"]];

/// What may be named on some floors only.
const CONFINED: [(&[&str], &[&str]); 20] = [
    (&["cudarc"], &["model"]),
    (&["tch"], &["model", "training"]),
    (&["torch_sys"], &[]),
    (&["axum"], &["api", "app"]),
    (&["tonic"], &["api", "app"]),
    (&["tonic_health"], &["api"]),
    (&["tonic_reflection"], &["api"]),
    (&["tonic_types"], &["api"]),
    (&["prost"], &["api"]),
    (&["hyper"], &["api"]),
    (&["hyper_util"], &["api"]),
    (&["http_body"], &["api"]),
    (&["tower_http"], &["api"]),
    (&["utoipa_axum"], &["api"]),
    (&["rustls"], &["api"]),
    (&["tokio_rustls"], &["api"]),
    (&["tokio"], &["serving", "api", "app"]),
    // In the model it describes what `canet.json` holds, beside serde's derives.
    (&["utoipa"], &["model", "api"]),
    (&["ureq"], &["app"]),
    (&["std", "env"], &["app"]),
];

/// What the lowest floor may import.
const DOMAIN_IMPORTS: [&str; 2] = ["std", "thiserror"];

const LONGEST_FILE: usize = 400;

/// What is wrong with a file, a line each; `file` is relative to the repository, as `src/model/config.rs`.
fn faults(file: &str, source: &str) -> Vec<String> {
    let tokens = tokens(source);
    let mut found = Vec::new();
    let lines = source.lines().count();
    if lines > LONGEST_FILE {
        found.push(format!("{file}: {lines} lines, at most {LONGEST_FILE} are allowed: which two nouns are in it?"));
    }
    for line in unexplained_unsafe(&tokens, source) {
        found.push(format!("{file}:{line}: `unsafe` without a `SAFETY:` comment above it"));
    }
    for line in ignored_tests(&tokens) {
        found.push(format!("{file}:{line}: `#[ignore]`: a test runs or is not there"));
    }
    if let Some(module) = module(file) {
        let declared = declared_modules(&tokens);
        for path in paths(&tokens, &module) {
            let fault = misplaced(&module, &path).or_else(|| foreign_to_domain(&module, &path, &declared));
            found.extend(fault.map(|fault| format!("{file}:{}: {fault}", path.line)));
        }
        // A group may name the same floor many times.
        found.dedup();
    }
    found
}

/// The module of a file below `src`: `["model", "config"]`; empty for the crate's root.
fn module(file: &str) -> Option<Vec<&str>> {
    let path = file.strip_prefix("src/")?.strip_suffix(".rs")?;
    let mut names: Vec<&str> = path.split('/').collect();
    if matches!(names.last(), Some(&"mod" | &"lib" | &"main")) {
        names.pop();
    }
    Some(names)
}

fn rank(floor: &str) -> Option<usize> {
    FLOORS.iter().position(|row| row.contains(&floor))
}

/// An import that goes up or sideways, or names what is confined to other floors.
fn misplaced(module: &[&str], path: &NamedPath<'_>) -> Option<String> {
    let floor = module.first().copied();
    if !path.own {
        let (names, floors) = CONFINED.iter().find(|(names, _)| path.names.starts_with(names))?;
        let allowed = floor.is_some_and(|floor| floors.contains(&floor));
        return (!allowed).then(|| format!("`{}` may be named in {floors:?} alone", names.join("::")));
    }
    // The crate's root sees every floor.
    let (floor, target) = (floor?, *path.names.first()?);
    match (rank(floor), rank(target)) {
        (None, _) => Some(format!("`{floor}` is on no floor: give it one in tests/it/tidy.rs")),
        (_, None) => Some(format!("`crate::{target}` is on no floor")),
        (Some(from), Some(to)) => (floor != target && to >= from)
            .then(|| format!("`{floor}` imports `{target}`: imports go down the floors only")),
    }
}

/// An import of `domain` from outside the standard library.
fn foreign_to_domain(module: &[&str], path: &NamedPath<'_>, declared: &[&str]) -> Option<String> {
    let name = *path.names.first()?;
    let is_crate = name.starts_with(char::is_lowercase) && !declared.contains(&name);
    let foreign = !path.own && path.imported && is_crate && !DOMAIN_IMPORTS.contains(&name);
    (module.first() == Some(&"domain") && foreign)
        .then(|| format!("`domain` imports `{name}`: it needs {DOMAIN_IMPORTS:?} alone"))
}

fn declared_modules<'a>(tokens: &[Token<'a>]) -> Vec<&'a str> {
    tokens.windows(2).filter(|pair| pair[0].text == "mod").map(|pair| pair[1].text).collect()
}

fn unexplained_unsafe(tokens: &[Token<'_>], source: &str) -> Vec<usize> {
    let lines: Vec<&str> = source.lines().map(str::trim).collect();
    let explained = |line: usize| {
        lines[..line - 1]
            .iter()
            .rev()
            .take_while(|above| above.starts_with("//") || above.starts_with("#["))
            .any(|above| above.contains("SAFETY:"))
    };
    tokens.iter().filter(|token| token.text == "unsafe" && !explained(token.line)).map(|token| token.line).collect()
}

fn ignored_tests(tokens: &[Token<'_>]) -> Vec<usize> {
    let attributes = tokens.windows(2).enumerate().filter(|(_, pair)| pair[0].text == "#" && pair[1].text == "[");
    attributes
        .filter(|(place, _)| {
            tokens[place + 2..].iter().take_while(|token| token.text != "]").any(|token| token.text == "ignore")
        })
        .map(|(_, pair)| pair[0].line)
        .collect()
}

fn rust_files(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}

#[test]
fn the_source_tree_is_tidy() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let files: Vec<PathBuf> = ["src", "tests"].iter().flat_map(|part| rust_files(&root.join(part))).collect();
    assert!(files.iter().any(|file| file.ends_with("src/lib.rs")));
    let found: Vec<String> = files
        .iter()
        .flat_map(|file| {
            let name = file.strip_prefix(root).unwrap().to_str().unwrap();
            faults(name, &fs::read_to_string(file).unwrap())
        })
        .collect();
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}

#[test]
fn a_breach_of_each_rule_is_found() {
    let long = "// line\n".repeat(LONGEST_FILE + 1);
    let breaches = [
        ("src/model/config.rs", "use crate::app::Failure;", "`model` imports `app`"),
        ("src/model/config.rs", "use crate::{domain::Item, serving::{Lane, Queue}};", "`model` imports `serving`"),
        ("src/model/config.rs", "fn f() { crate::api::table() }", "`model` imports `api`"),
        ("src/model/mod.rs", "use super::training::Run;", "`model` imports `training`"),
        ("src/model/checkpoint/read.rs", "use super::super::super::api as b;", "`model` imports `api`"),
        ("src/model/config.rs", "mod tests { use super::super::super::app; }", "`model` imports `app`"),
        ("src/serving/lane.rs", "use crate::training::Batch;", "`serving` imports `training`"),
        ("src/data/read.rs", "use crate::model::ModelConfig;", "`data` imports `model`"),
        ("src/domain/item.rs", "pub use crate::{\n    telemetry,\n};", "`domain` imports `telemetry`"),
        ("src/app/mod.rs", "use crate::helpers::x;", "`crate::helpers` is on no floor"),
        ("src/helpers/mod.rs", "use crate::domain::Item;", "`helpers` is on no floor"),
        ("src/serving/lane.rs", "use tch::Tensor;", "`tch` may be named"),
        ("src/serving/lane.rs", "fn f(x: ::tch::Tensor) {}", "`tch` may be named"),
        ("src/app/train.rs", "let x = tch::no_grad(f);", "`tch` may be named"),
        ("src/app/train.rs", "use {std::fs, tch as t};", "`tch` may be named"),
        ("src/lib.rs", "use tch;", "`tch` may be named"),
        ("src/serving/lane.rs", "use axum::http::StatusCode;", "`axum` may be named"),
        ("src/domain/route.rs", "impl From<tonic::Status> for X {}", "`tonic` may be named"),
        ("src/model/forward.rs", "use tokio::sync::Notify;", "`tokio` may be named"),
        ("src/app/serve.rs", "use rustls::ServerConfig;", "`rustls` may be named"),
        ("src/serving/watch.rs", "use {hyper_util::rt::TokioIo as T};", "`hyper_util` may be named"),
        ("src/training/run.rs", "let home = std::env::var(\"HOME\");", "`std::env` may be named"),
        ("src/training/run.rs", "use std::{env, fs};", "`std::env` may be named"),
        ("src/training/run.rs", "use std::env::{self};", "`std::env` may be named"),
        ("src/domain/item.rs", "use serde::Serialize;", "`domain` imports `serde`"),
        ("src/model/load.rs", "// it is fine\nlet x = unsafe { f() };", "load.rs:2: `unsafe` without"),
        ("tests/it/http.rs", "#[test]\n#[ignore = \"slow\"]\nfn f() {}", "http.rs:2: `#[ignore]`"),
        ("tests/it/http.rs", "#[cfg_attr(unix, ignore)]\nfn f() {}", "http.rs:1: `#[ignore]`"),
        ("tests/it/http.rs", &long, "401 lines"),
    ];
    for (file, source, expected) in breaches {
        let found = faults(file, source);
        assert!(found.len() == 1 && found[0].contains(expected), "{source}\ngave {found:?}, not {expected}");
    }
}

#[test]
fn what_the_rules_allow_is_not_found() {
    let allowed = [
        ("src/model/config.rs", "use crate::domain::{Item, Route};\nuse super::forward::Forward;"),
        ("src/model/libtorch/slice.rs", "use super::super::weights::Weights;\nuse tch::{Kind, Tensor};"),
        ("src/model/config.rs", "mod tests { use super::*; use super::super::Weights; use crate::domain::Item; }"),
        ("src/app/mod.rs", "use crate::{api, model::Forward, serving, training};\nuse std::env;"),
        ("src/lib.rs", "pub mod app;\npub mod domain;\npub(crate) use crate::app::Failure;"),
        ("src/main.rs", "fn main() { canet::app::main() }"),
        ("src/domain/mod.rs", "mod item;\npub use item::Item;\nuse Ordering::*;\nuse std::fmt;"),
        ("src/domain/item.rs", "// use crate::app; unsafe\nlet x = \"crate::app::x\"; let y = r#\"tch::\"#;"),
        ("src/domain/item.rs", "/* tch:: /* axum:: */ std::env */ fn f<'a>(c: &'a str) { let q = '\"'; }"),
        ("src/model/load.rs", "// SAFETY: nothing reads it.\n#[expect(unsafe_code)]\nlet x = unsafe { f() };"),
        ("src/model/config.rs", "const V: &str = env!(\"CARGO_PKG_VERSION\"); fn ignore() {} #[must_use] fn g() {}"),
        ("tests/it/http.rs", "use canet::model::Forward;\nuse std::env;\nlet x = tch::Device::Cpu;"),
    ];
    for (file, source) in allowed {
        assert_eq!(faults(file, source), Vec::<String>::new(), "{source}");
    }
}
