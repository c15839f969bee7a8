use std::marker::PhantomData;

use prost::Message;
use prost::bytes::Buf;
use prost::encoding::{DecodeContext, decode_key, skip_field};
use tonic::Status;
use tonic::codec::{BufferSettings, Codec, DecodeBuf, Decoder};
use tonic_prost::{ProstDecoder, ProstEncoder};

use super::Problem;

/// The number of a repeated field, and the check of how many entries it has.
pub(crate) type Bound = (u32, fn(usize) -> Result<(), Problem>);

/// A message that clients send.
pub(crate) trait BoundedMessage: Message + Default + 'static {
    /// The fields whose entries are counted before the message is decoded.
    const BOUNDS: &'static [Bound] = &[];
}

/// tonic's prost codec, with bounds on repeated fields. `build.rs` names it for the generated code.
///
/// A nested message takes two bytes on the wire and hundreds in memory. So the codec counts the entries of bounded
/// fields before it decodes any.
pub(crate) struct BoundedCodec<A, M>(PhantomData<(A, M)>);

impl<A, M> Default for BoundedCodec<A, M> {
    fn default() -> BoundedCodec<A, M> {
        BoundedCodec(PhantomData)
    }
}

impl<A: Message + 'static, M: BoundedMessage> Codec for BoundedCodec<A, M> {
    type Encode = A;
    type Decode = M;
    type Encoder = ProstEncoder<A>;
    type Decoder = BoundedDecoder<M>;

    fn encoder(&mut self) -> ProstEncoder<A> {
        ProstEncoder::default()
    }

    fn decoder(&mut self) -> BoundedDecoder<M> {
        BoundedDecoder(ProstDecoder::default())
    }
}

/// The decoder of [`BoundedCodec`].
pub(crate) struct BoundedDecoder<M>(ProstDecoder<M>);

impl<M: BoundedMessage> Decoder for BoundedDecoder<M> {
    type Item = M;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<M>, Status> {
        // tonic hands over the whole message as one chunk.
        for (field, check) in M::BOUNDS {
            check(count(*field, buffer.chunk()))?;
        }
        self.0.decode(buffer)
    }

    fn buffer_settings(&self) -> BufferSettings {
        self.0.buffer_settings()
    }
}

/// Counts the entries of a field. In a damaged message it counts up to the damage.
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

#[cfg(test)]
mod tests {
    use super::count;

    #[test]
    fn entries_of_one_field_are_counted_up_to_damage() {
        // Field 1 twice and field 2 once, each of two bytes.
        let message = [0x0a, 2, 1, 1, 0x12, 2, 1, 1, 0x0a, 2, 1, 1];
        assert_eq!([count(1, &message), count(2, &message), count(3, &message)], [2, 1, 0]);
        assert_eq!(count(1, &message[..10]), 2, "the key of the last entry is there");
        assert_eq!(count(1, &[0x0a, 2, 1, 1, 0xff]), 1);
        assert_eq!(count(1, &[]), 0);
    }
}
