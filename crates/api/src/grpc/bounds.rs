//! The messages that clients send, and the bounds on their repeated fields.

use crate::codec::{Bound, BoundedMessage};
use crate::limits::{check_rows, check_tensors};
use crate::proto::canet::v1;
use crate::proto::inference;

impl BoundedMessage for v1::RecommendRequest {}
impl BoundedMessage for v1::GetModelRequest {}
impl BoundedMessage for inference::ServerLiveRequest {}
impl BoundedMessage for inference::ServerReadyRequest {}
impl BoundedMessage for inference::ModelReadyRequest {}
impl BoundedMessage for inference::ServerMetadataRequest {}
impl BoundedMessage for inference::ModelMetadataRequest {}

impl BoundedMessage for v1::RecommendBatchRequest {
    const BOUNDS: &'static [Bound] = &[(1, check_rows)];
}

impl BoundedMessage for v1::RecommendStreamRequest {
    const BOUNDS: &'static [Bound] = &[(1, check_rows)];
}

impl BoundedMessage for inference::ModelInferRequest {
    const BOUNDS: &'static [Bound] =
        &[(5, |count| check_tensors("inputs", count)), (6, |count| check_tensors("outputs", count))];
}
