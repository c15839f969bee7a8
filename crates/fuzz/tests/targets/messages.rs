//! Messages over gRPC, of both protocols.

use std::collections::BTreeSet;

use canet_api::proto::canet::v1 as proto;
use canet_api::proto::inference;
use canet_fuzz::{Outcome, Seed, Target};
use prost::Message;
use tonic::Code;

use super::server::Server;
use super::{fuzz, target};

/// A message as it is sent: not compressed, its length, its bytes.
fn frame(message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).unwrap();
    [&[0], &length.to_be_bytes()[..], message].concat()
}

fn messages<A: Message + Default>(mut bytes: &[u8]) -> Vec<A> {
    let mut messages = Vec::new();
    while let Some((head, rest)) = bytes.split_at_checked(5) {
        let (message, rest) = rest.split_at(u32::from_be_bytes(head[1..].try_into().unwrap()) as usize);
        messages.push(A::decode(message).unwrap());
        bytes = rest;
    }
    messages
}

fn request() -> proto::RecommendRequest {
    proto::RecommendRequest {
        history: vec!["101".to_owned(), "102".to_owned()],
        k: Some(3),
        exclude: vec!["103".to_owned()],
        candidates: Some(proto::Candidates { items: vec!["104".to_owned(), "105".to_owned()] }),
        route: "full".to_owned(),
        budget: Some(0.5),
        exclude_seen: Some(true),
        timeout_ms: Some(5_000),
        history_start: Some(7),
        user: Some("ann".to_owned()),
        filter: Some("{\"category\":[\"shirts\",\"shoes\"]}".to_owned()),
        max_per: [("category".to_owned(), 2)].into(),
    }
}

/// Fuzzes a method. The messages of the corpus are framed; mutants change the frame or, where their first byte is not 0, get
/// a frame of their own, so that their content is read.
fn fuzz_method(target: &Target, cases: u32, method: &str, check: impl Fn(&Seed, &[u8])) {
    let server = Server::new();
    fuzz(target, cases, |seed| {
        let body = if seed.name.ends_with(".frame") { seed.bytes.clone() } else { frame(&seed.bytes) };
        let (answer, status) = server.call(method, &body);
        match status.code() {
            Code::Ok => {
                check(seed, &answer);
                Outcome::Accepted
            }
            Code::InvalidArgument
            | Code::NotFound
            | Code::ResourceExhausted
            | Code::Unimplemented
            | Code::DeadlineExceeded => {
                assert!(status.message().len() < 4096, "{status:?}");
                Outcome::Refused(status.message().to_owned())
            }
            _ => panic!("{status:?} to {}", seed.bytes.escape_ascii()),
        }
    });
    server.assert_ready();
}

/// Checks an answer against its request.
fn assert_answers(request: &proto::RecommendRequest, answer: &proto::RecommendResponse) {
    let items: BTreeSet<&str> = answer.items.iter().map(|item| item.item.as_str()).collect();
    assert_eq!(items.len(), answer.items.len(), "{answer:?} to {request:?}");
    assert!(items.len() as u64 <= request.k.unwrap_or(10), "{answer:?} to {request:?}");
    assert!(request.exclude.iter().all(|item| !items.contains(item.as_str())), "{answer:?} to {request:?}");
    if let Some(candidates) = &request.candidates {
        let candidates: BTreeSet<&str> = candidates.items.iter().map(String::as_str).collect();
        assert!(items.is_subset(&candidates), "{answer:?} to {request:?}");
    }
}

#[test]
fn grpc_recommend() {
    let plain = proto::RecommendRequest { history: vec!["101".to_owned()], ..Default::default() };
    let target = target("grpc-recommend")
        .seed("all", request().encode_to_vec())
        .seed("plain", plain.encode_to_vec())
        .seed("framed.frame", frame(&request().encode_to_vec()))
        .tokens(&["101", "140", "full", "auto", "{\"not\":{}}", "\u{0}", "category"]);
    fuzz_method(&target, 1000, "canet.v1.Recommender/Recommend", |seed, answer| {
        let answers: Vec<proto::RecommendResponse> = messages(answer);
        assert_eq!(answers.len(), 1);
        if let (false, Ok(request)) =
            (seed.name.ends_with(".frame"), proto::RecommendRequest::decode(seed.bytes.as_slice()))
        {
            assert_answers(&request, &answers[0]);
        }
    });
}

#[test]
fn grpc_batch_and_stream() {
    let batch = proto::RecommendBatchRequest { requests: vec![request(), Default::default(), request()] };
    for (name, method) in [("grpc-batch", "RecommendBatch"), ("grpc-stream", "RecommendStream")] {
        let target = target(name)
            .seed("three", batch.encode_to_vec())
            .seed("framed.frame", frame(&batch.encode_to_vec()))
            .tokens(&["101", "\n\u{0}", "full"]);
        fuzz_method(&target, 500, &format!("canet.v1.Recommender/{method}"), |seed, answer| {
            let Ok(sent) = proto::RecommendBatchRequest::decode(seed.bytes.as_slice()) else { return };
            if seed.name.ends_with(".frame") {
                return;
            }
            // Each row has one answer: of a batch in one message, of a stream in one each.
            let answered = match method {
                "RecommendBatch" => messages::<proto::RecommendBatchResponse>(answer)[0].results.len(),
                _ => messages::<proto::RecommendStreamResponse>(answer).len(),
            };
            assert_eq!(answered, sent.requests.len());
        });
    }
}

#[test]
fn grpc_infer() {
    let tensor = |name: &str, datatype: &str, shape: Vec<i64>| inference::model_infer_request::InferInputTensor {
        name: name.to_owned(),
        datatype: datatype.to_owned(),
        shape,
        ..Default::default()
    };
    let contents = |contents| Some(contents);
    let raw = inference::ModelInferRequest {
        model_name: "small".to_owned(),
        inputs: vec![tensor("history", "BYTES", vec![1]), tensor("k", "INT64", vec![1])],
        raw_input_contents: vec![b"\x05\0\0\0[101]".to_vec(), 3_i64.to_le_bytes().to_vec()],
        ..Default::default()
    };
    let typed = inference::ModelInferRequest {
        model_name: "small".to_owned(),
        inputs: vec![
            inference::model_infer_request::InferInputTensor {
                contents: contents(inference::InferTensorContents {
                    int64_contents: vec![0, 1, 2, 0, 0, 3],
                    ..Default::default()
                }),
                ..tensor("history", "INT64", vec![2, 3])
            },
            inference::model_infer_request::InferInputTensor {
                contents: contents(inference::InferTensorContents {
                    bytes_contents: vec![b"ann".to_vec(), b"bob".to_vec()],
                    ..Default::default()
                }),
                ..tensor("user", "BYTES", vec![2])
            },
        ],
        ..Default::default()
    };
    let target = target("grpc-infer")
        .seed("raw", raw.encode_to_vec())
        .seed("typed", typed.encode_to_vec())
        .seed("framed.frame", frame(&raw.encode_to_vec()))
        .tokens(&[
            "history",
            "history_start",
            "user",
            "BYTES",
            "INT64",
            "FP32",
            "small",
            "items",
            "[101]",
            "\u{5}\0\0\0[101]",
        ]);
    fuzz_method(&target, 1000, "inference.GRPCInferenceService/ModelInfer", |_, answer| {
        for answer in messages::<inference::ModelInferResponse>(answer) {
            assert_eq!(answer.model_name, "small");
        }
    });
}
