//! Unpacks compressed request bodies.
//!
//! A few bytes may unpack to gigabytes. Every decoder here stops within a block of [`MAX_BODY`], and none allocates for a
//! size that the body only states. The decoders are written in Rust, so that a build needs no C compiler.

use std::cell::Cell;
use std::io::{self, Read};

use axum::http::{HeaderMap, header};
use brotli_decompressor::{Allocator, BrotliDecompressStream, BrotliResult, BrotliState, StandardAlloc};
use flate2::bufread::{DeflateDecoder, MultiGzDecoder, ZlibDecoder};
use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};

use super::body_budget::{BodyPermit, over_budget, too_large};
use super::limits::MAX_BODY;
use super::{Code, Problem};

/// The codings that are unpacked, as `accept-encoding` lists them.
pub(crate) const ACCEPTED: &str = "gzip, deflate, br, zstd";

/// Bytes that are unpacked at a time.
const CHUNK: usize = 16 << 10;

/// Largest window of zstd. RFC 9659 lets no `content-encoding` have a larger one.
const ZSTD_WINDOW: u64 = 8 << 20;

/// Largest buffer that the brotli decoder may allocate. It needs as many bytes as the body has, rounded up to a power of
/// two, and some more.
const BROTLI_BUFFER: usize = MAX_BODY + (4 << 10);

/// A content coding of RFC 9110, 8.4.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Coding {
    Gzip,
    /// The zlib format. Some clients send it without its header and checksum.
    Deflate,
    Brotli,
    Zstd,
}

impl Coding {
    /// The coding that the headers name. `None` if the body is not compressed.
    ///
    /// # Errors
    /// 415 if it is another one, or several.
    pub(crate) fn of(headers: &HeaderMap) -> Result<Option<Coding>, Problem> {
        let mut given = headers.get_all(header::CONTENT_ENCODING).iter();
        let Some(first) = given.next() else { return Ok(None) };
        let name = first.to_str().unwrap_or_default().trim().to_ascii_lowercase();
        match name.as_str() {
            _ if given.next().is_some() => {}
            "" | "identity" => return Ok(None),
            "gzip" | "x-gzip" => return Ok(Some(Coding::Gzip)),
            "deflate" => return Ok(Some(Coding::Deflate)),
            "br" => return Ok(Some(Coding::Brotli)),
            "zstd" => return Ok(Some(Coding::Zstd)),
            _ => {}
        }
        let detail = format!("the content encoding {name:?} is not supported: send one of {ACCEPTED}, or none");
        Err(Problem::new(Code::UnsupportedMediaType, detail).at(header::CONTENT_ENCODING.as_str()))
    }

    fn name(self) -> &'static str {
        match self {
            Coding::Gzip => "gzip",
            Coding::Deflate => "deflate",
            Coding::Brotli => "br",
            Coding::Zstd => "zstd",
        }
    }

    /// Unpacks a whole body. The permit takes the bytes as they are unpacked.
    ///
    /// # Errors
    /// 400 if it is not of this coding, 413 if it unpacks to more than [`MAX_BODY`], 429 if the budget is spent.
    pub(crate) fn unpack(self, packed: &[u8], permit: Option<&BodyPermit>) -> Result<Vec<u8>, Problem> {
        let mut unpacked = Unpacked { coding: self, bytes: Vec::new(), permit };
        match self {
            Coding::Gzip => unpacked.take_all(MultiGzDecoder::new(packed))?,
            Coding::Deflate if is_zlib(packed) => {
                let mut decoder = ZlibDecoder::new(packed);
                unpacked.take_all(&mut decoder)?;
                unpacked.check_end(decoder.get_ref())?;
            }
            Coding::Deflate => {
                let mut decoder = DeflateDecoder::new(packed);
                unpacked.take_all(&mut decoder)?;
                unpacked.check_end(decoder.get_ref())?;
            }
            Coding::Brotli => unpacked.take_brotli(packed)?,
            Coding::Zstd => unpacked.take_zstd(packed)?,
        }
        Ok(unpacked.bytes)
    }
}

/// Whether data begin with a header of zlib (RFC 1950): method 8, and a checksum of its two bytes.
fn is_zlib(packed: &[u8]) -> bool {
    packed.first_chunk().is_some_and(|[a, b]| a & 0x0f == 8 && u16::from_be_bytes([*a, *b]) % 31 == 0)
}

/// What was unpacked so far.
struct Unpacked<'a> {
    coding: Coding,
    bytes: Vec<u8>,
    permit: Option<&'a BodyPermit>,
}

impl Unpacked<'_> {
    /// # Errors
    /// 413 or 429 if there is no room for it.
    fn push(&mut self, chunk: &[u8]) -> Result<(), Problem> {
        if self.bytes.len() + chunk.len() > MAX_BODY {
            return Err(too_large());
        }
        if self.permit.is_some_and(|permit| !permit.take(chunk.len())) {
            return Err(over_budget());
        }
        self.bytes.extend_from_slice(chunk);
        Ok(())
    }

    /// # Errors
    /// As [`Coding::unpack`].
    fn take_all(&mut self, mut decoder: impl Read) -> Result<(), Problem> {
        let mut chunk = [0; CHUNK];
        loop {
            match decoder.read(&mut chunk) {
                Ok(0) => return Ok(()),
                Ok(length) => self.push(&chunk[..length])?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.broken(error)),
            }
        }
    }

    fn take_brotli(&mut self, packed: &[u8]) -> Result<(), Problem> {
        let is_too_large = Cell::new(false);
        let bounded = BoundedAlloc { is_exceeded: &is_too_large };
        let mut state = BrotliState::new_strict(bounded, StandardAlloc::default(), StandardAlloc::default());
        let (mut left, mut place, mut total) = (packed.len(), 0, 0);
        let mut chunk = [0; CHUNK];
        loop {
            let (mut free, mut length) = (CHUNK, 0);
            let result = BrotliDecompressStream(
                &mut left,
                &mut place,
                packed,
                &mut free,
                &mut length,
                &mut chunk,
                &mut total,
                &mut state,
            );
            self.push(&chunk[..length])?;
            match result {
                BrotliResult::NeedsMoreOutput => {}
                BrotliResult::ResultSuccess => return self.check_end(&packed[place..]),
                _ if is_too_large.get() => return Err(too_large()),
                BrotliResult::NeedsMoreInput => return Err(self.broken("it breaks off")),
                BrotliResult::ResultFailure => return Err(self.broken("invalid data")),
            }
        }
    }

    fn take_zstd(&mut self, mut packed: &[u8]) -> Result<(), Problem> {
        let mut decoder = FrameDecoder::new();
        decoder.set_max_window_size(ZSTD_WINDOW);
        while !packed.is_empty() {
            match decoder.init(&mut packed) {
                Ok(()) => {}
                Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame { length, .. })) => {
                    let length = usize::try_from(length).unwrap_or(usize::MAX);
                    packed = packed.get(length..).ok_or_else(|| self.broken("it breaks off"))?;
                    continue;
                }
                Err(FrameDecoderError::WindowSizeTooBig { .. }) => return Err(too_large()),
                Err(error) => return Err(self.broken(error)),
            }
            // The decoder gives nothing away before it has unpacked a whole window, so the size is checked inside.
            let room = MAX_BODY - self.bytes.len();
            let strategy = BlockDecodingStrategy::UptoBytes(room + 1);
            if !decoder.decode_blocks(&mut packed, strategy).map_err(|error| self.broken(error))? {
                return Err(too_large());
            }
            self.take_all(&mut decoder)?;
        }
        Ok(())
    }

    /// # Errors
    /// 400 if there is a `rest` after the end of the compressed data.
    fn check_end(&self, rest: &[u8]) -> Result<(), Problem> {
        if rest.is_empty() { Ok(()) } else { Err(self.broken(format_args!("{} bytes follow its end", rest.len()))) }
    }

    fn broken(&self, error: impl std::fmt::Display) -> Problem {
        Problem::new(Code::InvalidJson, format!("the body cannot be unpacked as {}: {error}", self.coding.name()))
    }
}

/// Refuses buffers over [`BROTLI_BUFFER`]. The decoder asks for one of all that it will unpack before it unpacks it.
struct BoundedAlloc<'a> {
    is_exceeded: &'a Cell<bool>,
}

impl Allocator<u8> for BoundedAlloc<'_> {
    type AllocatedMemory = <StandardAlloc as Allocator<u8>>::AllocatedMemory;

    fn alloc_cell(&mut self, length: usize) -> Self::AllocatedMemory {
        if length > BROTLI_BUFFER {
            self.is_exceeded.set(true);
            return Self::AllocatedMemory::default();
        }
        StandardAlloc::default().alloc_cell(length)
    }

    fn free_cell(&mut self, _data: Self::AllocatedMemory) {}
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use axum::http::{HeaderMap, HeaderValue, header};
    use flate2::Compression;
    use flate2::bufread::{DeflateEncoder, GzEncoder, ZlibEncoder};
    use proptest::prelude::{ProptestConfig, any, prop_assert, proptest};

    use super::{ACCEPTED, Coding};
    use crate::Code;
    use crate::limits::MAX_BODY;

    const TEXT: &[u8] = b"{\"history\": [\"50\", \"181\", \"258\"], \"k\": 5}";

    /// [`TEXT`] by Node's brotli and by the command `zstd -19`.
    const BROTLI: &str = "0b14807b22686973746f7279223a205b223530222c2022313831222c2022323538225d2c20226b223a20357d03";
    const ZSTD: &str =
        "28b52ffd24294901007b22686973746f7279223a205b223530222c2022313831222c2022323538225d2c20226b223a20357dc8e9df86";

    /// As many blanks as a body may have, by the same, and one more. The first zstd has a window of 2 MiB.
    const FULL_BROTLI: &str = "5bffff8f5f02241e0b0472ef1f00";
    const FULL_ZSTD: &str = "28b52ffd04585400001020200100fbff39c0020200102002001020020010200200102002001020020010200300102085 \
        f8fa42";
    const LARGER_BROTLI: &str = "9b000010f82540e2b14040f7fe01";
    const LARGER_ZSTD: &str = "28b52ffd04585400001020200100fbff39c0020200102002001020020010200200102002001020020010200200102009 \
        00002024f9ec56";

    /// 64 MiB of zeros by brotli with its largest window, and the begin of as many by zstd.
    const BROTLI_BOMB: &str = "cfffff7ff82540e2b14020f7fe9ffffffff04b00c4610180eefd3fffffffe1970088c32200ddfbfffcffffc72f01\
                               10870500baf7ff";
    const ZSTD_BOMB: &str = "28b52ffda4000000044c000008000100fcff3910";

    fn bytes(hex: &str) -> Vec<u8> {
        let digits: Vec<u8> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
        let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
        digits.chunks(2).map(byte).collect()
    }

    fn all(mut packed: impl Read) -> Vec<u8> {
        let mut bytes = Vec::new();
        packed.read_to_end(&mut bytes).unwrap();
        bytes
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        all(GzEncoder::new(bytes, Compression::best()))
    }

    /// `TEXT` in every form.
    fn packed() -> [(Coding, Vec<u8>); 5] {
        [
            (Coding::Gzip, gzip(TEXT)),
            (Coding::Deflate, all(ZlibEncoder::new(TEXT, Compression::best()))),
            (Coding::Deflate, all(DeflateEncoder::new(TEXT, Compression::best()))),
            (Coding::Brotli, bytes(BROTLI)),
            (Coding::Zstd, bytes(ZSTD)),
        ]
    }

    fn code(coding: Coding, packed: &[u8]) -> Result<usize, Code> {
        coding.unpack(packed, None).map(|bytes| bytes.len()).map_err(|problem| problem.code)
    }

    #[test]
    fn every_coding_is_unpacked() {
        for (coding, packed) in packed() {
            assert_eq!(coding.unpack(&packed, None).as_deref(), Ok(TEXT), "{coding:?}");
        }
        // Members of gzip and frames of zstd may follow each other, and zstd has frames to be skipped.
        let twice = [TEXT, TEXT].concat();
        assert_eq!(Coding::Gzip.unpack(&[gzip(TEXT), gzip(TEXT)].concat(), None), Ok(twice.clone()));
        let frames = [bytes(ZSTD), bytes("502a4d18 03000000 aabbcc"), bytes(ZSTD)].concat();
        assert_eq!(Coding::Zstd.unpack(&frames, None), Ok(twice));
    }

    #[test]
    fn what_breaks_off_or_goes_on_is_refused() {
        for (coding, packed) in packed() {
            for length in 1..packed.len() {
                assert_eq!(code(coding, &packed[..length]), Err(Code::InvalidJson), "{coding:?} to byte {length}");
            }
            let longer = [&packed, &b"and more"[..]].concat();
            assert_eq!(code(coding, &longer), Err(Code::InvalidJson), "{coding:?}");
            assert_eq!(code(coding, TEXT), Err(Code::InvalidJson), "{coding:?} of plain JSON");
        }
    }

    #[test]
    fn the_limit_counts_unpacked_bytes() {
        let blanks = vec![b' '; MAX_BODY];
        for (coding, packed) in
            [(Coding::Gzip, gzip(&blanks)), (Coding::Brotli, bytes(FULL_BROTLI)), (Coding::Zstd, bytes(FULL_ZSTD))]
        {
            assert!(coding.unpack(&packed, None).is_ok_and(|bytes| bytes == blanks), "{coding:?}");
        }
        for (coding, packed) in [
            (Coding::Gzip, gzip(&[b' '; MAX_BODY + 1])),
            (Coding::Gzip, [gzip(&blanks), gzip(b" ")].concat()),
            (Coding::Brotli, bytes(LARGER_BROTLI)),
            (Coding::Zstd, bytes(LARGER_ZSTD)),
            (Coding::Zstd, [bytes(FULL_ZSTD), bytes(ZSTD)].concat()),
            // The decoders would unpack 16 MiB and more before they give any of it away.
            (Coding::Brotli, bytes(BROTLI_BOMB)),
            (Coding::Zstd, bytes(ZSTD_BOMB)),
        ] {
            assert_eq!(code(coding, &packed), Err(Code::TooLarge), "{coding:?}");
        }
    }

    #[test]
    fn damaged_data_are_refused_or_unpacked_but_never_panic() {
        let config = ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() };
        let edits = proptest::collection::vec((any::<u16>(), any::<u8>()), 1..4);
        proptest!(config, |(coding in 0..5_usize, edits in edits)| {
            let (coding, mut packed) = packed()[coding].clone();
            for (place, value) in edits {
                let place = usize::from(place) % packed.len();
                packed[place] = value;
            }
            prop_assert!(code(coding, &packed).is_ok_and(|length| length <= MAX_BODY) || code(coding, &packed).is_err());
        });
    }

    #[test]
    fn codings_are_named_in_any_case_and_others_are_refused_with_those_that_are_taken() {
        let of = |values: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(header::CONTENT_ENCODING, HeaderValue::from_static(value));
            }
            Coding::of(&headers)
        };
        for (value, coding) in [
            ("gzip", Coding::Gzip),
            ("X-GZIP", Coding::Gzip),
            ("deflate", Coding::Deflate),
            (" br ", Coding::Brotli),
            ("Zstd", Coding::Zstd),
        ] {
            assert_eq!(of(&[value]), Ok(Some(coding)));
        }
        assert_eq!([of(&[]), of(&["identity"])], [Ok(None), Ok(None)]);
        for values in [&["lzma"][..], &["gzip, br"], &["gzip", "gzip"], &["compress"]] {
            let problem = of(values).unwrap_err();
            assert_eq!(
                (problem.code, problem.field.as_deref()),
                (Code::UnsupportedMediaType, Some("content-encoding"))
            );
            assert!(problem.detail.contains(ACCEPTED), "{problem:?}");
        }
    }
}
