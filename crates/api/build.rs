//! Compiles the gRPC services of `proto/` and compresses the files of the pages.

#![allow(clippy::disallowed_methods, reason = "Cargo talks to build scripts by environment variables")]

use std::error::Error;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;
use protox::prost::Message;

/// The directory that imports are relative to.
const PROTO: &str = "../../proto";

/// The files with services.
const SERVICES: [&str; 2] = ["canet/v1/recommender.proto", "inference/open_inference.proto"];

/// The directories with the files of pages.
const PAGES: [&str; 2] = ["console", "docs"];

fn main() -> Result<(), Box<dyn Error>> {
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    compile_services(&out)?;
    for pages in PAGES {
        println!("cargo::rerun-if-changed=src/{pages}");
        compress(&Path::new("src").join(pages), &out.join("pages").join(pages))?;
    }
    Ok(())
}

/// Compiles in this process, so that no protoc is needed.
fn compile_services(out: &Path) -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed={PROTO}");
    let services = protox::compile(SERVICES, [PROTO])?;
    // For the reflection service.
    fs::write(out.join("services.bin"), services.encode_to_vec())?;
    tonic_prost_build::configure()
        .build_client(false)
        .build_transport(false)
        .codec_path("crate::codec::BoundedCodec")
        .compile_fds(services)?;
    Ok(())
}

/// Writes each file of `from`, and of the directories in it, to `to` as gzip.
fn compress(from: &Path, to: &Path) -> Result<(), Box<dyn Error>> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default();
        if path.is_dir() {
            compress(&path, &to.join(name))?;
            continue;
        }
        let mut name = name.to_owned();
        name.push(".gz");
        let mut encoder = GzEncoder::new(File::create(to.join(name))?, Compression::best());
        std::io::copy(&mut File::open(&path)?, &mut encoder)?;
        encoder.finish()?;
    }
    Ok(())
}
