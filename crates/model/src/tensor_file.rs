//! Safetensors files: tensors are read one at a time, whole slices at once.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, TryReserveError};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use safetensors::tensor::{Metadata, TensorInfo};
use safetensors::{Dtype, SafeTensorError, View, serialize_to_file};
use zerocopy::{FromBytes, IntoBytes};

const _: () = assert!(cfg!(target_endian = "little"), "values have the same bytes in memory and in a file");

/// Limit on a header. The state of a training keeps the curve of its epochs there: some 300,000 of them fit.
pub(crate) const HEADER_LIMIT: u64 = 64 << 20;

/// Why a tensor file cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum TensorFileError {
    /// The system refused to read.
    #[error("cannot read: {0}")]
    Read(#[source] io::Error),
    /// The system refused to write.
    #[error("cannot write: {0}")]
    Write(#[source] io::Error),
    /// The file is not a safetensors file, or it is cut.
    #[error("not a whole safetensors file: {0}")]
    Header(String),
    /// A tensor is missing.
    #[error("tensor `{0}` is missing")]
    Missing(String),
    /// The file holds a tensor that does not belong there.
    #[error("tensor `{0}` is not part of this file")]
    Unknown(String),
    /// A tensor has the wrong element type.
    #[error("tensor `{name}` is {found}, it must be {expected}")]
    Type {
        /// The tensor.
        name: String,
        /// Its element type.
        found: Dtype,
        /// The type that it must have.
        expected: Dtype,
    },
    /// A tensor has the wrong shape.
    #[error("tensor `{name}` has shape {found:?}, it must be {expected:?}")]
    Shape {
        /// The tensor.
        name: String,
        /// Its shape.
        found: Vec<usize>,
        /// The shape that it must have.
        expected: Vec<usize>,
    },
    /// A tensor does not fit into memory.
    #[error("tensor `{name}` does not fit into memory: {source}")]
    Memory {
        /// The tensor.
        name: String,
        /// The allocator's error.
        source: TryReserveError,
    },
}

/// The name, type and shape that a tensor must have.
pub(crate) struct TensorSpec {
    pub(crate) name: String,
    pub(crate) dtype: Dtype,
    pub(crate) shape: Vec<usize>,
}

impl TensorSpec {
    /// Bytes of its values. The sizes of a checked configuration stay far below 2^63.
    fn bytes(&self) -> u64 {
        self.shape.iter().map(|size| *size as u64).product::<u64>() * self.dtype.bitsize() as u64 / 8
    }
}

/// The size in bytes of the largest file of these tensors.
pub(crate) fn size_limit(specs: &[TensorSpec]) -> u64 {
    specs.iter().map(TensorSpec::bytes).fold(8 + HEADER_LIMIT, u64::saturating_add)
}

/// An open safetensors file. The header is in memory, the values are on disk.
pub struct TensorFile {
    metadata: Metadata,
    values_start: u64,
    file: File,
}

impl TensorFile {
    /// Reads the header of a file that stands at its start. The file must be as long as the header says.
    ///
    /// # Errors
    /// [`TensorFileError::Read`] or [`TensorFileError::Header`].
    pub fn open(mut file: File) -> Result<TensorFile, TensorFileError> {
        let size = file.metadata().map_err(TensorFileError::Read)?.len();
        let mut length = [0; 8];
        file.read_exact(&mut length).map_err(|_| TensorFileError::Header("shorter than a header".to_owned()))?;
        let length = u64::from_le_bytes(length);
        let available = size.saturating_sub(8);
        if length > HEADER_LIMIT.min(available) {
            return Err(TensorFileError::Header(format!("a header of {length} bytes in a file of {size}")));
        }
        let mut header = vec![0; length as usize];
        file.read_exact(&mut header).map_err(TensorFileError::Read)?;
        let metadata: Metadata =
            serde_json::from_slice(&header).map_err(|error| TensorFileError::Header(error.to_string()))?;
        let (values, named) = (available - length, metadata.data_len() as u64);
        if values != named {
            return Err(TensorFileError::Header(format!("{values} bytes of values, the header names {named}")));
        }
        Ok(TensorFile { metadata, values_start: 8 + length, file })
    }

    /// Name, element type and shape of every tensor, by name.
    pub fn tensors(&self) -> BTreeMap<String, &TensorInfo> {
        self.metadata.tensors().into_iter().collect()
    }

    /// An entry of the header's free-form metadata.
    pub fn metadata(&self, key: &str) -> Option<&str> {
        self.metadata.metadata().as_ref()?.get(key).map(String::as_str)
    }

    /// The shape of a tensor, if the file has it.
    pub(crate) fn shape(&self, name: &str) -> Option<&[usize]> {
        self.metadata.info(name).map(|info| info.shape.as_slice())
    }

    /// Checks that the file holds exactly these tensors.
    pub(crate) fn check(&self, specs: &[TensorSpec]) -> Result<(), TensorFileError> {
        let found = self.tensors();
        if let Some(name) = found.keys().find(|name| specs.iter().all(|spec| spec.name != **name)) {
            return Err(TensorFileError::Unknown(name.clone()));
        }
        for TensorSpec { name, dtype, shape } in specs {
            let info = found.get(name).ok_or_else(|| TensorFileError::Missing(name.clone()))?;
            check_type(name, info.dtype, *dtype)?;
            if info.shape != *shape {
                let (name, found, expected) = (name.clone(), info.shape.clone(), shape.clone());
                return Err(TensorFileError::Shape { name, found, expected });
            }
        }
        Ok(())
    }

    /// The values of a float32 tensor, row-major.
    ///
    /// # Errors
    /// [`TensorFileError`] that names the tensor.
    pub fn floats(&mut self, name: &str) -> Result<Vec<f32>, TensorFileError> {
        self.values(name, Some(Dtype::F32))
    }

    /// The values of an int64 tensor, row-major.
    ///
    /// # Errors
    /// [`TensorFileError`] that names the tensor.
    pub fn integers(&mut self, name: &str) -> Result<Vec<i64>, TensorFileError> {
        self.values(name, Some(Dtype::I64))
    }

    /// The bytes of a tensor of any type.
    pub(crate) fn bytes(&mut self, name: &str) -> Result<Vec<u8>, TensorFileError> {
        self.values(name, None)
    }

    fn values<T: Copy + Default + FromBytes + IntoBytes>(
        &mut self,
        name: &str,
        dtype: Option<Dtype>,
    ) -> Result<Vec<T>, TensorFileError> {
        let info = self.metadata.info(name).ok_or_else(|| TensorFileError::Missing(name.to_owned()))?;
        if let Some(expected) = dtype {
            check_type(name, info.dtype, expected)?;
        }
        let (start, end) = info.data_offsets;
        let count = (end - start) / size_of::<T>();
        let mut values = Vec::new();
        values.try_reserve_exact(count).map_err(|source| TensorFileError::Memory { name: name.to_owned(), source })?;
        values.resize(count, T::default());
        let seek = self.file.seek(SeekFrom::Start(self.values_start + start as u64));
        seek.and_then(|_| self.file.read_exact(values.as_mut_slice().as_mut_bytes())).map_err(TensorFileError::Read)?;
        Ok(values)
    }
}

/// Whether a file that stands at its start is the beginning of a longer safetensors file.
///
/// # Errors
/// [`io::Error`] if the system refuses to read.
pub(crate) fn ends_early(file: &mut File) -> io::Result<bool> {
    let size = file.metadata()?.len();
    if size < 8 {
        return Ok(true);
    }
    let mut length = [0; 8];
    file.read_exact(&mut length)?;
    let (length, available) = (u64::from_le_bytes(length), size - 8);
    if length > HEADER_LIMIT.min(available) {
        return Ok(length <= HEADER_LIMIT);
    }
    let mut header = vec![0; length as usize];
    file.read_exact(&mut header)?;
    let metadata = serde_json::from_slice::<Metadata>(&header);
    Ok(metadata.is_ok_and(|metadata| metadata.data_len() as u64 > available - length))
}

fn check_type(name: &str, found: Dtype, expected: Dtype) -> Result<(), TensorFileError> {
    if found == expected {
        return Ok(());
    }
    Err(TensorFileError::Type { name: name.to_owned(), found, expected })
}

/// A tensor to write.
pub struct TensorToWrite<'a> {
    shape: Vec<usize>,
    dtype: Dtype,
    bytes: &'a [u8],
}

impl<'a> TensorToWrite<'a> {
    /// A float32 tensor from its row-major values.
    pub fn floats(shape: Vec<usize>, values: &'a [f32]) -> TensorToWrite<'a> {
        TensorToWrite { shape, dtype: Dtype::F32, bytes: values.as_bytes() }
    }

    /// An int64 tensor from its row-major values.
    pub fn integers(shape: Vec<usize>, values: &'a [i64]) -> TensorToWrite<'a> {
        TensorToWrite { shape, dtype: Dtype::I64, bytes: values.as_bytes() }
    }
}

impl View for TensorToWrite<'_> {
    fn dtype(&self) -> Dtype {
        self.dtype
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        self.bytes.into()
    }

    fn data_len(&self) -> usize {
        self.bytes.len()
    }
}

/// Writes named tensors, and free-form metadata for the header.
///
/// # Errors
/// [`TensorFileError::Write`] if the system refuses.
pub fn write_tensors<N: AsRef<str> + Ord + std::fmt::Display>(
    path: &Path,
    tensors: Vec<(N, TensorToWrite<'_>)>,
    metadata: Option<HashMap<String, String>>,
) -> Result<(), TensorFileError> {
    serialize_to_file(tensors, metadata, path).map_err(|error| match error {
        SafeTensorError::IoError(source) => TensorFileError::Write(source),
        other => TensorFileError::Header(other.to_string()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tensors_and_metadata_come_back() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.safetensors");
        let tensors = vec![
            ("counts", TensorToWrite::integers(vec![3], &[i64::MIN, 0, 7])),
            ("scalar", TensorToWrite::floats(Vec::new(), &[f32::MIN_POSITIVE])),
            ("empty", TensorToWrite::floats(vec![0, 4], &[])),
        ];
        write_tensors(&path, tensors, Some(HashMap::from([("note".to_owned(), "hi".to_owned())]))).unwrap();
        let mut file = TensorFile::open(File::open(&path).unwrap()).unwrap();
        assert_eq!((file.metadata("note"), file.metadata("other")), (Some("hi"), None));
        assert_eq!(file.tensors().into_keys().collect::<Vec<_>>(), ["counts", "empty", "scalar"]);
        assert_eq!(file.integers("counts").unwrap(), [i64::MIN, 0, 7]);
        assert_eq!(file.floats("scalar").unwrap(), [f32::MIN_POSITIVE]);
        assert_eq!(file.floats("empty").unwrap(), [] as [f32; 0]);
        assert!(matches!(file.floats("counts"), Err(TensorFileError::Type { found: Dtype::I64, .. })));
        assert!(matches!(file.floats("absent"), Err(TensorFileError::Missing(_))));
    }
}
