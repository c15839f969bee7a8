//! The most items that the requests of one batch may ask for in total.

use std::sync::Arc;

use canet_api::proto::canet::v1 as proto;
use canet_model::ModelConfig;
use serde_json::{Value, json};

use super::grpc_client::{Ended, Grpc};
use super::server::{ROOMY, Server, numbered};
use super::support::{draft, reference, small_config};

/// The documented limit: `MAX_RANKED` of `canet_api`.
const MOST: u64 = 1 << 18;

const ITEMS: u64 = 5_000;

/// The first request asks for more items than there are. The next ones use up the limit but for a rest. The last three ask
/// for one item more than the rest, for the rest, and for one item. A refused request takes nothing from later ones.
fn asked() -> Vec<u64> {
    let mut asked = vec![ITEMS; 1 + (MOST / ITEMS) as usize];
    asked[0] = MOST;
    asked.extend([MOST % ITEMS + 1, MOST % ITEMS, 1]);
    asked
}

#[test]
fn a_request_that_brings_the_sum_of_k_over_the_bound_is_refused_and_no_other() {
    let draft = numbered(draft(ModelConfig { items: ITEMS as usize, ..small_config() }, 11));
    let forward = reference(&draft.config, &draft.weights);
    let server = Server::with(draft, Arc::new(forward), ROOMY);
    let asked = asked();
    let places: Vec<Option<u64>> = {
        let refused = [0, asked.len() - 3, asked.len() - 1];
        asked.iter().enumerate().map(|(place, k)| (!refused.contains(&place)).then_some(*k)).collect()
    };

    // Popularity answers a history without a known item, which is quick.
    let requests: Vec<Value> = asked.iter().map(|k| json!({"history": [], "k": k})).collect();
    let body = server.client.post("/recommend/batch", &json!({"requests": requests})).json();
    let outcome = |result: &Value| match result["items"].as_array() {
        Some(items) => Some(items.len() as u64),
        None => {
            assert_eq!((&result["code"], &result["field"]), (&json!("invalid_request"), &json!("k")));
            None
        }
    };
    assert_eq!(body["results"].as_array().unwrap().iter().map(outcome).collect::<Vec<_>>(), places);

    let requests: Vec<proto::RecommendRequest> =
        asked.iter().map(|k| proto::RecommendRequest { k: Some(*k), ..Default::default() }).collect();
    let grpc = Grpc::new(&server.recommender);
    let batch = proto::RecommendBatchRequest { requests: requests.clone() };
    let ended: Ended<proto::RecommendBatchResponse> = grpc.call("canet.v1.Recommender/RecommendBatch", &[], &batch);
    let outcome = |result: &proto::RecommendResult| match result.outcome.as_ref().unwrap() {
        proto::recommend_result::Outcome::Recommendation(answer) => Some(answer.items.len() as u64),
        proto::recommend_result::Outcome::Problem(problem) => {
            assert_eq!(problem.field.as_deref(), Some("k"));
            None
        }
    };
    assert_eq!(ended.answers[0].results.iter().map(outcome).collect::<Vec<_>>(), places);

    let stream = proto::RecommendStreamRequest { requests };
    let ended: Ended<proto::RecommendStreamResponse> = grpc.call("canet.v1.Recommender/RecommendStream", &[], &stream);
    let mut answers = ended.answers;
    answers.sort_by_key(|answer| answer.index);
    let found: Vec<_> = answers.iter().map(|answer| outcome(answer.result.as_ref().unwrap())).collect();
    assert_eq!(found, places);
}
