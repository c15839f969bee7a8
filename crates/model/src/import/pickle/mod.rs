//! The part of pickle that `torch.save` writes for a state dict, and nothing more.
//!
//! A pickle is a program. This machine runs no foreign code: the three kinds of globals that it knows are names
//! which it interprets itself, and whatever else a pickle asks for is refused by name. Values are plain copies and
//! numbers of arena entries, so nothing recurses and memory stays within a small multiple of the pickle's size.
//! Opcodes: CPython, `Lib/pickletools.py`; persistent ids and `_rebuild_tensor_v2`: PyTorch, `torch/serialization.py`
//! and `torch/_utils.py`.

mod error;
mod machine;
mod reader;

pub use error::PickleError;

use self::machine::Machine;
use super::strided::{Element, Strided};

/// A tensor as the pickle describes it: a view of a storage that lies elsewhere.
#[derive(Clone, Debug)]
pub(super) struct View<'a> {
    pub(super) storage: Storage<'a>,
    pub(super) strided: Strided,
}

/// A flat array in an archive entry of its own.
#[derive(Clone, Copy, Debug)]
pub(super) struct Storage<'a> {
    pub(super) element: Element,
    /// Name of the entry under `data/`.
    pub(super) key: &'a str,
    /// Number of elements.
    pub(super) count: usize,
}

/// The tensors of a pickled state dict, in its order. Nothing is executed.
///
/// # Errors
/// [`PickleError`] for anything that a state dict of float tensors does not need.
pub(super) fn parse(bytes: &[u8]) -> Result<Vec<(&str, View<'_>)>, PickleError> {
    let mut machine = Machine::new(bytes);
    while !machine.step()? {}
    machine.finish()
}
