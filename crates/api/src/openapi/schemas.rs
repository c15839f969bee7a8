//! Schemas that no derive can tell.

use utoipa::PartialSchema;
use utoipa::openapi::schema::{AnyOfBuilder, ArrayBuilder, ObjectBuilder, Schema, SchemaType, Type};
use utoipa::openapi::{Ref, RefOr};

use crate::validate::MAX_ROWS;
use crate::wire::ItemId;

impl PartialSchema for ItemId {
    fn schema() -> RefOr<Schema> {
        let id = ObjectBuilder::new()
            .schema_type(SchemaType::from_iter([Type::String, Type::Number]))
            .description(Some("An external item id; a number is taken as its decimal string."));
        id.into()
    }
}

/// A batch's rows: each should be a request, and whatever is not spoils no other.
pub(crate) fn batch_rows() -> ArrayBuilder {
    let row = AnyOfBuilder::new()
        .item(Ref::from_schema_name("RecommendRequest"))
        .item(ObjectBuilder::new().schema_type(SchemaType::AnyValue));
    ArrayBuilder::new().items(row).max_items(Some(MAX_ROWS))
}
