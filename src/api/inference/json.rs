use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::parameters::{Parameter, Parameters};
use super::tensor::{Contents, DataType, Output, Values, fault};
use crate::api::Problem;

/// An inference request as it is written in JSON. What it has besides is an extension that is not known here.
#[derive(Debug, Deserialize)]
pub(super) struct RequestJson {
    #[serde(default)]
    pub(super) id: Option<String>,
    #[serde(default)]
    pub(super) parameters: Map<String, Value>,
    pub(super) inputs: Vec<InputJson>,
    #[serde(default)]
    pub(super) outputs: Vec<OutputRequestJson>,
}

#[derive(Debug, Deserialize)]
pub(super) struct InputJson {
    pub(super) name: String,
    pub(super) datatype: String,
    pub(super) shape: Vec<i64>,
    #[serde(default)]
    pub(super) parameters: InputParametersJson,
    #[serde(default)]
    pub(super) data: Option<Value>,
}

/// Others, as of a content's encoding, have no meaning here.
#[derive(Debug, Default, Deserialize)]
pub(super) struct InputParametersJson {
    /// Bytes of the input behind the JSON.
    #[serde(default)]
    pub(super) binary_data_size: Option<usize>,
}

#[derive(Debug, Deserialize)]
pub(super) struct OutputRequestJson {
    pub(super) name: String,
    #[serde(default)]
    pub(super) parameters: OutputParametersJson,
}

/// Another parameter would ask for an answer in another place or form.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct OutputParametersJson {
    /// Whether the output stands behind the JSON.
    #[serde(default)]
    pub(super) binary_data: Option<bool>,
}

/// What a request's parameters ask of every row, and `binary_data_output`: whether outputs are binary that do not say.
///
/// # Errors
/// A parameter that is not known.
pub(super) fn read_parameters(sent: Map<String, Value>) -> Result<(Parameters, bool), Problem> {
    let (mut parameters, mut binary) = (Parameters::default(), false);
    for (name, value) in sent {
        let value = match value {
            Value::Bool(asked) if name == "binary_data_output" => {
                binary = asked;
                continue;
            }
            Value::Bool(value) => Some(Parameter::Bool(value)),
            Value::String(value) => Some(Parameter::Text(value)),
            Value::Number(value) => value.as_f64().map(Parameter::Number),
            Value::Null | Value::Array(_) | Value::Object(_) => None,
        };
        parameters.set(&name, value)?;
    }
    Ok((parameters, binary))
}

/// Values in JSON, flat or nested by rows.
///
/// # Errors
/// They are not of the type that the input is declared with.
pub(super) fn read_values(name: &str, data_type: &str, data: &Value) -> Result<Values, Problem> {
    let wrong = |kind: &str| fault(name, &format!("its data must be a list of {kind}"));
    match Values::data_type(name, data_type)? {
        DataType::Bytes => {
            let text = |value: &Value| Some(value.as_str()?.as_bytes().to_vec());
            flat(data, &text).map(Values::Bytes).ok_or_else(|| wrong("texts"))
        }
        _ => flat(data, &Value::as_i64).map(Values::Int64).ok_or_else(|| wrong("whole numbers")),
    }
}

/// A list's values, and those of lists in it; as deep as JSON that is parsed can be.
fn flat<T>(data: &Value, read: &impl Fn(&Value) -> Option<T>) -> Option<Vec<T>> {
    let mut values = Vec::new();
    for value in data.as_array()? {
        match value {
            Value::Array(_) => values.extend(flat(value, read)?),
            value => values.push(read(value)?),
        }
    }
    Some(values)
}

/// The answer as it is written in JSON.
#[derive(Debug, Serialize)]
pub(super) struct ResponseJson<'a> {
    pub(super) model_name: &'a str,
    pub(super) model_version: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) id: Option<&'a str>,
    pub(super) outputs: Vec<OutputJson<'a>>,
}

#[derive(Debug, Serialize)]
pub(super) struct OutputJson<'a> {
    name: &'static str,
    datatype: &'static str,
    shape: &'a [usize],
    #[serde(skip_serializing_if = "Option::is_none")]
    parameters: Option<BinarySize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<DataJson<'a>>,
}

#[derive(Debug, Serialize)]
struct BinarySize {
    binary_data_size: usize,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
enum DataJson<'a> {
    Text(&'a [String]),
    Numbers(&'a [f32]),
}

impl<'a> OutputJson<'a> {
    /// With its values, or where they stand behind the JSON with their size.
    pub(super) fn new(output: &'a Output, binary_data_size: Option<usize>) -> OutputJson<'a> {
        let data = || match &output.contents {
            Contents::Bytes(values) => DataJson::Text(values),
            Contents::Fp32(values) => DataJson::Numbers(values),
        };
        OutputJson {
            name: output.name,
            datatype: output.contents.data_type().name(),
            shape: &output.shape,
            parameters: binary_data_size.map(|binary_data_size| BinarySize { binary_data_size }),
            data: binary_data_size.is_none().then(data),
        }
    }
}
