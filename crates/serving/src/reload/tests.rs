use std::sync::Arc;
use std::time::Duration;

use canet_cpu::CpuBackend;
use canet_domain::BatchBy;
use canet_model::checkpoint::ModelDirectory;
use canet_testing::write_checkpoint;

use super::{Offer, Reloader};
use crate::metrics::Metrics;
use crate::{Limits, Loader, Policy, Recommender, RecommenderOptions, ReloadError};

#[test]
fn the_watch_loads_nothing_beside_a_candidate_that_came_since_it_looked() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("small");
        write_checkpoint(&root, 1);
        write_checkpoint(&root, 2);
        let metrics = Arc::new(Metrics::new().unwrap());
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
        reloader.reload(Some(1)).await.unwrap();
        reloader.offer(Offer { version: Some(2), share: 0.5 }).await.unwrap();
        assert!(matches!(reloader.reload_watched(2).await, Err(ReloadError::InProgress)));
        let serving = recommender.serving().unwrap();
        let candidate = serving.candidate.as_ref().unwrap();
        assert_eq!((serving.live.model.version(), candidate.generation.model.version()), (1, 2));
    });
}
