//! The cost of JSON in the HTTP app, without connections and without a model: one request is read and refused for its `k`, and
//! one is a cold start, whose answer is written. A call without ids and with one item measures the app itself; the
//! difference to other calls is reading and writing.

#![allow(clippy::unwrap_used, reason = "a bench says by a panic what is wrong")]

use canet_testing as support;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::http::{Request, StatusCode, header};
use canet_api::{self, Access};
use canet_cpu::{CpuForward, CpuOptions};
use canet_domain::BatchBy;
use canet_model::{Model, Precision};
use canet_serving::{Generation, Limits, Policy, Recommender, RecommenderOptions};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use tokio::runtime::Runtime;
use tower::ServiceExt;

/// Items of the catalogue.
const ITEMS: usize = 3416;

/// One model's HTTP endpoints; its executor has nothing to do.
fn app() -> (Runtime, Router) {
    let directory = tempfile::tempdir().unwrap();
    let draft = support::draft(support::full_size_config(ITEMS), 1);
    let checkpoint = draft.write(&directory.path().join("model")).unwrap();
    let forward = Arc::new(
        CpuForward::load(&checkpoint.config, &checkpoint.weights, CpuOptions::fastest(Precision::Fp32, 1)).unwrap(),
    );
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let metrics = Arc::new(canet_api::metrics().unwrap());
    let limits = Limits { executors: 1, max_batch: 64, queue_limit: Duration::from_secs(1), degrade: false };
    let policy = Policy { budget: 0.3, batch_by: BatchBy::Width };
    let generation = Generation::new(Model::with_forward(checkpoint, forward), policy, &metrics);
    let options = RecommenderOptions::default();
    let (recommender, _) = runtime.block_on(async { Recommender::start(limits, options, metrics) }).unwrap();
    recommender.serve(generation);
    let router = canet_api::app(&recommender, Access::default());
    (runtime, router)
}

/// The answer's bytes.
async fn ask(router: Router, body: Bytes, expected: StatusCode) -> Bytes {
    let request = Request::post("/recommend").header(header::CONTENT_TYPE, "application/json");
    let response = router.oneshot(request.body(Body::from(body)).unwrap()).await.unwrap();
    assert_eq!(response.status(), expected);
    to_bytes(response.into_body(), usize::MAX).await.unwrap()
}

fn json(criterion: &mut Criterion) {
    let (runtime, router) = app();
    let mut group = criterion.benchmark_group("read a history");
    for ids in [0, 50, 1000] {
        let history: Vec<String> = (1..=ids).map(|id| format!("\"x{}\"", 1000 + id)).collect();
        let body = Bytes::from(format!("{{\"history\": [{}], \"k\": 0}}", history.join(", ")));
        group.throughput(Throughput::Bytes(body.len() as u64));
        group.bench_function(BenchmarkId::from_parameter(ids), |bencher| {
            bencher.iter(|| runtime.block_on(ask(router.clone(), body.clone(), StatusCode::UNPROCESSABLE_ENTITY)));
        });
    }
    group.finish();
    let mut group = criterion.benchmark_group("write an answer");
    for items in [1, 10, 1000] {
        let body = Bytes::from(format!("{{\"history\": [], \"k\": {items}}}"));
        let answer = runtime.block_on(ask(router.clone(), body.clone(), StatusCode::OK));
        group.throughput(Throughput::Bytes(answer.len() as u64));
        group.bench_function(BenchmarkId::from_parameter(items), |bencher| {
            bencher.iter(|| runtime.block_on(ask(router.clone(), body.clone(), StatusCode::OK)));
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2));
    targets = json
}
criterion_main!(benches);
