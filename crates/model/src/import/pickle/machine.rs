use std::collections::{HashMap, HashSet};

use super::PickleError;
use super::reader::Reader;
use crate::import::strided::{Element, Strided};

/// A tensor: a view of a storage outside the pickle.
#[derive(Clone, Debug)]
pub(in crate::import) struct View<'a> {
    pub(in crate::import) storage: Storage<'a>,
    pub(in crate::import) strided: Strided,
}

/// A flat array in its own archive entry.
#[derive(Clone, Copy, Debug)]
pub(in crate::import) struct Storage<'a> {
    pub(in crate::import) element: Element,
    /// Name of the entry under `data/`.
    pub(in crate::import) key: &'a str,
    /// Number of elements.
    pub(in crate::import) count: usize,
}

/// The tensors of a pickled state dict, in its order.
///
/// # Errors
/// [`PickleError`] for anything that a state dict of float tensors does not need.
pub(in crate::import) fn parse(bytes: &[u8]) -> Result<Vec<(&str, View<'_>)>, PickleError> {
    let mut machine = Machine::new(bytes);
    while !machine.step()? {}
    machine.finish()
}

#[derive(Clone, Copy, Debug)]
enum Value<'a> {
    None,
    Bool,
    Int(i64),
    Text(&'a str),
    Global(Global),
    Storage(Storage<'a>),
    /// Index in the machine's tuples.
    Tuple(usize),
    /// Index in the machine's dicts.
    Dict(usize),
    /// Index in the machine's views.
    Tensor(usize),
}

#[derive(Clone, Copy, Debug)]
enum Global {
    OrderedDict,
    RebuildTensor,
    Storage(Element),
}

/// The stack machine that runs a pickle.
struct Machine<'a> {
    input: Reader<'a>,
    /// Position of the current opcode.
    opcode_at: usize,
    stack: Vec<Value<'a>>,
    /// Height of the stack at each MARK.
    marks: Vec<usize>,
    memo: HashMap<u32, Value<'a>>,
    tuples: Vec<Vec<Value<'a>>>,
    dicts: Vec<Vec<(Value<'a>, Value<'a>)>>,
    views: Vec<View<'a>>,
}

impl<'a> Machine<'a> {
    fn new(bytes: &'a [u8]) -> Machine<'a> {
        Machine {
            input: Reader::new(bytes),
            opcode_at: 0,
            stack: Vec::new(),
            marks: Vec::new(),
            memo: HashMap::new(),
            tuples: Vec::new(),
            dicts: Vec::new(),
            views: Vec::new(),
        }
    }

    /// Runs one opcode. Returns `true` after STOP.
    fn step(&mut self) -> Result<bool, PickleError> {
        self.opcode_at = self.input.at();
        match self.input.byte()? {
            0x80 => match self.input.byte()? {
                2 => {}
                other => return Err(PickleError::Protocol(other)),
            },
            b'(' => self.marks.push(self.stack.len()),
            b'.' => return Ok(true),
            b'N' => self.stack.push(Value::None),
            0x88 | 0x89 => self.stack.push(Value::Bool),
            b'K' => {
                let value = self.input.byte()?;
                self.stack.push(Value::Int(value.into()));
            }
            b'M' => {
                let value = u16::from_le_bytes(self.input.array()?);
                self.stack.push(Value::Int(value.into()));
            }
            b'J' => {
                let value = i32::from_le_bytes(self.input.array()?);
                self.stack.push(Value::Int(value.into()));
            }
            0x8a => self.long()?,
            b'X' => {
                let length = u32::from_le_bytes(self.input.array()?) as usize;
                let text = std::str::from_utf8(self.input.take(length)?).map_err(|_| self.operands("BINUNICODE"))?;
                self.stack.push(Value::Text(text));
            }
            b'c' => self.global()?,
            b'q' => {
                let index = self.input.byte()?;
                self.store(index.into())?;
            }
            b'r' => {
                let index = u32::from_le_bytes(self.input.array()?);
                self.store(index)?;
            }
            b'h' => {
                let index = self.input.byte()?;
                self.recall(index.into())?;
            }
            b'j' => {
                let index = u32::from_le_bytes(self.input.array()?);
                self.recall(index)?;
            }
            b')' => self.push_tuple(Vec::new()),
            0x85 => self.tuple_of(1)?,
            0x86 => self.tuple_of(2)?,
            0x87 => self.tuple_of(3)?,
            b't' => {
                let items = self.pop_to_mark("TUPLE")?;
                self.push_tuple(items);
            }
            b'}' => self.push_dict(),
            b's' => {
                let entries = self.pop_many(2, "SETITEM")?;
                self.set_items(&entries, "SETITEM")?;
            }
            b'u' => {
                let entries = self.pop_to_mark("SETITEMS")?;
                self.set_items(&entries, "SETITEMS")?;
            }
            b'Q' => self.persistent_id()?,
            b'R' => self.reduce()?,
            b'b' => self.build()?,
            opcode => return Err(PickleError::Opcode { opcode, at: self.opcode_at }),
        }
        Ok(false)
    }

    /// The result after STOP, which must be one dict of tensors by name.
    fn finish(mut self) -> Result<Vec<(&'a str, View<'a>)>, PickleError> {
        if self.input.at() != self.input.length() {
            return Err(PickleError::Length(self.input.at()));
        }
        let (&[Value::Dict(root)], true) = (self.stack.as_slice(), self.marks.is_empty()) else {
            return Err(self.operands("STOP"));
        };
        let mut tensors: Vec<(&str, View<'_>)> = Vec::new();
        let mut known = HashSet::new();
        for (place, (key, value)) in std::mem::take(&mut self.dicts[root]).into_iter().enumerate() {
            let (Value::Text(name), Value::Tensor(view)) = (key, value) else {
                let name = if let Value::Text(name) = key { format!("`{name}`") } else { place.to_string() };
                return Err(PickleError::Entry(name));
            };
            if !known.insert(name) {
                return Err(PickleError::Entry(format!("`{name}`")));
            }
            tensors.push((name, self.views[view].clone()));
        }
        Ok(tensors)
    }

    /// GLOBAL, `module\nname\n`. The name is looked up in the allow-list and never imported.
    fn global(&mut self) -> Result<(), PickleError> {
        let (module, name) = (self.input.line()?, self.input.line()?);
        let global = match (module, name) {
            ("collections", "OrderedDict") => Some(Global::OrderedDict),
            ("torch._utils", "_rebuild_tensor_v2") => Some(Global::RebuildTensor),
            ("torch", storage) => Element::of_storage(storage).map(Global::Storage),
            _ => None,
        };
        let global = global.ok_or_else(|| PickleError::Global(format!("{module}.{name}")))?;
        self.stack.push(Value::Global(global));
        Ok(())
    }

    /// BINPERSID of `("storage", type, key, location, count)`. The location (`cpu`, `cuda:0`) is ignored.
    fn persistent_id(&mut self) -> Result<(), PickleError> {
        let value = self.pop("BINPERSID")?;
        let id = self.tuple(value).ok_or_else(|| self.operands("BINPERSID"))?;
        let &[
            Value::Text("storage"),
            Value::Global(Global::Storage(element)),
            Value::Text(key),
            Value::Text(_),
            Value::Int(count),
        ] = id
        else {
            return Err(self.operands("BINPERSID"));
        };
        let count = usize::try_from(count).map_err(|_| self.operands("BINPERSID"))?;
        self.stack.push(Value::Storage(Storage { element, key, count }));
        Ok(())
    }

    /// REDUCE of `OrderedDict()`, or of `_rebuild_tensor_v2(storage, offset, size, stride, requires_grad,
    /// backward_hooks)` with empty hooks.
    fn reduce(&mut self) -> Result<(), PickleError> {
        let refused = self.operands("REDUCE");
        let (arguments, callable) = (self.pop("REDUCE")?, self.pop("REDUCE")?);
        let arguments = self.tuple(arguments).ok_or_else(|| refused.clone())?;
        match (callable, arguments) {
            (Value::Global(Global::OrderedDict), []) => self.push_dict(),
            (
                Value::Global(Global::RebuildTensor),
                &[
                    Value::Storage(storage),
                    Value::Int(offset),
                    Value::Tuple(shape),
                    Value::Tuple(stride),
                    Value::Bool,
                    Value::Dict(hooks),
                ],
            ) if self.dicts[hooks].is_empty() => {
                let sizes = |tuple: usize| {
                    let list = self.tuples[tuple].iter().map(|value| match value {
                        Value::Int(size) => usize::try_from(*size).map_err(|_| refused.clone()),
                        _ => Err(refused.clone()),
                    });
                    list.collect::<Result<Vec<usize>, _>>()
                };
                let (shape, stride) = (sizes(shape)?, sizes(stride)?);
                let offset = usize::try_from(offset).map_err(|_| refused.clone())?;
                let strided = Strided::new(offset, shape, stride, storage.count).ok_or(refused)?;
                self.stack.push(Value::Tensor(self.views.len()));
                self.views.push(View { storage, strided });
            }
            _ => return Err(refused),
        }
        Ok(())
    }

    /// BUILD of `OrderedDict.__setstate__({"_metadata": ...})`. The metadata holds versions of PyTorch modules and is
    /// ignored.
    fn build(&mut self) -> Result<(), PickleError> {
        let state = self.pop("BUILD")?;
        let (Some(Value::Dict(_)), Value::Dict(state)) = (self.stack.last(), state) else {
            return Err(self.operands("BUILD"));
        };
        match self.dicts[state].as_slice() {
            [(Value::Text("_metadata"), Value::Dict(_))] => Ok(()),
            _ => Err(self.operands("BUILD")),
        }
    }

    /// LONG1 of at most 8 bytes, in two's complement. Element counts above 2^31 need it.
    fn long(&mut self) -> Result<(), PickleError> {
        let length = usize::from(self.input.byte()?);
        let digits = self.input.take(length)?;
        let negative = digits.last().is_some_and(|digit| digit & 0x80 != 0);
        let mut value = [if negative { 0xff } else { 0 }; 8];
        value.get_mut(..length).ok_or_else(|| self.operands("LONG1"))?.copy_from_slice(digits);
        self.stack.push(Value::Int(i64::from_le_bytes(value)));
        Ok(())
    }

    fn set_items(&mut self, entries: &[Value<'a>], operation: &'static str) -> Result<(), PickleError> {
        let (Some(&Value::Dict(dict)), true) = (self.stack.last(), entries.len().is_multiple_of(2)) else {
            return Err(self.operands(operation));
        };
        self.dicts[dict].extend(entries.chunks_exact(2).map(|pair| (pair[0], pair[1])));
        Ok(())
    }

    /// BINPUT and LONG_BINPUT. Each memo entry takes an opcode, so a valid index is below the number of bytes.
    fn store(&mut self, index: u32) -> Result<(), PickleError> {
        let value = *self.stack.last().ok_or_else(|| self.operands("BINPUT"))?;
        if index as usize >= self.input.length() {
            return Err(PickleError::Memo { index, at: self.opcode_at });
        }
        self.memo.insert(index, value);
        Ok(())
    }

    /// BINGET and LONG_BINGET.
    fn recall(&mut self, index: u32) -> Result<(), PickleError> {
        let value = *self.memo.get(&index).ok_or(PickleError::Memo { index, at: self.opcode_at })?;
        self.stack.push(value);
        Ok(())
    }

    fn tuple(&self, value: Value<'a>) -> Option<&[Value<'a>]> {
        if let Value::Tuple(place) = value { self.tuples.get(place).map(Vec::as_slice) } else { None }
    }

    fn tuple_of(&mut self, count: usize) -> Result<(), PickleError> {
        let items = self.pop_many(count, "TUPLE")?;
        self.push_tuple(items);
        Ok(())
    }

    fn push_tuple(&mut self, items: Vec<Value<'a>>) {
        self.stack.push(Value::Tuple(self.tuples.len()));
        self.tuples.push(items);
    }

    fn push_dict(&mut self) {
        self.stack.push(Value::Dict(self.dicts.len()));
        self.dicts.push(Vec::new());
    }

    fn pop(&mut self, operation: &'static str) -> Result<Value<'a>, PickleError> {
        Ok(self.pop_many(1, operation)?[0])
    }

    /// Pops values, but none below the last MARK.
    fn pop_many(&mut self, count: usize, operation: &'static str) -> Result<Vec<Value<'a>>, PickleError> {
        let lowest = self.marks.last().copied().unwrap_or(0);
        match self.stack.len().checked_sub(count) {
            Some(start) if start >= lowest => Ok(self.stack.split_off(start)),
            _ => Err(self.operands(operation)),
        }
    }

    fn pop_to_mark(&mut self, operation: &'static str) -> Result<Vec<Value<'a>>, PickleError> {
        let mark = self.marks.pop().ok_or_else(|| self.operands(operation))?;
        Ok(self.stack.split_off(mark))
    }

    fn operands(&self, operation: &'static str) -> PickleError {
        PickleError::Operands { operation, at: self.opcode_at }
    }
}
