//! A small random model, so that a test needs neither training nor a file from elsewhere.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use canet::domain::{Catalogue, History, Item, RouteSpace};
use canet::model::checkpoint::{Checkpoint, CheckpointDraft, DataRecord, MetricsRecord, Probes};
use canet::model::native::{Level, Native};
use canet::model::{Forward, HostTensor, ModelConfig, Positions, Precision, RouterConfig, Weights, WidthRule};
use rand::distributions::Uniform;
use rand::{Rng, RngCore, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// A generator that gives the same values on every machine.
pub(crate) fn rng(seed: u64) -> ChaCha8Rng {
    ChaCha8Rng::seed_from_u64(seed)
}

/// 24 routes over 40 items; small enough that a forward pass takes microseconds.
pub(crate) fn small_config() -> ModelConfig {
    ModelConfig {
        items: 40,
        max_len: 12,
        heads: 2,
        hidden: vec![4, 8, 12],
        layers: vec![1, 2, 3, 4],
        embedding: vec![6, 10],
        router: RouterConfig { dim: 8, heads: 2, ffn: 16 },
        attention_scale: WidthRule::Slice,
        ffn_inner: WidthRule::Slice,
        positions: Positions::Newest,
        embedding_norm: false,
        norm_eps: ModelConfig::NORM_EPS,
    }
}

/// The default 36 routes over `items` items, histories of up to 50.
pub(crate) fn full_size_config(items: usize) -> ModelConfig {
    ModelConfig {
        items,
        max_len: 50,
        heads: 4,
        hidden: vec![64, 96, 128],
        layers: vec![2, 4, 6, 8],
        embedding: vec![64, 96, 128],
        router: RouterConfig::default(),
        attention_scale: WidthRule::Slice,
        ffn_inner: WidthRule::Slice,
        positions: Positions::Newest,
        embedding_norm: false,
        norm_eps: ModelConfig::NORM_EPS,
    }
}

/// Weights far from initial values: residual scales and norms around 1, everything else uniform around 0 and large
/// enough that every sublayer shows in the scores.
pub(crate) fn random_weights(config: &ModelConfig, rng: &mut impl RngCore) -> Weights {
    let mut weights = Weights::default();
    for parameter in config.parameters() {
        let scale = parameter.name.ends_with("_residual") || parameter.name.ends_with("_norm.weight");
        let (centre, spread) = match (scale, parameter.shape.as_slice()) {
            (true, _) => (1.0, 0.4),
            // Keeps a linear map's output about as large as its input.
            (false, [_, input]) if !parameter.name.contains("embedding") => (0.0, (3.0 / *input as f32).sqrt()),
            (false, _) => (0.0, 1.0),
        };
        let count = parameter.shape.iter().product();
        let values = Uniform::new_inclusive(centre - spread, centre + spread);
        let data = rng.sample_iter(values).take(count).collect();
        weights.insert(parameter.name, HostTensor { shape: parameter.shape, data });
    }
    weights
}

/// `length` random items of a catalogue of `items`.
pub(crate) fn random_history(items: usize, length: usize, rng: &mut impl RngCore) -> History {
    let list: Vec<Item> = (0..length).map(|_| item(rng.gen_range(1..=items as u32))).collect();
    History::new(&list, length).unwrap()
}

pub(crate) fn item(id: u32) -> Item {
    Item::new(id).unwrap()
}

/// External ids `x1001`, `x1002`, ... (none is a dense id), a title for every other one, popularity falling from
/// the last item to the first.
pub(crate) fn catalogue(items: usize) -> Catalogue {
    let id = |index: usize| -> Box<str> { format!("x{}", 1001 + index).into() };
    let titles = (0..items).step_by(2).map(|index| (id(index), format!("Title {}", index + 1).into()));
    Catalogue::new((0..items).map(id).collect(), (1..=items as u64).collect()).unwrap().with_titles(titles)
}

/// A random model that is ready to be written.
pub(crate) fn draft(config: ModelConfig, seed: u64) -> CheckpointDraft {
    let mut rng = rng(seed);
    let weights = random_weights(&config, &mut rng);
    let forward = reference(&config, &weights);
    let space: RouteSpace = config.check().unwrap();
    let lengths = [1, 2, config.max_len.div_ceil(2), config.max_len];
    let histories = lengths.map(|length| random_history(config.items, length.min(config.max_len), &mut rng));
    CheckpointDraft {
        probes: Probes::record(&forward, &space, &histories).unwrap(),
        catalogue: catalogue(config.items),
        data: DataRecord {
            name: "random".to_owned(),
            sha256: "0".repeat(64),
            users: Some(5),
            items: config.items as u64,
            interactions: Some(820),
        },
        metrics: MetricsRecord::default(),
        calibration: None,
        training: None,
        config,
        weights,
    }
}

/// Writes the next version of a random model at `root`.
pub(crate) fn write_checkpoint(root: &Path, seed: u64) -> Checkpoint {
    draft(small_config(), seed).write(root).unwrap()
}

/// What `--backend` takes in this build.
pub(crate) const BACKENDS: &[&str] = if cfg!(feature = "libtorch") { &["native", "libtorch"] } else { &["native"] };

/// The reference forward: LibTorch's, where the build has it.
#[cfg(feature = "libtorch")]
pub(crate) type Reference = canet::model::libtorch::LibTorch;
#[cfg(not(feature = "libtorch"))]
pub(crate) type Reference = Native;

/// Where it runs: on the CPU, or where `CANET_TEST_DEVICE` says, so that the same tests hold a GPU to the same numbers.
#[cfg(feature = "libtorch")]
fn reference_device() -> canet::model::Device {
    let name = std::env::var("CANET_TEST_DEVICE");
    canet::model::Device::parse(name.as_deref().unwrap_or("cpu")).unwrap()
}

/// It, in float32.
pub(crate) fn reference(config: &ModelConfig, weights: &Weights) -> Reference {
    #[cfg(feature = "libtorch")]
    return Reference::load(config, weights, reference_device()).unwrap();
    #[cfg(not(feature = "libtorch"))]
    return Native::load(Precision::Fp32, config, weights, 1).unwrap();
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
        (format!("native, {level}"), Box::new(Native::load_at((level, Precision::Fp32), config, weights, 2).unwrap()))
    };
    let reference: Box<dyn Forward> = Box::new(reference(config, weights));
    let name = BACKENDS.last().copied().unwrap_or_default().to_owned();
    std::iter::once((name, reference)).chain(Level::available().into_iter().map(native)).collect()
}
