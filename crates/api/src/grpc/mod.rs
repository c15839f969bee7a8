//! The gRPC services and their layers. Every error that they return is one of the table in [`Code`].

mod answers;
mod bounds;
mod convert;
mod health;
mod message_answer;
mod observe;
mod recommender;
mod request_body;
mod status;
mod watchers;

use std::sync::Arc;

use axum::extract::Request;
use axum::http::{HeaderValue, header};
use axum::response::IntoResponse;
use axum::{Router, middleware};
use tonic::service::Routes;
use tonic_health::pb::health_server::HealthServer;
use tower::ServiceBuilder;

use crate::access::guard;
use crate::inference::grpc as inference;
use crate::limits::MAX_BODY;
use crate::observe::{CallSeries, Observer};
use crate::proto;
use crate::transport::Transport;
use crate::{ApiKeys, Code, Hosts, Problem};
use canet_serving::Recommender;
use health::Probe;
#[cfg(test)]
pub(crate) use message_answer::MessageAnswer;
use proto::canet::v1::recommender_server::RecommenderServer;
use proto::inference::grpc_inference_service_server::GrpcInferenceServiceServer;
use recommender::Service;
use request_body::Messages;

/// Largest request of the reflection service, which is a name. The service drops each request once it is answered, so
/// nothing can count how much a stream of them holds.
const MAX_REFLECTION_REQUEST: usize = 16 << 10;

/// The descriptors of the services cannot be read.
pub use tonic_reflection::server::Error as DescriptorError;

/// The probes of the Open Inference Protocol. They need no key, like their HTTP counterparts.
const PROBES: [&str; 3] = [
    "/inference.GRPCInferenceService/ServerLive",
    "/inference.GRPCInferenceService/ServerReady",
    "/inference.GRPCInferenceService/ModelReady",
];

/// Every counted method, by its path.
const METHODS: [&str; 10] = [
    "/canet.v1.Recommender/Recommend",
    "/canet.v1.Recommender/RecommendBatch",
    "/canet.v1.Recommender/RecommendStream",
    "/canet.v1.Recommender/GetModel",
    "/inference.GRPCInferenceService/ServerLive",
    "/inference.GRPCInferenceService/ServerReady",
    "/inference.GRPCInferenceService/ModelReady",
    "/inference.GRPCInferenceService/ServerMetadata",
    "/inference.GRPCInferenceService/ModelMetadata",
    "/inference.GRPCInferenceService/ModelInfer",
];

/// How the layers treat a group of services.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Recommends. Needs a key, and is counted. Each call sends one message.
    Api,
    /// Describes the services. Needs a key, but is not counted. A call may send messages without end.
    Reflection,
    /// For everybody, and not counted. Each call sends one message.
    Health,
}

/// Every gRPC service over one recommender. All but probes need one of `keys`, in the metadata with the name of the
/// HTTP header. All are asked under one of the names of `hosts`.
///
/// # Errors
/// [`DescriptorError`] if the compiled descriptors cannot be read.
pub fn app(recommender: &Arc<Recommender>, keys: &ApiKeys, hosts: &Hosts) -> Result<Router, DescriptorError> {
    let calls = CallSeries::several(recommender.metrics(), Transport::Grpc, &METHODS);
    let observer = Observer { recommender: Arc::clone(recommender), calls, refuse: Problem::into_grpc };
    // The layers of a group of services, outermost first, composed into one service.
    let layers = |kind: Kind| {
        let is_open = kind == Kind::Health || keys.is_empty();
        let (keys, hosts) = (keys.clone(), hosts.clone());
        let checks_host = !matches!(hosts, Hosts::Any);
        let check_key = move |request: &Request| {
            if PROBES.contains(&request.uri().path()) { Ok(()) } else { keys.check(request.headers()) }
        };
        let messages = match kind {
            Kind::Reflection => Messages::Endless(Arc::clone(recommender)),
            Kind::Api | Kind::Health => Messages::One,
        };
        let count = (kind == Kind::Api).then(|| middleware::from_fn_with_state(observer.clone(), observe::grpc));
        ServiceBuilder::new()
            // Outermost: what is no gRPC call gets an answer of plain HTTP, and is not counted as a call.
            .layer(guard(check_is_grpc, Problem::into_response))
            // It counts the final answer, and turns panics into errors.
            .option_layer(count)
            // A page can speak gRPC over HTTP/1.
            .option_layer(checks_host.then(|| guard(move |request| hosts.check(request), Problem::into_grpc)))
            .option_layer((!is_open).then(|| guard(check_key, Problem::into_grpc)))
            .map_request(move |request| messages.bound(request))
    };
    let recommender_service = RecommenderServer::new(Service::new(Arc::clone(recommender)));
    let inference_service = GrpcInferenceServiceServer::new(inference::Service::new(Arc::clone(recommender)));
    // The default routes answer calls to unknown services.
    let api = Routes::default()
        .add_service(recommender_service.max_decoding_message_size(MAX_BODY))
        .add_service(inference_service.max_decoding_message_size(MAX_BODY));
    let descriptors = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(proto::DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let reflection = Routes::from(Router::new())
        .add_service(descriptors().build_v1()?.max_decoding_message_size(MAX_REFLECTION_REQUEST))
        .add_service(descriptors().build_v1alpha()?.max_decoding_message_size(MAX_REFLECTION_REQUEST));
    let probe = HealthServer::new(Probe::new(Arc::clone(recommender)));
    let health = Routes::from(Router::new()).add_service(probe.max_decoding_message_size(MAX_BODY));

    let groups = [(health, Kind::Health), (reflection, Kind::Reflection), (api, Kind::Api)];
    let groups = groups.map(|(routes, kind)| routes.into_axum_router().layer(layers(kind)));
    Ok(groups.into_iter().fold(Router::new(), Router::merge))
}

/// # Errors
/// 415 if the content type is not gRPC's, as gRPC's HTTP/2 protocol asks for. A probe or a browser that comes to this port by
/// mistake would take an answer of gRPC for a success.
fn check_is_grpc(request: &Request) -> Result<(), Problem> {
    let content_type = request.headers().get(header::CONTENT_TYPE).map_or(&[][..], HeaderValue::as_bytes);
    match content_type.strip_prefix(b"application/grpc") {
        Some([] | [b'+' | b';' | b' ', ..]) => Ok(()),
        _ => {
            let detail =
                "this port speaks gRPC, with the content type application/grpc: send other requests to the HTTP port";
            Err(Problem::new(Code::UnsupportedMediaType, detail))
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::body::Body;
    use axum::extract::Request;
    use axum::http::{HeaderMap, StatusCode};
    use http_body_util::BodyExt;
    use tonic::Code;
    use tower::ServiceExt;

    use super::{METHODS, app};
    use crate::testing::Fixture;
    use crate::{ApiKeys, Hosts, observe};

    /// Sends one empty message. Returns the status, and whether the call was counted.
    async fn call(app: &Router, path: &str, headers: &[(&str, &str)]) -> (Code, bool) {
        let request = Request::post(path).header("content-type", "application/grpc").header("te", "trailers");
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        let response = app.clone().oneshot(request.body(Body::from(vec![0; 5])).unwrap()).await.unwrap();
        let is_counted = response.headers().contains_key(observe::REQUEST_ID);
        let status = |headers: &HeaderMap| Some(Code::from_bytes(headers.get("grpc-status")?.as_bytes()));
        let in_headers = status(response.headers());
        let trailers = response.into_body().collect().await.unwrap();
        (in_headers.or_else(|| status(trailers.trailers()?)).unwrap(), is_counted)
    }

    #[test]
    fn every_method_of_the_protocols_is_counted() {
        let protocols = [
            include_str!("../../../../proto/canet/v1/recommender.proto"),
            include_str!("../../../../proto/inference/open_inference.proto"),
        ];
        let name = |line: &str, keyword: &str| -> Option<String> {
            let name = line.trim().strip_prefix(keyword)?.trim_start().split(['(', ' ', ';']).next()?;
            Some(name.to_owned())
        };
        let mut methods = Vec::new();
        for protocol in protocols {
            let named = |keyword: &str| protocol.lines().find_map(|line| name(line, keyword)).unwrap();
            let (package, service) = (named("package "), named("service "));
            let calls = protocol.lines().filter_map(|line| name(line, "rpc "));
            methods.extend(calls.map(|method| format!("/{package}.{service}/{method}")));
        }
        assert_eq!(methods, METHODS);
    }

    #[tokio::test]
    async fn what_is_no_grpc_call_gets_415() {
        let app = app(&Fixture::new().recommender, &ApiKeys::default(), &Hosts::Any).unwrap();
        for path in ["/readyz", "/canet.v1.Recommender/GetModel", "/grpc.health.v1.Health/Check"] {
            for (content_type, is_grpc) in [
                ("", false),
                ("application/json", false),
                ("application/grpc-web", false),
                ("application/grpc", true),
                ("application/grpc+proto", true),
                ("application/grpc;charset=utf-8", true),
            ] {
                let request = Request::post(path).header("content-type", content_type).header("te", "trailers");
                let response = app.clone().oneshot(request.body(Body::from(vec![0; 5])).unwrap()).await.unwrap();
                let status = if is_grpc { StatusCode::OK } else { StatusCode::UNSUPPORTED_MEDIA_TYPE };
                assert_eq!(response.status(), status, "{path} {content_type:?}");
                assert!(is_grpc || !response.headers().contains_key("grpc-status"));
            }
        }
    }

    #[tokio::test]
    async fn every_service_stands_behind_its_layers() {
        let fixture = Fixture::new();
        let app = app(&fixture.recommender, &ApiKeys::new(["key"]), &Hosts::Any).unwrap();
        for (path, code, is_counted) in [
            ("/canet.v1.Recommender/GetModel", Code::Unavailable, true),
            ("/inference.GRPCInferenceService/ServerMetadata", Code::Ok, true),
            ("/nowhere.Nothing/None", Code::Unimplemented, true),
            ("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", Code::InvalidArgument, false),
        ] {
            assert_eq!(call(&app, path, &[]).await, (Code::Unauthenticated, is_counted), "{path}");
            assert_eq!(call(&app, path, &[("x-api-key", "key")]).await, (code, is_counted), "{path}");
        }
        for (path, is_counted) in [
            ("/inference.GRPCInferenceService/ServerLive", true),
            ("/inference.GRPCInferenceService/ServerReady", true),
            ("/inference.GRPCInferenceService/ModelReady", true),
            ("/grpc.health.v1.Health/Check", false),
        ] {
            assert_eq!(call(&app, path, &[]).await, (Code::Ok, is_counted), "{path}");
        }
    }

    #[tokio::test]
    async fn every_service_asks_for_the_host_if_the_server_does() {
        let fixture = Fixture::new();
        let app = app(&fixture.recommender, &ApiKeys::default(), &Hosts::local(&[]).unwrap()).unwrap();
        for path in [
            "/canet.v1.Recommender/GetModel",
            "/inference.GRPCInferenceService/ServerLive",
            "/grpc.health.v1.Health/Check",
            "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
            "/nowhere.Nothing/None",
        ] {
            assert_eq!(call(&app, path, &[("host", "shop.example")]).await.0, Code::PermissionDenied, "{path}");
            assert_ne!(call(&app, path, &[("host", "localhost:8081")]).await.0, Code::PermissionDenied, "{path}");
        }
    }
}
