//! A pickle machine that builds tensors' descriptions and nothing else (Python's `pickletools` documents the opcodes).
//!
//! A pickle is a program. This machine knows the opcodes that data needs, calls only the functions of [`Global`], has
//! no recursion, and its memory is bounded by [`MAX_VALUES`]: containers are numbered, so that values are small copies and
//! sharing through the memo costs nothing.

use std::collections::HashMap;

use super::global::{Element, Global};
use crate::error::{Error, Result};

/// The most values that a pickle may make; a checkpoint of a thousand tensors makes twenty thousand.
const MAX_VALUES: usize = 4 << 20;

/// The most dimensions of a tensor, as in torch.
const MAX_RANK: usize = 64;

/// A tensor as the pickle describes it; offsets and strides are in elements and nothing is checked against the storage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PickledTensor<'a> {
    /// The storage that the tensor is a view of.
    pub(super) storage: PickledStorage<'a>,
    /// Element type.
    pub(super) element: Element<'a>,
    /// Number of the storage's element that is the first one.
    pub(super) offset: usize,
    /// Dimensions, outermost first.
    pub(super) shape: Vec<usize>,
    /// Elements from one index to the next in each dimension.
    pub(super) strides: Vec<usize>,
}

/// The reference to a storage; tensors with the same key share it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PickledStorage<'a> {
    /// Name of the archive's entry below `data/`.
    pub(super) key: &'a str,
    /// Element type of the storage.
    pub(super) element: Element<'a>,
    /// Elements in it; bytes of an untyped one.
    pub(super) len: usize,
}

/// Runs the pickle of a dictionary and returns its tensors by name; values that are no tensors are left out.
///
/// # Errors
/// `InvalidData` with the position of what is wrong, `Unsupported` naming an opcode or a name that is not for data.
pub(super) fn read_state_dict(pickle: &[u8]) -> Result<HashMap<&str, PickledTensor<'_>>> {
    let mut machine = Machine { pickle, ..Machine::default() };
    loop {
        let start = machine.position;
        match machine.step() {
            Ok(Step::Next) => {}
            Ok(Step::Stop(Value::Dict(dict))) => return machine.into_state_dict(dict),
            Ok(Step::Stop(_)) => {
                return Err(Error::invalid_data("the pickle does not hold a dictionary of tensors"));
            }
            Err(error) => return Err(error.context(format!("cannot read the pickle at byte {start}"))),
        }
    }
}

/// A value on the stack; containers and tensors are numbers of the machine's lists.
#[derive(Debug, Clone, Copy)]
enum Value<'a> {
    None,
    Bool,
    Int(i64),
    Float,
    Bytes,
    Text(&'a str),
    Tuple(usize),
    List(usize),
    Dict(usize),
    Global(Global<'a>),
    Storage(PickledStorage<'a>),
    Tensor(usize),
}

enum Step<'a> {
    Next,
    Stop(Value<'a>),
}

#[derive(Default)]
struct Machine<'a> {
    pickle: &'a [u8],
    position: usize,
    stack: Vec<Value<'a>>,
    /// Heights of the stack at which a mark was set.
    marks: Vec<usize>,
    memo: HashMap<u64, Value<'a>>,
    sequences: Vec<Vec<Value<'a>>>,
    dicts: Vec<Vec<(Value<'a>, Value<'a>)>>,
    tensors: Vec<PickledTensor<'a>>,
    num_values: usize,
}

impl<'a> Machine<'a> {
    fn step(&mut self) -> Result<Step<'a>> {
        let opcode = self.byte()?;
        match opcode {
            // PROTO, FRAME
            0x80 => {
                self.byte()?;
            }
            0x95 => {
                self.take(8)?;
            }
            // MARK, POP, POP_MARK, DUP
            b'(' => {
                self.charge(1)?;
                self.marks.push(self.stack.len());
            }
            b'0' => {
                self.pop()?;
            }
            b'1' => {
                self.pop_mark()?;
            }
            b'2' => {
                let value = self.pop()?;
                self.push(value)?;
                self.push(value)?;
            }
            // NONE, NEWTRUE, NEWFALSE, BININT, BININT1, BININT2, LONG1, BINFLOAT
            b'N' => self.push(Value::None)?,
            0x88 | 0x89 => self.push(Value::Bool)?,
            b'J' => {
                let value = i32::from_le_bytes(self.array()?);
                self.push(Value::Int(value.into()))?;
            }
            b'K' => {
                let value = self.byte()?;
                self.push(Value::Int(value.into()))?;
            }
            b'M' => {
                let value = u16::from_le_bytes(self.array()?);
                self.push(Value::Int(value.into()))?;
            }
            0x8a => {
                let value = self.long()?;
                self.push(Value::Int(value))?;
            }
            b'G' => {
                self.take(8)?;
                self.push(Value::Float)?;
            }
            // BINUNICODE, SHORT_BINUNICODE, BINUNICODE8, and Python 2's BINSTRING, SHORT_BINSTRING
            b'X' | 0x8c | 0x8d | b'T' | b'U' => {
                let bytes = self.counted(opcode)?;
                self.push(Value::Text(text(bytes)?))?;
            }
            // BINBYTES, SHORT_BINBYTES, BINBYTES8
            b'B' | b'C' | 0x8e => {
                self.counted(opcode)?;
                self.push(Value::Bytes)?;
            }
            // EMPTY_TUPLE, TUPLE1, TUPLE2, TUPLE3, TUPLE
            b')' => self.push_tuple(0)?,
            0x85..=0x87 => self.push_tuple(usize::from(opcode - 0x84))?,
            b't' => {
                let items = self.pop_mark()?;
                let tuple = self.new_sequence(items);
                self.push(Value::Tuple(tuple))?;
            }
            // EMPTY_LIST, APPEND, APPENDS
            b']' => {
                let list = self.new_sequence(Vec::new());
                self.push(Value::List(list))?;
            }
            b'a' => {
                let item = self.pop()?;
                self.extend_list(vec![item])?;
            }
            b'e' => {
                let items = self.pop_mark()?;
                self.extend_list(items)?;
            }
            // EMPTY_DICT, SETITEM, SETITEMS
            b'}' => {
                let dict = self.new_dict();
                self.push(dict)?;
            }
            b's' => {
                let value = self.pop()?;
                let key = self.pop()?;
                self.extend_dict(&[key, value])?;
            }
            b'u' => {
                let items = self.pop_mark()?;
                self.extend_dict(&items)?;
            }
            // BINPUT, LONG_BINPUT, MEMOIZE, BINGET, LONG_BINGET
            b'q' => {
                let key = self.byte()?;
                self.memoize(key.into())?;
            }
            b'r' => {
                let key = u32::from_le_bytes(self.array()?);
                self.memoize(key.into())?;
            }
            0x94 => self.memoize(self.memo.len() as u64)?,
            b'h' => {
                let key = self.byte()?;
                self.recall(key.into())?;
            }
            b'j' => {
                let key = u32::from_le_bytes(self.array()?);
                self.recall(key.into())?;
            }
            // GLOBAL, STACK_GLOBAL
            b'c' => {
                let (module, name) = (self.line()?, self.line()?);
                self.push(Value::Global(Global::resolve(module, name)?))?;
            }
            0x93 => match (self.pop()?, self.pop()?) {
                (Value::Text(name), Value::Text(module)) => {
                    self.push(Value::Global(Global::resolve(module, name)?))?;
                }
                _ => return Err(Error::invalid_data("a global's name is not text")),
            },
            // BINPERSID, REDUCE, BUILD, STOP
            b'Q' => {
                let id = self.pop()?;
                let storage = self.storage(id)?;
                self.push(Value::Storage(storage))?;
            }
            b'R' => {
                let arguments = self.pop()?;
                let function = self.pop()?;
                let value = self.call(function, arguments)?;
                self.push(value)?;
            }
            b'b' => {
                // A state dictionary's attributes (`_metadata`) say nothing about its tensors.
                self.pop()?;
                let Some(Value::Dict(_)) = self.stack.last() else {
                    return Err(Error::unsupported(
                        "the pickle sets attributes of something that is no dictionary",
                    ));
                };
            }
            b'.' => return Ok(Step::Stop(self.pop()?)),
            _ => {
                return Err(Error::unsupported(format!(
                    "the pickle uses opcode 0x{opcode:02x}, which a checkpoint of tensors does not need"
                )));
            }
        }
        Ok(Step::Next)
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8]> {
        let rest = &self.pickle[self.position..];
        let Some(bytes) = rest.get(..len) else {
            return Err(Error::invalid_data("the pickle ends in the middle of an opcode"));
        };
        self.position += len;
        Ok(bytes)
    }

    fn byte(&mut self) -> Result<u8> {
        self.array().map(|[byte]| byte)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let bytes = self.take(N)?;
        bytes
            .first_chunk()
            .copied()
            .ok_or_else(|| Error::internal("a slice has another length than asked for"))
    }

    /// The bytes after a count of 1, 4 or 8 bytes.
    fn counted(&mut self, opcode: u8) -> Result<&'a [u8]> {
        let len = match opcode {
            0x8c | b'U' | b'C' => u64::from(self.byte()?),
            0x8d | 0x8e => u64::from_le_bytes(self.array()?),
            _ => u64::from(u32::from_le_bytes(self.array()?)),
        };
        // A length that does not fit is longer than the pickle, too.
        self.take(usize::try_from(len).unwrap_or(usize::MAX))
    }

    /// A little-endian two's complement integer of up to eight bytes.
    fn long(&mut self) -> Result<i64> {
        let len = usize::from(self.byte()?);
        let bytes = self.take(len)?;
        if len > 8 {
            return Err(Error::invalid_data("an integer of the pickle is larger than 64 bits"));
        }
        let negative = bytes.last().is_some_and(|byte| byte & 0x80 != 0);
        let mut wide = [if negative { 0xff } else { 0 }; 8];
        wide[..len].copy_from_slice(bytes);
        Ok(i64::from_le_bytes(wide))
    }

    fn line(&mut self) -> Result<&'a str> {
        let rest = &self.pickle[self.position..];
        let Some(len) = rest.iter().position(|&byte| byte == b'\n') else {
            return Err(Error::invalid_data("a name of the pickle has no end"));
        };
        self.position += len + 1;
        text(&rest[..len])
    }

    /// Counts values towards the limit.
    fn charge(&mut self, num_values: usize) -> Result<()> {
        self.num_values = self.num_values.saturating_add(num_values);
        if self.num_values > MAX_VALUES {
            return Err(Error::invalid_data("the pickle makes too many values")
                .with_expected(format_args!("at most {MAX_VALUES}"), "more"));
        }
        Ok(())
    }

    fn push(&mut self, value: Value<'a>) -> Result<()> {
        self.charge(1)?;
        self.stack.push(value);
        Ok(())
    }

    fn pop(&mut self) -> Result<Value<'a>> {
        let floor = self.marks.last().copied().unwrap_or(0);
        match self.stack.pop() {
            Some(value) if self.stack.len() >= floor => Ok(value),
            _ => Err(Error::invalid_data("the pickle takes a value that is not there")),
        }
    }

    fn pop_mark(&mut self) -> Result<Vec<Value<'a>>> {
        match self.marks.pop() {
            Some(mark) => Ok(self.stack.split_off(mark)),
            None => Err(Error::invalid_data("the pickle refers to a mark that is not there")),
        }
    }

    fn push_tuple(&mut self, len: usize) -> Result<()> {
        let mut items = Vec::with_capacity(len);
        for _ in 0..len {
            items.push(self.pop()?);
        }
        items.reverse();
        let tuple = self.new_sequence(items);
        self.push(Value::Tuple(tuple))
    }

    fn new_sequence(&mut self, items: Vec<Value<'a>>) -> usize {
        self.sequences.push(items);
        self.sequences.len() - 1
    }

    fn new_dict(&mut self) -> Value<'a> {
        self.dicts.push(Vec::new());
        Value::Dict(self.dicts.len() - 1)
    }

    fn extend_list(&mut self, items: Vec<Value<'a>>) -> Result<()> {
        let Some(&Value::List(list)) = self.stack.last() else {
            return Err(Error::invalid_data("the pickle appends to something that is no list"));
        };
        self.sequences[list].extend(items);
        Ok(())
    }

    fn extend_dict(&mut self, items: &[Value<'a>]) -> Result<()> {
        let Some(&Value::Dict(dict)) = self.stack.last() else {
            return Err(Error::invalid_data("the pickle sets items of something that is no dictionary"));
        };
        let (pairs, odd) = items.as_chunks::<2>();
        if !odd.is_empty() {
            return Err(Error::invalid_data("the pickle sets a key without a value"));
        }
        self.dicts[dict].extend(pairs.iter().map(|&[key, value]| (key, value)));
        Ok(())
    }

    fn memoize(&mut self, key: u64) -> Result<()> {
        self.charge(1)?;
        let value = self.pop()?;
        self.stack.push(value);
        self.memo.insert(key, value);
        Ok(())
    }

    fn recall(&mut self, key: u64) -> Result<()> {
        match self.memo.get(&key) {
            Some(&value) => self.push(value),
            None => {
                Err(Error::invalid_data(format!("the pickle recalls value {key}, which it never stored")))
            }
        }
    }

    /// A persistent id: `("storage", type, key, device, number of elements)`.
    fn storage(&self, id: Value<'a>) -> Result<PickledStorage<'a>> {
        match *self.tuple(id)? {
            [
                Value::Text("storage"),
                Value::Global(Global::Storage(element)),
                Value::Text(key),
                Value::Text(_),
                Value::Int(len),
            ] => Ok(PickledStorage { key, element, len: to_usize(len)? }),
            _ => Err(Error::invalid_data("a persistent id of the pickle is no storage")),
        }
    }

    fn call(&mut self, function: Value<'a>, arguments: Value<'a>) -> Result<Value<'a>> {
        let Value::Global(function) = function else {
            return Err(Error::invalid_data("the pickle calls something that is no function"));
        };
        let arguments = self.tuple(arguments)?;
        let wrong =
            || Error::invalid_data(format!("the pickle calls {function:?} with other arguments than torch"));
        match (function, arguments) {
            (Global::OrderedDict, []) => Ok(self.new_dict()),
            (Global::OrderedDict, &[Value::List(items)]) => self.dict_of_pairs(items),
            (Global::Size, &[size @ Value::Tuple(_)]) => Ok(size),
            (Global::RebuildParameter, &[tensor @ Value::Tensor(_), ..]) => Ok(tensor),
            (Global::RebuildTensor, &[Value::Storage(storage), offset, shape, strides, ..]) => {
                self.tensor(storage, storage.element, offset, shape, strides)
            }
            (
                Global::RebuildTensorWithDType,
                &[
                    Value::Storage(storage),
                    offset,
                    shape,
                    strides,
                    _,
                    _,
                    Value::Global(Global::DType(element)),
                    ..,
                ],
            ) => self.tensor(storage, element, offset, shape, strides),
            _ => Err(wrong()),
        }
    }

    /// `OrderedDict([(key, value), …])`, as older Pythons write it.
    fn dict_of_pairs(&mut self, list: usize) -> Result<Value<'a>> {
        // The list may be recalled and copied any number of times.
        self.charge(self.sequences[list].len())?;
        let mut pairs = Vec::with_capacity(self.sequences[list].len());
        for &item in &self.sequences[list] {
            let (Value::Tuple(pair) | Value::List(pair)) = item else {
                return Err(Error::invalid_data("a dictionary of the pickle is not made of pairs"));
            };
            let [key, value] = self.sequences[pair][..] else {
                return Err(Error::invalid_data("a dictionary of the pickle is not made of pairs"));
            };
            pairs.push((key, value));
        }
        self.dicts.push(pairs);
        Ok(Value::Dict(self.dicts.len() - 1))
    }

    fn tensor(
        &mut self,
        storage: PickledStorage<'a>,
        element: Element<'a>,
        offset: Value<'a>,
        shape: Value<'a>,
        strides: Value<'a>,
    ) -> Result<Value<'a>> {
        let (shape, strides) = (self.sizes(shape)?, self.sizes(strides)?);
        self.charge(shape.len() + strides.len())?;
        let Value::Int(offset) = offset else {
            return Err(Error::invalid_data("a tensor's offset is not a number"));
        };
        self.tensors.push(PickledTensor { storage, element, offset: to_usize(offset)?, shape, strides });
        Ok(Value::Tensor(self.tensors.len() - 1))
    }

    fn sizes(&self, value: Value<'a>) -> Result<Vec<usize>> {
        let items = self.tuple(value)?;
        if items.len() > MAX_RANK {
            return Err(Error::invalid_data("a tensor has too many dimensions")
                .with_expected(format_args!("at most {MAX_RANK}"), items.len()));
        }
        let size = |item: &Value<'a>| match *item {
            Value::Int(size) => to_usize(size),
            _ => Err(Error::invalid_data("a tensor's size or stride is not a number")),
        };
        items.iter().map(size).collect()
    }

    fn tuple(&self, value: Value<'a>) -> Result<&[Value<'a>]> {
        match value {
            Value::Tuple(tuple) => Ok(&self.sequences[tuple]),
            _ => Err(Error::invalid_data("the pickle has something else where a tuple belongs")),
        }
    }

    fn into_state_dict(mut self, dict: usize) -> Result<HashMap<&'a str, PickledTensor<'a>>> {
        let mut tensors = HashMap::new();
        for (key, value) in std::mem::take(&mut self.dicts[dict]) {
            match (key, value) {
                (Value::Text(name), Value::Tensor(tensor)) => {
                    // One tensor may have any number of names, each with a copy of its shape.
                    let tensor = self.tensors[tensor].clone();
                    self.charge(tensor.shape.len() + tensor.strides.len())?;
                    tensors.insert(name, tensor);
                }
                (Value::Text(name), _) => {
                    log::debug!("the checkpoint's `{}` is no tensor", name.escape_debug())
                }
                _ => return Err(Error::invalid_data("a key of the checkpoint's dictionary is not text")),
            }
        }
        if tensors.is_empty() {
            return Err(Error::invalid_data("the pickle's dictionary holds no tensors at its top level")
                .with_hint("training checkpoints keep the weights deeper; save model.state_dict() alone"));
        }
        Ok(tensors)
    }
}

fn text(bytes: &[u8]) -> Result<&str> {
    std::str::from_utf8(bytes)
        .map_err(|error| Error::invalid_data("a text of the pickle is not UTF-8").with_source(error))
}

fn to_usize(value: i64) -> Result<usize> {
    usize::try_from(value).map_err(|_| {
        Error::invalid_data("a size of the pickle is negative").with_expected("0 or more", value)
    })
}
