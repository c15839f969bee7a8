//! Thousands of messages that no client should send: each is answered by a fault of the table, and what is sound is
//! answered as ever.

use canet_api::proto::canet::v1 as proto;
use canet_api::proto::inference;
use prost::Message;
use rand::seq::SliceRandom;
use rand::{Rng, RngCore};
use tonic::Code;

use super::grpc_client::{Ended, Grpc, frame};
use super::server::Server;
use super::support::rng;

/// What a client may be told for a message that it got wrong, or happened to get right.
const ALLOWED: [Code; 5] =
    [Code::Ok, Code::InvalidArgument, Code::NotFound, Code::ResourceExhausted, Code::Unimplemented];

/// Flips bits, cuts, repeats, and puts in what parsers stumble over.
fn mutated(sound: &[u8], rng: &mut impl RngCore) -> Vec<u8> {
    let mut bytes = sound.to_vec();
    for _ in 0..rng.gen_range(1..=4) {
        let place = rng.gen_range(0..=bytes.len());
        match rng.gen_range(0..6) {
            0 if place < bytes.len() => bytes[place] ^= 1 << rng.gen_range(0..8),
            1 => bytes.truncate(place),
            // A varint that never ends, and a length that is never there.
            2 => drop(bytes.splice(place..place, [0xff; 11])),
            3 => drop(bytes.splice(place..place, [0x0a, 0xff, 0xff, 0xff, 0xff, 0x0f])),
            4 => drop(bytes.splice(place..place, bytes[place / 2..place].to_vec())),
            // Groups within groups, as deep as they go.
            _ => drop(bytes.splice(place..place, std::iter::repeat_n(0x3b, rng.gen_range(1..200)))),
        }
    }
    bytes
}

#[test]
fn malformed_messages_meet_the_table_and_harm_nobody() {
    let server = Server::start();
    let grpc = Grpc::new(&server.recommender);
    let mut rng = rng(7);
    let one = proto::RecommendRequest {
        history: vec!["101".to_owned(), "102".to_owned()],
        k: Some(3),
        exclude: vec!["103".to_owned()],
        candidates: Some(proto::Candidates { items: vec!["104".to_owned()] }),
        route: "full".to_owned(),
        budget: Some(0.5),
        exclude_seen: Some(true),
        timeout_ms: Some(5_000),
        history_start: Some(7),
        user: Some("ann".to_owned()),
        filter: Some("{}".to_owned()),
        max_per: Default::default(),
    };
    let several = proto::RecommendBatchRequest { requests: vec![one.clone(); 3] };
    let history = inference::model_infer_request::InferInputTensor {
        name: "history".to_owned(),
        datatype: "BYTES".to_owned(),
        shape: vec![1],
        ..Default::default()
    };
    let raw = inference::ModelInferRequest {
        model_name: "small".to_owned(),
        inputs: vec![history.clone()],
        raw_input_contents: vec![b"\x05\0\0\0[101]".to_vec()],
        ..Default::default()
    };
    let contents = inference::InferTensorContents { bytes_contents: vec![b"[101]".to_vec()], ..Default::default() };
    let typed = inference::ModelInferRequest {
        inputs: vec![inference::model_infer_request::InferInputTensor { contents: Some(contents), ..history }],
        raw_input_contents: Vec::new(),
        ..raw.clone()
    };
    let sound = [
        ("inference.GRPCInferenceService/ModelInfer", raw.encode_to_vec()),
        ("inference.GRPCInferenceService/ModelInfer", typed.encode_to_vec()),
        ("canet.v1.Recommender/Recommend", one.encode_to_vec()),
        ("canet.v1.Recommender/RecommendBatch", several.encode_to_vec()),
        ("canet.v1.Recommender/RecommendStream", several.encode_to_vec()),
        ("canet.v1.Recommender/GetModel", Vec::new()),
    ];
    let mut refused = 0;
    for (method, message) in &sound {
        let ended: Ended<Any> = grpc.send(method, &[], &frame(message));
        assert_eq!(ended.status.code(), Code::Ok, "{method}: {ended:?}");
    }
    for round in 0..6_000 {
        let (method, message) = sound.choose(&mut rng).unwrap();
        // The message alone, or its frame too.
        let body = match round % 4 {
            0 => mutated(&frame(message), &mut rng),
            _ => frame(&mutated(message, &mut rng)),
        };
        let ended: Ended<Any> = grpc.send(method, &[], &body);
        assert!(ALLOWED.contains(&ended.status.code()), "{method} {body:?}: {ended:?}");
        refused += usize::from(ended.status.code() != Code::Ok);
    }
    // Neither is all noise refused nor is all of it harmless.
    assert!((1_000..5_900).contains(&refused), "{refused}");
    let ended: Ended<proto::RecommendResponse> = grpc.call("canet.v1.Recommender/Recommend", &[], &one);
    assert_eq!((ended.status.code(), ended.answers[0].items[0].item.as_str()), (Code::Ok, "104"));
    assert_eq!(server.client.calls("grpc", "INTERNAL"), 0.0);
}

/// Any message: its fields are left out.
#[derive(Clone, PartialEq, Message)]
struct Any {}
