use std::collections::BTreeMap;
use std::fmt;

use serde::de::{DeserializeSeed, Error, IgnoredAny, MapAccess, SeqAccess, Unexpected, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

use super::parameters::{Parameter, Parameters};
use super::tensor::{DataType, Output, Values, input_problem};
use crate::Problem;
use crate::wire::or_default;

/// An inference request in JSON. Further fields belong to extensions and are ignored. `null` for an optional field means
/// that it is not given.
#[derive(Debug, Deserialize)]
pub(super) struct RequestJson<'a> {
    #[serde(default)]
    pub(super) id: Option<String>,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) parameters: ParametersJson,
    #[serde(borrow)]
    pub(super) inputs: Vec<InputJson<'a>>,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) outputs: Vec<OutputRequestJson>,
}

#[derive(Debug, Deserialize)]
pub(super) struct InputJson<'a> {
    pub(super) name: String,
    pub(super) datatype: String,
    pub(super) shape: Vec<i64>,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) parameters: InputParametersJson,
    /// Unparsed, because a JSON tree would take many times the memory.
    #[serde(borrow, default)]
    pub(super) data: Option<&'a RawValue>,
}

/// The parameters by their names. A name that stands twice is an error, as a field is.
#[derive(Debug, Default)]
pub(super) struct ParametersJson(BTreeMap<String, ParameterJson>);

impl<'de> Deserialize<'de> for ParametersJson {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<ParametersJson, D::Error> {
        deserializer.deserialize_map(ParametersVisitor)
    }
}

struct ParametersVisitor;

impl<'de> Visitor<'de> for ParametersVisitor {
    type Value = ParametersJson;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<ParametersJson, A::Error> {
        let mut parameters = BTreeMap::new();
        while let Some(name) = map.next_key::<String>()? {
            if parameters.contains_key(&name) {
                // As serde words it for a field.
                return Err(A::Error::custom(format_args!("duplicate field `{name}`")));
            }
            parameters.insert(name, map.next_value()?);
        }
        Ok(ParametersJson(parameters))
    }
}

/// A parameter's value.
#[derive(Debug)]
enum ParameterJson {
    /// Not given.
    Null,
    /// `None` if no parameter has its type.
    Given(Option<Parameter>),
}

impl<'de> Deserialize<'de> for ParameterJson {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<ParameterJson, D::Error> {
        let value = Option::<GivenParameter>::deserialize(deserializer)?;
        Ok(value.map_or(ParameterJson::Null, |GivenParameter(value)| ParameterJson::Given(value)))
    }
}

struct GivenParameter(Option<Parameter>);

impl<'de> Deserialize<'de> for GivenParameter {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<GivenParameter, D::Error> {
        deserializer.deserialize_any(ParameterVisitor).map(GivenParameter)
    }
}

struct ParameterVisitor;

impl<'de> Visitor<'de> for ParameterVisitor {
    type Value = Option<Parameter>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a parameter's value")
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Option<Parameter>, E> {
        Ok(Some(Parameter::Bool(value)))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Option<Parameter>, E> {
        Ok(Some(Parameter::Text(value.to_owned())))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Option<Parameter>, E> {
        Ok(Some(Parameter::Number(value as f64)))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Option<Parameter>, E> {
        Ok(Some(Parameter::Number(value as f64)))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Option<Parameter>, E> {
        Ok(Some(Parameter::Number(value)))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Option<Parameter>, A::Error> {
        while sequence.next_element::<IgnoredAny>()?.is_some() {}
        Ok(None)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Option<Parameter>, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(None)
    }
}

/// Other parameters of inputs are ignored.
#[derive(Debug, Default, Deserialize)]
pub(super) struct InputParametersJson {
    /// Bytes of this input in the binary data after the JSON.
    #[serde(default)]
    pub(super) binary_data_size: Option<usize>,
}

#[derive(Debug, Deserialize)]
pub(super) struct OutputRequestJson {
    pub(super) name: String,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) parameters: OutputParametersJson,
}

/// Other parameters of outputs are refused, because they would change the form of the answer.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct OutputParametersJson {
    /// Whether to answer with binary data.
    #[serde(default)]
    pub(super) binary_data: Option<bool>,
}

/// Reads the parameters for every row, and `binary_data_output`: the default of the outputs' `binary_data`.
///
/// # Errors
/// 422 for an unknown parameter.
pub(super) fn read_parameters(ParametersJson(sent): ParametersJson) -> Result<(Parameters, bool), Problem> {
    let (mut parameters, mut binary) = (Parameters::default(), false);
    for (name, value) in sent {
        match value {
            ParameterJson::Null => {}
            ParameterJson::Given(Some(Parameter::Bool(asked))) if name == "binary_data_output" => binary = asked,
            ParameterJson::Given(value) => parameters.set(&name, value)?,
        }
    }
    Ok((parameters, binary))
}

/// Reads values in JSON, flat or nested by rows.
///
/// # Errors
/// 422 if they do not have the input's data type.
pub(super) fn read_values(name: &str, data_type: &str, data: &RawValue) -> Result<Values, Problem> {
    let (mut values, kind) = match Values::data_type(name, data_type)? {
        DataType::Bytes => (Values::Bytes(Vec::new()), "strings"),
        _ => (Values::Int64(Vec::new()), "integers"),
    };
    let mut json = serde_json::Deserializer::from_str(data.get());
    let read = data.get().starts_with('[').then(|| Flat(&mut values).deserialize(&mut json));
    match read {
        Some(Ok(())) => Ok(values),
        _ => Err(input_problem(name, &format!("its data must be a list of {kind}"))),
    }
}

/// Flattens a list and the lists in it. serde_json limits their depth.
struct Flat<'a>(&'a mut Values);

impl<'de> DeserializeSeed<'de> for Flat<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Flat<'_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a value of the input's type")
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<(), E> {
        let Values::Bytes(values) = self.0 else { return Err(E::invalid_type(Unexpected::Str(value), &self)) };
        values.push(value.as_bytes().to_vec());
        Ok(())
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<(), E> {
        let Values::Int64(values) = self.0 else { return Err(E::invalid_type(Unexpected::Signed(value), &self)) };
        values.push(value);
        Ok(())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<(), E> {
        let signed = i64::try_from(value).map_err(|_| E::invalid_value(Unexpected::Unsigned(value), &self))?;
        self.visit_i64(signed)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<(), A::Error> {
        while sequence.next_element_seed(Flat(&mut *self.0))?.is_some() {}
        Ok(())
    }
}

/// The fields of an answer before its outputs.
#[derive(Debug, Serialize)]
pub(super) struct ResponseJson<'a> {
    pub(super) model_name: &'a str,
    pub(super) model_version: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) parameters: Option<ResponseParameters<'a>>,
}

/// The parameters of an answer whose rows two versions answered.
#[derive(Debug, Serialize)]
pub(super) struct ResponseParameters<'a> {
    /// The version of each row, with commas between them.
    pub(super) versions: &'a str,
}

/// The fields of an output before its data.
#[derive(Debug, Serialize)]
pub(super) struct OutputJson<'a> {
    name: &'static str,
    datatype: &'static str,
    shape: &'a [usize],
    #[serde(skip_serializing_if = "Option::is_none")]
    parameters: Option<BinarySize>,
}

#[derive(Debug, Serialize)]
struct BinarySize {
    binary_data_size: usize,
}

impl<'a> OutputJson<'a> {
    /// With the size of its values, if they follow as binary data.
    pub(super) fn new(output: &'a Output<'_>, binary_data_size: Option<usize>) -> OutputJson<'a> {
        OutputJson {
            name: output.name,
            datatype: output.contents.data_type().name(),
            shape: &output.shape,
            parameters: binary_data_size.map(|binary_data_size| BinarySize { binary_data_size }),
        }
    }
}
