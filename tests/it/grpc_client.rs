//! Calls over gRPC, framed by hand, into the services of this process.

use std::sync::Arc;

use axum::Router;
use axum::body::{Body, HttpBody};
use axum::http::{HeaderMap, Request};
use canet_api::{self, ApiKeys, Hosts};
use canet_serving::Recommender;
use prost::Message;
use tokio::runtime::Runtime;
use tonic::Status;
use tower::ServiceExt;

/// How a call ended.
#[derive(Debug)]
pub(crate) struct Ended<A> {
    pub(crate) headers: HeaderMap,
    pub(crate) answers: Vec<A>,
    /// With its trailers' metadata and its details.
    pub(crate) status: Status,
}

pub(crate) struct Grpc {
    pub(crate) router: Router,
    pub(crate) runtime: Runtime,
}

impl Grpc {
    pub(crate) fn new(recommender: &Arc<Recommender>) -> Grpc {
        Grpc::keyed(recommender, &ApiKeys::default())
    }

    pub(crate) fn keyed(recommender: &Arc<Recommender>, keys: &ApiKeys) -> Grpc {
        let router = canet_api::grpc::app(recommender, keys, &Hosts::Any).unwrap();
        Grpc { router, runtime: tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap() }
    }

    /// Calls a method, as `canet.v1.Recommender/Recommend`.
    pub(crate) fn call<A: Message + Default>(
        &self,
        method: &str,
        headers: &[(&str, &str)],
        message: &impl Message,
    ) -> Ended<A> {
        self.send(method, headers, &frame(&message.encode_to_vec()))
    }

    /// The same with a body of any bytes.
    pub(crate) fn send<A: Message + Default>(&self, method: &str, headers: &[(&str, &str)], body: &[u8]) -> Ended<A> {
        self.runtime.block_on(async {
            let response = self.router.clone().oneshot(request(method, headers, body)).await.unwrap();
            let (head, mut body) = response.into_parts();
            assert_eq!(head.status, 200, "gRPC tells its status in metadata");
            let (mut bytes, mut trailers) = (Vec::new(), None);
            while let Some(next) =
                std::future::poll_fn(|context| std::pin::Pin::new(&mut body).poll_frame(context)).await
            {
                match next.unwrap().into_data() {
                    Ok(data) => bytes.extend_from_slice(&data),
                    Err(last) => trailers = last.into_trailers().ok(),
                }
            }
            let status = Status::from_header_map(trailers.as_ref().unwrap_or(&head.headers)).expect("a status");
            Ended { headers: head.headers, answers: unframed(&bytes), status }
        })
    }
}

pub(crate) fn request(method: &str, headers: &[(&str, &str)], body: &[u8]) -> Request<Body> {
    let mut request = Request::post(format!("/{method}")).header("content-type", "application/grpc");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(Body::from(body.to_vec())).unwrap()
}

/// A message as it is sent: not compressed, its length, its bytes.
pub(crate) fn frame(message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).unwrap();
    [&[0], &length.to_be_bytes()[..], message].concat()
}

pub(crate) fn unframed<A: Message + Default>(mut bytes: &[u8]) -> Vec<A> {
    let mut messages = Vec::new();
    while let Some((head, rest)) = bytes.split_at_checked(5) {
        let (message, rest) = rest.split_at(u32::from_be_bytes(head[1..].try_into().unwrap()) as usize);
        messages.push(A::decode(message).unwrap());
        bytes = rest;
    }
    messages
}
