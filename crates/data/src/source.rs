//! Bytes of a file or of standard input: hashed as they are on disk, unpacked where they are gzip or zstd.

use std::fs::File;
use std::io::{self, BufReader, Chain, Cursor, Read};
use std::path::Path;

use flate2::bufread::MultiGzDecoder;
use sha2::{Digest, Sha256};

use super::locate::is_stdin;

/// How a file is packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Packing {
    Plain,
    Gzip,
    Zstd,
}

/// Bytes from which the format is recognised. A tar archive shows at byte 257.
const MAGIC: u64 = 512;

const GZIP_MAGIC: &[u8] = b"\x1f\x8b";
const ZSTD_MAGIC: &[u8] = b"\x28\xb5\x2f\xfd";
const BUFFER: usize = 128 * 1024;

/// A file that was opened and whose first bytes are known.
pub(crate) struct Opened {
    start: Vec<u8>,
    rest: Hashing,
}

impl Opened {
    pub(crate) fn open(path: &Path) -> io::Result<Opened> {
        let body: Box<dyn Read> = if is_stdin(path) { Box::new(io::stdin()) } else { Box::new(File::open(path)?) };
        let mut rest = Hashing { body, hash: Sha256::new() };
        let mut start = Vec::new();
        rest.by_ref().take(MAGIC).read_to_end(&mut start)?;
        Ok(Opened { start, rest })
    }

    /// The first bytes on disk.
    pub(crate) fn start(&self) -> &[u8] {
        &self.start
    }

    /// All bytes on disk, and their digest.
    pub(crate) fn into_bytes(mut self) -> io::Result<(Vec<u8>, String)> {
        self.rest.read_to_end(&mut self.start)?;
        Ok((self.start, self.rest.hexadecimal()))
    }

    /// Digest of all bytes on disk.
    pub(crate) fn into_digest(mut self) -> io::Result<String> {
        self.rest.drain()?;
        Ok(self.rest.hexadecimal())
    }

    /// The unpacked bytes.
    pub(crate) fn unpack(self) -> io::Result<Source> {
        let packing = match &self.start {
            start if start.starts_with(GZIP_MAGIC) => Packing::Gzip,
            start if start.starts_with(ZSTD_MAGIC) => Packing::Zstd,
            _ => Packing::Plain,
        };
        let plain = Cursor::new(self.start).chain(self.rest);
        Ok(match packing {
            Packing::Plain => Source::Plain(plain),
            Packing::Gzip => Source::Gzip(Box::new(MultiGzDecoder::new(BufReader::with_capacity(BUFFER, plain)))),
            Packing::Zstd => Source::Zstd(zstd::Decoder::with_buffer(BufReader::with_capacity(BUFFER, plain))?),
        })
    }
}

type Plain = Chain<Cursor<Vec<u8>>, Hashing>;

/// The unpacked bytes of a file.
pub(crate) enum Source {
    Plain(Plain),
    Gzip(Box<MultiGzDecoder<BufReader<Plain>>>),
    Zstd(zstd::Decoder<'static, BufReader<Plain>>),
}

impl Source {
    pub(crate) fn packing(&self) -> Packing {
        match self {
            Source::Plain(_) => Packing::Plain,
            Source::Gzip(_) => Packing::Gzip,
            Source::Zstd(_) => Packing::Zstd,
        }
    }

    /// Reads the rest and returns the SHA-256 of the bytes on disk, in hexadecimal.
    pub(crate) fn digest(mut self) -> io::Result<String> {
        // Damage at the end of a packed file shows here.
        io::copy(&mut self, &mut io::sink())?;
        let plain = match self {
            Source::Plain(plain) => plain,
            Source::Gzip(decoder) => decoder.into_inner().into_inner(),
            Source::Zstd(decoder) => decoder.finish().into_inner(),
        };
        let mut hashing = plain.into_inner().1;
        hashing.drain()?;
        Ok(hashing.hexadecimal())
    }
}

impl Read for Source {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Source::Plain(plain) => plain.read(buffer),
            Source::Gzip(decoder) => decoder.read(buffer),
            Source::Zstd(decoder) => decoder.read(buffer),
        }
    }
}

/// A file that hashes the bytes read from it. Nothing seeks, so it hashes every byte once.
pub(crate) struct Hashing {
    body: Box<dyn Read>,
    hash: Sha256,
}

impl Hashing {
    fn drain(&mut self) -> io::Result<()> {
        let mut buffer = vec![0; BUFFER];
        while self.read(&mut buffer)? > 0 {}
        Ok(())
    }

    fn hexadecimal(self) -> String {
        format!("{:x}", self.hash.finalize())
    }
}

impl Read for Hashing {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = loop {
            match self.body.read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => break result?,
            }
        };
        self.hash.update(&buffer[..read]);
        Ok(read)
    }
}
