use serde_json::{Value, json};
use utoipa::openapi::schema::{
    AdditionalProperties, AnyOfBuilder, ArrayBuilder, Object, ObjectBuilder, Schema, SchemaType, Type,
};
use utoipa::openapi::{OpenApi, RefOr};

use crate::limits::max_k;
use crate::wire::default_k;
use canet_catalogue::{FilterExpression, KeySummary};
use canet_data::ItemTable;
use canet_domain::{Catalogue, Reason, RouteSpace};
use canet_serving::{CatalogueView, Generation};

/// The most values of all keys of the catalogue file that the document lists.
const LISTED_VALUES: usize = 2000;

/// The most filters that the document allows under `not`.
const NOT_FILTERS: usize = 7;

/// Narrows the document to the requests that one checkpoint accepts and to the routes that it answers.
pub(super) fn apply(document: &mut OpenApi, generation: &Generation, view: Option<&CatalogueView>) {
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
    let keys: Vec<KeySummary<'_>> = view.into_iter().flat_map(|view| view.index.keys()).collect();
    property("RecommendRequest", "filter", &|filter| {
        let keeps = filter_keys(&keys);
        let not = ObjectBuilder::new().schema_type(Type::Object);
        let mut not = keeps.iter().fold(not, |not, (key, values)| not.property(key, values.clone())).build();
        close(&mut not);
        let list = ArrayBuilder::new().items(not.clone()).min_items(Some(1)).max_items(Some(NOT_FILTERS));
        let not = AnyOfBuilder::new().item(not).item(list).build();
        filter.properties.extend(keeps);
        if !keys.is_empty() {
            filter.properties.insert(ItemTable::NOT.to_owned(), Schema::AnyOf(not).into());
        }
        close(filter);
    });
    property("RecommendRequest", "max_per", &|max_per| {
        let limit =
            || ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(1)).maximum(Some(1_000_000)).build();
        max_per.properties.extend(keys.iter().map(|key| (key.name.to_owned(), Schema::Object(limit()).into())));
        close(max_per);
    });
    property("RouteTaken", "reason", &|reason| {
        reason.enum_values = Some(Reason::ALL.iter().map(|reason| json!(reason.name())).collect());
    });
    if let Some(RefOr::T(Schema::Object(request))) = components.schemas.get_mut("RecommendRequest") {
        request.examples = vec![example(catalogue)];
    }
}

/// Each key of a filter with the values that it may have. Lists are so short that the longest filter keeps within its limit.
fn filter_keys(keys: &[KeySummary<'_>]) -> Vec<(String, RefOr<Schema>)> {
    let most = LISTED_VALUES / keys.len().max(1);
    let longest = FilterExpression::MAX_VALUES / ((1 + NOT_FILTERS) * keys.len().max(1));
    let entry = |key: &KeySummary<'_>| {
        // A number stands for the text of its digits.
        let number = |value: &str| value.parse::<i64>().ok().filter(|number| number.to_string() == value);
        let value = |text| [Some(json!(text)), number(text).map(|number| json!(number))].into_iter().flatten();
        let values = key.values.iter().take(most).flat_map(|text| value(text));
        let value = || {
            let kinds = SchemaType::from_iter([Type::String, Type::Integer]);
            ObjectBuilder::new().schema_type(kinds).enum_values(Some(values.clone()))
        };
        let list = ArrayBuilder::new().items(value()).min_items(Some(1)).max_items(Some(longest.max(1)));
        let schema = AnyOfBuilder::new().item(value()).item(list).build();
        (key.name.to_owned(), Schema::AnyOf(schema).into())
    };
    // A key whose items have no values cannot be named.
    keys.iter().filter(|key| !key.values.is_empty()).map(entry).collect()
}

/// Allows no other properties.
fn close(object: &mut Object) {
    object.additional_properties = Some(Box::new(AdditionalProperties::FreeForm(false)));
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
