//! Converts between gRPC's messages and the types that every transport shares.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};

use crate::Problem;
use crate::describe::{CatalogueDescription, CatalogueKey};
use crate::proto::canet::v1 as proto;
use crate::restriction::read_filter;
use crate::wire::{ExternalId, RecommendRequest, UserId};
use canet_catalogue::MaxPer;
use canet_serving::{Candidate, Generation, Serving};

impl TryFrom<proto::RecommendRequest> for RecommendRequest {
    type Error = Problem;

    fn try_from(message: proto::RecommendRequest) -> Result<RecommendRequest, Problem> {
        let filter = message.filter.as_deref().filter(|filter| !filter.is_empty());
        let default = RecommendRequest::new(ids(message.history));
        Ok(RecommendRequest {
            history_start: message.history_start,
            k: message.k,
            exclude_seen: message.exclude_seen,
            exclude: ids(message.exclude),
            candidates: message.candidates.map(|candidates| ids(candidates.items)),
            route: if message.route.is_empty() { default.route } else { message.route },
            budget: message.budget,
            timeout_ms: message.timeout_ms.unwrap_or(default.timeout_ms),
            user: message.user.and_then(UserId::given),
            filter: filter.map(|filter| read_filter("filter", filter)).transpose()?,
            max_per: Some(message.max_per).filter(|limits| !limits.is_empty()).map(max_per).transpose()?,
            history: default.history,
        })
    }
}

fn max_per(limits: HashMap<String, u64>) -> Result<MaxPer, Problem> {
    if limits.len() > MaxPer::MAX_KEYS {
        let detail = format!("`max_per` has {} keys: at most {}", limits.len(), MaxPer::MAX_KEYS);
        return Err(Problem::invalid("max_per", detail));
    }
    if let Some((key, _)) = limits.iter().find(|(_, limit)| **limit == 0) {
        return Err(Problem::invalid(format!("max_per.{key}"), "a limit of `max_per` is 0: it must be at least 1"));
    }
    // In one order, so that of several faults always the same one is reported.
    let limits: BTreeMap<String, u64> = limits.into_iter().collect();
    Ok(MaxPer::new(limits.into_iter().map(|(key, limit)| (key.into(), limit))))
}

fn ids(ids: Vec<String>) -> Vec<ExternalId> {
    ids.into_iter().map(|id| ExternalId(id.into())).collect()
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
            catalogue: generation.catalogue_view().as_deref().map(|view| CatalogueDescription::of(view).into()),
        }
    }
}

impl From<CatalogueDescription> for proto::Catalogue {
    fn from(described: CatalogueDescription) -> proto::Catalogue {
        let CatalogueDescription { digest, read, items, hidden, unknown, missing, keys } = described;
        let [items, hidden, unknown, missing] = [items, hidden, unknown, missing].map(|count| count as u64);
        let key = |CatalogueKey { name, values }| proto::CatalogueKey { name, values: values as u64 };
        let keys = keys.into_iter().map(key).collect();
        proto::Catalogue { digest, read, items, hidden, unknown, missing, keys }
    }
}
