/// Why a pickle was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PickleError {
    /// The bytes end within an opcode or before STOP, or go on after it.
    #[error("the pickle is cut or has bytes after its end (at byte {0})")]
    Length(usize),
    /// An opcode outside the subset.
    #[error("opcode 0x{opcode:02x} at byte {at} is not one that a state dict needs")]
    Opcode {
        /// The opcode.
        opcode: u8,
        /// Its place.
        at: usize,
    },
    /// A protocol other than 2, which `torch.save` writes.
    #[error("pickle protocol {0}, only 2 is read; save with torch.save's default")]
    Protocol(u8),
    /// A global outside the allow-list.
    #[error(
        "global `{0}` is not allowed: a state dict of float tensors needs none but OrderedDict, _rebuild_tensor_v2 and storages"
    )]
    Global(String),
    /// Operands that the operation does not take.
    #[error("{operation} at byte {at} has operands that no state dict has")]
    Operands {
        /// The operation.
        operation: &'static str,
        /// Its place.
        at: usize,
    },
    /// A memo entry that cannot be.
    #[error("memo entry {index} at byte {at} was never stored or is out of range")]
    Memo {
        /// The entry.
        index: u32,
        /// Place of the opcode.
        at: usize,
    },
    /// A state dict whose entries are not tensors by name, each once.
    #[error("the state dict's entry {0} is not a tensor under a name of its own")]
    Entry(String),
}
