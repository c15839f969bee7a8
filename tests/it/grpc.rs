//! What a client sees over gRPC: the answers of `/recommend`, deadlines, errors of the one table, and readiness.

use std::collections::HashSet;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::body::HttpBody;
use canet_api::proto::canet::v1 as proto;
use canet_api::proto::inference;
use canet_api::{self, ApiKeys, Hosts};
use canet_model::Model;
use canet_model::checkpoint::CheckpointDraft;
use canet_serving::{Generation, Limits, Recommender, RecommenderOptions};
use prost::Message;
use serde_json::{Value, json};
use tonic::Code;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};
use tonic_types::StatusExt;

use super::grpc_client::{Ended, Grpc, frame, request};
use super::server::{POLICY, ROOMY, Server, numbered};
use super::serving::{Verdict, ask, gated_under, wait_until_queued};
use super::support::{draft, reference, small_config};

const RECOMMEND: &str = "canet.v1.Recommender/Recommend";
const BATCH: &str = "canet.v1.Recommender/RecommendBatch";
const STREAM: &str = "canet.v1.Recommender/RecommendStream";

fn history(ids: &[u32]) -> proto::RecommendRequest {
    proto::RecommendRequest { history: ids.iter().map(u32::to_string).collect(), ..proto::RecommendRequest::default() }
}

/// The same request as `/recommend` takes it.
fn as_json(request: &proto::RecommendRequest) -> Value {
    let mut body = json!({"history": request.history, "exclude": request.exclude});
    let fields = body.as_object_mut().unwrap();
    let mut set = |name: &str, value: Option<Value>| drop(value.map(|value| fields.insert(name.to_owned(), value)));
    set("k", request.k.map(Value::from));
    set("exclude_seen", request.exclude_seen.map(Value::from));
    set("candidates", request.candidates.as_ref().map(|candidates| json!(candidates.items)));
    set("route", (!request.route.is_empty()).then(|| json!(request.route)));
    set("timeout_ms", request.timeout_ms.map(Value::from));
    body
}

fn assert_same(answer: &proto::RecommendResponse, expected: &Value) {
    let items = expected["items"].as_array().unwrap();
    assert_eq!(answer.items.len(), items.len());
    for (found, expected) in answer.items.iter().zip(items) {
        assert_eq!((json!(found.item), json!(found.title)), (expected["item"].clone(), expected["title"].clone()));
        assert!((found.score - expected["score"].as_f64().unwrap()).abs() < 1e-5);
    }
    let route = answer.route.as_ref().unwrap();
    assert_eq!(
        (json!(route.name), json!(route.reason)),
        (expected["route"]["name"].clone(), expected["route"]["reason"].clone())
    );
    assert_eq!(route.confidence.is_some(), !expected["route"]["confidence"].is_null());
    let compute = answer.compute.as_ref().unwrap();
    assert_eq!(
        json!([compute.flops, compute.full_flops]),
        json!([expected["compute"]["flops"], expected["compute"]["full_flops"]])
    );
    assert!((compute.saved - expected["compute"]["saved"].as_f64().unwrap()).abs() < 1e-12);
    let model = answer.model.as_ref().unwrap();
    assert_eq!(json!({"name": model.name, "version": model.version}), expected["model"]);
    let read = answer.history.as_ref().unwrap();
    assert_eq!(json!({"used": read.used, "unknown": read.unknown}), expected["history"]);
}

fn requests() -> Vec<proto::RecommendRequest> {
    let only = |ids: &[&str]| proto::Candidates { items: ids.iter().map(|id| (*id).to_owned()).collect() };
    vec![
        history(&[103, 131, 107]),
        proto::RecommendRequest { k: Some(40), exclude_seen: Some(false), ..history(&[140]) },
        proto::RecommendRequest { route: "full".to_owned(), exclude: vec!["102".to_owned()], ..history(&[101, 999]) },
        proto::RecommendRequest { candidates: Some(only(&["104", "105"])), ..history(&[101]) },
        proto::RecommendRequest { candidates: Some(only(&[])), ..history(&[101]) },
        proto::RecommendRequest { k: Some(3), timeout_ms: Some(5_000), ..history(&[]) },
    ]
}

#[test]
fn an_answer_is_that_of_rest_in_every_field() {
    let server = Server::start();
    let grpc = Grpc::new(&server.recommender);
    for request in requests() {
        let ended: Ended<proto::RecommendResponse> = grpc.call(RECOMMEND, &[], &request);
        assert_eq!((ended.status.code(), ended.answers.len()), (Code::Ok, 1), "{ended:?}");
        assert_same(&ended.answers[0], &server.client.recommend(&as_json(&request)).json());
    }
}

/// A checkpoint's own rule for items of the history, and the route that a server pins, hold over gRPC too.
#[test]
fn defaults_of_the_checkpoint_and_of_the_server_apply() {
    let draft = CheckpointDraft { exclude_seen: false, ..numbered(draft(small_config(), 11)) };
    let forward = Arc::new(reference(&draft.config, &draft.weights));
    let server = Server::with(draft, forward, ROOMY);
    let generation = server.recommender.generation().unwrap();
    let fixed_route = generation.model.space().named("h8-l2-e6");
    let pinned =
        Generation { fixed_route, ..Generation::new(generation.model.clone(), POLICY, server.recommender.metrics()) };
    server.recommender.serve(pinned);
    let grpc = Grpc::new(&server.recommender);
    let all = proto::RecommendRequest { k: Some(40), ..history(&[101, 102]) };
    let excluding = proto::RecommendRequest { exclude_seen: Some(true), ..all.clone() };
    for (request, items) in [(all, 40), (excluding, 38)] {
        let ended: Ended<proto::RecommendResponse> = grpc.call(RECOMMEND, &[], &request);
        let route = ended.answers[0].route.as_ref().unwrap();
        assert_eq!((ended.answers[0].items.len(), route.reason.as_str()), (items, "fixed"));
        assert_same(&ended.answers[0], &server.client.recommend(&as_json(&request)).json());
    }
    let ended: Ended<proto::GetModelResponse> =
        grpc.call("canet.v1.Recommender/GetModel", &[], &proto::GetModelRequest {});
    assert_eq!((ended.answers[0].exclude_seen, ended.answers[0].fixed_route.as_deref()), (false, Some("h8-l2-e6")));
}

#[test]
fn a_batch_and_a_stream_answer_every_request_and_fail_row_by_row() {
    let server = Server::start();
    let grpc = Grpc::new(&server.recommender);
    let mut requests = requests();
    requests.insert(2, proto::RecommendRequest { k: Some(0), ..history(&[101]) });
    let check = |index: usize, result: Option<&proto::RecommendResult>| {
        use proto::recommend_result::Outcome;
        match result.unwrap().outcome.as_ref().unwrap() {
            Outcome::Recommendation(answer) => {
                assert_same(answer, &server.client.recommend(&as_json(&requests[index])).json());
            }
            Outcome::Problem(problem) => {
                let found = (index, problem.status, problem.code.as_str(), problem.field.as_deref());
                assert_eq!(found, (2, Code::InvalidArgument as i32, "invalid_request", Some("k")));
            }
        }
    };
    let batch = proto::RecommendBatchRequest { requests: requests.clone() };
    let ended: Ended<proto::RecommendBatchResponse> = grpc.call(BATCH, &[], &batch);
    assert_eq!(ended.answers[0].results.len(), requests.len());
    ended.answers[0].results.iter().enumerate().for_each(|(index, result)| check(index, Some(result)));

    let stream = proto::RecommendStreamRequest { requests: requests.clone() };
    let ended: Ended<proto::RecommendStreamResponse> = grpc.call(STREAM, &[], &stream);
    assert_eq!(ended.status.code(), Code::Ok);
    let places: HashSet<u32> = ended.answers.iter().map(|answer| answer.index).collect();
    assert_eq!((places.len(), ended.answers.len()), (requests.len(), requests.len()));
    ended.answers.iter().for_each(|answer| check(answer.index as usize, answer.result.as_ref()));

    let many = proto::RecommendBatchRequest { requests: vec![history(&[]); 1025] };
    let ended: Ended<proto::RecommendBatchResponse> = grpc.call(BATCH, &[], &many);
    assert_fault(&ended, Code::InvalidArgument, "INVALID_REQUEST", Some("requests"));
}

#[test]
fn the_model_is_that_of_rest() {
    let server = Server::start();
    let ended: Ended<proto::GetModelResponse> =
        Grpc::new(&server.recommender).call("canet.v1.Recommender/GetModel", &[], &proto::GetModelRequest {});
    let model = &ended.answers[0];
    let (described, routes) = (server.client.get("/model").json(), server.client.get("/routes").json());
    assert_eq!(
        (json!(model.digest), json!(model.created)),
        (described["digest"].clone(), described["created"].clone())
    );
    assert_eq!((model.items, model.max_len), (40, 12));
    assert_eq!(json!(model.full_flops), routes["full_flops"]);
    for (found, expected) in model.routes.iter().zip(routes["routes"].as_array().unwrap()) {
        assert_eq!((json!(found.name), json!(found.flops)), (expected["name"].clone(), expected["flops"].clone()));
    }
    assert_eq!(model.routes.len(), 24);
}

#[test]
fn metadata_carries_the_request_id_the_trace_and_the_times() {
    let server = Server::start();
    let grpc = Grpc::new(&server.recommender);
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let headers = [("x-request-id", "mine-1"), ("traceparent", trace)];
    for (message, code) in [(history(&[101]), Code::Ok), (history(&[]), Code::Ok), (wrong(), Code::InvalidArgument)] {
        let ended: Ended<proto::RecommendResponse> = grpc.call(RECOMMEND, &headers, &message);
        assert_eq!(ended.status.code(), code);
        assert_eq!(ended.headers["x-request-id"], "mine-1");
        assert_eq!(ended.headers["traceparent"].to_str().unwrap().split('-').nth(1), trace.split('-').nth(1));
        assert!(ended.headers["server-timing"].to_str().unwrap().starts_with("queue;dur="));
    }
}

fn wrong() -> proto::RecommendRequest {
    proto::RecommendRequest { k: Some(41), ..history(&[101]) }
}

fn assert_fault<A: std::fmt::Debug>(ended: &Ended<A>, code: Code, reason: &str, field: Option<&str>) {
    assert_eq!(ended.status.code(), code, "{ended:?}");
    let info = ended.status.get_details_error_info().unwrap_or_else(|| panic!("no details: {ended:?}"));
    assert_eq!((info.reason.as_str(), info.domain.as_str()), (reason, "canet"));
    let named = ended.status.get_details_bad_request().map(|bad| bad.field_violations[0].field.clone());
    assert_eq!(named.as_deref(), field);
    assert!(ended.answers.is_empty());
}

#[test]
fn faults_are_of_the_one_table_and_name_the_field() {
    let server = Server::start();
    let grpc = Grpc::new(&server.recommender);
    let ask =
        |request: &proto::RecommendRequest| -> Ended<proto::RecommendResponse> { grpc.call(RECOMMEND, &[], request) };
    let long = "r".repeat(100_000);
    for (request, field) in [
        (proto::RecommendRequest { k: Some(0), ..history(&[101]) }, "k"),
        (wrong(), "k"),
        (proto::RecommendRequest { timeout_ms: Some(60_001), ..history(&[101]) }, "timeout_ms"),
        (proto::RecommendRequest { budget: Some(f64::NAN), ..history(&[101]) }, "budget"),
        (proto::RecommendRequest { route: long, ..history(&[101]) }, "route"),
    ] {
        let ended = ask(&request);
        assert_fault(&ended, Code::InvalidArgument, "INVALID_REQUEST", Some(field));
        // Clients take no more than 8 KiB of metadata.
        assert!(ended.headers.values().map(axum::http::HeaderValue::len).sum::<usize>() < 8_000);
    }
    let send = |method: &str, headers: &[(&str, &str)], body: &[u8]| -> Ended<proto::RecommendResponse> {
        grpc.send(method, headers, body)
    };
    let good = frame(&history(&[101]).encode_to_vec());
    let large = proto::RecommendRequest { exclude: vec!["x".repeat(1 << 20)], ..history(&[101]) };
    assert_fault(&ask(&large), Code::ResourceExhausted, "TOO_LARGE", None);
    assert_fault(&send("canet.v1.Recommender/Fly", &[], &good), Code::Unimplemented, "METHOD_NOT_ALLOWED", None);
    assert_fault(&send("nobody.Knows/It", &[], &good), Code::Unimplemented, "METHOD_NOT_ALLOWED", None);
    let zipped = send(RECOMMEND, &[("grpc-encoding", "gzip")], &good);
    assert_fault(&zipped, Code::Unimplemented, "UNSUPPORTED_MEDIA_TYPE", None);
    // Nothing, half a message, a string that is not UTF-8, a field of another type.
    for body in [&b""[..], &good[..good.len() - 1], &frame(b"\x0a\x01\xff"), &frame(b"\x12\x01\x01"), b"\x00"] {
        assert_fault(&send(RECOMMEND, &[], body), Code::InvalidArgument, "INVALID_REQUEST", None);
    }
}

#[test]
fn the_calls_deadline_tightens_the_requests() {
    let server = Server::start();
    let grpc = Grpc::new(&server.recommender);
    let ask = |timeout: &str| -> Ended<proto::RecommendResponse> {
        grpc.call(RECOMMEND, &[("grpc-timeout", timeout)], &history(&[101]))
    };
    // Past before it could be read.
    assert_fault(&ask("1n"), Code::DeadlineExceeded, "DEADLINE_EXCEEDED", None);
    for roomy in ["99999999H", "10S", "1M", "60000m", "60000000u"] {
        assert_eq!(ask(roomy).status.code(), Code::Ok, "{roomy}");
    }
    for bad in ["", "S", "5", "-5S", "123456789S", "1.5S", "5s", "5\u{e9}"] {
        assert_fault(&ask(bad), Code::InvalidArgument, "INVALID_REQUEST", Some("grpc-timeout"));
    }
    let stream = proto::RecommendStreamRequest { requests: vec![history(&[101])] };
    let late: Ended<proto::RecommendStreamResponse> = grpc.call(STREAM, &[("grpc-timeout", "1n")], &stream);
    let result = late.answers[0].result.as_ref().unwrap().outcome.as_ref().unwrap();
    assert!(
        matches!(result, proto::recommend_result::Outcome::Problem(problem) if problem.code == "deadline_exceeded")
    );
}

#[test]
fn calls_are_counted_by_the_name_of_their_code() {
    let server = Server::start();
    let grpc = Grpc::new(&server.recommender);
    let counted = |code: &str| server.client.calls("grpc", code);
    let codes = ["OK", "INVALID_ARGUMENT", "CANCELLED", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL"];
    assert_eq!(codes.map(counted), [0.0; 6]);
    let _: Ended<proto::RecommendResponse> = grpc.call(RECOMMEND, &[], &history(&[101]));
    let _: Ended<proto::RecommendResponse> = grpc.call(RECOMMEND, &[], &wrong());
    let stream = proto::RecommendStreamRequest { requests: vec![history(&[101]); 3] };
    let _: Ended<proto::RecommendStreamResponse> = grpc.call(STREAM, &[], &stream);
    // A client that leaves before it has read the answer.
    let body = frame(&stream.encode_to_vec());
    let left = grpc.runtime.block_on(tower::ServiceExt::oneshot(grpc.router.clone(), request(STREAM, &[], &body)));
    assert_eq!(server.client.metric("requests_in_flight"), 1.0);
    drop(left);
    assert_eq!(server.client.metric("requests_in_flight"), 0.0);
    let _: Ended<HealthCheckResponse> = grpc.call("grpc.health.v1.Health/Check", &[], &HealthCheckRequest::default());
    assert_eq!(codes.map(counted), [2.0, 1.0, 1.0, 0.0, 0.0, 0.0]);
    let durations = |endpoint: &str| {
        let series = format!("request_duration_seconds_count{{endpoint=\"{endpoint}\",transport=\"grpc\"}}");
        server.client.metric(&series)
    };
    assert_eq!(durations("/canet.v1.Recommender/Recommend"), 2.0);
    assert_eq!(durations("/canet.v1.Recommender/RecommendStream"), 2.0);
}

#[test]
fn the_health_service_says_what_readyz_says() {
    use futures_util::StreamExt;
    use tonic_health::pb::health_client::HealthClient;
    let directory = tempfile::tempdir().unwrap();
    let draft = numbered(draft(small_config(), 11));
    let forward = Arc::new(reference(&draft.config, &draft.weights));
    let checkpoint = draft.write(&directory.path().join("small")).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let metrics = Arc::new(canet_api::metrics().unwrap());
        let (recommender, _) = Recommender::start(ROOMY, RecommenderOptions::default(), Arc::clone(&metrics)).unwrap();
        let mut health =
            HealthClient::new(canet_api::grpc::app(&recommender, &ApiKeys::default(), &Hosts::Any).unwrap());
        let of = |service: &str| HealthCheckRequest { service: service.to_owned() };
        let mut watched = health.watch(of("canet.v1.Recommender")).await.unwrap().into_inner();
        let mut next = async || watched.next().await.map(|answer| answer.unwrap().status());
        for service in ["", "canet.v1.Recommender"] {
            let answer = health.check(of(service)).await.unwrap().into_inner();
            assert_eq!(answer.status(), ServingStatus::NotServing);
        }
        assert_eq!(next().await, Some(ServingStatus::NotServing));
        recommender.serve(Generation::new(Model::with_forward(checkpoint, forward), POLICY, &metrics));
        assert_eq!(next().await, Some(ServingStatus::Serving));
        assert_eq!(health.check(of("")).await.unwrap().into_inner().status(), ServingStatus::Serving);
        let mut unknown = health.watch(of("nobody")).await.unwrap().into_inner();
        assert_eq!(unknown.next().await.unwrap().unwrap().status(), ServingStatus::ServiceUnknown);
        assert_eq!(health.check(of("nobody")).await.unwrap_err().code(), Code::NotFound);
        recommender.drain();
        assert_eq!(next().await, Some(ServingStatus::NotServing));
        // Else their connections would keep the server from stopping.
        assert_eq!(next().await, None);
        assert!(unknown.next().await.is_none());
    });
}

#[test]
fn health_watches_of_a_connection_are_bounded_and_leave_their_places() {
    use axum::extract::ConnectInfo;
    use tonic_health::pb::health_client::HealthClient;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let metrics = Arc::new(canet_api::metrics().unwrap());
        let (recommender, _) = Recommender::start(ROOMY, RecommenderOptions::default(), metrics).unwrap();
        let app = canet_api::grpc::app(&recommender, &ApiKeys::default(), &Hosts::Any).unwrap();
        let [mut greedy, mut other] = [1, 2].map(|port| {
            let client = ConnectInfo(std::net::SocketAddr::from(([127, 0, 0, 1], port)));
            HealthClient::new(app.clone().layer(axum::Extension(client)))
        });
        let mut open = Vec::new();
        for _ in 0..4 {
            open.push(greedy.watch(HealthCheckRequest::default()).await.unwrap());
        }
        let refused = greedy.watch(HealthCheckRequest::default()).await.unwrap_err();
        assert_eq!((refused.code(), refused.metadata().get("retry-after").is_some()), (Code::ResourceExhausted, true));
        assert!(greedy.check(HealthCheckRequest::default()).await.is_ok());
        assert!(other.watch(HealthCheckRequest::default()).await.is_ok());
        open.pop();
        assert!(greedy.watch(HealthCheckRequest::default()).await.is_ok());
    });
}

#[test]
fn values_of_a_tensor_in_the_field_of_another_data_type_are_refused_with_both_fields() {
    use inference::InferTensorContents as Contents;
    let server = Server::start();
    let grpc = Grpc::new(&server.recommender);
    let infer = |name: &str, datatype: &str, shape: &[i64], contents: Contents| {
        let tensor =
            |name: &str, datatype: &str, shape: &[i64], contents| inference::model_infer_request::InferInputTensor {
                name: name.to_owned(),
                datatype: datatype.to_owned(),
                shape: shape.to_vec(),
                contents: Some(contents),
                ..Default::default()
            };
        let history = Contents { bytes_contents: vec![b"[101]".to_vec()], ..Default::default() };
        let history = (name != "history").then(|| tensor("history", "BYTES", &[1], history));
        let sent = tensor(name, datatype, shape, contents);
        let request = inference::ModelInferRequest {
            model_name: "small".to_owned(),
            inputs: history.into_iter().chain([sent]).collect(),
            ..Default::default()
        };
        let ended: Ended<inference::ModelInferResponse> =
            grpc.call("inference.GRPCInferenceService/ModelInfer", &[], &request);
        ended
    };
    let sent = |field: &str| match field {
        "bool_contents" => Contents { bool_contents: vec![true], ..Default::default() },
        "int_contents" => Contents { int_contents: vec![3], ..Default::default() },
        "int64_contents" => Contents { int64_contents: vec![3], ..Default::default() },
        "uint_contents" => Contents { uint_contents: vec![3], ..Default::default() },
        "uint64_contents" => Contents { uint64_contents: vec![3], ..Default::default() },
        "fp32_contents" => Contents { fp32_contents: vec![3.0], ..Default::default() },
        "fp64_contents" => Contents { fp64_contents: vec![3.0], ..Default::default() },
        "bytes_contents" => Contents { bytes_contents: vec![b"[101]".to_vec()], ..Default::default() },
        _ => unreachable!("{field}"),
    };
    let others =
        ["bool_contents", "int_contents", "uint_contents", "uint64_contents", "fp32_contents", "fp64_contents"];
    for (name, datatype, needed, wrong) in
        [("k", "INT64", "int64_contents", "bytes_contents"), ("history", "BYTES", "bytes_contents", "int64_contents")]
    {
        assert_eq!(infer(name, datatype, &[1], sent(needed)).status.code(), Code::Ok, "{needed}");
        for other in others.into_iter().chain([wrong]) {
            let ended = infer(name, datatype, &[1], sent(other));
            assert_fault(&ended, Code::InvalidArgument, "INVALID_REQUEST", Some(name));
            let words = format!("its data type {datatype} needs `{needed}`, but `{other}` has values");
            assert!(ended.status.message().contains(&words), "{words}: {}", ended.status.message());
        }
    }
    // Values in the right field do not excuse others.
    let both = Contents { int_contents: vec![3], ..sent("int64_contents") };
    assert!(infer("k", "INT64", &[1], both).status.message().contains("`int_contents`"));
    let none = infer("k", "INT64", &[1], Contents::default());
    assert!(none.status.message().contains("shape"), "{}", none.status.message());
    let unknown = infer("k", "INT32", &[1], sent("int_contents"));
    assert!(unknown.status.message().contains("use BYTES or INT64"), "{}", unknown.status.message());
}

#[test]
fn an_overloaded_server_says_when_to_come_back() {
    use proto::recommend_result::Outcome;
    // Less than anything takes: one row may wait behind the one that runs.
    let (server, keeper) = gated_under(POLICY, Limits { queue_limit: Duration::from_nanos(1), ..ROOMY });
    let running = ask(&server, json!({"history": [101]}));
    keeper.batch();
    let waiting = ask(&server, json!({"history": [101]}));
    wait_until_queued(&server, 1);
    let grpc = Grpc::new(&server.recommender);
    let ended: Ended<proto::RecommendResponse> = grpc.call(RECOMMEND, &[], &history(&[101]));
    assert_fault(&ended, Code::ResourceExhausted, "OVERLOADED", None);
    assert_eq!(ended.headers["retry-after"], "1");
    let delay = ended.status.get_details_retry_info().unwrap().retry_delay;
    assert_eq!(delay, Some(Duration::from_secs(1)));

    let batch = proto::RecommendBatchRequest { requests: vec![history(&[101]), history(&[])] };
    let ended: Ended<proto::RecommendBatchResponse> = grpc.call(BATCH, &[], &batch);
    assert_eq!((ended.status.code(), &ended.headers["retry-after"]), (Code::Ok, &"1".parse().unwrap()));
    let outcomes = ended.answers[0].results.iter().map(|result| result.outcome.as_ref().unwrap());
    let refused = outcomes.map(|outcome| match outcome {
        Outcome::Problem(problem) => Some((problem.status, problem.retry_after)),
        Outcome::Recommendation(_) => None,
    });
    assert_eq!(refused.collect::<Vec<_>>(), [Some((Code::ResourceExhausted as i32, Some(1))), None]);
    keeper.open(Verdict::Run);
    keeper.open(Verdict::Run);
    assert_eq!([running, waiting].map(|asked| asked.join().unwrap().status), [200, 200]);
}

#[test]
fn a_stream_answers_what_is_ready_before_what_is_not() {
    let (server, keeper) = gated_under(POLICY, ROOMY);
    let grpc = Grpc::new(&server.recommender);
    // The first waits at the gate, the second needs no device.
    let stream = proto::RecommendStreamRequest { requests: vec![history(&[101]), history(&[])] };
    let call = request(STREAM, &[], &frame(&stream.encode_to_vec()));
    let response = grpc.runtime.block_on(tower::ServiceExt::oneshot(grpc.router.clone(), call)).unwrap();
    let mut body = response.into_body();
    let mut next = || {
        let frame = grpc.runtime.block_on(poll_fn(|context| Pin::new(&mut body).poll_frame(context)));
        let data = frame.unwrap().unwrap().into_data().unwrap();
        proto::RecommendStreamResponse::decode(&data[5..]).unwrap().index
    };
    assert_eq!(next(), 1);
    keeper.batch();
    keeper.open(Verdict::Run);
    assert_eq!(next(), 0);
}
