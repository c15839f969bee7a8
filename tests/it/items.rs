//! Searches of the catalogue: no more of them run at a time than leave the server to its requests.

use std::sync::Arc;
use std::sync::mpsc::channel;

use axum::body::Body;
use axum::http::{HeaderValue, Request};
use canet_api::{self, Access};
use canet_model::Model;
use canet_serving::{Generation, Recommender, RecommenderOptions};
use futures_util::FutureExt;
use tower::ServiceExt;

use super::server::{POLICY, ROOMY, numbered};
use super::support::{draft, reference, small_config};

#[test]
fn searches_that_wait_hold_no_generation_and_end_with_their_clients() {
    let directory = tempfile::tempdir().unwrap();
    let draft = numbered(draft(small_config(), 11));
    let forward = Arc::new(reference(&draft.config, &draft.weights));
    let checkpoint = draft.write(&directory.path().join("small")).unwrap();
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_all().max_blocking_threads(1).build().unwrap();
    runtime.block_on(async {
        let metrics = Arc::new(canet_api::metrics().unwrap());
        let (recommender, _) = Recommender::start(ROOMY, RecommenderOptions::default(), Arc::clone(&metrics)).unwrap();
        recommender.serve(Generation::new(Model::with_forward(checkpoint, forward), POLICY, &metrics));
        let router = canet_api::app(&recommender, Access::default());
        let search = || {
            let request = Request::get("/items?q=103").body(Body::empty()).unwrap();
            Box::pin(router.clone().oneshot(request))
        };
        // The only thread that searches is busy.
        let (done, busy) = channel::<()>();
        let busy = tokio::task::spawn_blocking(move || busy.recv());
        let generation = recommender.generation().unwrap();
        let before = Arc::strong_count(&generation);
        // Two run and 32 wait. Further ones are refused at once.
        let mut searches: Vec<_> = (0..34).map(|_| search()).collect();
        assert!(searches.iter_mut().all(|search| search.now_or_never().is_none()));
        assert_eq!(Arc::strong_count(&generation) - before, 2);
        let refused = search().await.unwrap();
        assert_eq!((refused.status().as_u16(), &refused.headers()["retry-after"]), (429, &HeaderValue::from(1)));
        // Clients leave: two searches are on their way, the others never begin.
        drop(searches);
        assert_eq!(Arc::strong_count(&generation) - before, 2);
        drop(done);
        assert!(busy.await.unwrap().is_err());
        assert_eq!(search().await.unwrap().status(), 200);
        assert_eq!(Arc::strong_count(&generation), before);
    });
}
