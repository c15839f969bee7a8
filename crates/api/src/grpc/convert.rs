//! Converts between gRPC's messages and the types that every transport shares.

use std::borrow::Cow;

use crate::Problem;
use crate::proto::canet::v1 as proto;
use crate::wire::{ItemId, RecommendRequest};
use canet_serving::{Candidate, Generation, Serving};

impl From<proto::RecommendRequest> for RecommendRequest {
    fn from(message: proto::RecommendRequest) -> RecommendRequest {
        let default = RecommendRequest::new(ids(message.history));
        RecommendRequest {
            history_start: message.history_start,
            k: message.k,
            exclude_seen: message.exclude_seen,
            exclude: ids(message.exclude),
            candidates: message.candidates.map(|candidates| ids(candidates.items)),
            route: if message.route.is_empty() { default.route } else { message.route },
            budget: message.budget,
            timeout_ms: message.timeout_ms.unwrap_or(default.timeout_ms),
            user: message.user.map(|user| ItemId(user.into())),
            history: default.history,
        }
    }
}

fn ids(ids: Vec<String>) -> Vec<ItemId> {
    ids.into_iter().map(|id| ItemId(id.into())).collect()
}

impl From<Problem> for proto::Problem {
    fn from(problem: Problem) -> proto::Problem {
        let mapping = problem.code.mapping();
        proto::Problem {
            status: mapping.grpc.into(),
            code: mapping.name.to_owned(),
            detail: problem.detail.into_owned(),
            field: problem.field.map(Cow::into_owned),
            retry_after: problem.retry_after,
        }
    }
}

impl From<&Serving> for proto::GetModelResponse {
    fn from(serving: &Serving) -> proto::GetModelResponse {
        let candidate = serving.candidate.as_ref().map(|Candidate { generation, split }| {
            Box::new(proto::Candidate { share: split.share(), model: Some(Box::new((&**generation).into())) })
        });
        proto::GetModelResponse { candidate, ..(&*serving.live).into() }
    }
}

impl From<&Generation> for proto::GetModelResponse {
    fn from(generation: &Generation) -> proto::GetModelResponse {
        let (space, shape, length) = (generation.model.space(), generation.model.shape(), generation.max_len());
        let manifest = generation.model.manifest();
        let route = |route| {
            let slice = space.slice(route);
            proto::Route {
                name: space.name(route).to_owned(),
                hidden: slice.hidden as u64,
                layers: slice.layers as u64,
                embedding: slice.embedding as u64,
                flops: shape.route_flops(space, route, length),
            }
        };
        proto::GetModelResponse {
            model: Some(proto::ModelVersion {
                name: generation.model.name().to_owned(),
                version: generation.model.version(),
            }),
            digest: generation.model.digest().to_owned(),
            created: manifest.created.clone(),
            items: generation.model.catalogue().len() as u64,
            max_len: length as u64,
            routes: space.routes().map(route).collect(),
            router_flops: shape.router_flops(space.len(), length),
            full_flops: shape.full_flops(space, length),
            validation: manifest.metrics.validation.clone().unwrap_or_default().into_iter().collect(),
            test: manifest.metrics.test.clone().unwrap_or_default().into_iter().collect(),
            exclude_seen: manifest.exclude_seen,
            fixed_route: generation.fixed_route.map(|route| space.name(route).to_owned()),
            candidate: None,
        }
    }
}
