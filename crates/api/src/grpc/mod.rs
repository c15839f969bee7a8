//! gRPC: the services, and what makes every fault one of the table's.

mod answers;
mod codec;
mod convert;
mod count;
mod cut;
mod deadline;
mod health;
mod recommender;
mod status;

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use axum::{Router, middleware};
use tonic::service::Routes;
use tonic_health::pb::health_server::HealthServer;

use crate::inference::grpc as inference;
use crate::{ApiKeys, body};
use canet_serving::Recommender;
use health::Probe;
use proto::canet::v1::recommender_server::RecommenderServer;
use proto::inference::grpc_inference_service_server::GrpcInferenceServiceServer;
use recommender::Service;

/// The messages as they are sent, made from `proto`.
#[allow(
    clippy::all,
    clippy::allow_attributes_without_reason,
    missing_docs,
    unused_qualifications,
    unreachable_pub,
    reason = "generated code"
)]
pub mod proto {
    /// Of `proto/canet`.
    pub mod canet {
        /// Version 1.
        pub mod v1 {
            tonic::include_proto!("canet.v1");
        }
    }

    /// Of `proto/inference`.
    pub mod inference {
        tonic::include_proto!("inference");
    }

    /// Every service's descriptors, for the reflection service.
    pub(super) const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/services.bin"));
}

/// Largest request of the reflection service: it is a name. Each is dropped when it is answered, so that how much a
/// stream of them holds cannot be counted.
const DESCRIBED_LIMIT: usize = 16 << 10;

/// Why the reflection service could not be made from the services' descriptors.
pub use tonic_reflection::server::Error as DescriptorError;

/// The inference protocol's probes, which need no key over HTTP either.
const PROBES: [&str; 3] = [
    "/inference.GRPCInferenceService/ServerLive",
    "/inference.GRPCInferenceService/ServerReady",
    "/inference.GRPCInferenceService/ModelReady",
];

/// Every gRPC service over one recommender; all but probes ask for one of `keys`, where there are any, in the metadata
/// that HTTP calls headers.
///
/// # Errors
/// [`DescriptorError`] where the descriptors that were compiled in cannot be read.
pub fn router(recommender: &Arc<Recommender>, keys: &ApiKeys) -> Result<Router, DescriptorError> {
    let guard = middleware::from_fn_with_state(keys.clone(), check_key);
    let recommendations = RecommenderServer::new(Service::new(Arc::clone(recommender)));
    let inference = GrpcInferenceServiceServer::new(inference::Service::new(Arc::clone(recommender)));
    let watched = Routes::new(recommendations.max_decoding_message_size(body::LIMIT))
        .add_service(inference.max_decoding_message_size(body::LIMIT))
        .into_axum_router()
        .layer(middleware::from_fn(cut::in_time))
        .layer(guard.clone())
        // The outermost layer: it sees what is finally answered, and catches panics.
        .layer(middleware::from_fn_with_state(Arc::clone(recommender), count::call));
    // Probes are not counted, and descriptors are no work.
    let descriptors = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(proto::DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let described = Routes::from(Router::new())
        .add_service(descriptors().build_v1()?.max_decoding_message_size(DESCRIBED_LIMIT))
        .add_service(descriptors().build_v1alpha()?.max_decoding_message_size(DESCRIBED_LIMIT))
        .into_axum_router()
        .layer(middleware::from_fn_with_state(Arc::clone(recommender), cut::at_drain))
        .layer(guard);
    let health = HealthServer::new(Probe::new(Arc::clone(recommender))).max_decoding_message_size(body::LIMIT);
    let probes =
        Routes::from(Router::new()).add_service(health).into_axum_router().layer(middleware::from_fn(cut::in_time));
    Ok(probes.merge(described).merge(watched))
}

/// Lets nobody but probes pass without a key.
async fn check_key(State(keys): State<ApiKeys>, request: Request, next: Next) -> Response {
    if PROBES.contains(&request.uri().path()) {
        return next.run(request).await;
    }
    match keys.check(request.headers()) {
        Ok(()) => next.run(request).await,
        Err(problem) => problem.into_grpc(),
    }
}
