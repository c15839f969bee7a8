use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek};
use std::path::{Path, PathBuf};

use safetensors::SafeTensors;
use zip::ZipArchive;
use zip::result::ZipError;

use super::ImportError;
use super::pickle::parse;
use super::strided::{Element, Strided};

/// Far above any state dict: 84 tensors take 16 KB.
const PICKLE_LIMIT: usize = 4 << 20;

/// Bytes that give the length of a safetensors header.
const HEADER_LENGTH: usize = 8;

/// First bytes of a zip archive.
const ZIP_MAGIC: &[u8] = b"PK\x03\x04";

/// An open file of named tensors whose values are read when they are asked for.
pub(super) struct StateDict {
    path: PathBuf,
    tensors: BTreeMap<String, Tensor>,
    source: Source,
}

struct Tensor {
    element: Element,
    strided: Strided,
    place: Place,
}

/// Where a tensor's array lies.
enum Place {
    /// In a zip entry of that name, of so many bytes.
    Entry(String, usize),
    /// In a whole file, from and to a byte.
    Range(usize, usize),
}

enum Source {
    Zip(ZipArchive<BufReader<File>>),
    Whole(Vec<u8>),
}

impl StateDict {
    /// Opens what `torch.save` wrote, or a safetensors file; `limit` bounds the bytes of the latter.
    pub(super) fn open(path: &Path, mut file: File, limit: u64) -> Result<StateDict, ImportError> {
        let mut magic = Vec::new();
        let read = (&mut file).take(ZIP_MAGIC.len() as u64).read_to_end(&mut magic).and_then(|_| file.rewind());
        read.map_err(ImportError::io(path))?;
        if magic == ZIP_MAGIC { open_archive(path, file) } else { open_safetensors(path, file, limit) }
    }

    /// Names and shapes, by name.
    pub(super) fn shapes(&self) -> impl Iterator<Item = (&str, &[usize])> {
        self.tensors.iter().map(|(name, tensor)| (name.as_str(), tensor.strided.shape()))
    }

    /// The values of a tensor in row-major order, whose array has at most `limit` bytes.
    pub(super) fn read(&mut self, name: &str, limit: u64) -> Result<Vec<f32>, ImportError> {
        let failed = |reason: String| ImportError::Tensor { path: self.path.clone(), name: name.to_owned(), reason };
        let tensor = self.tensors.get(name).ok_or_else(|| failed("is missing".to_owned()))?;
        let entry;
        let bytes = match (&tensor.place, &mut self.source) {
            (Place::Range(start, end), Source::Whole(bytes)) => bytes.get(*start..*end),
            (Place::Entry(entry_name, size), Source::Zip(zip)) if *size as u64 <= limit => {
                entry = read_entry(zip, entry_name, *size)
                    .map_err(|error| failed(format!("is in entry {entry_name}, which cannot be read: {error}")))?;
                (entry.len() == *size).then_some(entry.as_slice())
            }
            (Place::Entry(_, size), _) => {
                return Err(failed(format!("has a storage of {size} bytes, more than the whole model has")));
            }
            (Place::Range(..), Source::Zip(_)) => None,
        };
        bytes
            .and_then(|bytes| tensor.strided.gather(tensor.element, bytes))
            .ok_or_else(|| failed("has a storage of another size than the file says".to_owned()))
    }
}

/// A zip archive of `data.pkl` and one entry a storage, all in one directory.
fn open_archive(path: &Path, file: File) -> Result<StateDict, ImportError> {
    let failed = |source| ImportError::Archive { path: path.to_owned(), source };
    let mut zip = ZipArchive::new(BufReader::new(file)).map_err(failed)?;
    let prefixes: Vec<&str> = zip.file_names().filter_map(|name| name.strip_suffix("data.pkl")).collect();
    let prefix = match prefixes.as_slice() {
        [prefix] => (*prefix).to_owned(),
        _ => return Err(ImportError::NotTorch { path: path.to_owned() }),
    };
    // Absent in files older than PyTorch 2.1, which wrote the machine's own order: little-endian wherever it mattered.
    match read_entry(&mut zip, &format!("{prefix}byteorder"), 16) {
        Ok(order) if order != b"little" => return Err(ImportError::ByteOrder { path: path.to_owned() }),
        Ok(_) | Err(ZipError::FileNotFound) => {}
        Err(error) => return Err(failed(error)),
    }
    let pickle = read_entry(&mut zip, &format!("{prefix}data.pkl"), PICKLE_LIMIT).map_err(failed)?;
    let views = parse(&pickle).map_err(|source| ImportError::Pickle { path: path.to_owned(), source })?;
    let mut tensors = BTreeMap::new();
    for (name, view) in views {
        let element = view.storage.element;
        let place = Place::Entry(
            format!("{prefix}data/{}", view.storage.key),
            view.storage.count.saturating_mul(element.width()),
        );
        tensors.insert(name.to_owned(), Tensor { element, strided: view.strided, place });
    }
    Ok(StateDict { path: path.to_owned(), tensors, source: Source::Zip(zip) })
}

fn open_safetensors(path: &Path, file: File, limit: u64) -> Result<StateDict, ImportError> {
    let size = file.metadata().map_err(ImportError::io(path))?.len();
    if size > limit {
        return Err(ImportError::TooLarge { path: path.to_owned(), size, limit });
    }
    let mut bytes = Vec::new();
    file.take(limit).read_to_end(&mut bytes).map_err(ImportError::io(path))?;
    let (header, metadata) =
        SafeTensors::read_metadata(&bytes).map_err(|_| ImportError::NotTorch { path: path.to_owned() })?;
    let mut tensors = BTreeMap::new();
    for (name, info) in metadata.tensors() {
        let element = Element::of_dtype(info.dtype);
        let (Some(element), Some(strided)) = (element, Strided::dense(info.shape.clone())) else {
            let reason = format!("is {:?} {:?}; only F64, F32, F16 and BF16 are read", info.dtype, info.shape);
            return Err(ImportError::Tensor { path: path.to_owned(), name, reason });
        };
        let [from, to] = [info.data_offsets.0, info.data_offsets.1].map(|offset| HEADER_LENGTH + header + offset);
        tensors.insert(name, Tensor { element, strided, place: Place::Range(from, to) });
    }
    Ok(StateDict { path: path.to_owned(), tensors, source: Source::Whole(bytes) })
}

/// Reads an entry of at most `limit` bytes, stored or deflated; one byte more tells that it is longer.
fn read_entry(zip: &mut ZipArchive<BufReader<File>>, name: &str, limit: usize) -> Result<Vec<u8>, ZipError> {
    let mut bytes = Vec::new();
    zip.by_name(name)?.take(limit as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > limit {
        return Err(ZipError::Io(io::Error::other(format!("longer than {limit} bytes"))));
    }
    Ok(bytes)
}
