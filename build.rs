//! Tells the linker where LibTorch lies, so that binaries and tests run with no environment set.

#![allow(clippy::disallowed_methods, reason = "Cargo talks to build scripts by environment variables")]

use std::path::Path;

/// Where NVIDIA's wheels put the compiler of our kernels for GPUs, beside what holds torch.
const COMPILER: &str = "nvidia/cu13/lib";

fn main() {
    println!("cargo::rerun-if-env-changed=DEP_TCH_LIBTORCH_LIB");
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
