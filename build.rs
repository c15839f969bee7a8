//! Compiles the gRPC services, and tells the linker where LibTorch lies, so that the binary and the tests run with no
//! environment set.

use std::error::Error;
use std::path::{Path, PathBuf};

use protox::prost::Message;

/// What is served over gRPC, relative to `proto`.
const SERVICES: [&str; 2] = ["canet/v1/recommender.proto", "inference/open_inference.proto"];

/// Where NVIDIA's wheels put the compiler of our kernels for GPUs, beside what holds torch.
const COMPILER: &str = "nvidia/cu13/lib";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=proto");
    compile_services()?;
    link_libtorch();
    Ok(())
}

/// Compiles in this process: no protoc is needed.
fn compile_services() -> Result<(), Box<dyn Error>> {
    let services = protox::compile(SERVICES, ["proto"])?;
    // What the reflection service tells.
    let descriptors = PathBuf::from(std::env::var("OUT_DIR")?).join("services.bin");
    std::fs::write(descriptors, services.encode_to_vec())?;
    tonic_prost_build::configure()
        .build_client(false)
        .build_transport(false)
        .codec_path("crate::api::grpc::codec::CountedCodec")
        .compile_fds(services)?;
    Ok(())
}

fn link_libtorch() {
    // Set by torch-sys, whatever named the directory; cargo runs this again when it changes.
    let Ok(lib) = std::env::var("DEP_TCH_LIBTORCH_LIB") else { return };
    println!("cargo::rustc-link-arg=-Wl,-rpath,{lib}");
    // CUDA's compiler where PyTorch's own directory is linked against.
    if let Some(packages) = Path::new(&lib).ancestors().nth(2) {
        println!("cargo::rustc-link-arg=-Wl,-rpath,{}", packages.join(COMPILER).display());
    }
    // The CUDA part that scripts/libtorch.py lays beside the CPU part, now or later. Nothing is linked against
    // it: the binary looks there for libtorch_cuda.so when it starts.
    let root = Path::new(&lib).parent();
    let cpu = root.and_then(Path::file_name).and_then(|name| name.to_str());
    if let (Some(root), Some(version)) = (root, cpu.and_then(|name| name.strip_suffix("-cpu"))) {
        let cuda = root.with_file_name(format!("{version}-cuda"));
        for place in ["torch/lib", COMPILER] {
            println!("cargo::rustc-link-arg=-Wl,-rpath,{}", cuda.join(place).display());
        }
    }
}
