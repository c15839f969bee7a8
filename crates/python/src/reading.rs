//! Item ids from Python objects: iterables, NumPy arrays and Arrow arrays.
//!
//! NumPy's and Arrow's arrays are read where they are. Only the items' dense ids are stored.

use std::fmt::Write as _;

use arrow_array::cast::AsArray;
use arrow_array::ffi::{FFI_ArrowArray, FFI_ArrowSchema, from_ffi};
use arrow_array::ffi_stream::{ArrayStreamReader, FFI_ArrowArrayStream};
use arrow_array::types::{
    ArrowPrimitiveType, Int8Type, Int16Type, Int32Type, Int64Type, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use arrow_array::{Array, ArrayRef, make_array};
use arrow_schema::DataType;
use canet_domain::{Catalogue, Item};
use canet_ranking::Sequences;
use numpy::{PyArray1, PyArray2, PyArrayDescrMethods, PyArrayMethods, PyUntypedArray, PyUntypedArrayMethods};
use pyo3::exceptions::{PyImportError, PyTypeError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyByteArray, PyBytes, PyCapsule, PyInt, PyString};

/// The ids of an argument.
pub(crate) enum Ids {
    /// One list of ids.
    One(Vec<Item>),
    /// A list of ids for each user. What holds neither ids nor lists has no user.
    Many(Sequences),
}

/// Reads the ids of an argument. Ids that the catalogue lacks are dropped.
///
/// # Errors
/// `TypeError` or `ValueError` that names the argument and the list.
pub(crate) fn read(value: &Bound<'_, PyAny>, argument: &'static str, catalogue: &Catalogue) -> PyResult<Ids> {
    let mut reader = Reader { catalogue, argument, text: String::new() };
    if let Some(chunks) = arrow_chunks(value)? {
        return value.py().detach(|| reader.arrow(&chunks));
    }
    if is_text(value) {
        return Err(reader.wrong(format_args!("is a text: give a list")));
    }
    if let Ok(array) = value.cast::<PyUntypedArray>()
        && array.ndim() == 2
        && is_viewable(array)
        && let Some(sequences) = reader.matrix(value)
    {
        return Ok(Ids::Many(sequences));
    }
    reader.iterable(value)
}

/// Whether the `numpy` crate reads the values where they are. It does not in a column of packed records, whose strides are no
/// multiples of the values' size, and it would not see a mask; those are read one by one.
fn is_viewable(array: &Bound<'_, PyUntypedArray>) -> bool {
    let is_aligned = || array.getattr("flags")?.getattr("aligned")?.is_truthy();
    let size = array.dtype().itemsize();
    size > 0
        && !is_masked(array)
        && array.strides().iter().all(|stride| stride.unsigned_abs().is_multiple_of(size))
        && is_aligned().is_ok_and(|aligned| aligned)
}

/// Whether some elements of an array count as absent, which reading its memory would not see.
fn is_masked(array: &Bound<'_, PyUntypedArray>) -> bool {
    array.hasattr(intern!(array.py(), "_mask")).unwrap_or(false)
}

/// Whether iterating over it would give characters or bytes.
fn is_text(value: &Bound<'_, PyAny>) -> bool {
    value.is_instance_of::<PyString>() || value.is_instance_of::<PyBytes>() || value.is_instance_of::<PyByteArray>()
}

/// Reads one argument.
struct Reader<'a> {
    catalogue: &'a Catalogue,
    argument: &'static str,
    /// A number's digits.
    text: String,
}

/// Calls a macro with each of NumPy's integer types until one returns.
macro_rules! integer_types {
    ($try:ident) => {
        $try!(i64);
        $try!(i32);
        $try!(u64);
        $try!(u32);
        $try!(i16);
        $try!(u16);
        $try!(i8);
        $try!(u8);
    };
}

impl Reader<'_> {
    fn wrong(&self, what: std::fmt::Arguments<'_>) -> PyErr {
        PyTypeError::new_err(format!("`{}` {what}", self.argument))
    }

    /// The item whose id is a number's digits.
    fn number(&mut self, number: impl std::fmt::Display) -> Option<Item> {
        self.text.clear();
        // Writing to a string cannot fail.
        let _ = write!(self.text, "{number}");
        self.catalogue.item(&self.text)
    }

    /// An id, if the value is one. The inner `None` is an id that the catalogue lacks.
    fn id(&mut self, value: &Bound<'_, PyAny>) -> PyResult<Option<Option<Item>>> {
        if let Ok(text) = value.cast::<PyString>() {
            return Ok(Some(self.catalogue.item(text.to_str()?)));
        }
        if value.is_instance_of::<PyBool>() || has_dimensions(value)? {
            return Ok(None);
        }
        // NumPy's integers are no `int`, but convert to one.
        if let Ok(number) = value.extract::<i64>() {
            return Ok(Some(self.number(number)));
        }
        if let Ok(number) = value.extract::<u64>() {
            return Ok(Some(self.number(number)));
        }
        if value.is_instance_of::<PyInt>() {
            return Ok(Some(self.catalogue.item(value.str()?.to_str()?)));
        }
        Ok(None)
    }

    /// A matrix of integers. `None` if the values have another type.
    fn matrix(&mut self, value: &Bound<'_, PyAny>) -> Option<Sequences> {
        macro_rules! attempt {
            ($kind:ty) => {
                if let Ok(array) = value.cast::<PyArray2<$kind>>() {
                    let mut sequences = Sequences::default();
                    for row in array.readonly().as_array().rows() {
                        row.iter().for_each(|number| sequences.push_item(self.number(number)));
                        sequences.end_user();
                    }
                    return Some(sequences);
                }
            };
        }
        integer_types!(attempt);
        None
    }

    /// A vector of integers. `None` if the value is something else.
    fn vector(&mut self, value: &Bound<'_, PyAny>, mut take: impl FnMut(Option<Item>)) -> Option<()> {
        // One comparison for values that are no arrays.
        value.cast::<PyUntypedArray>().ok().filter(|array| is_viewable(array))?;
        macro_rules! attempt {
            ($kind:ty) => {
                if let Ok(array) = value.cast::<PyArray1<$kind>>() {
                    array.readonly().as_array().iter().for_each(|number| take(self.number(number)));
                    return Some(());
                }
            };
        }
        integer_types!(attempt);
        None
    }

    /// Anything that can be iterated over.
    fn iterable(&mut self, value: &Bound<'_, PyAny>) -> PyResult<Ids> {
        let (mut one, mut ids) = (Vec::new(), 0_usize);
        let mut take = |item| {
            one.extend(item);
            ids += 1;
        };
        if self.vector(value, &mut take).is_some() {
            return Ok(if ids > 0 { Ids::One(one) } else { Ids::Many(Sequences::default()) });
        }
        let not_iterable = |_| self.wrong(format_args!("is {}, not a list", type_name(value)));
        let elements = value.try_iter().map_err(not_iterable)?;
        let mut many = Sequences::default();
        for element in elements {
            let element = element?;
            if let Some(item) = self.id(&element)? {
                one.extend(item);
                ids += 1;
            } else {
                self.list(&element, many.len(), &mut many)?;
            }
            if ids > 0 && !many.is_empty() {
                return Err(self.wrong(format_args!("has ids beside lists of ids")));
            }
        }
        Ok(if ids > 0 { Ids::One(one) } else { Ids::Many(many) })
    }

    /// The ids of one user.
    fn list(&mut self, list: &Bound<'_, PyAny>, place: usize, sequences: &mut Sequences) -> PyResult<()> {
        if self.vector(list, |item| sequences.push_item(item)).is_none() {
            if is_text(list) {
                return Err(self.wrong(format_args!("holds {} at place {place}, not a list of ids", type_name(list))));
            }
            let not_iterable =
                |_| self.wrong(format_args!("holds {} at place {place}, not a list of ids", type_name(list)));
            for id in list.try_iter().map_err(not_iterable)? {
                let id = id?;
                let Some(item) = self.id(&id)? else {
                    let kind = type_name(&id);
                    return Err(self.wrong(format_args!(
                        "holds an id of type {kind} in list {place}: ids are strings or integers"
                    )));
                };
                sequences.push_item(item);
            }
        }
        sequences.end_user();
        Ok(())
    }

    fn arrow(&mut self, chunks: &[ArrayRef]) -> PyResult<Ids> {
        let (mut one, mut many, mut is_many) = (Vec::new(), Sequences::default(), false);
        for chunk in chunks {
            let kind = chunk.data_type();
            is_many = matches!(
                kind,
                DataType::List(_)
                    | DataType::LargeList(_)
                    | DataType::FixedSizeList(..)
                    | DataType::ListView(_)
                    | DataType::LargeListView(_)
            );
            if is_many {
                self.lists(chunk, &mut many)?;
            } else if matches!(kind, DataType::Struct(_)) {
                return Err(self.wrong(format_args!("is a table: give its column of lists of ids")));
            } else {
                one.extend(self.values(chunk)?.into_iter().flatten());
            }
        }
        let is_empty = chunks.iter().all(Array::is_empty);
        Ok(if is_many || is_empty { Ids::Many(many) } else { Ids::One(one) })
    }

    /// Lists of ids. A list that is null is empty.
    fn lists(&mut self, array: &ArrayRef, sequences: &mut Sequences) -> PyResult<()> {
        let ranges: Box<dyn Iterator<Item = (usize, usize)>>;
        let child: &ArrayRef;
        match array.data_type() {
            DataType::List(_) => {
                let lists = array.as_list::<i32>();
                child = lists.values();
                let pairs = lists.value_offsets().windows(2);
                ranges = Box::new(pairs.map(|pair| (pair[0] as usize, pair[1] as usize)));
            }
            DataType::LargeList(_) => {
                let lists = array.as_list::<i64>();
                child = lists.values();
                let pairs = lists.value_offsets().windows(2);
                ranges = Box::new(pairs.map(|pair| (pair[0] as usize, pair[1] as usize)));
            }
            DataType::ListView(_) => {
                let lists = array.as_list_view::<i32>();
                child = lists.values();
                let pairs = lists.offsets().iter().zip(lists.sizes());
                ranges = Box::new(pairs.map(|(start, size)| (*start as usize, (*start + *size) as usize)));
            }
            DataType::LargeListView(_) => {
                let lists = array.as_list_view::<i64>();
                child = lists.values();
                let pairs = lists.offsets().iter().zip(lists.sizes());
                ranges = Box::new(pairs.map(|(start, size)| (*start as usize, (*start + *size) as usize)));
            }
            _ => {
                let lists = array.as_fixed_size_list();
                child = lists.values();
                let size = usize::try_from(lists.value_length()).unwrap_or_default();
                ranges = Box::new((0..lists.len()).map(move |place| (place * size, (place + 1) * size)));
            }
        }
        let ranges: Vec<(usize, usize)> = ranges.collect();
        // A slice of an array refers to the whole array's values.
        let first = ranges.iter().map(|range| range.0).min().unwrap_or_default();
        let last = ranges.iter().map(|range| range.1).max().unwrap_or_default().max(first);
        let items = self.values(&child.slice(first, last - first))?;
        for (place, (start, end)) in ranges.into_iter().enumerate() {
            if array.is_valid(place) {
                items[start - first..end - first].iter().for_each(|item| sequences.push_item(*item));
            }
            sequences.end_user();
        }
        Ok(())
    }

    /// The items of ids. An id that is null is unknown.
    fn values(&mut self, ids: &ArrayRef) -> PyResult<Vec<Option<Item>>> {
        let catalogue = self.catalogue;
        let known = |id: Option<&str>| id.and_then(|id| catalogue.item(id));
        Ok(match ids.data_type() {
            DataType::Utf8 => ids.as_string::<i32>().iter().map(known).collect(),
            DataType::LargeUtf8 => ids.as_string::<i64>().iter().map(known).collect(),
            DataType::Utf8View => ids.as_string_view().iter().map(known).collect(),
            DataType::Int64 => self.numbers::<Int64Type>(ids),
            DataType::Int32 => self.numbers::<Int32Type>(ids),
            DataType::Int16 => self.numbers::<Int16Type>(ids),
            DataType::Int8 => self.numbers::<Int8Type>(ids),
            DataType::UInt64 => self.numbers::<UInt64Type>(ids),
            DataType::UInt32 => self.numbers::<UInt32Type>(ids),
            DataType::UInt16 => self.numbers::<UInt16Type>(ids),
            DataType::UInt8 => self.numbers::<UInt8Type>(ids),
            // An empty list has no type of values.
            DataType::Null => vec![None; ids.len()],
            DataType::Dictionary(..) => {
                let dictionary = ids.as_any_dictionary();
                let items = self.values(dictionary.values())?;
                let keys = dictionary.keys();
                let item = |(place, key): (usize, usize)| {
                    let item = items.get(key).copied().flatten();
                    item.filter(|_| keys.is_valid(place))
                };
                match items.is_empty() {
                    true => vec![None; ids.len()],
                    false => dictionary.normalized_keys().into_iter().enumerate().map(item).collect(),
                }
            }
            other => {
                return Err(self.wrong(format_args!("holds ids of type {other}: ids are strings or integers")));
            }
        })
    }

    fn numbers<T: ArrowPrimitiveType<Native: std::fmt::Display>>(&mut self, ids: &ArrayRef) -> Vec<Option<Item>> {
        ids.as_primitive::<T>().iter().map(|number| number.and_then(|number| self.number(number))).collect()
    }
}

/// Whether it is an array of at least one dimension. PyTorch's tensors of one element convert to an integer all the same.
fn has_dimensions(value: &Bound<'_, PyAny>) -> PyResult<bool> {
    if value.is_instance_of::<PyInt>() {
        return Ok(false);
    }
    let dimensions = value.getattr_opt(intern!(value.py(), "ndim"))?;
    Ok(dimensions.is_some_and(|dimensions| dimensions.extract::<usize>().is_ok_and(|count| count > 0)))
}

/// The type's name, for an error.
fn type_name(value: &Bound<'_, PyAny>) -> String {
    value.get_type().name().map_or_else(|_| "an object".to_owned(), |name| name.to_string())
}

/// The arrays of an object that exports Arrow data; `None` if it exports none.
fn arrow_chunks(value: &Bound<'_, PyAny>) -> PyResult<Option<Vec<ArrayRef>>> {
    let py = value.py();
    let damaged = |error| PyValueError::new_err(format!("Arrow: {error}"));
    if let Some(export) = value.getattr_opt("__arrow_c_stream__")? {
        let capsule = match export.call0() {
            // pandas needs pyarrow for this; without it a series can still be iterated over.
            Err(error) if error.is_instance_of::<PyImportError>(py) => return Ok(None),
            exported => exported?,
        };
        let pointer = capsule.cast::<PyCapsule>()?.pointer_checked(Some(c"arrow_array_stream"))?;
        // SAFETY: by the Arrow PyCapsule interface, a capsule of this name points to a valid stream, which is moved out of it here.
        // What is left in the capsule is a released stream, which its destructor leaves alone.
        #[expect(unsafe_code, reason = "the Arrow C data interface is made of pointers")]
        let stream = unsafe { FFI_ArrowArrayStream::from_raw(pointer.cast().as_ptr()) };
        let chunks: Result<Vec<ArrayRef>, _> = ArrayStreamReader::try_new(stream).map_err(damaged)?.collect();
        return Ok(Some(chunks.map_err(damaged)?));
    }
    if let Some(export) = value.getattr_opt("__arrow_c_array__")? {
        let (schema, array): (Bound<'_, PyAny>, Bound<'_, PyAny>) = export.call0()?.extract()?;
        let schema = schema.cast::<PyCapsule>()?.pointer_checked(Some(c"arrow_schema"))?;
        let array = array.cast::<PyCapsule>()?.pointer_checked(Some(c"arrow_array"))?;
        // SAFETY: by the Arrow PyCapsule interface, capsules of these names point to a valid schema and a valid array of it. Both
        // are moved out, as above.
        #[expect(unsafe_code, reason = "the Arrow C data interface is made of pointers")]
        let data = unsafe {
            let schema = FFI_ArrowSchema::from_raw(schema.cast().as_ptr());
            from_ffi(FFI_ArrowArray::from_raw(array.cast().as_ptr()), &schema)
        };
        return Ok(Some(vec![make_array(data.map_err(damaged)?)]));
    }
    Ok(None)
}
