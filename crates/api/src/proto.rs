//! The messages and services of gRPC, generated from `proto/`.
#![allow(
    clippy::all,
    clippy::allow_attributes_without_reason,
    missing_docs,
    unused_qualifications,
    unreachable_pub,
    reason = "generated code"
)]

/// `proto/canet`.
pub mod canet {
    /// Version 1.
    pub mod v1 {
        tonic::include_proto!("canet.v1");
    }
}

/// `proto/inference`.
pub mod inference {
    tonic::include_proto!("inference");
}

/// The descriptors of every service, for the reflection service.
pub(crate) const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/services.bin"));
