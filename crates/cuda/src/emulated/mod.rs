//! The kernels on a CPU: the same source, compiled by the machine's C++ compiler over an imitation of the primitives.

use std::ffi::{CString, c_char, c_int, c_uint, c_void};
use std::process::Command;
use std::sync::Mutex;

use libloading::{Library, Symbol};
use tempfile::TempDir;

use super::machine::{Argument, CudaError, Launch, Machine};
use super::sizes::Sizes;
use super::*;
use canet_cpu::{Level, Native};
use canet_domain::{Candidates, Item, Selection};
use canet_model::{Device, HostTensor, Positions, RouterConfig, WidthRule};
use canet_torch::LibTorch;

const THREADS: usize = 128;

struct Emulated {
    library: Library,
    /// Its blocks share what is static.
    alone: Mutex<()>,
    _directory: TempDir,
}

/// Words that a kernel may write behind a shared reference, as it may a GPU's.
struct Memory(Mutex<Vec<u128>>, usize);

// SAFETY: whoever calls it gives the arguments of the kernel that it names, and is alone.
type Entry = unsafe extern "C" fn(*const c_char, c_uint, c_uint, c_int, usize, *mut *mut c_void) -> c_int;

impl Emulated {
    fn new(sizes: &Sizes) -> Emulated {
        let directory = tempfile::tempdir().unwrap();
        let [source, library] = ["kernels.cpp", "kernels.so"].map(|name| directory.path().join(name));
        let text = sizes.source(include_str!("primitives.h")) + include_str!("launch.h");
        std::fs::write(&source, text).unwrap();
        let flags = ["-O2", "-std=c++17", "-shared", "-fPIC", "-w"];
        let made = Command::new("c++").args(flags).arg(&source).arg("-o").arg(&library).output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        #[expect(unsafe_code, reason = "loading a library runs its initialisers")]
        // SAFETY: it was compiled a line above, and has none.
        let library = unsafe { Library::new(&library) }.unwrap();
        Emulated { library, alone: Mutex::new(()), _directory: directory }
    }
}

impl Machine for Emulated {
    type Memory = Memory;

    fn threads(&self) -> usize {
        THREADS
    }

    fn processors(&self) -> usize {
        3
    }

    fn memory(&self, words: usize) -> Result<Memory, CudaError> {
        // What nobody wrote is no number.
        Ok(Memory(Mutex::new(vec![u128::MAX; words.div_ceil(4)]), words))
    }

    fn upload(&self, to: &Memory, words: &[u32]) -> Result<(), CudaError> {
        assert!(words.len() <= to.1);
        let mut memory = to.0.lock().unwrap();
        for (place, word) in words.iter().enumerate() {
            let shift = place % 4 * 32;
            let whole = &mut memory[place / 4];
            *whole = *whole & !(u128::from(u32::MAX) << shift) | u128::from(*word) << shift;
        }
        Ok(())
    }

    fn download(&self, from: &Memory, first: usize, to: &mut [u32]) -> Result<(), CudaError> {
        assert!(first + to.len() <= from.1);
        let memory = from.0.lock().unwrap();
        for (place, word) in (first..).zip(to) {
            *word = (memory[place / 4] >> (place % 4 * 32)) as u32;
        }
        Ok(())
    }

    fn wait(&self) -> Result<(), CudaError> {
        Ok(())
    }

    fn launch(&self, launch: &Launch, arguments: &[Argument<'_, Memory>]) -> Result<(), CudaError> {
        let _alone = self.alone.lock().unwrap();
        let mut values: Vec<u64> = arguments
            .iter()
            .map(|argument| match argument {
                Argument::Memory(memory, first) => memory.0.lock().unwrap().as_mut_ptr() as u64 + 4 * *first as u64,
                Argument::Number(number) => *number as u64,
            })
            .collect();
        let mut places: Vec<*mut c_void> = values.iter_mut().map(|value| std::ptr::from_mut(value).cast()).collect();
        let name = CString::new(launch.kernel.name()).unwrap();
        let [x, y] = launch.grid.map(|blocks| blocks as c_uint);
        #[expect(unsafe_code, reason = "a kernel reads and writes by address")]
        // SAFETY: as of a GPU's; one thread at a time.
        let missing = unsafe {
            let entry: Symbol<'_, Entry> = self.library.get(b"emulated_launch").unwrap();
            entry(name.as_ptr(), x, y, THREADS as c_int, launch.shared, places.as_mut_ptr())
        };
        assert_eq!(missing, 0, "{name:?} is not known");
        Ok(())
    }
}

fn config(rule: WidthRule) -> ModelConfig {
    ModelConfig {
        items: 150,
        max_len: 40,
        heads: 2,
        hidden: vec![32, 64],
        layers: vec![1, 2],
        embedding: vec![32, 64],
        router: RouterConfig { dim: 16, heads: 2, ffn: 32 },
        attention_scale: rule,
        ffn_inner: rule,
        positions: Positions::Newest,
        embedding_norm: false,
        norm_eps: ModelConfig::NORM_EPS,
    }
}

/// Numbers that look random, of about unit size.
fn values(seed: u64) -> impl Iterator<Item = f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    std::iter::repeat_with(move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((state >> 40) as f32 / (1 << 23) as f32 - 1.0) * 1.7
    })
}

fn weights(config: &ModelConfig) -> Weights {
    let mut weights = Weights::default();
    for (seed, parameter) in config.parameters().into_iter().enumerate() {
        let count = parameter.shape.iter().product();
        let data = values(seed as u64 + 1).take(count).map(|value| value * 0.2).collect();
        weights.insert(parameter.name, HostTensor { shape: parameter.shape, data });
    }
    weights
}

fn emulated(config: &ModelConfig, precision: Precision, weights: &Weights) -> OnMachine<Emulated> {
    let sizes = Sizes::new(config, precision, THREADS, 1 << 18).unwrap();
    let machine = Emulated::new(&sizes);
    OnMachine::on(machine, sizes, precision, config, weights).unwrap()
}

/// Of lengths on both sides of a tile's edge.
fn histories(config: &ModelConfig) -> Vec<History> {
    let items = config.items as u32;
    let lengths = [1, 16, 17, 40];
    let history = |length: u32| {
        let items: Vec<Item> =
            (0..length).map(|place| Item::new(1 + (length * 31 + place * 7) % items).unwrap()).collect();
        History::new(&items, config.max_len).unwrap()
    };
    lengths.into_iter().map(history).collect()
}

fn furthest(one: &Rows, other: &Rows) -> f32 {
    let pairs = one.iter().zip(other.iter()).flat_map(|(one, other)| one.iter().zip(other));
    pairs.map(|(one, other)| (one - other).abs() / other.abs().max(1.0)).fold(0.0, f32::max)
}

/// Every route and both rules of width: what the native forward computes.
#[test]
fn kernels_compute_what_the_native_forward_does() {
    for rule in [WidthRule::Slice, WidthRule::Full] {
        let config = config(rule);
        let weights = weights(&config);
        let native = Native::load_at((Level::best(), Precision::Fp32), &config, &weights, 1).unwrap();
        let forward = emulated(&config, Precision::Fp32, &weights);
        let histories = histories(&config);
        let histories: Vec<&History> = histories.iter().collect();
        let logits = furthest(&forward.router_logits(&histories).unwrap(), &native.router_logits(&histories).unwrap());
        assert!(logits < 1e-5, "{logits}");
        for route in forward.space.routes() {
            let [own, theirs] =
                [&forward as &dyn Forward, &native].map(|forward| forward.scores(route, &histories).unwrap());
            let apart = furthest(&own, &theirs);
            assert!(apart < 1e-5, "{}: {apart}", forward.space.name(route));
        }
    }
}

/// Every kind of positions, with and without a norm of the embedding, and an epsilon that shows.
fn flags() -> [ModelConfig; 4] {
    let with = |positions, embedding_norm, norm_eps| ModelConfig {
        positions,
        embedding_norm,
        norm_eps,
        ..config(WidthRule::Slice)
    };
    [
        with(Positions::Newest, true, 1e-5),
        with(Positions::Oldest, false, 1e-2),
        with(Positions::Relative, false, 1e-12),
        with(Positions::Relative, true, 1e-2),
    ]
}

fn libtorch(precision: Precision, config: &ModelConfig, weights: &Weights) -> LibTorch {
    LibTorch::load_in(precision, config, weights, Device::CPU).unwrap()
}

/// Every flag of the configuration: what LibTorch computes.
#[test]
fn kernels_compute_every_flag() {
    for config in flags() {
        let weights = weights(&config);
        let reference = libtorch(Precision::Fp32, &config, &weights);
        let forward = emulated(&config, Precision::Fp32, &weights);
        let histories = histories(&config);
        let histories: Vec<&History> = histories.iter().collect();
        let logits =
            furthest(&forward.router_logits(&histories).unwrap(), &reference.router_logits(&histories).unwrap());
        assert!(logits < 1e-5, "{config:?}: {logits}");
        for route in forward.space.routes() {
            let [own, theirs] =
                [&forward as &dyn Forward, &reference].map(|forward| forward.scores(route, &histories).unwrap());
            let apart = furthest(&own, &theirs);
            assert!(apart < 1e-5, "{config:?}, {}: {apart}", forward.space.name(route));
        }
    }
}

/// Widths from 16 to 128 with two heads, so heads of 8 to 64 features.
#[test]
fn kernels_compute_slices_of_very_different_widths() {
    let config = ModelConfig {
        max_len: 20,
        hidden: vec![16, 32, 64, 128],
        layers: vec![1, 2, 4],
        embedding: vec![128],
        positions: Positions::Relative,
        ..config(WidthRule::Slice)
    };
    let weights = weights(&config);
    let reference = libtorch(Precision::Fp32, &config, &weights);
    let forward = emulated(&config, Precision::Fp32, &weights);
    let items: Vec<Item> = (1..=18).map(|id| Item::new(id * 7).unwrap()).collect();
    let history = History::new(&items, config.max_len).unwrap();
    for route in forward.space.routes() {
        let [own, theirs] =
            [&forward as &dyn Forward, &reference].map(|forward| forward.scores(route, &[&history]).unwrap());
        let apart = furthest(&own, &theirs);
        assert!(apart < 1e-5, "{}: {apart}", forward.space.name(route));
    }
    // The shared memory of an H100, for histories of 50.
    let longer = ModelConfig { max_len: 50, ..config };
    let sizes = |precision| Sizes::new(&longer, precision, Gpu::THREADS, 227 << 10);
    assert!(sizes(Precision::Fp32).is_ok());
    let misfit = sizes(Precision::Bf16).err().map(|misfit| misfit.to_string());
    assert_eq!(misfit.as_deref(), Some("hidden width 16 is no multiple of 32"));
}

/// Rows of every route in one batch, and every kind of selection: the best items of the rows' own scores.
#[test]
fn kernels_rank_as_whole_rows_do() {
    let config = config(WidthRule::Slice);
    let weights = weights(&config);
    let forward = emulated(&config, Precision::Fp32, &weights);
    let histories = histories(&config);
    let routes: Vec<Route> = forward.space.routes().collect();
    let few = [3, 70, 12].map(|id| Item::new(id).unwrap());
    let seen: Vec<std::collections::HashSet<Item>> =
        histories.iter().map(|history| history.items().iter().copied().collect()).collect();
    let rows: Vec<(Route, Query<'_>)> = histories
        .iter()
        .enumerate()
        .map(|(row, history)| {
            let candidates = if row == 2 { Candidates::Only(&few) } else { Candidates::All };
            let k = [1, 10, 150][row % 3];
            (routes[2 * row], Query { history, selection: Selection { k, excluded: &seen[row], candidates } })
        })
        .collect();
    for ((route, query), ranked) in rows.iter().zip(forward.rank_mixed(&rows).unwrap()) {
        let scores = forward.scores(*route, &[query.history]).unwrap();
        let expected = canet_domain::top_k(scores.row(0).unwrap(), &query.selection);
        assert_eq!(ranked, expected, "{}", forward.space.name(*route));
    }
}

/// More equal scores than there are places: the lower items, as everywhere.
#[test]
fn kernels_leave_ties_to_the_lower_item() {
    let config = config(WidthRule::Slice);
    let mut weights = weights(&config);
    for name in ["backbone.output.weight", "backbone.output.bias"] {
        let mut tensor = weights.get(name).unwrap().clone();
        tensor.data.fill(0.0);
        weights.insert(name, tensor);
    }
    let forward = emulated(&config, Precision::Fp32, &weights);
    let history = History::new(&[Item::new(2).unwrap()], config.max_len).unwrap();
    let excluded = std::collections::HashSet::from([Item::new(2).unwrap()]);
    let selection = Selection { k: 3, excluded: &excluded, candidates: Candidates::All };
    let ranked = forward.rank(forward.space.full(), &[Query { history: &history, selection }]).unwrap();
    assert_eq!(ranked[0].iter().map(|ranked| ranked.item.id()).collect::<Vec<_>>(), [1, 3, 4]);
}

/// Rounded to bfloat16 on both sides of a product, near the exact scores and not equal to them.
#[test]
fn kernels_round_to_bfloat16() {
    let config = config(WidthRule::Slice);
    let weights = weights(&config);
    let forward = emulated(&config, Precision::Bf16, &weights);
    let native = Native::load_at((Level::best(), Precision::Fp32), &config, &weights, 1).unwrap();
    let rounded = Native::load_at((Level::best(), Precision::Bf16), &config, &weights, 1).unwrap();
    let histories = histories(&config);
    let histories: Vec<&History> = histories.iter().collect();
    for route in forward.space.routes() {
        let own = forward.scores(route, &histories).unwrap();
        let exact = furthest(&own, &native.scores(route, &histories).unwrap());
        let near = furthest(&rounded.scores(route, &histories).unwrap(), &native.scores(route, &histories).unwrap());
        assert!(exact > 1e-5 && exact < 3.0 * near, "{}: {exact}, native {near}", forward.space.name(route));
    }
}

/// The same with every flag of the configuration, beside what LibTorch rounds.
#[test]
fn kernels_round_to_bfloat16_with_every_flag() {
    for config in flags() {
        let weights = weights(&config);
        let forward = emulated(&config, Precision::Bf16, &weights);
        let [exact, rounded] =
            [Precision::Fp32, Precision::Bf16].map(|precision| libtorch(precision, &config, &weights));
        let histories = histories(&config);
        let histories: Vec<&History> = histories.iter().collect();
        for route in forward.space.routes() {
            let [own, exact, rounded] =
                [&forward as &dyn Forward, &exact, &rounded].map(|forward| forward.scores(route, &histories).unwrap());
            let [own, near] = [furthest(&own, &exact), furthest(&rounded, &exact)];
            assert!(own > 1e-5 && own < 3.0 * near, "{}: {own}, LibTorch {near}", forward.space.name(route));
        }
    }
}
