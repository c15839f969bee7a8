use std::io::{self, BufRead, Read};

use super::LineFault;
use super::source::Source;

/// The lines of a file, numbered from 1, without their ends.
pub(crate) struct Lines {
    source: Source,
    number: u64,
    bytes: Vec<u8>,
}

impl Lines {
    /// No honest line is longer: a user with a million items of ten characters.
    pub(crate) const LONGEST: usize = 16 << 20;

    pub(crate) fn new(source: Source) -> Lines {
        Lines { source, number: 0, bytes: Vec::new() }
    }

    /// The next line with its number; `None` at the end.
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

    /// Reads what is left and gives the digest of the whole file.
    pub(crate) fn digest(self) -> io::Result<String> {
        self.source.digest()
    }
}
