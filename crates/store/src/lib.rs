//! Models in object stores: S3, and servers that speak its protocol.
//!
//! - [`S3Model`] is a model below a prefix of a bucket. It is an [`Origin`](canet_model::checkpoint::Origin), so a
//!   [`ModelDirectory`](canet_model::checkpoint::ModelDirectory) reads its versions.
//! - [`open`] makes such a directory, with copies in the user's cache.
//! - [`S3Model::publish`] uploads a version so that no reader sees half of one.
//!
//! The functions block. They must not be called within an asynchronous context.

mod address;
mod copies;
mod http;
mod publish;
mod reason;
mod s3_model;
mod settings;

pub use address::{AddressError, S3Address};
pub use copies::{StoreError, default_cache, open};
pub use publish::{PublishError, Published, VersionNumber};
pub use s3_model::S3Model;
pub use settings::{S3Settings, SettingsError};
