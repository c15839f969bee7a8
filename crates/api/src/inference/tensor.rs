use crate::Problem;

/// A data type that a tensor may have here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DataType {
    /// Byte strings.
    Bytes,
    /// Whole numbers.
    Int64,
    /// Numbers.
    Fp32,
}

impl DataType {
    /// The protocol's name.
    pub(super) fn name(self) -> &'static str {
        match self {
            DataType::Bytes => "BYTES",
            DataType::Int64 => "INT64",
            DataType::Fp32 => "FP32",
        }
    }
}

/// The values of an input, flat and by rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Values {
    Bytes(Vec<Vec<u8>>),
    Int64(Vec<i64>),
}

/// A tensor that was sent; its values are as many as its shape says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Input {
    pub(super) name: String,
    pub(super) shape: Vec<usize>,
    pub(super) values: Values,
}

impl Input {
    /// # Errors
    /// The values are not as many as the shape says.
    pub(super) fn new(name: String, shape: &[i64], values: Values) -> Result<Input, Problem> {
        let shape: Option<Vec<usize>> = shape.iter().map(|size| usize::try_from(*size).ok()).collect();
        let count = match &values {
            Values::Bytes(values) => values.len(),
            Values::Int64(values) => values.len(),
        };
        let product = |shape: &Vec<usize>| shape.iter().try_fold(1_usize, |product, size| product.checked_mul(*size));
        match shape {
            Some(shape) if product(&shape) == Some(count) => Ok(Input { name, shape, values }),
            _ => Err(fault(&name, &format!("its shape does not go with its {count} values"))),
        }
    }
}

/// A fault of the input `name`.
pub(super) fn fault(name: &str, detail: &str) -> Problem {
    Problem::invalid(name.to_owned(), format!("input {name:?}: {detail}"))
}

impl Values {
    /// The type that the input `name` is declared with.
    ///
    /// # Errors
    /// No input here has it.
    pub(super) fn data_type(name: &str, declared: &str) -> Result<DataType, Problem> {
        let types = [DataType::Bytes, DataType::Int64];
        let unknown = || fault(name, &format!("data type {declared:?} is not taken here: use BYTES or INT64"));
        types.into_iter().find(|known| known.name() == declared).ok_or_else(unknown)
    }

    /// Reads binary data: little-endian numbers, and byte strings each behind its 32-bit length.
    ///
    /// # Errors
    /// The data breaks off or is of another type.
    pub(super) fn from_raw(name: &str, data_type: &str, raw: &[u8]) -> Result<Values, Problem> {
        match Values::data_type(name, data_type)? {
            DataType::Bytes => byte_strings(raw).map(Values::Bytes),
            _ => numbers(raw).map(Values::Int64),
        }
        .ok_or_else(|| fault(name, "its binary data breaks off"))
    }
}

fn byte_strings(mut raw: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut values = Vec::new();
    while !raw.is_empty() {
        let (length, rest) = raw.split_first_chunk()?;
        let (value, rest) = rest.split_at_checked(usize::try_from(u32::from_le_bytes(*length)).ok()?)?;
        values.push(value.to_vec());
        raw = rest;
    }
    Some(values)
}

fn numbers(raw: &[u8]) -> Option<Vec<i64>> {
    let (values, rest) = raw.as_chunks();
    rest.is_empty().then(|| values.iter().map(|value| i64::from_le_bytes(*value)).collect())
}

/// A tensor that is answered.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Output {
    pub(super) name: &'static str,
    pub(super) shape: Vec<usize>,
    pub(super) contents: Contents,
}

/// The values of an output, flat and by rows.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Contents {
    Bytes(Vec<String>),
    Fp32(Vec<f32>),
}

impl Contents {
    pub(super) fn data_type(&self) -> DataType {
        match self {
            Contents::Bytes(_) => DataType::Bytes,
            Contents::Fp32(_) => DataType::Fp32,
        }
    }

    /// Binary data, as [`Values::from_raw`] reads it.
    pub(super) fn to_raw(&self) -> Vec<u8> {
        match self {
            Contents::Bytes(values) => {
                let mut raw = Vec::new();
                for value in values {
                    // An id is a part of a file's line: it is never so long that its length is cut.
                    raw.extend_from_slice(&(value.len() as u32).to_le_bytes());
                    raw.extend_from_slice(value.as_bytes());
                }
                raw
            }
            Contents::Fp32(values) => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
        }
    }
}
