//! A catalogue of fewer items than are answered by default.

use std::sync::Arc;

use canet_api::proto::canet::v1 as proto;
use canet_model::ModelConfig;
use serde_json::json;

use super::grpc_client::{Ended, Grpc};
use super::server::{ROOMY, Server, numbered};
use super::support::{draft, reference, small_config};

fn four_items() -> Server {
    let draft = numbered(draft(ModelConfig { items: 4, ..small_config() }, 11));
    let forward = reference(&draft.config, &draft.weights);
    Server::with(draft, Arc::new(forward), ROOMY)
}

#[test]
fn by_default_all_of_it_is_answered_whatever_the_transport() {
    let server = four_items();
    let request = json!({"history": [101], "exclude_seen": false});
    let reply = server.client.recommend(&request);
    assert_eq!((reply.status, reply.items().len()), (200, 4), "{reply:?}");
    let batch = server.client.post("/recommend/batch", &json!({"requests": [request, {"history": []}]})).json();
    for answer in batch["results"].as_array().unwrap() {
        assert_eq!(answer["items"].as_array().map(Vec::len), Some(4), "{batch}");
    }

    let message = proto::RecommendRequest {
        history: vec!["101".to_owned()],
        exclude_seen: Some(false),
        ..proto::RecommendRequest::default()
    };
    let grpc = Grpc::new(&server.recommender);
    let ended: Ended<proto::RecommendResponse> = grpc.call("canet.v1.Recommender/Recommend", &[], &message);
    assert_eq!(ended.answers.iter().map(|answer| answer.items.len()).collect::<Vec<_>>(), [4], "{:?}", ended.status);

    let history = json!({"name": "history", "datatype": "BYTES", "shape": [1], "data": ["[101]"]});
    let inferred = server.client.post("/v2/models/small/infer", &json!({"inputs": [history]})).json();
    assert_eq!(inferred["outputs"][0]["shape"], json!([1, 4]), "{inferred}");
}

#[test]
fn more_than_it_has_is_refused_and_the_document_says_so() {
    let server = four_items();
    let reply = server.client.recommend(&json!({"history": [101], "k": 5}));
    assert_eq!((reply.status, &reply.json()["field"]), (422, &json!("k")));
    // `null` stands for a field that is not given.
    assert_eq!(server.client.recommend(&json!({"history": [101], "k": null})).status, 200);
    let document = server.client.get("/openapi.json").json();
    let k = document.pointer("/components/schemas/RecommendRequest/properties/k").unwrap();
    assert_eq!((&k["type"], &k["default"], &k["maximum"]), (&json!(["integer", "null"]), &json!(4), &json!(4)), "{k}");
}
