//! What several tests need.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use canet_cpu::{CpuForward, CpuOptions, Level};
use canet_model::{Forward, ModelConfig, Precision, Weights};

pub(crate) use canet_testing::*;

/// Ends the workers of a scope, also if the test fails.
pub(crate) struct Stop<'a>(pub(crate) &'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// What `--backend` takes in this build.
pub(crate) const BACKENDS: &[&str] = if cfg!(feature = "libtorch") { &["native", "libtorch"] } else { &["native"] };

/// The reference forward: LibTorch's, where the build has it.
#[cfg(feature = "libtorch")]
pub(crate) type Reference = canet_torch::TorchForward;
#[cfg(not(feature = "libtorch"))]
pub(crate) type Reference = CpuForward;

/// Where it runs: on the CPU, or where `CANET_TEST_DEVICE` says, so that the same tests hold a GPU to the same numbers.
#[cfg(feature = "libtorch")]
fn reference_device() -> canet_model::Device {
    let name = std::env::var("CANET_TEST_DEVICE");
    canet_model::Device::parse(name.as_deref().unwrap_or("cpu"), canet_torch::count_gpus).unwrap()
}

/// It, in float32.
pub(crate) fn reference(config: &ModelConfig, weights: &Weights) -> Reference {
    #[cfg(feature = "libtorch")]
    return Reference::load(config, weights, Precision::Fp32, reference_device()).unwrap();
    #[cfg(not(feature = "libtorch"))]
    return CpuForward::load(config, weights, CpuOptions::fastest(Precision::Fp32, 1)).unwrap();
}

/// An interpreter that has the packages of `tests/requirements.txt`.
pub(crate) fn python() -> &'static Path {
    static PYTHON: OnceLock<PathBuf> = OnceLock::new();
    PYTHON.get_or_init(|| {
        let output = Command::new("python3")
            .args(["scripts/tools.py", "tests/requirements.txt"])
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .stderr(Stdio::inherit())
            .output()
            .unwrap();
        assert!(output.status.success(), "scripts/tools.py failed: its message stands above");
        PathBuf::from(String::from_utf8(output.stdout).unwrap().trim())
    })
}

/// A script of `tests/python`, ready to be run.
pub(crate) fn script(name: &str) -> Command {
    let mut command = Command::new(python());
    command
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python").join(name))
        .env("PYTHONDONTWRITEBYTECODE", "1");
    command
}

/// Runs a script of `tests/python` to its end.
pub(crate) fn run_script(name: &str, arguments: &[&str]) {
    let output = script(name).args(arguments).output().unwrap();
    let [out, error] = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes));
    assert!(output.status.success(), "{name}: {out}{error}");
}

/// Every forward there is, by name: the reference, and the native one with each kind of vector that this CPU has.
pub(crate) fn forwards(config: &ModelConfig, weights: &Weights) -> Vec<(String, Box<dyn Forward>)> {
    let native = |level: Level| -> (String, Box<dyn Forward>) {
        (
            format!("native, {level}"),
            Box::new(
                CpuForward::load(config, weights, CpuOptions { level, ..CpuOptions::fastest(Precision::Fp32, 2) })
                    .unwrap(),
            ),
        )
    };
    let reference: Box<dyn Forward> = Box::new(reference(config, weights));
    let name = BACKENDS.last().copied().unwrap_or_default().to_owned();
    std::iter::once((name, reference)).chain(Level::available().into_iter().map(native)).collect()
}
