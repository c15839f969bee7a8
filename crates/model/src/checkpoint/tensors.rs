use std::borrow::Cow;
use std::collections::{BTreeMap, TryReserveError};
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use safetensors::tensor::{Metadata, TensorInfo};
use safetensors::{Dtype, SafeTensorError, View, serialize_to_file};

use super::CheckpointError;

/// Room for the header of a tensor file: names, types and shapes of some 16,000 tensors.
const HEADER_LIMIT: u64 = 4 << 20;

/// Why a tensor file does not hold what it should.
#[derive(Debug, thiserror::Error)]
pub enum TensorsError {
    /// No safetensors file, or one that is cut.
    #[error("not a whole safetensors file: {0}")]
    Header(String),
    /// A tensor that is not there.
    #[error("tensor `{0}` is missing")]
    Missing(String),
    /// A tensor that does not belong there.
    #[error("tensor `{0}` is not part of this file")]
    Unknown(String),
    /// A tensor of another element type.
    #[error("tensor `{name}` is {found}, it must be {expected}")]
    Type {
        /// The tensor.
        name: String,
        /// Its element type.
        found: Dtype,
        /// The type that it must have.
        expected: Dtype,
    },
    /// A tensor of another shape.
    #[error("tensor `{name}` has shape {found:?}, it must be {expected:?}")]
    Shape {
        /// The tensor.
        name: String,
        /// Its shape.
        found: Vec<usize>,
        /// The shape that it must have.
        expected: Vec<usize>,
    },
    /// A tensor that does not fit into memory.
    #[error("tensor `{name}` does not fit into memory: {source}")]
    Memory {
        /// The tensor.
        name: String,
        /// The allocator's answer.
        source: TryReserveError,
    },
}

/// What a tensor must be.
pub(super) struct Slot {
    pub(super) name: String,
    pub(super) dtype: Dtype,
    pub(super) shape: Vec<usize>,
}

impl Slot {
    /// Bytes of its values; the sizes of a checked configuration stay far below 2^63.
    fn bytes(&self) -> u64 {
        self.shape.iter().map(|size| *size as u64).product::<u64>() * self.dtype.bitsize() as u64 / 8
    }
}

/// The most bytes that a file of these tensors has.
pub(super) fn size_limit(slots: &[Slot]) -> u64 {
    slots.iter().map(Slot::bytes).fold(8 + HEADER_LIMIT, u64::saturating_add)
}

/// An open safetensors file whose header was read. Values are read one tensor at a time.
pub(super) struct TensorFile {
    path: PathBuf,
    metadata: Metadata,
    values_start: u64,
    input: BufReader<File>,
}

impl TensorFile {
    /// Reads the header of a file of `size` bytes, which must hold exactly the tensors that it names.
    pub(super) fn open(path: &Path, file: File, size: u64) -> Result<TensorFile, CheckpointError> {
        let invalid = |reason: String| CheckpointError::Tensors {
            path: path.to_owned(),
            source: TensorsError::Header(format!("{reason}; copy it again")),
        };
        let mut input = BufReader::new(file);
        let mut length = [0; 8];
        input.read_exact(&mut length).map_err(|_| invalid("shorter than a header".to_owned()))?;
        let length = u64::from_le_bytes(length);
        let available = size.saturating_sub(8);
        if length > HEADER_LIMIT.min(available) {
            return Err(invalid(format!("a header of {length} bytes in a file of {size}")));
        }
        let mut header = vec![0; length as usize];
        input.read_exact(&mut header).map_err(CheckpointError::io(path, "read"))?;
        let metadata: Metadata = serde_json::from_slice(&header).map_err(|error| invalid(error.to_string()))?;
        let (values, named) = (available - length, metadata.data_len() as u64);
        if values != named {
            return Err(invalid(format!("{values} bytes of values, the header names {named}")));
        }
        Ok(TensorFile { path: path.to_owned(), metadata, values_start: 8 + length, input })
    }

    /// The shape of a tensor, where it is there.
    pub(super) fn shape(&self, name: &str) -> Option<&[usize]> {
        self.metadata.info(name).map(|info| info.shape.as_slice())
    }

    /// Checks that the file holds these tensors and no others.
    pub(super) fn check(&self, slots: &[Slot]) -> Result<(), CheckpointError> {
        let found: BTreeMap<String, &TensorInfo> = self.metadata.tensors().into_iter().collect();
        if let Some(name) = found.keys().find(|name| slots.iter().all(|slot| slot.name != **name)) {
            return Err(self.error(TensorsError::Unknown(name.clone())));
        }
        for slot in slots {
            let (name, Some(info)) = (slot.name.clone(), found.get(&slot.name)) else {
                return Err(self.error(TensorsError::Missing(slot.name.clone())));
            };
            if info.dtype != slot.dtype {
                return Err(self.error(TensorsError::Type { name, found: info.dtype, expected: slot.dtype }));
            }
            if info.shape != slot.shape {
                let (found, expected) = (info.shape.clone(), slot.shape.clone());
                return Err(self.error(TensorsError::Shape { name, found, expected }));
            }
        }
        Ok(())
    }

    /// The values of a float32 tensor that was checked.
    pub(super) fn floats(&mut self, name: &str) -> Result<Vec<f32>, CheckpointError> {
        self.values(name, f32::from_le_bytes)
    }

    /// The values of an int64 tensor that was checked.
    pub(super) fn integers(&mut self, name: &str) -> Result<Vec<i64>, CheckpointError> {
        self.values(name, i64::from_le_bytes)
    }

    fn values<T, const WIDTH: usize>(
        &mut self,
        name: &str,
        decode: fn([u8; WIDTH]) -> T,
    ) -> Result<Vec<T>, CheckpointError> {
        let Some(info) = self.metadata.info(name) else {
            return Err(self.error(TensorsError::Missing(name.to_owned())));
        };
        let (start, end) = info.data_offsets;
        let count = (end - start) / WIDTH;
        let mut values = Vec::new();
        values
            .try_reserve_exact(count)
            .map_err(|source| self.error(TensorsError::Memory { name: name.to_owned(), source }))?;
        let mut read = || {
            self.input.seek(SeekFrom::Start(self.values_start + start as u64))?;
            let mut bytes = [0; WIDTH];
            for _ in 0..count {
                self.input.read_exact(&mut bytes)?;
                values.push(decode(bytes));
            }
            Ok::<_, io::Error>(())
        };
        read().map_err(CheckpointError::io(&self.path, "read"))?;
        Ok(values)
    }

    fn error(&self, source: TensorsError) -> CheckpointError {
        CheckpointError::Tensors { path: self.path.clone(), source }
    }
}

/// A tensor to write.
pub(super) enum Array<'a> {
    Floats { shape: Vec<usize>, values: &'a [f32] },
    Integers { shape: Vec<usize>, values: &'a [i64] },
}

impl View for Array<'_> {
    fn dtype(&self) -> Dtype {
        match self {
            Array::Floats { .. } => Dtype::F32,
            Array::Integers { .. } => Dtype::I64,
        }
    }

    fn shape(&self) -> &[usize] {
        match self {
            Array::Floats { shape, .. } | Array::Integers { shape, .. } => shape,
        }
    }

    fn data(&self) -> Cow<'_, [u8]> {
        match self {
            Array::Floats { values, .. } => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
            Array::Integers { values, .. } => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
        }
    }

    fn data_len(&self) -> usize {
        match self {
            Array::Floats { values, .. } => size_of_val(*values),
            Array::Integers { values, .. } => size_of_val(*values),
        }
    }
}

/// Writes tensors to a file.
pub(super) fn write(path: &Path, tensors: Vec<(&str, Array<'_>)>) -> Result<(), CheckpointError> {
    serialize_to_file(tensors, None, path).map_err(|error| match error {
        SafeTensorError::IoError(source) => CheckpointError::io(path, "write")(source),
        other => CheckpointError::Tensors { path: path.to_owned(), source: TensorsError::Header(other.to_string()) },
    })
}
