//! The Open Inference Protocol, version 2, over HTTP and gRPC, for clients of KServe and Triton.
//!
//! `proto/inference/open_inference.proto` documents the model's inputs and outputs. A row is a request as for
//! `/recommend`.

mod binary;
pub(crate) mod grpc;
mod http;
mod infer;
mod json;
mod model;
mod parameters;
mod tensor;

pub(crate) use binary::HEADER as BINARY_HEADER;
pub(crate) use http::endpoints;
