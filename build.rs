//! Tells the linker where LibTorch lies, so that the binary and the tests run with no environment set.

use std::path::Path;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    // Set by torch-sys, whatever named the directory; cargo runs this again when it changes.
    let Ok(lib) = std::env::var("DEP_TCH_LIBTORCH_LIB") else { return };
    println!("cargo::rustc-link-arg=-Wl,-rpath,{lib}");
    // The CUDA part that scripts/libtorch.py lays beside the CPU part, now or later. Nothing is linked against
    // it: the binary looks there for libtorch_cuda.so when it starts.
    let root = Path::new(&lib).parent();
    let cpu = root.and_then(Path::file_name).and_then(|name| name.to_str());
    if let (Some(root), Some(version)) = (root, cpu.and_then(|name| name.strip_suffix("-cpu"))) {
        let cuda = root.with_file_name(format!("{version}-cuda")).join("torch/lib");
        println!("cargo::rustc-link-arg=-Wl,-rpath,{}", cuda.display());
    }
}
