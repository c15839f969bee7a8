use std::marker::PhantomData;

use prost::Message;
use prost::bytes::Buf;
use prost::encoding::{DecodeContext, decode_key, skip_field};
use tonic::Status;
use tonic::codec::{BufferSettings, Codec, DecodeBuf, Decoder};
use tonic_prost::{ProstDecoder, ProstEncoder};

use super::proto::canet::v1;
use super::proto::inference;
use crate::Problem;
use crate::inference::check_tensors;
use crate::validate::check_rows;

/// A field's number, and what refuses too many messages in it.
type Bound = (u32, fn(usize) -> Result<(), Problem>);

/// A message that clients send.
///
/// A message within a message takes two bytes to send and some hundred to build, so those that there may be few of are
/// counted before any is built.
pub(super) trait Sent: Message + Default + 'static {
    /// The fields that are counted.
    const COUNTED: &'static [Bound] = &[];
}

impl Sent for v1::RecommendRequest {}
impl Sent for v1::GetModelRequest {}
impl Sent for inference::ServerLiveRequest {}
impl Sent for inference::ServerReadyRequest {}
impl Sent for inference::ModelReadyRequest {}
impl Sent for inference::ServerMetadataRequest {}
impl Sent for inference::ModelMetadataRequest {}

impl Sent for v1::RecommendBatchRequest {
    const COUNTED: &'static [Bound] = &[(1, check_rows)];
}

impl Sent for v1::RecommendStreamRequest {
    const COUNTED: &'static [Bound] = &[(1, check_rows)];
}

impl Sent for inference::ModelInferRequest {
    const COUNTED: &'static [Bound] =
        &[(5, |count| check_tensors("inputs", count)), (6, |count| check_tensors("outputs", count))];
}

/// tonic's codec of prost, but for messages that have too many others in them: those are refused unread. `build.rs` names it.
pub(super) struct CountedCodec<A, M>(PhantomData<(A, M)>);

impl<A, M> Default for CountedCodec<A, M> {
    fn default() -> CountedCodec<A, M> {
        CountedCodec(PhantomData)
    }
}

impl<A: Message + 'static, M: Sent> Codec for CountedCodec<A, M> {
    type Encode = A;
    type Decode = M;
    type Encoder = ProstEncoder<A>;
    type Decoder = CountedDecoder<M>;

    fn encoder(&mut self) -> ProstEncoder<A> {
        ProstEncoder::default()
    }

    fn decoder(&mut self) -> CountedDecoder<M> {
        CountedDecoder(ProstDecoder::default())
    }
}

/// Reads the messages of [`CountedCodec`].
pub(super) struct CountedDecoder<M>(ProstDecoder<M>);

impl<M: Sent> Decoder for CountedDecoder<M> {
    type Item = M;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<M>, Status> {
        // tonic keeps a message in one piece.
        for (field, check) in M::COUNTED {
            check(count(*field, buffer.chunk()))?;
        }
        self.0.decode(buffer)
    }

    fn buffer_settings(&self) -> BufferSettings {
        self.0.buffer_settings()
    }
}

/// How often a field is there; in a message that cannot be read, as far as it can.
fn count(field: u32, mut message: &[u8]) -> usize {
    let mut found = 0;
    while let Ok((tag, kind)) = decode_key(&mut message) {
        found += usize::from(tag == field);
        if skip_field(kind, tag, &mut message, DecodeContext::default()).is_err() {
            break;
        }
    }
    found
}
