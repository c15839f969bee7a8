use std::collections::HashMap;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderValue, Method, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get, post};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::binary;
use super::infer::{InferRequest, infer};
use super::json::{RequestJson, ResponseJson, read_parameters};
use super::model::{INPUTS, SERVER, SERVER_VERSION, Signature, check_name, check_probed};
use super::outputs::OutputName;
use crate::arrival::Arrival;
use crate::{Problem, body, problem};
use canet_serving::{Recommender, Unready};

/// What is asked of models and of the server.
pub(crate) fn router() -> Router<Arc<Recommender>> {
    Router::new()
        .route("/v2", get(server))
        .route("/v2/models/{name}", get(describe))
        .route("/v2/models/{name}/versions/{version}", get(describe))
        .route("/v2/models/{name}/infer", post(post_infer))
        .route("/v2/models/{name}/versions/{version}/infer", post(post_infer))
        .route("/v2/{*rest}", any(not_found))
        .method_not_allowed_fallback(method_not_allowed)
}

/// What probes ask.
pub(crate) fn probes() -> Router<Arc<Recommender>> {
    Router::new()
        .route("/v2/health/live", get(live))
        .route("/v2/health/ready", get(ready))
        .route("/v2/models/{name}/ready", get(model_ready))
        .route("/v2/models/{name}/versions/{version}/ready", get(model_ready))
        .method_not_allowed_fallback(method_not_allowed)
}

/// Whether a path is of the protocol.
pub(crate) fn has(path: &str) -> bool {
    path.strip_prefix("/v2").is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// A fault that is found before or behind the handlers, as the protocol writes it.
pub(crate) fn refuse(problem: Problem) -> Response {
    Fault(problem).into_response()
}

/// A fault as the protocol writes it: `{"error": "..."}`, with the status of the table.
struct Fault(Problem);

impl From<Problem> for Fault {
    fn from(problem: Problem) -> Fault {
        Fault(problem)
    }
}

impl From<Unready> for Fault {
    fn from(unready: Unready) -> Fault {
        Fault(unready.into())
    }
}

impl IntoResponse for Fault {
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

async fn not_found(uri: Uri) -> Fault {
    problem::not_found(uri).await.into()
}

async fn method_not_allowed(method: Method, uri: Uri) -> Fault {
    problem::method_not_allowed(method, uri).await.into()
}

/// `GET /v2/health/live`
async fn live(State(recommender): State<Arc<Recommender>>) -> Result<Response, Fault> {
    if recommender.is_alive() { Ok(Json(json!({"live": true})).into_response()) } else { Err(Unready::Dead.into()) }
}

/// `GET /v2/health/ready`
async fn ready(State(recommender): State<Arc<Recommender>>) -> Result<Response, Fault> {
    recommender.ready()?;
    Ok(Json(json!({"ready": true})).into_response())
}

/// The model that a path names.
#[derive(Deserialize)]
struct ModelPath {
    name: String,
    /// Empty: whichever serves.
    #[serde(default)]
    version: String,
}

type Named = Result<Path<ModelPath>, PathRejection>;

/// A name that is no text is none of a model.
async fn named(path: Named, uri: &Uri) -> Result<ModelPath, Fault> {
    match path {
        Ok(Path(path)) => Ok(path),
        Err(_) => Err(not_found(uri.clone()).await),
    }
}

/// `GET /v2/models/{name}[/versions/{version}]/ready`
async fn model_ready(State(recommender): State<Arc<Recommender>>, path: Named, uri: Uri) -> Result<Response, Fault> {
    let ModelPath { name, version } = named(path, &uri).await?;
    check_probed(&*recommender.generation()?, &name, &version)?;
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
    versions: [String; 1],
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
async fn describe(State(recommender): State<Arc<Recommender>>, path: Named, uri: Uri) -> Result<Response, Fault> {
    let ModelPath { name, version } = named(path, &uri).await?;
    let generation = recommender.generation()?;
    check_name(&generation, &name, &version)?;
    let metadata = ModelMetadata {
        name: generation.model.name(),
        versions: [generation.model.version().to_string()],
        platform: SERVER,
        inputs: INPUTS.map(TensorMetadata::from).into(),
        outputs: OutputName::ALL.map(|output| output.signature().into()).into(),
    };
    Ok(Json(metadata).into_response())
}

/// `POST /v2/models/{name}[/versions/{version}]/infer`
///
/// Clients do not agree on the content type: where the header says that binary data follow the JSON it is not JSON's,
/// and where none is said some send none.
async fn post_infer(
    State(recommender): State<Arc<Recommender>>,
    path: Named,
    request: Request,
) -> Result<Response, Fault> {
    let ModelPath { name, version } = named(path, request.uri()).await?;
    let (headers, bytes) = body::read_bytes(request).await?;
    let arrival = Arrival::now();
    let (json, behind) = binary::split(&headers, &bytes)?;
    let RequestJson { id, parameters, inputs, outputs } = body::parse(json)?;
    let (parameters, binary_output) = read_parameters(parameters)?;
    let request = InferRequest {
        model: name,
        version,
        inputs: binary::read_inputs(inputs, behind)?,
        parameters,
        outputs: outputs.iter().map(|output| output.name.clone()).collect(),
    };
    let inferred = infer(&recommender, request, arrival).await?;

    let asked: HashMap<&str, Option<bool>> =
        outputs.iter().map(|output| (output.name.as_str(), output.parameters.binary_data)).collect();
    let head = ResponseJson {
        model_name: &inferred.model,
        model_version: inferred.version.to_string(),
        id: id.as_deref(),
        outputs: Vec::new(),
    };
    let is_binary = |name: &str| asked.get(name).copied().flatten().unwrap_or(binary_output);
    let (bytes, json_length) = binary::write(head, &inferred.outputs, |output| is_binary(output.name))?;
    let content_type = if json_length.is_some() { "application/octet-stream" } else { "application/json" };
    let mut response = ([(header::CONTENT_TYPE, content_type)], bytes).into_response();
    if let Some(length) = json_length {
        response.headers_mut().insert(binary::HEADER, HeaderValue::from(length));
    }
    response.extensions_mut().insert(inferred.times);
    Ok(response)
}
