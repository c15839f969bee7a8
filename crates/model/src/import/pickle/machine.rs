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

/// What a training program saved: a state dict, and perhaps the settings of its training.
pub(in crate::import) struct Saved<'a> {
    /// The tensors, in their order.
    pub(in crate::import) tensors: Vec<(&'a str, View<'a>)>,
    /// The settings by name, as far as they are plain data. Empty if there are none.
    pub(in crate::import) settings: HashMap<&'a str, Setting<&'a str>>,
}

/// A setting of a training.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::import) enum Setting<T> {
    None,
    Int(i64),
    Float(f64),
    Text(T),
    /// Anything else.
    Other,
}

impl Setting<&str> {
    /// The setting without its pickle.
    pub(in crate::import) fn owned(self) -> Setting<String> {
        match self {
            Setting::None => Setting::None,
            Setting::Int(value) => Setting::Int(value),
            Setting::Float(value) => Setting::Float(value),
            Setting::Text(text) => Setting::Text(text.to_owned()),
            Setting::Other => Setting::Other,
        }
    }
}

/// The tensors of a pickled state dict, in its order.
///
/// # Errors
/// [`PickleError`] for anything that a state dict of float tensors does not need.
pub(in crate::import) fn parse(bytes: &[u8]) -> Result<Vec<(&str, View<'_>)>, PickleError> {
    let mut machine = Machine::new(bytes, Unknown::Refused);
    let root = machine.run()?;
    machine.tensors(root)
}

/// The state dict and the settings in a checkpoint of RecBole: a dict whose `state_dict` holds the tensors, and whose `config`
/// is an object with the settings in its `final_config_dict`. A state dict alone is read too.
///
/// Objects of unknown classes are never made: the machine keeps their place and, if they have one, their state.
///
/// # Errors
/// [`PickleError`] if there is no state dict of float tensors.
pub(in crate::import) fn parse_recbole(bytes: &[u8]) -> Result<Saved<'_>, PickleError> {
    let mut machine = Machine::new(bytes, Unknown::Skipped);
    let root = machine.run()?;
    let state_dict = match machine.get(root, "state_dict") {
        None => root,
        Some(Value::Dict(dict)) => dict,
        Some(_) => return Err(PickleError::Entry("`state_dict`".to_owned())),
    };
    let settings = machine.settings(root).unwrap_or_default();
    Ok(Saved { tensors: machine.tensors(state_dict)?, settings })
}

/// What happens to a global, and to an opcode, that a state dict does not need.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unknown {
    Refused,
    /// The machine goes on with an object that it knows nothing of.
    Skipped,
}

#[derive(Clone, Copy, Debug)]
enum Value<'a> {
    None,
    Bool,
    Int(i64),
    Float(f64),
    Text(&'a str),
    Global(Global),
    /// An unknown class, or a value of a kind that no state dict has.
    Opaque,
    /// An instance of an unknown class: index in the machine's objects.
    Object(usize),
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
    /// The state of each object, if it is a dict.
    objects: Vec<Option<usize>>,
    unknown: Unknown,
}

impl<'a> Machine<'a> {
    fn new(bytes: &'a [u8], unknown: Unknown) -> Machine<'a> {
        Machine {
            input: Reader::new(bytes),
            unknown,
            opcode_at: 0,
            stack: Vec::new(),
            marks: Vec::new(),
            memo: HashMap::new(),
            tuples: Vec::new(),
            dicts: Vec::new(),
            views: Vec::new(),
            objects: Vec::new(),
        }
    }

    /// Runs the pickle, whose result must be a dict.
    fn run(&mut self) -> Result<usize, PickleError> {
        while !self.step()? {}
        if self.input.at() != self.input.length() {
            return Err(PickleError::Length(self.input.at()));
        }
        match self.stack.as_slice() {
            &[Value::Dict(root)] if self.marks.is_empty() => Ok(root),
            _ => Err(self.operands("STOP")),
        }
    }

    /// Runs one opcode. Returns `true` after STOP.
    fn step(&mut self) -> Result<bool, PickleError> {
        self.opcode_at = self.input.at();
        match self.input.byte()? {
            0x80 => match self.input.byte()? {
                2 => {}
                3 | 4 if self.unknown == Unknown::Skipped => {}
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
            opcode if self.unknown == Unknown::Skipped => self.step_beyond_state_dicts(opcode)?,
            opcode => return Err(PickleError::Opcode { opcode, at: self.opcode_at }),
        }
        Ok(false)
    }

    /// Runs an opcode that no state dict of protocol 2 has.
    fn step_beyond_state_dicts(&mut self, opcode: u8) -> Result<(), PickleError> {
        match opcode {
            // FRAME says where the next bytes end. They are at hand already.
            0x95 => drop(self.input.array::<8>()?),
            0x94 => self.store(u32::try_from(self.memo.len()).map_err(|_| self.operands("MEMOIZE"))?)?,
            0x8c => {
                let length = self.input.byte()?.into();
                let text =
                    std::str::from_utf8(self.input.take(length)?).map_err(|_| self.operands("SHORT_BINUNICODE"))?;
                self.stack.push(Value::Text(text));
            }
            b'G' => {
                let value = f64::from_be_bytes(self.input.array()?);
                self.stack.push(Value::Float(value));
            }
            0x93 => {
                let (name, module) = (self.pop("STACK_GLOBAL")?, self.pop("STACK_GLOBAL")?);
                let (Value::Text(module), Value::Text(name)) = (module, name) else {
                    return Err(self.operands("STACK_GLOBAL"));
                };
                self.push_global(module, name)?;
            }
            // SHORT_BINBYTES, BINBYTES, BINBYTES8, BINUNICODE8 and LONG4.
            b'C' => self.skip_bytes(|input| Ok(input.byte()?.into()))?,
            b'B' | 0x8b => self.skip_bytes(|input| Ok(u32::from_le_bytes(input.array()?).into()))?,
            0x8e | 0x8d => self.skip_bytes(|input| Ok(u64::from_le_bytes(input.array()?)))?,
            // EMPTY_LIST and EMPTY_SET.
            b']' | 0x8f => self.stack.push(Value::Opaque),
            b'a' => drop(self.pop("APPEND")?),
            // APPENDS and ADDITEMS.
            b'e' | 0x90 => drop(self.pop_to_mark("APPENDS")?),
            0x91 => {
                self.pop_to_mark("FROZENSET")?;
                self.stack.push(Value::Opaque);
            }
            b'0' => drop(self.pop("POP")?),
            b'1' => drop(self.pop_to_mark("POP_MARK")?),
            0x81 => {
                self.pop_many(2, "NEWOBJ")?;
                self.push_object();
            }
            0x92 => {
                self.pop_many(3, "NEWOBJ_EX")?;
                self.push_object();
            }
            opcode => return Err(PickleError::Opcode { opcode, at: self.opcode_at }),
        }
        Ok(())
    }

    /// Skips as many bytes as the length in front of them says.
    fn skip_bytes(
        &mut self,
        length: impl FnOnce(&mut Reader<'a>) -> Result<u64, PickleError>,
    ) -> Result<(), PickleError> {
        let at = self.input.at();
        let length = usize::try_from(length(&mut self.input)?).map_err(|_| PickleError::Length(at))?;
        self.input.take(length)?;
        self.stack.push(Value::Opaque);
        Ok(())
    }

    /// The value of a key that is set last, as in Python.
    fn get(&self, dict: usize, wanted: &str) -> Option<Value<'a>> {
        let entry = |(key, _): &&(Value<'a>, Value<'a>)| matches!(key, Value::Text(text) if *text == wanted);
        self.dicts.get(dict)?.iter().rev().find(entry).map(|(_, value)| *value)
    }

    /// The plain values of `config.final_config_dict`.
    fn settings(&self, root: usize) -> Option<HashMap<&'a str, Setting<&'a str>>> {
        let Value::Object(config) = self.get(root, "config")? else { return None };
        let Value::Dict(settings) = self.get((*self.objects.get(config)?)?, "final_config_dict")? else { return None };
        let plain = |(key, value): &(Value<'a>, Value<'a>)| {
            let Value::Text(name) = *key else { return None };
            let value = match *value {
                Value::None => Setting::None,
                Value::Int(value) => Setting::Int(value),
                Value::Float(value) => Setting::Float(value),
                Value::Text(text) => Setting::Text(text),
                _ => Setting::Other,
            };
            Some((name, value))
        };
        Some(self.dicts.get(settings)?.iter().filter_map(plain).collect())
    }

    /// The entries of a dict, which must all be tensors by name.
    fn tensors(mut self, dict: usize) -> Result<Vec<(&'a str, View<'a>)>, PickleError> {
        let mut tensors: Vec<(&str, View<'_>)> = Vec::new();
        let mut known = HashSet::new();
        for (place, (key, value)) in std::mem::take(&mut self.dicts[dict]).into_iter().enumerate() {
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
        self.push_global(module, name)
    }

    fn push_global(&mut self, module: &str, name: &str) -> Result<(), PickleError> {
        let global = match (module, name) {
            ("collections", "OrderedDict") => Some(Global::OrderedDict),
            ("torch._utils", "_rebuild_tensor_v2") => Some(Global::RebuildTensor),
            ("torch", storage) => Element::of_storage(storage).map(Global::Storage),
            _ => None,
        };
        self.stack.push(match global {
            Some(global) => Value::Global(global),
            None if self.unknown == Unknown::Skipped => Value::Opaque,
            None => return Err(PickleError::Global(format!("{module}.{name}"))),
        });
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
            if self.unknown == Unknown::Skipped {
                // A storage of integers, as of an optimizer's steps.
                self.stack.push(Value::Opaque);
                return Ok(());
            }
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
            _ if self.unknown == Unknown::Skipped => self.push_object(),
            _ => return Err(refused),
        }
        Ok(())
    }

    /// BUILD of `OrderedDict.__setstate__({"_metadata": ...})`. The metadata holds versions of PyTorch modules and is
    /// ignored.
    fn build(&mut self) -> Result<(), PickleError> {
        let state = self.pop("BUILD")?;
        if let (Unknown::Skipped, Some(object)) = (self.unknown, self.stack.last()) {
            if let (Value::Object(object), Value::Dict(state)) = (*object, state) {
                self.objects[object] = Some(state);
            }
            return Ok(());
        }
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
        let (Some(&filled), true) = (self.stack.last(), entries.len().is_multiple_of(2)) else {
            return Err(self.operands(operation));
        };
        let dict = match filled {
            Value::Dict(dict) => dict,
            Value::Object(_) => return Ok(()),
            _ => return Err(self.operands(operation)),
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

    fn push_object(&mut self) {
        self.stack.push(Value::Object(self.objects.len()));
        self.objects.push(None);
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
