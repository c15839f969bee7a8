use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use axum::extract::ConnectInfo;
use futures_util::stream::{self, Stream, StreamExt};
use tonic::{Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_server::Health;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use super::watchers::{Watcher, Watchers};
use crate::proto::canet::v1::recommender_server;
use crate::proto::inference::grpc_inference_service_server;
use crate::{Code, Problem};
use canet_serving::Recommender;

/// `grpc.health.v1.Health`: reports every service as serving while the recommender is ready.
pub(super) struct Probe {
    recommender: Arc<Recommender>,
    watchers: Watchers,
}

impl Probe {
    /// The names that clients may ask for. The empty one is the whole server.
    const KNOWN: [&str; 3] = ["", recommender_server::SERVICE_NAME, grpc_inference_service_server::SERVICE_NAME];

    pub(super) fn new(recommender: Arc<Recommender>) -> Probe {
        Probe { recommender, watchers: Watchers::default() }
    }
}

fn status(recommender: &Recommender) -> ServingStatus {
    if recommender.ready().is_ok() { ServingStatus::Serving } else { ServingStatus::NotServing }
}

fn response(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse { status: status.into() }
}

#[tonic::async_trait]
impl Health for Probe {
    async fn check(&self, request: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        let service = request.into_inner().service;
        if !Probe::KNOWN.contains(&service.as_str()) {
            return Err(Problem::new(Code::NotFound, format!("there is no service {service:?}")).into());
        }
        Ok(Response::new(response(status(&self.recommender))))
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send + 'static>>;

    /// Ends the stream after it reported that the server drains, so that the connection can close. The protocol keeps the
    /// stream of an unknown service open. A watch lasts as long as its client wants and needs no key, so watches are bounded.
    async fn watch(&self, request: Request<HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let client = request.extensions().get::<ConnectInfo<SocketAddr>>();
        let watching = Watching {
            _watcher: self.watchers.enter(client.map(|client| client.0))?,
            is_known: Probe::KNOWN.contains(&request.into_inner().service.as_str()),
            changes: self.recommender.changes(),
            recommender: Arc::clone(&self.recommender),
            last: None,
        };
        Ok(Response::new(stream::unfold(watching, Watching::next).boxed()))
    }
}

struct Watching {
    _watcher: Watcher,
    is_known: bool,
    recommender: Arc<Recommender>,
    changes: tokio::sync::watch::Receiver<()>,
    last: Option<ServingStatus>,
}

impl Watching {
    /// Waits for a status that differs from the last one.
    async fn next(mut self) -> Option<(Result<HealthCheckResponse, Status>, Watching)> {
        loop {
            let is_draining = self.recommender.is_draining();
            let now = if self.is_known { status(&self.recommender) } else { ServingStatus::ServiceUnknown };
            if self.last != Some(now) {
                self.last = Some(now);
                return Some((Ok(response(now)), self));
            }
            if is_draining || self.changes.changed().await.is_err() {
                return None;
            }
        }
    }
}
