//! The gRPC service of the protocol.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use super::infer::{InferRequest, Inferred, infer, pin_named, read_rows};
use super::model::{INPUTS, OutputName, SERVER, SERVER_VERSION, Signature, named, versions};
use super::parameters::{Parameter, Parameters};
use super::tensor::{Contents, DataType, Input, Values, input_problem};
use crate::Problem;
use crate::allowance::Allowance;
use crate::answer_budget::MessageCharge;
use crate::answer_size::AnswerForm;
use crate::call::Call;
use crate::deadline::Arrival;
use crate::observe::CallId;
use crate::proto::inference as proto;
use crate::proto::inference::grpc_inference_service_server::GrpcInferenceService;
use crate::turns::Turns;
use canet_serving::{Recommender, Serving};

/// `inference.GRPCInferenceService`.
pub(crate) struct Service {
    recommender: Arc<Recommender>,
}

impl Service {
    pub(crate) fn new(recommender: Arc<Recommender>) -> Service {
        Service { recommender }
    }

    /// The generations of the named model that serve.
    fn named(&self, name: &str, version: &str) -> Result<Serving, Problem> {
        named(self.recommender.serving()?, name, version)
    }
}

#[tonic::async_trait]
impl GrpcInferenceService for Service {
    async fn server_live(
        &self,
        _request: Request<proto::ServerLiveRequest>,
    ) -> Result<Response<proto::ServerLiveResponse>, Status> {
        Ok(Response::new(proto::ServerLiveResponse { live: self.recommender.is_alive() }))
    }

    async fn server_ready(
        &self,
        _request: Request<proto::ServerReadyRequest>,
    ) -> Result<Response<proto::ServerReadyResponse>, Status> {
        Ok(Response::new(proto::ServerReadyResponse { ready: self.recommender.ready().is_ok() }))
    }

    async fn model_ready(
        &self,
        request: Request<proto::ModelReadyRequest>,
    ) -> Result<Response<proto::ModelReadyResponse>, Status> {
        let proto::ModelReadyRequest { name, version } = request.into_inner();
        // Clients treat an error as a failure of the server. A model that does not serve is just not ready.
        let ready = self.named(&name, &version).is_ok() && self.recommender.ready().is_ok();
        Ok(Response::new(proto::ModelReadyResponse { ready }))
    }

    async fn server_metadata(
        &self,
        _request: Request<proto::ServerMetadataRequest>,
    ) -> Result<Response<proto::ServerMetadataResponse>, Status> {
        let (name, version) = (SERVER.to_owned(), SERVER_VERSION.to_owned());
        // Binary data is part of the protocol over gRPC, and an extension only over HTTP.
        Ok(Response::new(proto::ServerMetadataResponse { name, version, extensions: Vec::new() }))
    }

    async fn model_metadata(
        &self,
        request: Request<proto::ModelMetadataRequest>,
    ) -> Result<Response<proto::ModelMetadataResponse>, Status> {
        let proto::ModelMetadataRequest { name, version } = request.into_inner();
        let serving = self.named(&name, &version)?;
        let tensor = |Signature { name, data_type, shape }| proto::model_metadata_response::TensorMetadata {
            name: str::to_owned(name),
            datatype: data_type.name().to_owned(),
            shape: shape.to_vec(),
        };
        Ok(Response::new(proto::ModelMetadataResponse {
            name,
            versions: versions(&serving),
            platform: SERVER.to_owned(),
            inputs: INPUTS.map(tensor).into(),
            outputs: OutputName::ALL.map(|output| tensor(output.signature())).into(),
        }))
    }

    async fn model_infer(
        &self,
        request: Request<proto::ModelInferRequest>,
    ) -> Result<Response<proto::ModelInferResponse>, Status> {
        let arrival = Arrival::of_message(&request);
        let (answers, id) = (Allowance::answers(request.extensions()), CallId::of(request.extensions()));
        let message = request.into_inner();
        let raw = !message.raw_input_contents.is_empty();
        let request = read(message)?;
        let serving = pin_named(&self.recommender, &request)?;
        let call = Call { recommender: &self.recommender, serving: &serving, arrival, id: id.as_ref() };
        let rows = read_rows(call, request)?;
        let (inferred, reservation) = infer(call, rows, &answers, AnswerForm::TensorsMessage).await?;
        let _permit = reservation.build_permit().await;
        let mut turns = Turns::default();
        let mut response = Response::new(write(&inferred, raw, &mut turns).await);
        response.extensions_mut().insert(inferred.times);
        response.extensions_mut().insert(MessageCharge::one(reservation.built(turns.worked())));
        Ok(response)
    }
}

fn read(message: proto::ModelInferRequest) -> Result<InferRequest, Problem> {
    let mut parameters = Parameters::default();
    for (name, value) in message.parameters {
        use proto::infer_parameter::ParameterChoice;
        let value = value.parameter_choice.map(|value| match value {
            ParameterChoice::BoolParam(value) => Parameter::Bool(value),
            ParameterChoice::StringParam(value) => Parameter::Text(value),
            ParameterChoice::DoubleParam(value) => Parameter::Number(value),
            ParameterChoice::Int64Param(value) => Parameter::Number(value as f64),
            ParameterChoice::Uint64Param(value) => Parameter::Number(value as f64),
        });
        parameters.set(&name, value)?;
    }
    Ok(InferRequest {
        model: message.model_name,
        version: message.model_version,
        id: Some(message.id),
        inputs: read_inputs(message.inputs, &message.raw_input_contents)?,
        parameters,
        outputs: message.outputs.into_iter().map(output_name).collect::<Result<_, _>>()?,
    })
}

/// The name of an output that is asked for. Its parameters are refused, because they would change the form of the answer.
fn output_name(output: proto::model_infer_request::InferRequestedOutputTensor) -> Result<String, Problem> {
    match output.parameters.keys().next() {
        None => Ok(output.name),
        Some(parameter) => {
            let detail =
                format!("output {:?} has the parameter {parameter:?}, which is unknown: leave it out", output.name);
            Err(Problem::invalid("outputs", detail))
        }
    }
}

fn read_inputs(
    sent: Vec<proto::model_infer_request::InferInputTensor>,
    raw: &[Vec<u8>],
) -> Result<Vec<Input>, Problem> {
    if !raw.is_empty() && raw.len() != sent.len() {
        let detail = format!("`raw_input_contents` has {} entries for {} inputs", raw.len(), sent.len());
        return Err(Problem::invalid("raw_input_contents", detail));
    }
    let mut raw = raw.iter();
    let read = |input: proto::model_infer_request::InferInputTensor| {
        let name = input.name;
        let values = match (raw.next(), input.contents) {
            (Some(_), Some(_)) => return Err(input_problem(&name, "send either its contents or `raw_input_contents`")),
            (Some(raw), None) => Values::from_raw(&name, &input.datatype, raw)?,
            (None, contents) => read_contents(&name, &input.datatype, contents.unwrap_or_default())?,
        };
        Input::new(name, &input.shape, values)
    };
    sent.into_iter().map(read).collect()
}

/// Reads the values in the field of the input's data type.
///
/// # Errors
/// 422 if no input has the data type, or if there are values in another field.
fn read_contents(name: &str, data_type: &str, contents: proto::InferTensorContents) -> Result<Values, Problem> {
    let proto::InferTensorContents {
        bool_contents,
        int_contents,
        int64_contents,
        uint_contents,
        uint64_contents,
        fp32_contents,
        fp64_contents,
        bytes_contents,
    } = contents;
    let is_filled = [
        ("bool_contents", !bool_contents.is_empty()),
        ("int_contents", !int_contents.is_empty()),
        ("int64_contents", !int64_contents.is_empty()),
        ("uint_contents", !uint_contents.is_empty()),
        ("uint64_contents", !uint64_contents.is_empty()),
        ("fp32_contents", !fp32_contents.is_empty()),
        ("fp64_contents", !fp64_contents.is_empty()),
        ("bytes_contents", !bytes_contents.is_empty()),
    ];
    let (needed, values) = match Values::data_type(name, data_type)? {
        DataType::Bytes => ("bytes_contents", Values::Bytes(bytes_contents)),
        _ => ("int64_contents", Values::Int64(int64_contents)),
    };
    match is_filled.into_iter().find(|(field, is_filled)| *is_filled && *field != needed) {
        Some((other, _)) => {
            let detail = format!("its data type {data_type} needs `{needed}`, but `{other}` has values");
            Err(input_problem(name, &detail))
        }
        None => Ok(values),
    }
}

/// The parameter of an answer that names the version of each row, if two versions answered.
const VERSIONS: &str = "versions";

fn text(value: &str) -> proto::InferParameter {
    let value = proto::infer_parameter::ParameterChoice::StringParam(value.to_owned());
    proto::InferParameter { parameter_choice: Some(value) }
}

/// Answers with raw contents if the request had them. Writes in turns with other tasks.
async fn write(inferred: &Inferred<'_>, raw: bool, turns: &mut Turns) -> proto::ModelInferResponse {
    let (mut outputs, mut raw_output_contents) = (Vec::new(), Vec::new());
    for output in inferred.outputs() {
        let datatype = output.contents.data_type().name().to_owned();
        let contents = if raw {
            raw_output_contents.push(output.contents.to_raw());
            None
        } else {
            let mut contents = proto::InferTensorContents::default();
            match output.contents {
                Contents::Bytes(values) => {
                    contents.bytes_contents.reserve_exact(values.len());
                    for value in values {
                        contents.bytes_contents.push(value.as_bytes().to_vec());
                        turns.step().await;
                    }
                }
                Contents::Fp32(values) => contents.fp32_contents = values,
            }
            Some(contents)
        };
        outputs.push(proto::model_infer_response::InferOutputTensor {
            name: output.name.to_owned(),
            datatype,
            shape: output.shape.iter().map(|size| i64::try_from(*size).unwrap_or(i64::MAX)).collect(),
            parameters: Default::default(),
            contents,
        });
    }
    proto::ModelInferResponse {
        model_name: inferred.model.to_owned(),
        model_version: inferred.version.to_string(),
        id: inferred.id.clone().unwrap_or_default(),
        parameters: inferred.versions.iter().map(|versions| (VERSIONS.to_owned(), text(versions))).collect(),
        outputs,
        raw_output_contents,
    }
}
