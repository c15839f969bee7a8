//! The subset of pickle that `torch.save` writes for a state dict, and for a checkpoint of RecBole.
//!
//! A pickle is a program. This machine runs no foreign code: it knows three kinds of globals, which it interprets itself.
//! In a state dict it refuses every other request by name. A checkpoint of RecBole also holds objects, such as the
//! configuration and the optimizer; the machine skips those that it does not know. Values are plain copies or indices
//! into arenas, so nothing recurses, and memory stays within a small multiple of the pickle's size.
//!
//! Sources: CPython's `Lib/pickletools.py` for the opcodes, PyTorch's `torch/serialization.py` and `torch/_utils.py` for
//! persistent ids and `_rebuild_tensor_v2`.

mod error;
mod machine;
mod reader;

pub use error::PickleError;
pub(super) use machine::{Saved, Setting, View, parse, parse_recbole};
