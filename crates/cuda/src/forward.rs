use super::batch::{Batch, SelectionBatch, needs_every_score, rank_every_score};
use super::driver::{Argument, CudaError, Driver, Kernel, Launch};
use super::gpu::Gpu;
use super::layout::{PackedNetwork, words};
use super::sizes::{KernelSizes, TOGETHER};
use canet_domain::{History, ModelShape, Ranked, Route, RouteSpace};
use canet_model::{Forward, ForwardError, LoadError, ModelConfig, Precision, Query, Rows, Weights};
use parking_lot::Mutex;

/// The most scores in memory at a time. Larger batches run in parts.
const MAX_SCORES: usize = 1 << 26;
/// The most rows of a launch.
const MAX_ROWS: usize = 1024;

/// One set of weights on a driver: a GPU's, or the emulator of the tests.
pub(crate) struct CudaForward<M: Driver> {
    driver: M,
    space: RouteSpace,
    shape: ModelShape,
    sizes: KernelSizes,
    backbone: Network<M>,
    router: Network<M>,
    output: M::Memory,
    output_bias: M::Memory,
    weight_bytes: usize,
    workspace: Mutex<Workspace<M>>,
}

/// The weights of the backbone or the router.
struct Network<M: Driver> {
    matrices: M::Memory,
    vectors: M::Memory,
    items: M::Memory,
    /// The table of positions, or the biases of relative positions.
    positions: M::Memory,
}

/// The memory of a batch, which grows to the largest batch.
struct Workspace<M: Driver> {
    histories: GrowingMemory<M>,
    /// [B, WIDTH]
    newest: GrowingMemory<M>,
    /// [B, N + 1]
    scores: GrowingMemory<M>,
    /// What the rows ask for, as [`SelectionBatch`] writes it.
    selections: GrowingMemory<M>,
    /// What `select` found.
    picked: GrowingMemory<M>,
    /// [B, routes]
    logits: GrowingMemory<M>,
}

struct GrowingMemory<M: Driver> {
    memory: Option<M::Memory>,
    words: usize,
}

impl<M: Driver> GrowingMemory<M> {
    const EMPTY: GrowingMemory<M> = GrowingMemory { memory: None, words: 0 };

    fn at_least(&mut self, driver: &M, words: usize) -> Result<&M::Memory, CudaError> {
        if words > self.words || self.memory.is_none() {
            // The smaller memory goes first: there may be no room for both.
            self.memory = None;
            self.words = words.next_power_of_two();
            self.memory = Some(driver.memory(self.words)?);
        }
        self.memory.as_ref().ok_or_else(|| CudaError("no memory".to_owned()))
    }
}

/// Waits when dropped, even after an error. Until then the device may read the buffers that were declared before it.
struct WaitOnDrop<'a, M: Driver>(&'a M);

impl<M: Driver> Drop for WaitOnDrop<'_, M> {
    fn drop(&mut self) {
        // The next operation reports a failure.
        let _ = self.0.wait();
    }
}

impl CudaForward<Gpu> {
    /// Puts weights on a GPU and compiles the kernels for them.
    ///
    /// # Errors
    /// [`LoadError`] if the configuration is not valid, the weights do not fit it, the kernels do not support the
    /// model, or the device refuses it.
    pub(crate) fn load(
        ordinal: u16,
        precision: Precision,
        config: &ModelConfig,
        weights: &Weights,
    ) -> Result<CudaForward<Gpu>, LoadError> {
        config.check()?;
        let limits = Gpu::limits(ordinal)?;
        let sizes = KernelSizes::new(config, precision, Gpu::THREADS, limits.shared)?;
        let driver = Gpu::open(&limits, &sizes)?;
        CudaForward::load_on(driver, sizes, precision, config, weights)
    }
}

impl<M: Driver> CudaForward<M> {
    pub(crate) fn load_on(
        driver: M,
        sizes: KernelSizes,
        precision: Precision,
        config: &ModelConfig,
        weights: &Weights,
    ) -> Result<CudaForward<M>, LoadError> {
        let space = config.check()?;
        weights.check(config)?;
        let mut weight_bytes = 0;
        let mut store = |words: &[u32]| -> Result<M::Memory, CudaError> {
            weight_bytes += 4 * words.len();
            let memory = driver.memory(words.len())?;
            let _wait = WaitOnDrop(&driver);
            driver.upload(&memory, words)?;
            Ok(memory)
        };
        let mut network = |stored: PackedNetwork| -> Result<Network<M>, CudaError> {
            Ok(Network {
                matrices: store(&stored.matrices)?,
                vectors: store(&stored.vectors)?,
                items: store(&stored.items)?,
                positions: store(&stored.positions)?,
            })
        };
        let backbone = network(PackedNetwork::backbone(weights, config, precision)?)?;
        let router = network(PackedNetwork::router(weights)?)?;
        let output = store(&words(&weights.get("backbone.output.weight")?.data))?;
        let output_bias = store(&words(&weights.get("backbone.output.bias")?.data))?;
        let workspace = Mutex::new(Workspace {
            histories: GrowingMemory::EMPTY,
            newest: GrowingMemory::EMPTY,
            scores: GrowingMemory::EMPTY,
            selections: GrowingMemory::EMPTY,
            picked: GrowingMemory::EMPTY,
            logits: GrowingMemory::EMPTY,
        });
        Ok(CudaForward {
            shape: config.shape(),
            space,
            sizes,
            backbone,
            router,
            output,
            output_bias,
            weight_bytes,
            workspace,
            driver,
        })
    }

    /// The most rows of one launch: a multiple of the rows that share reads of the output layer, if there is room for
    /// as many.
    fn max_rows(&self) -> usize {
        let most = (MAX_SCORES / self.sizes.columns).clamp(1, MAX_ROWS);
        if most < TOGETHER { most } else { most - most % TOGETHER }
    }

    /// Queues the backbone's or the router's kernel over a batch.
    fn launch_network(
        &self,
        kernel: Kernel,
        batch: &Batch,
        histories: &M::Memory,
        out: &M::Memory,
    ) -> Result<(), CudaError> {
        let (network, shared) = match kernel {
            Kernel::Router => (&self.router, self.sizes.shared[1]),
            _ => (&self.backbone, self.sizes.shared[0]),
        };
        self.driver.upload(histories, &batch.words)?;
        self.driver.launch(
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

    /// Queues the kernels that turn histories into scores: [B, N + 1]
    fn launch_scores(&self, workspace: &mut Workspace<M>, batch: &Batch) -> Result<(), CudaError> {
        let (driver, columns) = (&self.driver, self.sizes.columns);
        let histories = workspace.histories.at_least(driver, batch.words.len())?;
        let newest = workspace.newest.at_least(driver, batch.rows * self.sizes.width)?;
        self.launch_network(Kernel::Backbone, batch, histories, newest)?;
        let scores = workspace.scores.at_least(driver, batch.rows * columns)?;
        let groups = batch.rows.div_ceil(TOGETHER);
        // About two parts a multiprocessor. A part has whole tiles of columns for every warp.
        let parts = (2 * driver.processors()).div_ceil(groups);
        let part = columns.div_ceil(parts).next_multiple_of(driver.threads() / 4);
        driver.launch(
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

    /// Ranks rows that run in one launch.
    fn rank_batch(&self, rows: &[(Route, Query<'_>)]) -> Result<Vec<Vec<Ranked>>, CudaError> {
        let (driver, columns) = (&self.driver, self.sizes.columns);
        let mut workspace = self.workspace.lock();
        let workspace = &mut *workspace;
        let slices = rows.iter().map(|(route, query)| (self.space.slice(*route), query.history));
        let batch = Batch::new(slices, &self.sizes)?;
        let selections = SelectionBatch::new(rows.iter().map(|(_, query)| &query.selection), columns);
        let _wait = WaitOnDrop(driver);
        self.launch_scores(workspace, &batch)?;
        let mut found = vec![0; rows.len() * selections.row_words()];
        if selections.picked > 0 {
            let words = workspace.selections.at_least(driver, selections.words.len())?;
            driver.upload(words, &selections.words)?;
            let picked = workspace.picked.at_least(driver, found.len())?;
            let scores = workspace.scores.at_least(driver, rows.len() * columns)?;
            driver.launch(
                &Launch { kernel: Kernel::Select, grid: [rows.len(), 1], shared: 4 * 260 },
                &[
                    Argument::Memory(scores, 0),
                    Argument::Memory(words, 0),
                    Argument::Memory(words, selections.sets()),
                    Argument::Memory(words, selections.columns()),
                    Argument::Number(selections.picked),
                    Argument::Number(selections.places()),
                    Argument::Memory(picked, 0),
                ],
            )?;
            driver.download(picked, 0, &mut found)?;
        }
        let scores = workspace.scores.at_least(driver, rows.len() * columns)?;
        let ranked = rows.iter().zip(found.chunks(selections.row_words())).enumerate();
        let ranked = ranked.map(|(row, ((_, query), found))| {
            if selections.picked > 0
                && let Some(ranking) = selections.ranking(found, query)
            {
                return Ok(ranking);
            }
            let mut own = vec![0; columns];
            driver.download(scores, row * columns, &mut own)?;
            Ok(rank_every_score(&own, query))
        });
        ranked.collect()
    }
}

impl<M: Driver> Forward for CudaForward<M> {
    fn router_logits(&self, histories: &[&History]) -> Result<Rows, ForwardError> {
        let routes = self.sizes.routes;
        let mut workspace = self.workspace.lock();
        let mut logits = Vec::with_capacity(histories.len() * routes);
        for histories in histories.chunks(MAX_ROWS) {
            let smallest = self.space.slice(self.space.smallest());
            let batch = Batch::new(histories.iter().map(|history| (smallest, *history)), &self.sizes)?;
            let _wait = WaitOnDrop(&self.driver);
            let mut own = vec![0; histories.len() * routes];
            let workspace = &mut *workspace;
            let words = workspace.histories.at_least(&self.driver, batch.words.len())?;
            let out = workspace.logits.at_least(&self.driver, own.len())?;
            self.launch_network(Kernel::Router, &batch, words, out)?;
            self.driver.download(out, 0, &mut own)?;
            logits.extend(own.into_iter().map(f32::from_bits));
        }
        Rows::new(routes, logits)
    }

    fn scores(&self, route: Route, histories: &[&History]) -> Result<Rows, ForwardError> {
        let columns = self.sizes.columns;
        let mut workspace = self.workspace.lock();
        let mut data = Vec::with_capacity(histories.len() * columns);
        for histories in histories.chunks(self.max_rows()) {
            let slice = self.space.slice(route);
            let batch = Batch::new(histories.iter().map(|history| (slice, *history)), &self.sizes)?;
            let _wait = WaitOnDrop(&self.driver);
            self.launch_scores(&mut workspace, &batch)?;
            let mut own = vec![0; histories.len() * columns];
            let scores = workspace.scores.at_least(&self.driver, own.len())?;
            self.driver.download(scores, 0, &mut own)?;
            data.extend(own.into_iter().map(f32::from_bits));
        }
        Rows::new(columns, data)
    }

    /// All routes share a launch. The most expensive rows start first, so that the last row to end is a small one.
    fn rank(&self, rows: &[(Route, Query<'_>)]) -> Result<Vec<Vec<Ranked>>, ForwardError> {
        let mut order: Vec<usize> = (0..rows.len()).collect();
        order.sort_by_cached_key(|row| {
            let (route, query) = &rows[*row];
            // Rows that need every score form their own batches, so that no other row's scores are copied.
            (
                needs_every_score(&query.selection),
                std::cmp::Reverse(self.shape.route_flops(&self.space, *route, query.history.len())),
            )
        });
        let mut answers = vec![Vec::new(); rows.len()];
        let whole = |row: &usize| needs_every_score(&rows[*row].1.selection);
        for alike in order.chunk_by(|a, b| whole(a) == whole(b)) {
            for part in alike.chunks(self.max_rows()) {
                let own: Vec<(Route, Query<'_>)> = part.iter().map(|row| rows[*row]).collect();
                for (row, ranked) in part.iter().zip(self.rank_batch(&own)?) {
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
