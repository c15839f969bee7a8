//! The binary tensor data extension: values follow the JSON instead of being part of it.

use axum::http::{HeaderMap, HeaderName};

use super::json::{InputJson, OutputJson, ResponseJson, read_values};
use super::tensor::{Contents, Input, Output, Values, input_problem};
use crate::Problem;
use crate::answer_json::JsonAnswer;

/// Carries the length of the JSON if binary data follows it.
pub(crate) const HEADER: HeaderName = HeaderName::from_static("inference-header-content-length");

/// Splits a body into its JSON and the binary data after it.
///
/// # Errors
/// 422 if the header is not a length within the body.
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

/// Reads every input. Its values are in the JSON, or in the binary data, which has the order of the inputs.
///
/// # Errors
/// 422 if an input lacks values or has wrong ones, or if the data is longer than the inputs say.
pub(super) fn read_inputs(sent: Vec<InputJson<'_>>, mut binary: &[u8]) -> Result<Vec<Input>, Problem> {
    let mut inputs = Vec::with_capacity(sent.len());
    for InputJson { name, datatype, shape, parameters, data } in sent {
        let values = match (parameters.binary_data_size, data) {
            (None, Some(data)) => read_values(&name, &datatype, data)?,
            (Some(size), None) => {
                let parts = binary.split_at_checked(size);
                let (raw, rest) = parts.ok_or_else(|| input_problem(&name, "its binary data breaks off"))?;
                binary = rest;
                Values::from_raw(&name, &datatype, raw)?
            }
            _ => return Err(input_problem(&name, "give either `data` or the parameter `binary_data_size`")),
        };
        inputs.push(Input::new(name, &shape, values)?);
    }
    if binary.is_empty() {
        return Ok(inputs);
    }
    Err(Problem::invalid("inputs", format!("{} bytes after the JSON belong to no input", binary.len())))
}

/// Writes the body of an answer. Returns the length of its JSON if binary data follows it.
///
/// # Errors
/// 422 if the answer becomes larger than its room, 500 if the JSON cannot be written.
pub(super) async fn write(
    answer: &mut JsonAnswer,
    head: ResponseJson<'_>,
    outputs: &[Output<'_>],
    is_binary: impl Fn(&Output<'_>) -> bool,
) -> Result<Option<usize>, Problem> {
    answer.open_object(&head)?;
    answer.raw(b",\"outputs\":[");
    for (index, output) in outputs.iter().enumerate() {
        if index > 0 {
            answer.raw(b",");
        }
        let is_binary = is_binary(output);
        answer.open_object(&OutputJson::new(output, is_binary.then(|| output.contents.raw_size())))?;
        if !is_binary {
            answer.raw(b",\"data\":");
            match &output.contents {
                Contents::Bytes(values) => answer.list(values.iter()).await?,
                Contents::Fp32(values) => answer.list(values.iter()).await?,
            }
        }
        answer.raw(b"}");
    }
    answer.raw(b"]}");
    let length = answer.len();
    let mut has_binary = false;
    for output in outputs.iter().filter(|output| is_binary(output)) {
        answer.append(|bytes| output.contents.write_raw(bytes));
        answer.step().await?;
        has_binary = true;
    }
    Ok(has_binary.then_some(length))
}
