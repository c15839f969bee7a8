use serde_json::{Value, json};
use utoipa::openapi::schema::{Object, Schema};
use utoipa::openapi::{OpenApi, RefOr};

use crate::limits::max_k;
use crate::wire::default_k;
use canet_domain::{Catalogue, Reason, RouteSpace};
use canet_serving::Generation;

/// Narrows the document to the requests that one checkpoint accepts and to the routes that it answers.
pub(super) fn apply(document: &mut OpenApi, generation: &Generation) {
    let (catalogue, space) = (generation.model.catalogue(), generation.model.space());
    let Some(components) = &mut document.components else { return };
    let mut property = |schema: &str, name: &str, narrow: &dyn Fn(&mut Object)| {
        let Some(RefOr::T(Schema::Object(object))) = components.schemas.get_mut(schema) else { return };
        if let Some(RefOr::T(Schema::Object(property))) = object.properties.get_mut(name) {
            narrow(property);
        }
    };
    property("RecommendRequest", "k", &|k| {
        k.minimum = Some(1_usize.into());
        k.maximum = Some(max_k(catalogue.len()).into());
        k.default = Some(json!(default_k(catalogue.len())));
    });
    property("RecommendRequest", "exclude_seen", &|exclude| {
        exclude.default = Some(json!(generation.model.manifest().exclude_seen));
    });
    property("RecommendRequest", "route", &|route| route.enum_values = Some(choices(space)));
    property("RouteTaken", "reason", &|reason| {
        reason.enum_values = Some(Reason::ALL.map(|reason| json!(reason.name())).into());
    });
    property("RouteTaken", "name", &|name| {
        name.enum_values = Some(names(space).chain([Value::Null]).collect());
    });
    if let Some(RefOr::T(Schema::Object(request))) = components.schemas.get_mut("RecommendRequest") {
        request.examples = vec![example(catalogue)];
    }
}

fn names(space: &RouteSpace) -> impl Iterator<Item = Value> {
    space.routes().map(|route| json!(space.name(route)))
}

/// Every value of a request's `route`.
fn choices(space: &RouteSpace) -> Vec<Value> {
    // `null` means that the route is not given.
    ["auto", "full", "smallest"].into_iter().map(Value::from).chain(names(space)).chain([Value::Null]).collect()
}

/// A request that this catalogue answers.
fn example(catalogue: &Catalogue) -> Value {
    let popular = catalogue.by_popularity().iter().take(3);
    let history: Vec<&str> = popular.map(|item| catalogue.id(*item)).collect();
    json!({"history": history, "k": catalogue.len().min(5)})
}
