//! The lines of a text.

use std::io::{self, Read};
use std::ops::Range;

use memchr::memchr;

use super::LineFault;
use super::source::Source;

/// The lines of a text without their line ends, numbered from 1.
///
/// A line ends with LF or CR LF. If the start of the text has CR alone, then CR ends every line. A byte order mark is dropped,
/// and so is a first line such as `sep=;`, which tells Excel the separator.
pub(crate) struct Lines {
    source: Source,
    /// The unread text lies between `start` and `end`.
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    /// Whether the source has no more bytes.
    at_end: bool,
    number: u64,
    line_end: u8,
    /// The number of a line that was skipped because it is too long and then given back. Its text is gone.
    long: Option<u64>,
    /// Bytes of the sample, unless the first line is longer.
    sample: usize,
}

/// What was read, or why not, with the number of its first line.
pub(crate) type Numbered<T> = (u64, Result<T, LineFault>);

/// Bytes of the text from which the format is detected.
const SAMPLE: usize = 64 * 1024;

/// Bytes of the text from which the keys of JSON lines are known.
const WIDE_SAMPLE: usize = 1024 * 1024;

/// Size of the buffer, unless a line is longer.
const BUFFER: usize = 256 * 1024;

pub(crate) const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

impl Lines {
    /// Limit on a line's length in bytes. It suffices for a user with a million items of ten characters.
    pub(crate) const LONGEST: usize = 16 << 20;

    pub(crate) fn new(source: Source) -> io::Result<Lines> {
        let mut lines = Lines {
            source,
            buffer: vec![0; BUFFER],
            start: 0,
            end: 0,
            at_end: false,
            number: 0,
            line_end: b'\n',
            long: None,
            sample: SAMPLE,
        };
        while lines.end < SAMPLE && !lines.at_end {
            lines.fill()?;
        }
        let text = &lines.buffer[..lines.end];
        if text.starts_with(BYTE_ORDER_MARK) {
            lines.start = BYTE_ORDER_MARK.len();
        }
        if memchr(b'\r', text).is_some() && memchr(b'\n', text).is_none() {
            lines.line_end = b'\r';
        }
        lines.fill_first_line()?;
        if is_separator_line(lines.sample(), lines.line_end) {
            lines.next_range()?;
            lines.fill_first_line()?;
        }
        Ok(lines)
    }

    /// Takes a larger sample. No line may have been read.
    pub(crate) fn widen_sample(&mut self) -> io::Result<()> {
        self.sample = WIDE_SAMPLE;
        while self.end < WIDE_SAMPLE && !self.at_end {
            self.fill()?;
        }
        Ok(())
    }

    /// Reads until the buffer has the whole first line, so that the sample has a line.
    fn fill_first_line(&mut self) -> io::Result<()> {
        let mut searched = self.start;
        while memchr(self.line_end, &self.buffer[searched..self.end]).is_none()
            && !self.at_end
            && self.end - self.start < Lines::LONGEST
        {
            searched = self.end - self.start;
            self.fill()?;
        }
        Ok(())
    }

    /// The start of the text, before any line is read: whole lines only, and at least one unless it is longer than
    /// [`Lines::LONGEST`].
    pub(crate) fn sample(&self) -> &[u8] {
        let read = &self.buffer[self.start..self.end];
        let text = &read[..read.len().min(self.sample)];
        match text.iter().rposition(|byte| *byte == self.line_end) {
            _ if self.at_end && text.len() == read.len() => text,
            Some(last) => &text[..=last],
            None => match memchr(self.line_end, read) {
                Some(first) => &read[..=first],
                None => read,
            },
        }
    }

    /// Number of lines that were read.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    pub(crate) fn line_end(&self) -> u8 {
        self.line_end
    }

    /// The next line and its number; `None` at the end.
    pub(crate) fn next_line(&mut self) -> io::Result<Option<Numbered<&[u8]>>> {
        let next = self.next_range()?;
        Ok(next.map(|(number, range)| (number, range.map(|range| self.text(range)))))
    }

    /// The place of the next line, for [`text`](Self::text), and its number; `None` at the end.
    pub(crate) fn next_range(&mut self) -> io::Result<Option<Numbered<Range<usize>>>> {
        if self.long == Some(self.number + 1) {
            self.long = None;
            self.number += 1;
            return Ok(Some((self.number, Err(LineFault::TooLong(Lines::LONGEST)))));
        }
        let mut searched = 0;
        let (line, next) = loop {
            if let Some(found) = memchr(self.line_end, &self.buffer[self.start + searched..self.end]) {
                let end = self.start + searched + found;
                break (self.start..end, end + 1);
            }
            searched = self.end - self.start;
            if self.at_end {
                if searched == 0 {
                    return Ok(None);
                }
                break (self.start..self.end, self.end);
            }
            if searched >= Lines::LONGEST {
                return self.skip_long_line().map(Some);
            }
            self.fill()?;
        };
        self.start = next;
        self.number += 1;
        Ok(Some((self.number, Ok(line))))
    }

    /// The text of the line that was read last.
    pub(crate) fn text(&self, line: Range<usize>) -> &[u8] {
        let line = &self.buffer[line];
        line.strip_suffix(b"\r").unwrap_or(line)
    }

    /// Gives lines back, so that they are read again. `text` has their line ends. If `then_long`, a line that is too
    /// long was read after them, and is given back too.
    pub(crate) fn unread(&mut self, text: &[u8], lines: u64, then_long: bool) {
        let unread = self.end - self.start;
        let mut buffer = vec![0; BUFFER.max(text.len() + unread)];
        buffer[..text.len()].copy_from_slice(text);
        buffer[text.len()..text.len() + unread].copy_from_slice(&self.buffer[self.start..self.end]);
        (self.buffer, self.start, self.end) = (buffer, 0, text.len() + unread);
        if then_long {
            self.long = Some(self.number);
            self.number -= 1;
        }
        self.number -= lines;
    }

    /// Reads the rest and returns the SHA-256 of the file's bytes on disk, in hexadecimal.
    pub(crate) fn digest(self) -> io::Result<String> {
        self.source.digest()
    }

    fn skip_long_line(&mut self) -> io::Result<Numbered<Range<usize>>> {
        self.number += 1;
        loop {
            match memchr(self.line_end, &self.buffer[self.start..self.end]) {
                Some(found) => {
                    self.start += found + 1;
                    break;
                }
                None if self.at_end => {
                    self.start = self.end;
                    break;
                }
                None => {
                    self.start = self.end;
                    self.fill()?;
                }
            }
        }
        Ok((self.number, Err(LineFault::TooLong(Lines::LONGEST))))
    }

    /// Reads more text behind the unread one.
    fn fill(&mut self) -> io::Result<()> {
        if self.start > 0 {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        if self.end == self.buffer.len() {
            self.buffer.resize(self.buffer.len() * 2, 0);
        }
        match self.source.read(&mut self.buffer[self.end..]) {
            Ok(read) => {
                self.end += read;
                self.at_end = read == 0;
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// Whether a text begins with Excel's `sep=;`.
fn is_separator_line(text: &[u8], line_end: u8) -> bool {
    let line = text.split(|byte| *byte == line_end).next().unwrap_or_default();
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let line = line.strip_prefix(b"\"").and_then(|line| line.strip_suffix(b"\"")).unwrap_or(line);
    line.split_at_checked(4).is_some_and(|(key, separator)| key.eq_ignore_ascii_case(b"sep=") && separator.len() == 1)
}
