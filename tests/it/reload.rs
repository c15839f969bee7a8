//! What the generations of one process do to each other: how many there are, and what is left of one that went.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::Request;
use canet_api::proto::canet::v1 as proto;
use canet_api::{self, Access, Admin, ApiKeys, Hosts};
use canet_cpu::CpuBackend;
use canet_model::ModelConfig;
use canet_model::checkpoint::ModelDirectory;
use canet_serving::{Loader, Recommender, RecommenderOptions, ReloadError, Reloader, Stamp, Step, Watch};
use prost::Message;
use tokio::runtime::Runtime;
use tower::ServiceExt;

use super::grpc_client::{frame, request};
use super::server::{HANGS, POLICY, ROOMY, metric, numbered};
use super::support::{draft, small_config};

struct Setup {
    runtime: Runtime,
    recommender: Arc<Recommender>,
    reloader: Arc<Reloader>,
    root: PathBuf,
    _directory: tempfile::TempDir,
}

/// Version 1 serves; there is a version 2.
fn setup() -> Setup {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("small");
    for seed in [3, 4] {
        numbered(draft(small_config(), seed)).write(&root).unwrap();
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let metrics = Arc::new(canet_api::metrics().unwrap());
    let _entered = runtime.enter();
    let (recommender, _) = Recommender::start(ROOMY, RecommenderOptions::default(), Arc::clone(&metrics)).unwrap();
    let loader = Loader {
        directory: ModelDirectory::open(&root).unwrap(),
        backend: Arc::new(CpuBackend::single_threaded()),
        policy: POLICY,
        fixed_route: None,
        max_batch: 8,
        gate: None,
        metrics,
    };
    let reloader = Reloader::new(loader, &recommender);
    drop(_entered);
    let setup = Setup { runtime, recommender, reloader, root, _directory: directory };
    setup.reload(1).unwrap();
    setup
}

impl Setup {
    fn reload(&self, version: u64) -> Result<u64, ReloadError> {
        self.runtime.block_on(self.reloader.reload(Some(version))).map(|reload| reload.version)
    }

    /// Waits until every generation that no longer serves is freed.
    fn freed(&self) {
        self.reloader.threads().into_iter().for_each(|thread| thread.join().unwrap());
    }

    fn scrape(&self) -> String {
        self.recommender.metrics().render().unwrap()
    }
}

#[test]
fn a_replaced_generation_is_freed_when_its_last_row_is_answered() {
    let setup = setup();
    let pinned = setup.recommender.generation().unwrap();
    assert_eq!(setup.reload(2).unwrap(), 2);
    assert_eq!((pinned.model.version(), setup.recommender.generation().unwrap().model.version()), (1, 2));
    let weak = Arc::downgrade(&pinned);
    assert!(Arc::strong_count(&pinned) == 2, "the reload's thread waits for this one");
    drop(pinned);
    setup.freed();
    assert!(weak.upgrade().is_none());
}

#[test]
fn a_third_generation_waits_for_the_first_and_a_reload_meanwhile_is_refused() {
    let setup = setup();
    let first = setup.recommender.generation().unwrap();
    assert_eq!(setup.reload(2).unwrap(), 2);
    let next = setup.runtime.spawn(setup.reloader.reload(Some(1)));
    // It has begun, and cannot go on while the first generation is held.
    assert!(matches!(setup.reload(2), Err(ReloadError::InProgress)));
    assert!(!next.is_finished());
    assert_eq!(setup.recommender.generation().unwrap().model.version(), 2);
    let (second, weak) = (Arc::downgrade(&setup.recommender.generation().unwrap()), Arc::downgrade(&first));
    drop(first);
    assert_eq!(setup.runtime.block_on(next).unwrap().unwrap().version, 1);
    setup.freed();
    assert!(weak.upgrade().is_none() && second.upgrade().is_none());
    assert_eq!(metric(&setup.scrape(), "reload_total{outcome=\"busy\"}"), 1.0);
}

#[test]
fn a_stream_that_nobody_reads_holds_up_no_reload() {
    let setup = setup();
    let router = canet_api::grpc::app(&setup.recommender, &ApiKeys::default(), &Hosts::Any).unwrap();
    let row = proto::RecommendRequest { history: vec!["101".to_owned()], ..proto::RecommendRequest::default() };
    let rows = proto::RecommendStreamRequest { requests: vec![row; 64] };
    let call = request("canet.v1.Recommender/RecommendStream", &[], &frame(&rows.encode_to_vec()));
    let unread = setup.runtime.block_on(router.oneshot(call)).unwrap();
    // The first reload replaces the generation of the rows, the second begins when that is freed.
    for version in [2, 1] {
        let reload = setup.reloader.reload(Some(version));
        let ended = setup.runtime.block_on(async { tokio::time::timeout(HANGS, reload).await });
        assert_eq!(ended.expect("the reload waits for the stream").unwrap().version, version);
    }
    drop(unread);
}

#[test]
fn a_reload_that_fails_leaves_what_served() {
    let setup = setup();
    let before = setup.recommender.generation().unwrap();
    std::fs::remove_file(setup.root.join("2/probes.safetensors")).unwrap();
    let error = setup.reload(2).unwrap_err().to_string();
    assert!(error.contains("probes.safetensors"), "{error}");
    assert!(Arc::ptr_eq(&before, &setup.recommender.generation().unwrap()));
    setup.recommender.drain();
    assert!(matches!(setup.reload(1), Err(ReloadError::Unready(_))), "no use in a server that stops");
}

#[test]
fn series_of_routes_that_the_new_version_lacks_are_removed() {
    let setup = setup();
    let shallow = ModelConfig { layers: vec![1, 2], ..small_config() };
    numbered(draft(shallow, 5)).write(&setup.root).unwrap();
    let lines_of = |name: &str| -> Vec<String> {
        let is_of = |line: &&str| line.contains(&format!("\"{name}\""));
        setup.scrape().lines().filter(is_of).map(str::to_owned).collect()
    };
    // Answers of the version before are still judged, so the series of its live accuracy stay.
    let is_judged = |line: &String| ["judged", "hits", "reciprocal"].iter().any(|family| line.contains(family));
    let has = |name: &str| !lines_of(name).iter().all(is_judged);
    assert!(has("h12-l4-e10") && has("h12-l2-e10"));
    setup.reload(3).unwrap();
    setup.freed();
    assert!(!has("h12-l4-e10") && has("h12-l2-e10"));
    assert!(lines_of("h12-l4-e10").iter().any(|line| line.contains("version=\"1\"")));
    let scrape = setup.scrape();
    let serving: Vec<&str> = scrape.lines().filter(|line| line.starts_with("canet_model_info{")).collect();
    assert!(serving.len() == 1 && serving[0].contains("version=\"3\""), "{serving:?}");
    setup.reload(1).unwrap();
    setup.freed();
    assert!(has("h12-l4-e10"));
}

#[test]
fn without_a_token_clients_on_loopback_alone_may_reload() {
    let setup = setup();
    let admin = Admin::new(Arc::clone(&setup.reloader), None);
    let router = canet_api::app(&setup.recommender, Access { admin: Some(admin), ..Access::default() });
    let ask = |peer: Option<&str>| {
        let mut request = Request::post("/admin/reload").body(Body::empty()).unwrap();
        if let Some(peer) = peer {
            request.extensions_mut().insert(ConnectInfo::<std::net::SocketAddr>(peer.parse().unwrap()));
        }
        setup.runtime.block_on(router.clone().oneshot(request)).unwrap().status().as_u16()
    };
    for peer in ["127.0.0.1:9", "127.8.8.8:9", "[::1]:9", "[::ffff:127.0.0.1]:9"] {
        assert_eq!(ask(Some(peer)), 200, "{peer}");
    }
    for peer in ["192.0.2.7:9", "[2001:db8::1]:9", "[::ffff:192.0.2.7]:9", "0.0.0.0:9"] {
        assert_eq!(ask(Some(peer)), 403, "{peer}");
    }
    assert_eq!(ask(None), 403);
}

#[test]
fn without_a_token_no_page_of_another_site_may_reload() {
    let setup = setup();
    let admin = Admin::new(Arc::clone(&setup.reloader), None);
    let router = canet_api::app(&setup.recommender, Access { admin: Some(admin), ..Access::default() });
    let ask = |headers: &[(&str, &str)]| {
        let mut request = Request::post("/admin/reload").body(Body::empty()).unwrap();
        for (name, value) in headers {
            let name = axum::http::HeaderName::from_bytes(name.as_bytes()).unwrap();
            request.headers_mut().insert(name, value.parse().unwrap());
        }
        request.extensions_mut().insert(ConnectInfo::<std::net::SocketAddr>("127.0.0.1:9".parse().unwrap()));
        setup.runtime.block_on(router.clone().oneshot(request)).unwrap().status().as_u16()
    };
    let host = ("host", "127.0.0.1:8080");
    for headers in [
        &[host][..],
        &[("host", "localhost")],
        &[("host", "LocalHost:8080")],
        &[("host", "127.8.8.8:8080")],
        &[("host", "[::1]:8080")],
        // The console.
        &[host, ("origin", "http://127.0.0.1:8080"), ("sec-fetch-site", "same-origin")],
        &[("host", "[::1]:8080"), ("origin", "http://[::1]:8080")],
        // Written into the address bar.
        &[host, ("sec-fetch-site", "none")],
    ] {
        assert_eq!(ask(headers), 200, "{headers:?}");
    }
    for headers in [
        &[host, ("sec-fetch-site", "cross-site")][..],
        // Another port of this machine.
        &[host, ("sec-fetch-site", "same-site")],
        &[host, ("origin", "http://127.0.0.1:8081")],
        &[host, ("origin", "https://shop.example")],
        &[host, ("origin", "null")],
        &[host, ("origin", "http://127.0.0.1:8080"), ("sec-fetch-site", "cross-site")],
        &[("origin", "http://127.0.0.1:8080")],
        // A name that its owner lets point here, so that the browser takes the page for the server's own.
        &[
            ("host", "rebound.example:8080"),
            ("origin", "http://rebound.example:8080"),
            ("sec-fetch-site", "same-origin"),
        ],
        &[("host", "192.0.2.7:8080")],
        &[("host", "localhost.example")],
        &[("host", "")],
    ] {
        assert_eq!(ask(headers), 403, "{headers:?}");
    }
}

#[test]
fn a_watch_tries_each_state_of_the_highest_version_once_and_never_goes_back() {
    let setup = setup();
    let directory = setup.reloader.directory();
    let stamp = || Stamp::read(directory).unwrap().unwrap();
    let mut watch = Watch::new(Some(stamp()));
    let news = |watch: &mut Watch| {
        let now = Instant::now();
        match watch.next(&stamp(), now) {
            Step::Read(version) if directory.is_complete(version) => return Some(version),
            Step::Read(_) => watch.incomplete(now, now),
            Step::Wait | Step::Load(_) => {}
        }
        // The files have stood still for long enough.
        match watch.next(&stamp(), now + Duration::from_secs(2)) {
            Step::Load(version) => Some(version),
            Step::Wait | Step::Read(_) => None,
        }
    };
    assert_eq!(news(&mut watch), None);
    let third = numbered(draft(small_config(), 5)).write(&setup.root).unwrap().version;
    assert_eq!(news(&mut watch), Some(third));
    watch.tried(stamp());
    assert_eq!(news(&mut watch), None);
    // Somebody mends a file of it.
    let file = setup.root.join("3/items.tsv");
    let mended = std::fs::read_to_string(&file).unwrap() + "\n";
    std::fs::write(&file, mended).unwrap();
    assert_eq!(news(&mut watch), Some(third));
    watch.tried(stamp());
    // And replaces it by another of its size and modification time.
    let (modified, other) = (std::fs::metadata(&file).unwrap().modified().unwrap(), setup.root.join("other"));
    std::fs::write(&other, std::fs::read_to_string(&file).unwrap().replace("x1001", "x2001")).unwrap();
    std::fs::File::options().write(true).open(&other).unwrap().set_modified(modified).unwrap();
    std::fs::rename(&other, &file).unwrap();
    assert_eq!(news(&mut watch), Some(third));
    watch.tried(stamp());
    // And takes it away: an older one is no news.
    std::fs::rename(setup.root.join("3"), setup.root.join("away")).unwrap();
    assert_eq!(news(&mut watch), None);
    assert_eq!(news(&mut Watch::default()), Some(2));
}

#[test]
fn a_watch_neither_repeats_an_order_nor_undoes_a_return_to_an_older_version() {
    let setup = setup();
    let watch = Watch::new(Stamp::read(setup.reloader.directory()).unwrap());
    let third = numbered(draft(small_config(), 5)).write(&setup.root).unwrap().version;
    setup.reload(third).unwrap();
    setup.reload(1).unwrap();
    let interval = Duration::from_millis(10);
    let watching = setup.runtime.spawn(watch.run(Arc::clone(&setup.reloader), interval));
    // Some looks of the watch, which find nothing to load.
    setup.runtime.block_on(async {
        let mut looks = tokio::time::interval(interval);
        for _ in 0..20 {
            looks.tick().await;
        }
    });
    let serves = || setup.recommender.serving().unwrap().live.model.version();
    assert_eq!(serves(), 1);
    let fourth = numbered(draft(small_config(), 6)).write(&setup.root).unwrap().version;
    // The first load, two orders, and the watch's only one.
    let (began, served) = (Instant::now(), || metric(&setup.scrape(), "reload_total{outcome=\"served\"}"));
    while served() < 4.0 {
        assert!(began.elapsed() < HANGS, "version {fourth} does not serve");
        std::thread::yield_now();
    }
    assert_eq!((serves(), served()), (fourth, 4.0));
    // Somebody returns to an older one, and a job then writes the newest one again.
    setup.reload(1).unwrap();
    let manifest = setup.root.join("4/canet.json");
    let unchanged = || metric(&setup.scrape(), "reload_total{outcome=\"unchanged\"}");
    let again = setup.root.join("again");
    std::fs::copy(&manifest, &again).unwrap();
    std::fs::rename(&again, &manifest).unwrap();
    let began = Instant::now();
    while unchanged() < 1.0 {
        assert!(began.elapsed() < HANGS, "the watch does not see that the version was written again");
        std::thread::yield_now();
    }
    watching.abort();
    assert_eq!((serves(), served()), (1, 5.0));
}
