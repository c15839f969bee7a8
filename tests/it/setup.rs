//! `scripts/libtorch.py` as a process, with a stand-in for pip and a made-up machine, and without a network.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

/// The scripts in a checkout of their own, with an empty cache.
struct Checkout {
    root: TempDir,
}

impl Checkout {
    fn new() -> Checkout {
        let root = TempDir::new().unwrap();
        let scripts = root.path().join("scripts");
        fs::create_dir(&scripts).unwrap();
        for name in ["libtorch.py", "common.py", "pypi.py"] {
            let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts").join(name);
            fs::copy(source, scripts.join(name)).unwrap();
        }
        fs::create_dir(root.path().join("fakes")).unwrap();
        Checkout { root }
    }

    fn path(&self, relative: &str) -> PathBuf {
        self.root.path().join(relative)
    }

    fn write(&self, relative: &str, text: &str) {
        let path = self.path(relative);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// A pip that knows its version and runs `download` with `dest` set when asked to download.
    fn fake_pip(&self, download: &str) {
        self.write("fakes/pip/__init__.py", "");
        let main = "import sys\nif 'download' in sys.argv:\n    dest = sys.argv[sys.argv.index('--dest') + 1]\n";
        self.write("fakes/pip/__main__.py", &format!("{main}    {download}\n"));
    }

    /// A LibTorch directory of some version.
    fn libtorch(&self, relative: &str, version: [u32; 3]) {
        let [major, minor, patch] = version;
        let header = format!(
            "#define TORCH_VERSION_MAJOR {major}\n#define TORCH_VERSION_MINOR {minor}\n#define TORCH_VERSION_PATCH {patch}\n"
        );
        self.write(&format!("{relative}/include/torch/headeronly/version.h"), &header);
        self.write(&format!("{relative}/lib/libtorch_cpu.so"), "");
    }

    fn run(&self, variables: &[(&str, &Path)]) -> Output {
        let mut command = Command::new("python3");
        command
            .args([self.path("scripts/libtorch.py").as_os_str(), "--cpu".as_ref()])
            .env_remove("LIBTORCH")
            .env_remove("LIBTORCH_USE_PYTORCH")
            .env_remove("LIBTORCH_BYPASS_VERSION_CHECK")
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .env("PYTHONPATH", self.path("fakes"))
            .env("CANET_CACHE", self.path("cache"))
            .envs(variables.iter().copied());
        command.output().unwrap()
    }

    /// The message of a run that must fail, after which nothing was set up.
    fn refusal(&self, variables: &[(&str, &Path)]) -> String {
        let output = self.run(variables);
        assert!(!output.status.success());
        assert!(output.stdout.is_empty());
        assert!(!self.path(".cargo").exists());
        String::from_utf8(output.stderr).unwrap()
    }

    /// The directory that a run must print.
    fn directory(&self, variables: &[(&str, &Path)]) -> PathBuf {
        let output = self.run(variables);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        PathBuf::from(String::from_utf8(output.stdout).unwrap().trim_end())
    }
}

#[test]
fn without_pip_it_says_how_to_get_it() {
    let checkout = Checkout::new();
    checkout.write("fakes/pip/__init__.py", "raise ImportError");
    let message = checkout.refusal(&[]);
    assert!(message.contains("has no pip") && message.contains("apt-get install python3-pip"), "{message}");
}

#[test]
fn without_a_network_it_says_so_and_not_what_pip_guesses() {
    let checkout = Checkout::new();
    checkout.fake_pip("sys.exit('ERROR: Could not find a version that satisfies it (from versions: none)')");
    let message = checkout.refusal(&[]);
    assert!(message.contains("the package index cannot be reached for torch==2.11.0"), "{message}");
}

#[test]
fn a_wheel_of_another_checksum_is_refused_and_deleted() {
    let checkout = Checkout::new();
    checkout.fake_pip("open(dest + '/torch-2.11.0-cp311-cp311-manylinux_2_28_x86_64.whl', 'w').write('other')");
    let message = checkout.refusal(&[]);
    assert!(message.contains("has the checksum d9298a10d1b0735837dc4bd85dac641b0f3cef27a47e5d53a54f2f3f5b2fcffa"));
    assert_eq!(fs::read_dir(checkout.path("cache/libtorch/wheels")).unwrap().count(), 0);
}

#[test]
fn another_processor_is_refused_with_a_way_out() {
    let checkout = Checkout::new();
    checkout.write("fakes/sitecustomize.py", "import platform\nplatform.machine = lambda: 'aarch64'\n");
    let message = checkout.refusal(&[]);
    assert!(message.contains("Linux on aarch64") && message.contains("LIBTORCH"), "{message}");
}

#[test]
fn a_libtorch_of_the_users_own_is_used_only_in_the_right_version() {
    let checkout = Checkout::new();
    let own = checkout.path("own");
    let message = checkout.refusal(&[("LIBTORCH", &own)]);
    assert!(message.contains("holds no lib/libtorch_cpu.so"), "{message}");
    checkout.libtorch("own", [2, 9, 1]);
    let message = checkout.refusal(&[("LIBTORCH", &own)]);
    assert!(message.contains("is of version 2.9.1, canet needs 2.11.0"), "{message}");
    checkout.libtorch("own", [2, 11, 0]);
    assert_eq!(checkout.directory(&[("LIBTORCH", &own)]), own);
    assert!(!checkout.path(".cargo").exists(), "LIBTORCH speaks for itself");
}

#[test]
fn a_cached_libtorch_is_taken_as_it_is_and_cargo_is_pointed_at_it() {
    let checkout = Checkout::new();
    let cached = checkout.path("cache/libtorch/2.11.0-cpu");
    checkout.libtorch("cache/libtorch/2.11.0-cpu", [2, 11, 0]);
    let config = format!("[env]\nLIBTORCH = \"{}\"\n", cached.display());
    for before in ["", "[env]\nLIBTORCH = \"/elsewhere\"\n", &config] {
        checkout.write(".cargo/config.toml", before);
        assert_eq!(checkout.directory(&[]), cached);
        assert_eq!(fs::read_to_string(checkout.path(".cargo/config.toml")).unwrap(), config);
    }
}

#[test]
fn cargo_settings_of_the_users_own_are_left_alone() {
    let checkout = Checkout::new();
    checkout.libtorch("cache/libtorch/2.11.0-cpu", [2, 11, 0]);
    let own = "[build]\njobs = 1\n";
    checkout.write(".cargo/config.toml", own);
    let output = checkout.run(&[]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("has settings of its own"));
    assert_eq!(fs::read_to_string(checkout.path(".cargo/config.toml")).unwrap(), own);
}
