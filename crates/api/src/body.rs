use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, HttpBody};
use axum::extract::Request;
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::error::Category;
use serde_json::value::RawValue;

use super::problem::RETRY_AFTER_SECONDS;
use super::server::{Held, Receiving};
use super::{Code, Problem};

/// Largest body that is read.
pub(crate) const LIMIT: usize = 1 << 20;

/// A body that is refused is still received up to here before that is said: a client that is cut off while it sends often
/// sees a broken connection instead of the answer.
const DISCARD_LIMIT: usize = 16 << 20;

/// The bytes of a JSON request.
///
/// # Errors
/// 415 where the content type is not JSON, 413 over [`LIMIT`], 408 where it takes too long, 429 where there is no room
/// for it, 400 where it breaks off.
pub(crate) async fn read_json(request: Request) -> Result<Vec<u8>, Problem> {
    if !is_json(request.headers()) {
        return Err(not_json());
    }
    let (head, body) = request.into_parts();
    read(&head, body).await
}

/// The bytes of a JSON request that may come without a body, and then needs no content type.
///
/// # Errors
/// As [`read_json`].
pub(crate) async fn read_optional_json(request: Request) -> Result<Vec<u8>, Problem> {
    let (head, body) = request.into_parts();
    let bytes = read(&head, body).await?;
    if bytes.is_empty() || is_json(&head.headers) { Ok(bytes) } else { Err(not_json()) }
}

/// The bytes of a request, whatever it declares them as, and its headers.
///
/// # Errors
/// As [`read_json`], but 415.
pub(crate) async fn read_bytes(request: Request) -> Result<(HeaderMap, Vec<u8>), Problem> {
    let (head, body) = request.into_parts();
    let bytes = read(&head, body).await?;
    Ok((head.headers, bytes))
}

/// Reads within the time and the room that the listener gives a body.
async fn read(head: &Parts, body: Body) -> Result<Vec<u8>, Problem> {
    // Who asks before sending a large body is answered at once.
    if head.headers.contains_key(header::EXPECT) && body.size_hint().lower() > LIMIT as u64 {
        return Err(too_large());
    }
    let Some(Receiving { patience, held }) = head.extensions.get() else { return read_all(body, None).await };
    tokio::time::timeout(*patience, read_all(body, Some(held))).await.map_err(|_| too_slow(*patience))?
}

/// Why a body that did not arrive within `patience` is refused.
pub(crate) fn too_slow(patience: Duration) -> Problem {
    Problem::new(Code::RequestTimeout, format!("the body did not arrive within {} s", patience.as_secs_f64()))
}

/// Why a body is refused that is larger than [`LIMIT`].
pub(crate) fn too_large() -> Problem {
    Problem::new(Code::TooLarge, format!("the body is larger than {LIMIT} bytes"))
}

/// Why a body is refused for which there is no room.
pub(crate) fn no_room() -> Problem {
    let detail = "the server has no room for more bodies of requests just now";
    Problem { retry_after: Some(RETRY_AFTER_SECONDS), ..Problem::new(Code::Overloaded, detail) }
}

/// Room is taken as bytes come, and not on the word of a head.
async fn read_all(mut body: Body, held: Option<&Arc<Held>>) -> Result<Vec<u8>, Problem> {
    let (mut bytes, mut received, mut is_refused) = (Vec::new(), 0_usize, false);
    while let Some(frame) = poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await {
        let frame = frame.map_err(|error| Problem::new(Code::InvalidJson, format!("the body broke off: {error}")))?;
        let Ok(data) = frame.into_data() else { continue };
        received = received.saturating_add(data.len());
        if received > DISCARD_LIMIT {
            break;
        }
        is_refused = is_refused || received > LIMIT || held.is_some_and(|held| !held.take(data.len()));
        if !is_refused {
            bytes.extend_from_slice(&data);
            continue;
        }
        // The rest is received all the same, and nothing of it kept.
        bytes = Vec::new();
        if let Some(held) = held {
            held.give_back();
        }
    }
    match received {
        _ if !is_refused => Ok(bytes),
        ..=LIMIT => Err(no_room()),
        _ => Err(too_large()),
    }
}

fn not_json() -> Problem {
    Problem::new(Code::UnsupportedMediaType, "the content type must be application/json")
}

/// `application/json` or `application/*+json`, whatever its parameters.
fn is_json(headers: &HeaderMap) -> bool {
    let essence = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .map(|value| value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase());
    essence
        .as_deref()
        .and_then(|essence| essence.strip_prefix("application/"))
        .is_some_and(|subtype| subtype == "json" || subtype.ends_with("+json"))
}

/// Parses a body that must be an object.
///
/// # Errors
/// 400 where it is not JSON, 422 with the field where it is not a `T`.
pub(crate) fn parse<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, Problem> {
    parse_telling(bytes, serde_json::Error::to_string)
}

/// Parses a part of a body that was read before; it must be an object.
///
/// # Errors
/// As [`parse`], without a place: it would be one in the part, which the client does not number by lines.
pub(crate) fn parse_part<'a, T: Deserialize<'a>>(part: &'a RawValue) -> Result<T, Problem> {
    parse_telling(part.get().as_bytes(), |error| {
        let (text, place) = (error.to_string(), format!(" at line {} column {}", error.line(), error.column()));
        text.strip_suffix(&place).map(str::to_owned).unwrap_or(text)
    })
}

/// Parses as [`parse`] does; `tell` says what is wrong.
fn parse_telling<'a, T: Deserialize<'a>>(
    bytes: &'a [u8],
    tell: impl Fn(&serde_json::Error) -> String,
) -> Result<T, Problem> {
    let reject = |path, error: &serde_json::Error| reject(path, error, &tell(error));
    // Serde would take an array for an object, its elements for the fields in order.
    if bytes.trim_ascii_start().first() != Some(&b'{') {
        serde_json::from_slice::<IgnoredAny>(bytes).map_err(|error| reject(String::new(), &error))?;
        return Err(Problem::new(Code::InvalidRequest, "a request must be a JSON object"));
    }
    if let Ok(parsed) = serde_json::from_slice(bytes) {
        return Ok(parsed);
    }
    // Once more, for the field at fault: a request that is right should not pay for keeping the path.
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let parsed = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let field = error.path().to_string();
        reject(field, error.inner())
    })?;
    json.end().map_err(|error| reject(String::new(), &error))?;
    Ok(parsed)
}

fn reject(path: String, error: &serde_json::Error, told: &str) -> Problem {
    match error.classify() {
        Category::Data => {
            // A fault of the whole document has the path `.`; a missing or repeated field stands in the message alone.
            let field = named_field(error).unwrap_or(path);
            Problem {
                field: (field != ".").then(|| field.into()),
                ..Problem::new(Code::InvalidRequest, told.to_owned())
            }
        }
        Category::Syntax | Category::Eof | Category::Io => {
            Problem::new(Code::InvalidJson, format!("the body is not JSON: {told}"))
        }
    }
}

/// The name in serde's "missing field" and "duplicate field", which its path does not tell.
fn named_field(error: &serde_json::Error) -> Option<String> {
    let message = error.to_string();
    let quoted = ["missing field `", "duplicate field `"].iter().find_map(|start| message.strip_prefix(start))?;
    quoted.split_once('`').map(|(name, _)| name.to_owned())
}
