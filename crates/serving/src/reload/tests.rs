use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use canet_cpu::CpuBackend;
use canet_domain::BatchBy;
use canet_model::checkpoint::ModelDirectory;
use canet_testing::write_checkpoint;
use tempfile::TempDir;

use super::{Offer, Reloader};
use crate::metrics::Metrics;
use crate::{Conflict, Limits, LoadError, Loader, Policy, Recommender, RecommenderOptions, ReloadError, Start};

struct Setup {
    directory: TempDir,
    recommender: Arc<Recommender>,
    reloader: Arc<Reloader>,
}

impl Setup {
    /// A server without a model yet, for a model with these versions.
    fn new(versions: &[u64]) -> Setup {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("small");
        versions.iter().for_each(|version| write_version(&root, *version));
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
        Setup { directory, recommender, reloader }
    }

    fn write(&self, version: u64) {
        write_version(&self.directory.path().join("small"), version);
    }

    /// The live version and the candidate.
    fn serving(&self) -> (u64, Option<u64>) {
        let serving = self.recommender.serving().unwrap();
        (serving.live.model.version(), serving.candidate.map(|candidate| candidate.generation.model.version()))
    }

    fn counted(&self, outcome: &str) -> String {
        let scrape = self.recommender.metrics().render().unwrap();
        let series = format!("canet_reload_total{{outcome=\"{outcome}\"}} ");
        scrape.lines().find_map(|line| line.strip_prefix(&series)).unwrap().to_owned()
    }
}

fn write_version(root: &Path, version: u64) {
    let made = tempfile::tempdir_in(root.parent().unwrap()).unwrap();
    let path = made.path().join("small");
    write_checkpoint(&path, version);
    std::fs::create_dir_all(root).unwrap();
    std::fs::rename(path.join("1"), root.join(version.to_string())).unwrap();
}

fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(test);
}

#[test]
fn the_watch_loads_nothing_beside_a_candidate_that_came_since_it_looked() {
    run(async {
        let setup = Setup::new(&[1, 2]);
        let reloader = &setup.reloader;
        reloader.reload(Some(1)).await.unwrap();
        reloader.offer(Offer { version: Some(2), share: 0.5 }).await.unwrap();
        assert!(matches!(reloader.reload_watched(2).await, Err(ReloadError::InProgress)));
        assert_eq!(setup.serving(), (1, Some(2)));
    });
}

#[test]
fn a_candidate_that_comes_late_is_the_candidate_to_the_watch_and_to_a_reload_without_a_version() {
    run(async {
        let setup = Setup::new(&[1, 2]);
        let reloader = &setup.reloader;
        let start = Start { candidate: Some((3, 0.25)), gated: true, ..Start::default() };
        assert_eq!(reloader.start(start).await.unwrap().version, 2);
        setup.write(3);
        // It is the highest version, and nobody named it.
        assert_eq!(reloader.reload(None).await.unwrap().version, 2);
        assert_eq!(setup.serving(), (2, None));
        assert_eq!(reloader.reload_watched(3).await.unwrap().version, 3);
        assert_eq!(setup.serving(), (2, Some(3)));
        assert_eq!(reloader.candidate_share(Some(3)), Some(0.25));
        assert_eq!(reloader.reload(None).await.unwrap().version, 2);
        // Nobody is left to answer the other users.
        for version in [1, 2] {
            std::fs::remove_dir_all(setup.directory.path().join(format!("small/{version}"))).unwrap();
        }
        let refused = reloader.reload(None).await;
        assert!(matches!(refused, Err(ReloadError::Load(LoadError::NoOther { candidate: 3, .. }))), "{refused:?}");
        assert_eq!(setup.serving(), (2, Some(3)));
    });
}

#[test]
fn a_reserved_candidate_that_is_withdrawn_is_loaded_by_name_alone() {
    run(async {
        let setup = Setup::new(&[1, 2]);
        let reloader = &setup.reloader;
        reloader.start(Start { candidate: Some((3, 0.25)), ..Start::default() }).await.unwrap();
        assert_eq!(reloader.withdraw(None).await.unwrap().version, 2);
        setup.write(3);
        // Neither the watch nor a reload without a version takes it, and there is nothing to withdraw any more.
        assert!(matches!(reloader.reload_watched(3).await, Err(ReloadError::InProgress)));
        assert_eq!(reloader.reload(None).await.unwrap().version, 2);
        let again = reloader.withdraw(None).await;
        assert!(matches!(again, Err(ReloadError::Conflict(Conflict::NoCandidate))), "{again:?}");
        assert_eq!(setup.serving(), (2, None));
        assert_eq!(reloader.reload(Some(3)).await.unwrap().version, 3);
        assert_eq!((setup.serving(), reloader.notes().reserved()), ((3, None), None));
    });
}

#[test]
fn an_order_that_names_a_late_candidate_loads_it_as_the_order_says() {
    run(async {
        for is_live in [true, false] {
            let setup = Setup::new(&[1]);
            let reloader = &setup.reloader;
            reloader.start(Start { candidate: Some((2, 0.25)), ..Start::default() }).await.unwrap();
            // In vain, so the version stays reserved.
            assert!(reloader.reload(Some(2)).await.is_err());
            assert!(reloader.notes().reserved().is_some());
            setup.write(2);
            if is_live {
                assert_eq!(reloader.reload(Some(2)).await.unwrap().version, 2);
                assert_eq!(setup.serving(), (2, None));
            } else {
                reloader.offer(Offer { version: Some(2), share: 1.0 }).await.unwrap();
                assert_eq!(reloader.candidate_share(Some(2)), Some(1.0));
            }
            assert_eq!(reloader.notes().reserved(), None);
        }
    });
}

#[test]
fn every_order_that_does_not_fit_the_candidate_is_counted() {
    run(async {
        let setup = Setup::new(&[1, 2]);
        let reloader = &setup.reloader;
        reloader.reload(Some(1)).await.unwrap();
        for refused in [reloader.promote(None).await, reloader.withdraw(None).await] {
            assert!(matches!(refused, Err(ReloadError::Conflict(Conflict::NoCandidate))), "{refused:?}");
        }
        assert_eq!(setup.counted("busy"), "2");
        reloader.offer(Offer { version: Some(2), share: 0.5 }).await.unwrap();
        for refused in [
            reloader.offer(Offer { version: Some(1), share: 0.5 }).await,
            reloader.promote(Some(1)).await,
            reloader.withdraw(Some(1)).await,
            reloader.reload(Some(2)).await,
        ] {
            assert!(matches!(refused, Err(ReloadError::Conflict(_))), "{refused:?}");
        }
        assert_eq!(setup.counted("busy"), "6");
        reloader.promote(Some(2)).await.unwrap();
        assert_eq!((setup.counted("busy"), setup.serving()), ("6".to_owned(), (2, None)));
    });
}
