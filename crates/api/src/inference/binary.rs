//! The binary tensor data extension: values that stand behind the JSON instead of in it.

use axum::http::{HeaderMap, HeaderName};

use super::json::{InputJson, OutputJson, ResponseJson, read_values};
use super::tensor::{Input, Output, Values, fault};
use crate::{Code, Problem};

/// The length of the JSON, where more stands behind it.
pub(super) const HEADER: HeaderName = HeaderName::from_static("inference-header-content-length");

/// A body's JSON and what stands behind it.
///
/// # Errors
/// The header is no length within the body.
pub(super) fn split<'a>(headers: &HeaderMap, body: &'a [u8]) -> Result<(&'a [u8], &'a [u8]), Problem> {
    let Some(length) = headers.get(HEADER) else { return Ok((body, &[])) };
    let length = length.to_str().ok().and_then(|length| length.parse().ok());
    length.and_then(|length| body.split_at_checked(length)).ok_or_else(|| {
        Problem::invalid(
            HEADER.to_string(),
            format!("{HEADER} must be the length of the JSON that the body begins with"),
        )
    })
}

/// Reads every input: its values from the JSON, or in the inputs' order from what stands behind it.
///
/// # Errors
/// An input has no values, or others than it says, or there is more than the inputs say.
pub(super) fn read_inputs(sent: Vec<InputJson<'_>>, mut behind: &[u8]) -> Result<Vec<Input>, Problem> {
    let mut inputs = Vec::with_capacity(sent.len());
    for InputJson { name, datatype, shape, parameters, data } in sent {
        let values = match (parameters.binary_data_size, data) {
            (None, Some(data)) => read_values(&name, &datatype, data)?,
            (Some(size), None) => {
                let parts = behind.split_at_checked(size);
                let (raw, rest) = parts.ok_or_else(|| fault(&name, "its binary data breaks off"))?;
                behind = rest;
                Values::from_raw(&name, &datatype, raw)?
            }
            _ => return Err(fault(&name, "give either `data` or the parameter `binary_data_size`")),
        };
        inputs.push(Input::new(name, &shape, values)?);
    }
    if behind.is_empty() {
        return Ok(inputs);
    }
    Err(Problem::invalid("inputs", format!("{} bytes behind the JSON belong to no input", behind.len())))
}

/// An answer's body, and the length of its JSON where more stands behind it.
///
/// # Errors
/// The JSON cannot be written: a fault of the server.
pub(super) fn write(
    head: ResponseJson<'_>,
    outputs: &[Output],
    is_binary: impl Fn(&Output) -> bool,
) -> Result<(Vec<u8>, Option<usize>), Problem> {
    let raw: Vec<Option<Vec<u8>>> =
        outputs.iter().map(|output| is_binary(output).then(|| output.contents.to_raw())).collect();
    let described = outputs.iter().zip(&raw).map(|(output, raw)| OutputJson::new(output, raw.as_ref().map(Vec::len)));
    let mut body = serde_json::to_vec(&ResponseJson { outputs: described.collect(), ..head }).map_err(|error| {
        tracing::error!(%error, "an answer could not be written as JSON");
        Problem::new(Code::Internal, "the answer could not be written")
    })?;
    let length = body.len();
    let any = raw.iter().any(Option::is_some);
    raw.iter().flatten().for_each(|raw| body.extend_from_slice(raw));
    Ok((body, any.then_some(length)))
}
