//! The Open Inference Protocol, version 2, as KServe's and Triton's clients speak it, over HTTP and gRPC.
//!
//! `proto/inference/open_inference.proto` says what a model takes and gives. A row is a request as of `/recommend`.

mod binary;
pub(super) mod grpc;
mod infer;
mod json;
mod model;
mod outputs;
mod parameters;
mod rest;
mod tensor;

pub(super) use infer::check_tensors;
pub(super) use rest::{has, probes, refuse, router};
