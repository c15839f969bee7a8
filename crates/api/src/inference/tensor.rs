use crate::Problem;

/// The data types of this model's tensors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DataType {
    /// Byte strings.
    Bytes,
    /// 64-bit integers.
    Int64,
    /// 32-bit floats.
    Fp32,
}

impl DataType {
    /// Its name in the protocol.
    pub(super) fn name(self) -> &'static str {
        match self {
            DataType::Bytes => "BYTES",
            DataType::Int64 => "INT64",
            DataType::Fp32 => "FP32",
        }
    }
}

/// The values of an input, flat, row by row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Values {
    Bytes(Vec<Vec<u8>>),
    Int64(Vec<i64>),
}

/// An input tensor. The number of its values matches its shape.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Input {
    pub(super) name: String,
    pub(super) shape: Vec<usize>,
    pub(super) values: Values,
}

impl Input {
    /// # Errors
    /// 422 if the number of values does not match the shape.
    pub(super) fn new(name: String, shape: &[i64], values: Values) -> Result<Input, Problem> {
        let shape: Option<Vec<usize>> = shape.iter().map(|size| usize::try_from(*size).ok()).collect();
        let count = match &values {
            Values::Bytes(values) => values.len(),
            Values::Int64(values) => values.len(),
        };
        let product = |shape: &Vec<usize>| shape.iter().try_fold(1_usize, |product, size| product.checked_mul(*size));
        match shape {
            Some(shape) if product(&shape) == Some(count) => Ok(Input { name, shape, values }),
            _ => Err(input_problem(&name, &format!("its shape does not match its {count} values"))),
        }
    }
}

/// A problem with the input `name`.
pub(super) fn input_problem(name: &str, detail: &str) -> Problem {
    Problem::invalid(name.to_owned(), format!("input {name:?}: {detail}"))
}

impl Values {
    /// The declared data type of the input `name`.
    ///
    /// # Errors
    /// 422 if no input has this type.
    pub(super) fn data_type(name: &str, declared: &str) -> Result<DataType, Problem> {
        let types = [DataType::Bytes, DataType::Int64];
        let unknown = || input_problem(name, &format!("data type {declared:?} is not supported: use BYTES or INT64"));
        types.into_iter().find(|known| known.name() == declared).ok_or_else(unknown)
    }

    /// Reads binary data: little-endian integers, or byte strings that each follow their 32-bit length.
    ///
    /// # Errors
    /// 422 if the data breaks off or has another type.
    pub(super) fn from_raw(name: &str, data_type: &str, raw: &[u8]) -> Result<Values, Problem> {
        match Values::data_type(name, data_type)? {
            DataType::Bytes => byte_strings(raw).map(Values::Bytes),
            _ => numbers(raw).map(Values::Int64),
        }
        .ok_or_else(|| input_problem(name, "its binary data breaks off"))
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

/// An output tensor.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Output<'a> {
    pub(super) name: &'static str,
    pub(super) shape: Vec<usize>,
    pub(super) contents: Contents<'a>,
}

/// The values of an output, flat, row by row.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Contents<'a> {
    Bytes(Vec<&'a str>),
    Fp32(Vec<f32>),
}

impl Contents<'_> {
    pub(super) fn data_type(&self) -> DataType {
        match self {
            Contents::Bytes(_) => DataType::Bytes,
            Contents::Fp32(_) => DataType::Fp32,
        }
    }

    /// Size of the binary form.
    pub(super) fn raw_size(&self) -> usize {
        match self {
            Contents::Bytes(values) => values.iter().map(|value| size_of::<u32>() + value.len()).sum(),
            Contents::Fp32(values) => size_of_val(values.as_slice()),
        }
    }

    /// Appends the binary form, which [`Values::from_raw`] reads.
    pub(super) fn write_raw(&self, raw: &mut Vec<u8>) {
        match self {
            Contents::Bytes(values) => {
                for value in values {
                    // An id is part of a line of a file, so its length fits 32 bits.
                    raw.extend_from_slice(&(value.len() as u32).to_le_bytes());
                    raw.extend_from_slice(value.as_bytes());
                }
            }
            Contents::Fp32(values) => values.iter().for_each(|value| raw.extend_from_slice(&value.to_le_bytes())),
        }
    }

    /// The binary form alone.
    pub(super) fn to_raw(&self) -> Vec<u8> {
        let mut raw = Vec::with_capacity(self.raw_size());
        self.write_raw(&mut raw);
        raw
    }
}

#[cfg(test)]
mod tests {
    use super::{Contents, Input, Values};

    #[test]
    fn binary_data_is_read_as_it_is_written() {
        let ids = ["a", "", "été"];
        let contents = Contents::Bytes(ids.to_vec());
        let raw = contents.to_raw();
        assert_eq!(raw.len(), contents.raw_size());
        let values = Values::Bytes(ids.map(|id| id.as_bytes().to_vec()).to_vec());
        assert_eq!(Values::from_raw("history", "BYTES", &raw), Ok(values));
        let raw: Vec<u8> = [1_i64, -2, i64::MAX].iter().flat_map(|value| value.to_le_bytes()).collect();
        assert_eq!(Values::from_raw("k", "INT64", &raw), Ok(Values::Int64(vec![1, -2, i64::MAX])));
        assert_eq!(Contents::Fp32(vec![1.0]).to_raw(), [0, 0, 128, 63]);
    }

    #[test]
    fn broken_binary_data_is_refused() {
        for raw in [&[1, 0, 0][..], &[1, 0, 0, 0], &[255; 4], &[0, 0, 0, 0, 1]] {
            assert!(Values::from_raw("history", "BYTES", raw).is_err(), "{raw:?}");
        }
        assert!(Values::from_raw("k", "INT64", &[0; 7]).is_err());
        assert!(Values::from_raw("k", "FP32", &[0; 4]).is_err());
    }

    #[test]
    fn shapes_must_match_the_number_of_values() {
        let fits = |shape: &[i64]| Input::new("k".to_owned(), shape, Values::Int64(vec![1, 2, 3, 4])).is_ok();
        assert!(fits(&[4]) && fits(&[2, 2]) && fits(&[1, 4, 1]));
        assert!(!fits(&[]) && !fits(&[3]) && !fits(&[-1]) && !fits(&[2, -2]) && !fits(&[i64::MAX, i64::MAX]));
    }
}
