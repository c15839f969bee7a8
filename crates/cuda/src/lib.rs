//! The forward for GPUs by kernels of our own: one block of threads a history, which runs that history's slice from its items
//! to its newest position, whatever the slices beside it.
//!
//! A batch is three launches ([`batch`]): histories to vectors (`kernels/history.cuh`), vectors to scores, scores to the best
//! items (`kernels/catalogue.cuh`); the router is one. Nothing of a history leaves its multiprocessor on the way, so that a
//! slice costs what it computes, where a network of library calls costs what its calls take to launch. Weights lie as they
//! are stored ([`layout`]): every slice, the heads' too, is read in place. The kernels are compiled for a model's sizes when
//! it is loaded ([`sizes`]), by the compiler that comes with LibTorch's CUDA part; a model that they do not fit runs by
//! LibTorch.
//!
//! What runs kernels stands behind a trait ([`machine`]): a GPU's driver, and in tests an imitation that runs the same source
//! on a CPU.

mod backend;
mod batch;
mod driver;
#[cfg(test)]
mod emulated;
mod layout;
mod machine;
mod sizes;

pub use self::backend::CudaBackend;
pub use self::machine::CudaError;
pub use self::sizes::Misfit;

use std::sync::{Mutex, PoisonError};

use self::batch::{Batch, Wanted, whole, whole_row};
use self::driver::Gpu;
use self::layout::{Stored, words};
use self::machine::{Argument, Kernel, Launch, Machine};
use self::sizes::{Sizes, TOGETHER};
use canet_domain::{History, ModelShape, Ranked, Route, RouteSpace, Slice};
use canet_model::{Forward, ForwardError, LoadError, ModelConfig, Precision, Query, Rows, Weights};

/// Scores that are kept at a time: batches beyond run in parts.
const MOST_SCORES: usize = 1 << 26;
/// Rows of a launch.
const MOST_ROWS: usize = 1024;

/// One set of weights on one GPU.
pub(crate) type Cuda = OnMachine<Gpu>;

/// One set of weights on what runs the kernels.
pub(crate) struct OnMachine<M: Machine> {
    machine: M,
    space: RouteSpace,
    shape: ModelShape,
    sizes: Sizes,
    backbone: Network<M>,
    router: Network<M>,
    output: M::Memory,
    output_bias: M::Memory,
    weight_bytes: usize,
    workspace: Mutex<Workspace<M>>,
}

/// Weights of the backbone or the router.
struct Network<M: Machine> {
    matrices: M::Memory,
    vectors: M::Memory,
    items: M::Memory,
    /// The table of positions; of a backbone with relative positions the biases.
    positions: M::Memory,
}

/// Memory of a batch, as large as the largest one needed.
struct Workspace<M: Machine> {
    histories: Grown<M>,
    /// [B, WIDTH]
    newest: Grown<M>,
    /// [B, N + 1]
    scores: Grown<M>,
    wanted: Grown<M>,
    found: Grown<M>,
    /// [B, routes]
    logits: Grown<M>,
}

struct Grown<M: Machine> {
    memory: Option<M::Memory>,
    words: usize,
}

impl<M: Machine> Grown<M> {
    const EMPTY: Grown<M> = Grown { memory: None, words: 0 };

    fn of(&mut self, machine: &M, words: usize) -> Result<&M::Memory, CudaError> {
        if words > self.words || self.memory.is_none() {
            // The smaller one first: there may be no room for both.
            self.memory = None;
            self.words = words.next_power_of_two();
            self.memory = Some(machine.memory(self.words)?);
        }
        self.memory.as_ref().ok_or_else(|| CudaError("no memory".to_owned()))
    }
}

/// Waits when it is dropped, whatever else has failed: what stands above it may be read until then.
struct Waits<'a, M: Machine>(&'a M);

impl<M: Machine> Drop for Waits<'_, M> {
    fn drop(&mut self) {
        // Who asks for anything more hears of a failure.
        let _ = self.0.wait();
    }
}

impl Cuda {
    /// Puts weights on a GPU and compiles the kernels for them.
    ///
    /// # Errors
    /// [`LoadError`] where the configuration is not sane, the weights do not fit it, the kernels do not fit the model, or the
    /// device refuses them.
    pub(crate) fn load(
        ordinal: u16,
        precision: Precision,
        config: &ModelConfig,
        weights: &Weights,
    ) -> Result<Cuda, LoadError> {
        config.check()?;
        let limits = Gpu::limits(ordinal)?;
        let sizes = Sizes::new(config, precision, Gpu::THREADS, limits.shared)?;
        let machine = Gpu::open(&limits, &sizes)?;
        OnMachine::on(machine, sizes, precision, config, weights)
    }
}

impl<M: Machine> OnMachine<M> {
    fn on(
        machine: M,
        sizes: Sizes,
        precision: Precision,
        config: &ModelConfig,
        weights: &Weights,
    ) -> Result<OnMachine<M>, LoadError> {
        let space = config.check()?;
        weights.check(config)?;
        let mut weight_bytes = 0;
        let mut store = |words: &[u32]| -> Result<M::Memory, CudaError> {
            weight_bytes += 4 * words.len();
            let memory = machine.memory(words.len())?;
            let _waits = Waits(&machine);
            machine.upload(&memory, words)?;
            Ok(memory)
        };
        let mut network = |stored: Stored| -> Result<Network<M>, CudaError> {
            Ok(Network {
                matrices: store(&stored.matrices)?,
                vectors: store(&stored.vectors)?,
                items: store(&stored.items)?,
                positions: store(&stored.positions)?,
            })
        };
        let backbone = network(Stored::backbone(weights, config, precision)?)?;
        let router = network(Stored::router(weights)?)?;
        let output = store(&words(&weights.get("backbone.output.weight")?.data))?;
        let output_bias = store(&words(&weights.get("backbone.output.bias")?.data))?;
        let workspace = Mutex::new(Workspace {
            histories: Grown::EMPTY,
            newest: Grown::EMPTY,
            scores: Grown::EMPTY,
            wanted: Grown::EMPTY,
            found: Grown::EMPTY,
            logits: Grown::EMPTY,
        });
        Ok(OnMachine {
            shape: config.shape(),
            space,
            sizes,
            backbone,
            router,
            output,
            output_bias,
            weight_bytes,
            workspace,
            machine,
        })
    }

    /// Rows that run in one launch: whole groups of those that read the output layer together, where there are as many.
    fn most_rows(&self) -> usize {
        let most = (MOST_SCORES / self.sizes.columns).clamp(1, MOST_ROWS);
        if most < TOGETHER { most } else { most - most % TOGETHER }
    }

    fn batch<'a>(&self, rows: impl ExactSizeIterator<Item = (Slice, &'a History)>) -> Result<Batch, CudaError> {
        Batch::new(rows, (self.sizes.max_len, self.sizes.columns))
    }

    /// Queues a network over a batch's histories.
    fn histories(
        &self,
        (kernel, shared): (Kernel, usize),
        network: &Network<M>,
        batch: &Batch,
        (histories, out): (&M::Memory, &M::Memory),
    ) -> Result<(), CudaError> {
        self.machine.upload(histories, &batch.words)?;
        self.machine.launch(
            &Launch { kernel, grid: [batch.rows, 1], shared },
            &[
                Argument::Memory(&network.matrices, 0),
                Argument::Memory(&network.vectors, 0),
                Argument::Memory(&network.items, 0),
                Argument::Memory(&network.positions, 0),
                Argument::Memory(histories, batch.tokens()),
                Argument::Memory(histories, 0),
                Argument::Memory(out, 0),
            ],
        )
    }

    /// Queues what makes scores of histories: [B, N + 1]
    fn score(&self, workspace: &mut Workspace<M>, batch: &Batch) -> Result<(), CudaError> {
        let (machine, columns) = (&self.machine, self.sizes.columns);
        let histories = workspace.histories.of(machine, batch.words.len())?;
        let newest = workspace.newest.of(machine, batch.rows * self.sizes.width)?;
        self.histories((Kernel::Backbone, self.sizes.shared[0]), &self.backbone, batch, (histories, newest))?;
        let scores = workspace.scores.of(machine, batch.rows * columns)?;
        let groups = batch.rows.div_ceil(TOGETHER);
        // About two parts a multiprocessor, of whole tiles of columns for every warp.
        let parts = (2 * machine.processors()).div_ceil(groups);
        let part = columns.div_ceil(parts).next_multiple_of(machine.threads() / 4);
        machine.launch(
            &Launch { kernel: Kernel::Score, grid: [columns.div_ceil(part), groups], shared: self.sizes.shared[2] },
            &[
                Argument::Memory(newest, 0),
                Argument::Memory(&self.output, 0),
                Argument::Memory(&self.output_bias, 0),
                Argument::Memory(scores, 0),
                Argument::Number(batch.rows),
                Argument::Number(batch.width),
                Argument::Number(part),
            ],
        )
    }

    /// The best items of rows that run in one launch.
    fn best(&self, rows: &[(Route, Query<'_>)]) -> Result<Vec<Vec<Ranked>>, CudaError> {
        let (machine, columns) = (&self.machine, self.sizes.columns);
        let mut workspace = self.workspace.lock().unwrap_or_else(PoisonError::into_inner);
        let workspace = &mut *workspace;
        let slices = rows.iter().map(|(route, query)| (self.space.slice(*route), query.history));
        let batch = self.batch(slices)?;
        let wanted = Wanted::new(rows.iter().map(|(_, query)| &query.selection), columns);
        let _waits = Waits(machine);
        self.score(workspace, &batch)?;
        let mut found = vec![0; rows.len() * wanted.found()];
        if wanted.picked > 0 {
            let words = workspace.wanted.of(machine, wanted.words.len())?;
            machine.upload(words, &wanted.words)?;
            let places = workspace.found.of(machine, found.len())?;
            let scores = workspace.scores.of(machine, rows.len() * columns)?;
            machine.launch(
                &Launch { kernel: Kernel::Select, grid: [rows.len(), 1], shared: 4 * 260 },
                &[
                    Argument::Memory(scores, 0),
                    Argument::Memory(words, 0),
                    Argument::Memory(words, rows.len() + 1),
                    Argument::Number(wanted.picked),
                    Argument::Number(wanted.places()),
                    Argument::Memory(places, 0),
                ],
            )?;
            machine.download(places, 0, &mut found)?;
        }
        let scores = workspace.scores.of(machine, rows.len() * columns)?;
        let ranked = rows.iter().zip(found.chunks(wanted.found())).enumerate().map(|(row, ((_, query), found))| {
            if let Some(ranking) =
                Some(found).filter(|_| wanted.picked > 0).and_then(|found| wanted.ranking(found, query))
            {
                return Ok(ranking);
            }
            let mut own = vec![0; columns];
            machine.download(scores, row * columns, &mut own)?;
            Ok(whole(&own, query))
        });
        ranked.collect()
    }
}

impl<M: Machine> Forward for OnMachine<M> {
    fn router_logits(&self, histories: &[&History]) -> Result<Rows, ForwardError> {
        let routes = self.sizes.routes;
        let mut workspace = self.workspace.lock().unwrap_or_else(PoisonError::into_inner);
        let mut logits = Vec::with_capacity(histories.len() * routes);
        for histories in histories.chunks(MOST_ROWS) {
            let smallest = self.space.slice(self.space.smallest());
            let batch = self.batch(histories.iter().map(|history| (smallest, *history)))?;
            let _waits = Waits(&self.machine);
            let mut own = vec![0; histories.len() * routes];
            let workspace = &mut *workspace;
            let words = workspace.histories.of(&self.machine, batch.words.len())?;
            let out = workspace.logits.of(&self.machine, own.len())?;
            self.histories((Kernel::Router, self.sizes.shared[1]), &self.router, &batch, (words, out))?;
            self.machine.download(out, 0, &mut own)?;
            logits.extend(own.into_iter().map(f32::from_bits));
        }
        Rows::new(routes, logits)
    }

    fn scores(&self, route: Route, histories: &[&History]) -> Result<Rows, ForwardError> {
        let columns = self.sizes.columns;
        let mut workspace = self.workspace.lock().unwrap_or_else(PoisonError::into_inner);
        let mut data = Vec::with_capacity(histories.len() * columns);
        for histories in histories.chunks(self.most_rows()) {
            let slice = self.space.slice(route);
            let batch = self.batch(histories.iter().map(|history| (slice, *history)))?;
            let _waits = Waits(&self.machine);
            self.score(&mut workspace, &batch)?;
            let mut own = vec![0; histories.len() * columns];
            let scores = workspace.scores.of(&self.machine, own.len())?;
            self.machine.download(scores, 0, &mut own)?;
            data.extend(own.into_iter().map(f32::from_bits));
        }
        Rows::new(columns, data)
    }

    fn rank(&self, route: Route, queries: &[Query<'_>]) -> Result<Vec<Vec<Ranked>>, ForwardError> {
        let rows: Vec<(Route, Query<'_>)> = queries.iter().map(|query| (route, *query)).collect();
        self.rank_mixed(&rows)
    }

    /// Rows of every route in one launch, the dearest first: the last one to end should be a small one.
    fn rank_mixed(&self, rows: &[(Route, Query<'_>)]) -> Result<Vec<Vec<Ranked>>, ForwardError> {
        let mut order: Vec<usize> = (0..rows.len()).collect();
        order.sort_by_cached_key(|row| {
            let (route, query) = &rows[*row];
            // Rows that are looked at whole stand together, so that they do not make others so.
            (
                whole_row(&query.selection),
                std::cmp::Reverse(self.shape.route_flops(&self.space, *route, query.history.len())),
            )
        });
        let mut answers = vec![Vec::new(); rows.len()];
        let picked = |row: &usize| whole_row(&rows[*row].1.selection);
        for alike in order.chunk_by(|a, b| picked(a) == picked(b)) {
            for part in alike.chunks(self.most_rows()) {
                let own: Vec<(Route, Query<'_>)> = part.iter().map(|row| rows[*row]).collect();
                for (row, ranked) in part.iter().zip(self.best(&own)?) {
                    answers[*row] = ranked;
                }
            }
        }
        Ok(answers)
    }

    fn chooses_by_shape(&self) -> bool {
        false
    }

    fn backend(&self) -> &'static str {
        "native"
    }

    fn weight_bytes(&self) -> usize {
        self.weight_bytes
    }
}
