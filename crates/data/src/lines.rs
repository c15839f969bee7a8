use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use flate2::bufread::MultiGzDecoder;
use sha2::{Digest, Sha256};

use super::LineFault;

/// The lines of a file without their line ends, numbered from 1.
pub(crate) struct Lines {
    source: Source,
    number: u64,
    /// The current line.
    bytes: Vec<u8>,
}

impl Lines {
    /// Limit on a line's length in bytes. It suffices for a user with a million items of ten characters.
    pub(crate) const LONGEST: usize = 16 << 20;

    pub(crate) fn open(path: &Path) -> io::Result<Lines> {
        Ok(Lines { source: Source::open(path)?, number: 0, bytes: Vec::new() })
    }

    /// The start of the text, before any line is read: the whole lines of the first 64 KiB, or part of the first line.
    pub(crate) fn sample(&self) -> &[u8] {
        self.source.sample()
    }

    /// The next line and its number; `None` at the end.
    pub(crate) fn next_line(&mut self) -> io::Result<Option<(u64, Result<&str, LineFault>)>> {
        self.bytes.clear();
        if self.source.by_ref().take(Lines::LONGEST as u64).read_until(b'\n', &mut self.bytes)? == 0 {
            return Ok(None);
        }
        self.number += 1;
        let text = if self.bytes.len() == Lines::LONGEST && !self.bytes.ends_with(b"\n") {
            self.source.skip_until(b'\n')?;
            Err(LineFault::TooLong(Lines::LONGEST))
        } else {
            let text = std::str::from_utf8(&self.bytes).map_err(|_| LineFault::NotUtf8);
            text.map(|text| text.strip_suffix('\n').unwrap_or(text)).map(|text| text.strip_suffix('\r').unwrap_or(text))
        };
        Ok(Some((self.number, text)))
    }

    /// Reads the rest and returns the SHA-256 of the file's bytes on disk, in hexadecimal.
    pub(crate) fn digest(self) -> io::Result<String> {
        self.source.digest()
    }
}

/// Bytes of the text that are buffered for the detection of the format.
const SAMPLE: u64 = 64 * 1024;
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// A file's text as a stream: decompressed if it is gzip, without a byte order mark. It hashes the file meanwhile.
struct Source {
    sample: Vec<u8>,
    /// Bytes of the sample that were consumed.
    consumed: usize,
    body: Body,
}

enum Body {
    Plain(BufReader<Hashing>),
    Gzip(BufReader<MultiGzDecoder<BufReader<Hashing>>>),
}

impl Source {
    fn open(path: &Path) -> io::Result<Source> {
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

    fn sample(&self) -> &[u8] {
        let whole = match self.sample.iter().rposition(|byte| *byte == b'\n') {
            Some(end) if self.sample.len() as u64 == SAMPLE => end + 1,
            _ => self.sample.len(),
        };
        &self.sample[self.consumed.min(whole)..whole]
    }

    fn digest(mut self) -> io::Result<String> {
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

/// A file that hashes the bytes read from it. Nothing seeks, so it hashes every byte once.
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
