use super::PickleError;

/// Takes bytes from the front of a pickle.
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { bytes, at: 0 }
    }

    /// Number of bytes taken so far.
    pub(super) fn at(&self) -> usize {
        self.at
    }

    /// Number of all bytes.
    pub(super) fn length(&self) -> usize {
        self.bytes.len()
    }

    pub(super) fn byte(&mut self) -> Result<u8, PickleError> {
        Ok(self.array::<1>()?[0])
    }

    pub(super) fn array<const LENGTH: usize>(&mut self) -> Result<[u8; LENGTH], PickleError> {
        let at = self.at;
        self.take(LENGTH)?.first_chunk().copied().ok_or(PickleError::Length(at))
    }

    pub(super) fn take(&mut self, length: usize) -> Result<&'a [u8], PickleError> {
        let end = self.at.checked_add(length).ok_or(PickleError::Length(self.at))?;
        let taken = self.bytes.get(self.at..end).ok_or(PickleError::Length(self.at))?;
        self.at = end;
        Ok(taken)
    }

    /// Text up to a line break, of at most 128 bytes.
    pub(super) fn line(&mut self) -> Result<&'a str, PickleError> {
        let rest = &self.bytes[self.at..];
        let length = rest.iter().take(128).position(|byte| *byte == b'\n').ok_or(PickleError::Length(self.at))?;
        let line = self.take(length)?;
        self.at += 1;
        std::str::from_utf8(line).map_err(|_| PickleError::Length(self.at))
    }
}
