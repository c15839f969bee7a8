//! A server without sockets, to which requests are handed.

use std::collections::BTreeMap;
use std::fs;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, HttpBody, to_bytes};
use axum::http::{HeaderMap, Request, StatusCode};
use canet_api::{Access, Admin, ApiKeys, Hosts};
use canet_cpu::CpuBackend;
use canet_domain::{BatchBy, Catalogue};
use canet_model::checkpoint::{CheckpointDraft, ModelDirectory};
use canet_serving::{CatalogueFile, Limits, Loader, Policy, Recommender, RecommenderOptions, Reloader};
use canet_testing::{draft, small_config};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tonic::Status;
use tower::ServiceExt;

/// Number of items.
pub(crate) const ITEMS: u32 = 40;

/// The first external id; the others follow.
pub(crate) const FIRST: u32 = 101;

/// The operators' token.
const TOKEN: &str = "token";

/// A small random model over HTTP and gRPC, with a catalogue file.
pub(crate) struct Server {
    runtime: Runtime,
    http: Router,
    grpc: Router,
    recommender: Arc<Recommender>,
    reloader: Arc<Reloader>,
    _directory: TempDir,
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

/// The keys of an item in the catalogue file.
pub(crate) fn keys(id: u32) -> BTreeMap<&'static str, Vec<String>> {
    let category = match id % 3 {
        0 => vec!["shoes".to_owned()],
        1 => vec!["shirts".to_owned(), "sale".to_owned()],
        _ => vec!["shirts".to_owned()],
    };
    BTreeMap::from([("category", category), ("brand", vec![format!("b{}", id % 7)])])
}

impl Server {
    pub(crate) fn new() -> Server {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("small");
        let draft = draft(small_config(), 11);
        let ids = (FIRST..FIRST + ITEMS).map(|id| id.to_string().into()).collect();
        let catalogue = Catalogue::new(ids, (1..=u64::from(ITEMS)).collect()).unwrap();
        CheckpointDraft { catalogue, ..draft }.write(&root).unwrap();
        let mut lines = "id,category,brand\n".to_owned();
        for id in FIRST..FIRST + ITEMS {
            let keys = keys(id);
            lines += &format!("{id},{},{}\n", keys["category"].join("|"), keys["brand"].join("|"));
        }
        let path = directory.path().join("catalogue.csv");
        fs::write(&path, lines).unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let metrics = Arc::new(canet_api::metrics().unwrap());
        let limits = Limits { executors: 1, max_batch: 8, queue_limit: Duration::from_secs(3600), degrade: false };
        let options = RecommenderOptions {
            judge_memory: Some(1 << 20),
            catalogue: Some(CatalogueFile::open(&path, 0.1, Arc::clone(&metrics)).unwrap()),
            ..RecommenderOptions::default()
        };
        let (recommender, reloader, http, grpc) = runtime.block_on(async {
            let (recommender, _) = Recommender::start(limits, options, Arc::clone(&metrics)).unwrap();
            let loader = Loader {
                directory: ModelDirectory::open(&root).unwrap(),
                backend: Arc::new(CpuBackend::single_threaded().with_history_cache(1 << 20)),
                policy: Policy { budget: 0.3, batch_by: BatchBy::Width },
                fixed_route: None,
                max_batch: limits.max_batch,
                gate: None,
                metrics: Arc::clone(&metrics),
            };
            let reloader = Reloader::new(loader, &recommender);
            reloader.reload(None).await.unwrap();
            let access = Access {
                admin: Some(Admin::new(Arc::clone(&reloader), Some(TOKEN))),
                keys: ApiKeys::default(),
                hosts: Hosts::Any,
                ..Access::default()
            };
            let http = canet_api::app(&recommender, access);
            let grpc = canet_api::grpc::app(&recommender, &ApiKeys::default(), &Hosts::Any).unwrap();
            (recommender, reloader, http, grpc)
        });
        Server { runtime, http, grpc, recommender, reloader, _directory: directory }
    }

    /// Sends a body over HTTP as an operator.
    pub(crate) fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Reply {
        let request = Request::builder().method(method).uri(path).header("authorization", format!("Bearer {TOKEN}"));
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        self.hand(request.body(Body::from(body.to_vec())).unwrap())
    }

    /// Hands a request of HTTP to the server.
    pub(crate) fn hand(&self, request: Request<Body>) -> Reply {
        self.runtime.block_on(async {
            let response = self.http.clone().oneshot(request).await.unwrap();
            let (head, body) = response.into_parts();
            let body = to_bytes(body, usize::MAX).await.unwrap().to_vec();
            Reply { status: head.status, headers: head.headers, body }
        })
    }

    /// Sends bytes to a gRPC method, as `canet.v1.Recommender/Recommend`. Returns those of the answer and the status.
    pub(crate) fn call(&self, method: &str, body: &[u8]) -> (Vec<u8>, Status) {
        let request = Request::post(format!("/{method}")).header("content-type", "application/grpc");
        let request = request.body(Body::from(body.to_vec())).unwrap();
        self.runtime.block_on(async {
            let response = self.grpc.clone().oneshot(request).await.unwrap();
            let (head, mut body) = response.into_parts();
            assert_eq!(head.status, 200, "the status of gRPC stands in metadata");
            let (mut bytes, mut trailers) = (Vec::new(), None);
            while let Some(next) = std::future::poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await {
                match next.unwrap().into_data() {
                    Ok(data) => bytes.extend_from_slice(&data),
                    Err(last) => trailers = last.into_trailers().ok(),
                }
            }
            let status = Status::from_header_map(trailers.as_ref().unwrap_or(&head.headers)).expect("a status");
            (bytes, status)
        })
    }

    /// Undoes what operators' calls may have done.
    pub(crate) fn withdraw_candidate(&self) {
        // There may be none.
        let _ = self.runtime.block_on(self.reloader.withdraw(None));
    }

    /// Whether it can answer, as its probes say.
    pub(crate) fn assert_ready(&self) {
        self.recommender.ready().unwrap();
    }
}
