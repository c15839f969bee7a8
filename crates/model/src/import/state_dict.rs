use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek};
use std::path::{Path, PathBuf};

use zip::ZipArchive;
use zip::result::ZipError;

use super::ImportError;
use super::pickle::{Saved, View, parse, parse_recbole};
use super::recbole_settings::Settings;
use super::strided::{Element, Strided};
use crate::TensorFile;

/// Limit on a pickle. One of 84 tensors takes 16 KB.
const PICKLE_LIMIT: usize = 4 << 20;

/// First bytes of a zip archive.
const ZIP_MAGIC: &[u8] = b"PK\x03\x04";

/// An open file of named tensors. Values are read on demand.
pub(super) struct StateDict {
    path: PathBuf,
    tensors: BTreeMap<String, Tensor>,
    source: Source,
}

struct Tensor {
    element: Element,
    strided: Strided,
    array: Array,
}

/// The location of a tensor's array.
enum Array {
    /// An entry of the zip archive.
    Entry {
        name: String,
        /// Its size in bytes.
        size: usize,
    },
    /// The tensor of the same name in the safetensors file.
    Tensor,
}

enum Source {
    Zip(ZipArchive<BufReader<File>>),
    Safetensors(TensorFile),
}

impl StateDict {
    /// Opens a file of `torch.save`, or a safetensors file of at most `limit` bytes.
    pub(super) fn open(path: &Path, mut file: File, limit: u64) -> Result<StateDict, ImportError> {
        let mut magic = Vec::new();
        let read = (&mut file).take(ZIP_MAGIC.len() as u64).read_to_end(&mut magic).and_then(|_| file.rewind());
        read.map_err(ImportError::io(path))?;
        if magic == ZIP_MAGIC { open_archive(path, file) } else { open_safetensors(path, file, limit) }
    }

    /// Opens a checkpoint of RecBole, and reads the settings of its training.
    pub(super) fn open_recbole(path: &Path, file: File) -> Result<(StateDict, Settings), ImportError> {
        let archive = Archive::open(path, file)?;
        let Saved { tensors, settings } = parse_recbole(&archive.pickle)
            .map_err(|source| ImportError::Checkpoint { path: path.to_owned(), source })?;
        let settings = settings.into_iter().map(|(name, value)| (name.to_owned(), value.owned())).collect();
        let tensors = archive.tensors(tensors);
        Ok((archive.state_dict(tensors), Settings(settings)))
    }

    /// The shape of each tensor, by name.
    pub(super) fn shapes(&self) -> impl Iterator<Item = (&str, &[usize])> {
        self.tensors.iter().map(|(name, tensor)| (name.as_str(), tensor.strided.shape()))
    }

    /// The values of a tensor in row-major order. Its array may have at most `limit` bytes.
    pub(super) fn read(&mut self, name: &str, limit: u64) -> Result<Vec<f32>, ImportError> {
        let failed = |reason: String| ImportError::Tensor { path: self.path.clone(), name: name.to_owned(), reason };
        let tensor = self.tensors.get(name).ok_or_else(|| failed("is missing".to_owned()))?;
        let bytes = match (&tensor.array, &mut self.source) {
            (Array::Tensor, Source::Safetensors(file)) => {
                file.bytes(name).map_err(|error| failed(error.to_string()))?
            }
            (Array::Entry { name, size }, Source::Zip(zip)) if *size as u64 <= limit => {
                let bytes = read_entry(zip, name, *size)
                    .map_err(|error| failed(format!("is in entry {name}, which cannot be read: {error}")))?;
                if bytes.len() == *size { bytes } else { Vec::new() }
            }
            (Array::Entry { size, .. }, _) => {
                return Err(failed(format!("has a storage of {size} bytes, more than the whole model has")));
            }
            (Array::Tensor, Source::Zip(_)) => Vec::new(),
        };
        tensor
            .strided
            .gather(tensor.element, &bytes)
            .ok_or_else(|| failed("has a storage of another size than the file says".to_owned()))
    }
}

/// A zip archive of `data.pkl` and one entry a storage, all in one directory.
struct Archive {
    path: PathBuf,
    zip: ZipArchive<BufReader<File>>,
    prefix: String,
    pickle: Vec<u8>,
}

impl Archive {
    fn open(path: &Path, file: File) -> Result<Archive, ImportError> {
        let failed = |source| ImportError::Archive { path: path.to_owned(), source };
        let mut zip = ZipArchive::new(BufReader::new(file)).map_err(failed)?;
        let prefixes: Vec<&str> = zip.file_names().filter_map(|name| name.strip_suffix("data.pkl")).collect();
        let prefix = match prefixes.as_slice() {
            [prefix] => (*prefix).to_owned(),
            _ => return Err(ImportError::NotTorch { path: path.to_owned() }),
        };
        // PyTorch before 2.1 does not write this entry. It wrote the machine's byte order, which was little-endian in
        // practice.
        match read_entry(&mut zip, &format!("{prefix}byteorder"), 16) {
            Ok(order) if order != b"little" => return Err(ImportError::ByteOrder { path: path.to_owned() }),
            Ok(_) | Err(ZipError::FileNotFound) => {}
            Err(error) => return Err(failed(error)),
        }
        let pickle = read_entry(&mut zip, &format!("{prefix}data.pkl"), PICKLE_LIMIT).map_err(failed)?;
        Ok(Archive { path: path.to_owned(), zip, prefix, pickle })
    }

    fn tensors(&self, views: Vec<(&str, View<'_>)>) -> BTreeMap<String, Tensor> {
        let tensor = |(name, view): (&str, View<'_>)| {
            let element = view.storage.element;
            let array = Array::Entry {
                name: format!("{}data/{}", self.prefix, view.storage.key),
                size: view.storage.count.saturating_mul(element.width()),
            };
            (name.to_owned(), Tensor { element, strided: view.strided, array })
        };
        views.into_iter().map(tensor).collect()
    }

    fn state_dict(self, tensors: BTreeMap<String, Tensor>) -> StateDict {
        StateDict { path: self.path, tensors, source: Source::Zip(self.zip) }
    }
}

fn open_archive(path: &Path, file: File) -> Result<StateDict, ImportError> {
    let archive = Archive::open(path, file)?;
    let views = parse(&archive.pickle).map_err(|source| ImportError::Pickle { path: path.to_owned(), source })?;
    let tensors = archive.tensors(views);
    Ok(archive.state_dict(tensors))
}

fn open_safetensors(path: &Path, file: File, limit: u64) -> Result<StateDict, ImportError> {
    let size = file.metadata().map_err(ImportError::io(path))?.len();
    if size > limit {
        return Err(ImportError::TooLarge { path: path.to_owned(), size, limit });
    }
    let file = TensorFile::open(file).map_err(|_| ImportError::NotTorch { path: path.to_owned() })?;
    let mut tensors = BTreeMap::new();
    for (name, info) in file.tensors() {
        let element = Element::of_dtype(info.dtype);
        let (Some(element), Some(strided)) = (element, Strided::dense(info.shape.clone())) else {
            let reason = format!("is {:?} {:?}; only F64, F32, F16 and BF16 are read", info.dtype, info.shape);
            return Err(ImportError::Tensor { path: path.to_owned(), name, reason });
        };
        tensors.insert(name, Tensor { element, strided, array: Array::Tensor });
    }
    Ok(StateDict { path: path.to_owned(), tensors, source: Source::Safetensors(file) })
}

/// Reads an entry of at most `limit` bytes, stored or deflated. It asks for one byte more to notice a longer entry.
fn read_entry(zip: &mut ZipArchive<BufReader<File>>, name: &str, limit: usize) -> Result<Vec<u8>, ZipError> {
    let mut bytes = Vec::new();
    zip.by_name(name)?.take(limit as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > limit {
        return Err(ZipError::Io(io::Error::other(format!("longer than {limit} bytes"))));
    }
    Ok(bytes)
}
