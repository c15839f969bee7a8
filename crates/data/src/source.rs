use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use flate2::bufread::MultiGzDecoder;
use sha2::{Digest, Sha256};

/// How much of a file's start is held back to tell its form.
const SAMPLE: u64 = 64 * 1024;
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// A file's text as a stream: unpacked where it is gzip, without a byte order mark, hashed on the way.
pub(crate) struct Source {
    sample: Vec<u8>,
    /// How much of the sample was consumed.
    consumed: usize,
    body: Body,
}

enum Body {
    Plain(BufReader<Hashing>),
    Gzip(BufReader<MultiGzDecoder<BufReader<Hashing>>>),
}

impl Source {
    pub(crate) fn open(path: &Path) -> io::Result<Source> {
        let mut file = BufReader::new(Hashing { file: File::open(path)?, hash: Sha256::new() });
        let mut body = if file.fill_buf()?.starts_with(&GZIP_MAGIC) {
            Body::Gzip(BufReader::new(MultiGzDecoder::new(file)))
        } else {
            Body::Plain(file)
        };
        let mut sample = Vec::new();
        body.reader().take(SAMPLE).read_to_end(&mut sample)?;
        let consumed = if sample.starts_with(BYTE_ORDER_MARK) { BYTE_ORDER_MARK.len() } else { 0 };
        Ok(Source { sample, consumed, body })
    }

    /// The text's start before anything is consumed: the whole lines of the first 64 KiB, or a part of the first.
    pub(crate) fn sample(&self) -> &[u8] {
        let whole = match self.sample.iter().rposition(|byte| *byte == b'\n') {
            Some(end) if self.sample.len() as u64 == SAMPLE => end + 1,
            _ => self.sample.len(),
        };
        &self.sample[self.consumed.min(whole)..whole]
    }

    /// Reads what is left and gives the SHA-256 of the file's bytes as they are on disk, in hexadecimal.
    pub(crate) fn digest(mut self) -> io::Result<String> {
        io::copy(self.body.reader(), &mut io::sink())?;
        let mut hashing = match self.body {
            Body::Plain(file) => file.into_inner(),
            Body::Gzip(decoder) => decoder.into_inner().into_inner().into_inner(),
        };
        io::copy(&mut hashing, &mut io::sink())?;
        Ok(format!("{:x}", hashing.hash.finalize()))
    }
}

impl Body {
    fn reader(&mut self) -> &mut dyn BufRead {
        match self {
            Body::Plain(file) => file,
            Body::Gzip(decoder) => decoder,
        }
    }
}

impl Read for Source {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.fill_buf()?.read(buffer)?;
        self.consume(read);
        Ok(read)
    }
}

impl BufRead for Source {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.consumed < self.sample.len() {
            Ok(&self.sample[self.consumed..])
        } else {
            self.body.reader().fill_buf()
        }
    }

    fn consume(&mut self, amount: usize) {
        if self.consumed < self.sample.len() {
            self.consumed += amount;
        } else {
            self.body.reader().consume(amount);
        }
    }
}

/// A file that hashes what is read from it. Every byte passes here once: nothing seeks.
struct Hashing {
    file: File,
    hash: Sha256,
}

impl Read for Hashing {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read(buffer)?;
        self.hash.update(&buffer[..read]);
        Ok(read)
    }
}
