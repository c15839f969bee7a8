use std::collections::HashMap;
use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderValue, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, any, get, post};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::binary;
use super::infer::{InferRequest, infer, pin_named, read_rows};
use super::json::{RequestJson, ResponseJson, ResponseParameters, read_parameters};
use super::model::{INPUTS, OutputName, SERVER, SERVER_VERSION, Signature, check_probed, named, versions};
use super::tensor::Output;
use crate::allowance::Allowance;
use crate::answer_json::JsonAnswer;
use crate::answer_size::AnswerForm;
use crate::body_turn::BodyTurn;
use crate::call::Call;
use crate::deadline::Arrival;
use crate::endpoint::{Endpoint, Kind};
use crate::observe::CallId;
use crate::{Problem, body, browser, problem};
use canet_serving::{Recommender, Unready};

/// The endpoints of the protocol. They are not in the OpenAPI document: the protocol has a specification of its own.
pub(crate) fn endpoints() -> Vec<Endpoint<Arc<Recommender>>> {
    let endpoint = |kind, path: &str, handlers: MethodRouter<Arc<Recommender>>| Endpoint {
        path: path.to_owned(),
        handlers,
        kind,
        refuse,
        documentation: None,
    };
    vec![
        endpoint(Kind::Api, "/v2", get(server)),
        endpoint(Kind::Api, "/v2/models/{name}", get(describe)),
        endpoint(Kind::Api, "/v2/models/{name}/versions/{version}", get(describe)),
        endpoint(Kind::Api, "/v2/models/{name}/infer", post(post_infer)),
        endpoint(Kind::Api, "/v2/models/{name}/versions/{version}/infer", post(post_infer)),
        endpoint(Kind::Api, "/v2/{*rest}", any(not_found)),
        endpoint(Kind::Public, "/v2/health/live", get(live)),
        endpoint(Kind::Public, "/v2/health/ready", get(ready)),
        endpoint(Kind::Public, "/v2/models/{name}/ready", get(model_ready)),
        endpoint(Kind::Public, "/v2/models/{name}/versions/{version}/ready", get(model_ready)),
    ]
}

fn refuse(problem: Problem) -> Response {
    ProtocolError(problem).into_response()
}

/// A problem in the protocol's form: `{"error": "..."}`, with the status of the table.
struct ProtocolError(Problem);

impl From<Problem> for ProtocolError {
    fn from(problem: Problem) -> ProtocolError {
        ProtocolError(problem)
    }
}

impl From<Unready> for ProtocolError {
    fn from(unready: Unready) -> ProtocolError {
        ProtocolError(unready.into())
    }
}

impl IntoResponse for ProtocolError {
    fn into_response(self) -> Response {
        let error = match &self.0.field {
            Some(field) if !self.0.detail.contains(&**field) => format!("{field}: {}", self.0.detail),
            _ => self.0.detail.to_string(),
        };
        let mut response = self.0.into_response();
        *response.body_mut() = Body::from(json!({"error": error}).to_string());
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        response
    }
}

async fn not_found(uri: Uri) -> ProtocolError {
    problem::not_found(uri).await.into()
}

/// `GET /v2/health/live`
async fn live(State(recommender): State<Arc<Recommender>>) -> Result<Response, ProtocolError> {
    if recommender.is_alive() { Ok(Json(json!({"live": true})).into_response()) } else { Err(Unready::Dead.into()) }
}

/// `GET /v2/health/ready`
async fn ready(State(recommender): State<Arc<Recommender>>) -> Result<Response, ProtocolError> {
    recommender.ready()?;
    Ok(Json(json!({"ready": true})).into_response())
}

/// The model that the path names.
#[derive(Deserialize)]
struct ModelPath {
    name: String,
    /// Empty means any version.
    #[serde(default)]
    version: String,
}

type NamedModel = Result<Path<ModelPath>, PathRejection>;

/// No model has a name that is not UTF-8.
async fn model_path(path: NamedModel, uri: &Uri) -> Result<ModelPath, ProtocolError> {
    match path {
        Ok(Path(path)) => Ok(path),
        Err(_) => Err(not_found(uri.clone()).await),
    }
}

/// `GET /v2/models/{name}[/versions/{version}]/ready`
async fn model_ready(
    State(recommender): State<Arc<Recommender>>,
    path: NamedModel,
    uri: Uri,
) -> Result<Response, ProtocolError> {
    let ModelPath { name, version } = model_path(path, &uri).await?;
    check_probed(recommender.serving()?, &name, &version)?;
    recommender.ready()?;
    Ok(Json(json!({"name": name, "ready": true})).into_response())
}

/// `GET /v2`
async fn server() -> Response {
    let extensions = ["binary_tensor_data"];
    Json(json!({"name": SERVER, "version": SERVER_VERSION, "extensions": extensions})).into_response()
}

#[derive(Serialize)]
struct ModelMetadata<'a> {
    name: &'a str,
    versions: Vec<String>,
    platform: &'static str,
    inputs: Vec<TensorMetadata>,
    outputs: Vec<TensorMetadata>,
}

#[derive(Serialize)]
struct TensorMetadata {
    name: &'static str,
    datatype: &'static str,
    shape: &'static [i64],
}

impl From<Signature> for TensorMetadata {
    fn from(signature: Signature) -> TensorMetadata {
        TensorMetadata { name: signature.name, datatype: signature.data_type.name(), shape: signature.shape }
    }
}

/// `GET /v2/models/{name}[/versions/{version}]`
async fn describe(
    State(recommender): State<Arc<Recommender>>,
    path: NamedModel,
    uri: Uri,
) -> Result<Response, ProtocolError> {
    let ModelPath { name, version } = model_path(path, &uri).await?;
    let serving = named(recommender.serving()?, &name, &version)?;
    let metadata = ModelMetadata {
        name: serving.live.model.name(),
        versions: versions(&serving),
        platform: SERVER,
        inputs: INPUTS.map(TensorMetadata::from).into(),
        outputs: OutputName::ALL.map(|output| output.signature().into()).into(),
    };
    Ok(Json(metadata).into_response())
}

/// `POST /v2/models/{name}[/versions/{version}]/infer`
///
/// Accepts any content type, because clients disagree: with binary data it is not JSON's, and some send none. So a browser
/// asks for no permission before it sends a call for a page of another site. Such a call is refused: it would judge answers
/// and write to the answer log.
async fn post_infer(
    State(recommender): State<Arc<Recommender>>,
    path: NamedModel,
    request: Request,
) -> Result<Response, ProtocolError> {
    browser::check_page(&request)?;
    let ModelPath { name, version } = model_path(path, request.uri()).await?;
    let (answers, call_id) = (Allowance::answers(request.extensions()), CallId::of(request.extensions()));
    let (headers, bytes) = body::read_bytes(request).await?;
    let arrival = Arrival::now();
    let (json, binary) = binary::split(&headers, &bytes)?;
    let turn = BodyTurn::to_parse(bytes.len()).await;
    let RequestJson { id, parameters, inputs, outputs } = turn.run(|| body::parse(json))?;
    let (parameters, binary_output) = read_parameters(parameters)?;
    let request = InferRequest {
        model: name,
        version,
        id,
        inputs: turn.run(|| binary::read_inputs(inputs, binary))?,
        parameters,
        outputs: outputs.iter().map(|output| output.name.clone()).collect(),
    };
    let serving = pin_named(&recommender, &request)?;
    let call = Call { recommender: &recommender, serving: &serving, arrival, id: call_id.as_ref() };
    let rows = turn.run(|| read_rows(call, request))?;
    drop(turn);
    let (inferred, reservation) = infer(call, rows, &answers, AnswerForm::Tensors).await?;

    let asked: HashMap<&str, Option<bool>> =
        outputs.iter().map(|output| (output.name.as_str(), output.parameters.binary_data)).collect();
    let is_binary = |output: &Output<'_>| asked.get(output.name).copied().flatten().unwrap_or(binary_output);
    let _permit = reservation.build_permit().await;
    let outputs = inferred.outputs();
    let head = ResponseJson {
        model_name: inferred.model,
        model_version: inferred.version.to_string(),
        id: inferred.id.as_deref(),
        parameters: inferred.versions.as_deref().map(|versions| ResponseParameters { versions }),
    };
    let mut answer = JsonAnswer::new(reservation);
    let json_length = binary::write(&mut answer, head, &outputs, is_binary).await?;
    let content_type = if json_length.is_some() { "application/octet-stream" } else { "application/json" };
    let mut response = ([(header::CONTENT_TYPE, content_type)], answer.finish()?).into_response();
    if let Some(length) = json_length {
        response.headers_mut().insert(binary::HEADER, HeaderValue::from(length));
    }
    response.extensions_mut().insert(inferred.times);
    Ok(response)
}
