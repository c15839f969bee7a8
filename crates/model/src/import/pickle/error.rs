/// Why a pickle was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PickleError {
    /// The bytes end before STOP, or go on after it.
    #[error("the pickle is cut or has bytes after its end (at byte {0})")]
    Length(usize),
    /// The opcode is outside the subset.
    #[error("opcode 0x{opcode:02x} at byte {at} is not one that a state dict needs")]
    Opcode {
        /// The opcode.
        opcode: u8,
        /// Its position.
        at: usize,
    },
    /// The protocol is not 2, the one that `torch.save` writes.
    #[error("pickle protocol {0}, only 2 is read; save with torch.save's default")]
    Protocol(u8),
    /// The global is outside the allow-list.
    #[error(
        "global `{0}` is not allowed: a state dict of float tensors needs none but OrderedDict, _rebuild_tensor_v2 and storages"
    )]
    Global(String),
    /// The operation does not take these operands.
    #[error("{operation} at byte {at} has operands that no state dict has")]
    Operands {
        /// The operation.
        operation: &'static str,
        /// Its position.
        at: usize,
    },
    /// The memo entry does not exist or is out of range.
    #[error("memo entry {index} at byte {at} was never stored or is out of range")]
    Memo {
        /// The entry.
        index: u32,
        /// Position of the opcode.
        at: usize,
    },
    /// An entry of the state dict is not a tensor, or its name is not unique.
    #[error("the state dict's entry {0} is not a tensor under a name of its own")]
    Entry(String),
}
