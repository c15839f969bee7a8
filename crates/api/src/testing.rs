use std::sync::Arc;
use std::time::Duration;

use canet_cpu::CpuBackend;
use canet_domain::BatchBy;
use canet_model::checkpoint::ModelDirectory;
use canet_serving::{Limits, Loader, Policy, Recommender, RecommenderOptions, Reloader};
use tempfile::TempDir;

/// A recommender over a small random model, which a reload loads.
pub(crate) struct Fixture {
    pub(crate) recommender: Arc<Recommender>,
    pub(crate) reloader: Arc<Reloader>,
    directory: TempDir,
}

impl Fixture {
    /// Call this in a tokio runtime: it delivers the answers.
    pub(crate) fn new() -> Fixture {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("small");
        canet_testing::write_checkpoint(&root, 1);
        let metrics = Arc::new(crate::metrics().unwrap());
        let limits = Limits { executors: 1, max_batch: 8, queue_limit: Duration::from_secs(10), degrade: false };
        let (recommender, _) = Recommender::start(limits, RecommenderOptions::default(), Arc::clone(&metrics)).unwrap();
        let loader = Loader {
            directory: ModelDirectory::open(&root).unwrap(),
            backend: Arc::new(CpuBackend::single_threaded()),
            policy: Policy { budget: 1.0, batch_by: BatchBy::Width },
            fixed_route: None,
            max_batch: limits.max_batch,
            gate: None,
            metrics,
        };
        let reloader = Reloader::new(loader, &recommender);
        Fixture { recommender, reloader, directory }
    }

    /// Writes the next version of the model, from another seed.
    pub(crate) fn write_version(&self, seed: u64) {
        canet_testing::write_checkpoint(&self.directory.path().join("small"), seed);
    }
}
