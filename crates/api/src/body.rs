use std::borrow::Cow;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::body::{Body, HttpBody};
use axum::extract::Request;
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::error::Category;
use serde_json::value::RawValue;

use super::allowance::Allowance;
use super::body_budget::{BodyPermit, over_budget, too_large};
use super::body_turn::BodyTurn;
use super::limits::MAX_BODY;
use super::unpack::Coding;
use super::{Code, Problem, exact, pace};

/// A refused body is received up to this size before the answer. A client that is cut off while it sends often sees a
/// broken connection instead of the answer.
const DISCARD_LIMIT: usize = 16 << 20;

/// Reads the body of a JSON request.
///
/// Handlers read bodies with the functions of this module, never with axum's `Json` extractor. Only these functions
/// enforce the time limits (408), [`MAX_BODY`] (413), the content type and encoding (415) and the memory budget (429), and
/// only they unpack compressed bodies and return errors as problems.
///
/// # Errors
/// 415 if the content type is not JSON or the content encoding is unknown, 413 over [`MAX_BODY`], unpacked or as it is
/// sent, 408 if it takes too long, 429 if the budget for bodies is spent, 400 if it breaks off or cannot be unpacked.
pub(crate) async fn read_json(request: Request) -> Result<Vec<u8>, Problem> {
    if !is_json(request.headers()) {
        return Err(not_json());
    }
    let (head, body) = request.into_parts();
    read(&head, body).await
}

/// Reads the body of a JSON request that may be empty. An empty body needs no content type.
///
/// # Errors
/// As [`read_json`].
async fn read_optional_json(request: Request) -> Result<Vec<u8>, Problem> {
    let (head, body) = request.into_parts();
    let bytes = read(&head, body).await?;
    if bytes.is_empty() || is_json(&head.headers) { Ok(bytes) } else { Err(not_json()) }
}

/// Reads and parses the body of a JSON request that may be empty. An empty body and `null` give the default.
///
/// # Errors
/// As [`read_optional_json`] and [`parse`].
pub(crate) async fn read_optional<T: DeserializeOwned + Default>(request: Request) -> Result<T, Problem> {
    let bytes = read_optional_json(request).await?;
    match bytes.trim_ascii() {
        b"" | b"null" => Ok(T::default()),
        bytes => parse(bytes),
    }
}

/// Reads headers and body of a request with any content type.
///
/// # Errors
/// As [`read_json`], except for the content type.
pub(crate) async fn read_bytes(request: Request) -> Result<(HeaderMap, Vec<u8>), Problem> {
    let (head, body) = request.into_parts();
    let bytes = read(&head, body).await?;
    Ok((head.headers, bytes))
}

/// Reads within the allowance that the listener grants, and unpacks.
async fn read(head: &Parts, body: Body) -> Result<Vec<u8>, Problem> {
    let coding = Coding::of(&head.headers)?;
    // A client with `expect: 100-continue` has sent nothing yet, so it gets the answer at once.
    if head.headers.contains_key(header::EXPECT) && body.size_hint().lower() > MAX_BODY as u64 {
        return Err(too_large());
    }
    let received = AtomicUsize::new(0);
    let allowance = head.extensions.get::<Allowance>().map(|allowance| &allowance.body);
    let permit = allowance.map(|allowance| &*allowance.permit);
    let arrives = read_all(body, permit, &received);
    let bytes = match allowance {
        None => arrives.await?,
        Some(allowance) => tokio::select! {
            biased;
            arrived = arrives => arrived?,
            problem = pace::too_slow(allowance.timeout, || received.load(Ordering::Relaxed)) => return Err(problem),
        },
    };
    match coding {
        // A request without a body may name a coding too.
        Some(coding) if !bytes.is_empty() => BodyTurn::to_unpack().await.run(|| coding.unpack(&bytes, permit)),
        _ => Ok(bytes),
    }
}

/// Takes from the budget as bytes arrive: `content-length` alone reserves nothing. Counts them in `counter`.
async fn read_all(mut body: Body, permit: Option<&BodyPermit>, counter: &AtomicUsize) -> Result<Vec<u8>, Problem> {
    let (mut bytes, mut received, mut is_refused) = (Vec::new(), 0_usize, false);
    while let Some(frame) = poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await {
        let frame = frame.map_err(|error| Problem::new(Code::InvalidJson, format!("the body broke off: {error}")))?;
        let Ok(data) = frame.into_data() else { continue };
        received = received.saturating_add(data.len());
        counter.store(received, Ordering::Relaxed);
        is_refused = is_refused || received > MAX_BODY || permit.is_some_and(|permit| !permit.take(data.len()));
        if received > DISCARD_LIMIT {
            return Err(too_large());
        }
        if !is_refused {
            bytes.extend_from_slice(&data);
            continue;
        }
        bytes = Vec::new();
        if let Some(permit) = permit {
            permit.release();
        }
    }
    if let Some(permit) = permit {
        permit.ends();
    }
    match received {
        _ if !is_refused => Ok(bytes),
        ..=MAX_BODY => Err(over_budget()),
        _ => Err(too_large()),
    }
}

fn not_json() -> Problem {
    Problem::new(Code::UnsupportedMediaType, "the content type must be application/json")
}

/// Accepts `application/json` and `application/*+json`, with any parameters.
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

/// Parses a body that must be a JSON object.
///
/// Handlers use it or [`parse_with_ids`], never axum's `Json` extractor: [`read_json`] gives the reasons.
///
/// # Errors
/// 400 if it is not JSON, 422 with the field if it is not a `T`.
pub(crate) fn parse<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, Problem> {
    check_object(bytes, serde_json::Error::to_string)?;
    serde_json::from_slice(bytes).or_else(|_| parse_locating(bytes, serde_json::Error::to_string))
}

/// Parses a body with item ids, which may be integers of any length.
///
/// # Errors
/// As [`parse`].
pub(crate) fn parse_with_ids<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    parse_exact(bytes, serde_json::Error::to_string)
}

/// Parses a part of a body with item ids. The part was cut out before and must be a JSON object.
///
/// # Errors
/// As [`parse`], but without line and column, which would count from the part's beginning.
pub(crate) fn parse_part<T: DeserializeOwned>(part: &RawValue) -> Result<T, Problem> {
    parse_exact(part.get().as_bytes(), without_place)
}

/// Parses a document, and if that fails once more with quotes around its long integers.
fn parse_exact<T: DeserializeOwned>(
    bytes: &[u8],
    describe: impl Fn(&serde_json::Error) -> String,
) -> Result<T, Problem> {
    check_object(bytes, &describe)?;
    if let Ok(parsed) = serde_json::from_slice(bytes) {
        return Ok(parsed);
    }
    match exact::with_quoted(bytes) {
        Cow::Borrowed(_) => parse_locating(bytes, describe),
        // The quotes move what follows them.
        Cow::Owned(quoted) => serde_json::from_slice(&quoted)
            .or_else(|_| parse_locating(&quoted, |error| exact::unquoted(&without_place(error)))),
    }
}

/// The error's message without line and column.
fn without_place(error: &serde_json::Error) -> String {
    let (text, place) = (error.to_string(), format!(" at line {} column {}", error.line(), error.column()));
    text.strip_suffix(&place).map(str::to_owned).unwrap_or(text)
}

/// Refuses a document that is no object. Serde would accept an array and take its elements as the fields in order.
fn check_object(bytes: &[u8], describe: impl Fn(&serde_json::Error) -> String) -> Result<(), Problem> {
    if bytes.trim_ascii_start().first() == Some(&b'{') {
        return Ok(());
    }
    serde_json::from_slice::<IgnoredAny>(bytes).map_err(|error| reject(String::new(), &error, &describe(&error)))?;
    Err(Problem::new(Code::InvalidRequest, "a request must be a JSON object with named fields"))
}

/// Parses what failed before, to find the wrong field. A valid request does not pay for tracking the path.
fn parse_locating<'a, T: Deserialize<'a>>(
    bytes: &'a [u8],
    describe: impl Fn(&serde_json::Error) -> String,
) -> Result<T, Problem> {
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let parsed = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let field = error.path().to_string();
        reject(field, error.inner(), &describe(error.inner()))
    })?;
    json.end().map_err(|error| reject(String::new(), &error, &describe(&error)))?;
    Ok(parsed)
}

fn reject(path: String, error: &serde_json::Error, described: &str) -> Problem {
    match error.classify() {
        // Such a number is JSON, although serde_json cannot read it.
        Category::Syntax if described.starts_with("number out of range") => {
            Problem::new(Code::InvalidRequest, described.to_owned()).at(path)
        }
        Category::Data => {
            // Serde calls these types by Rust's names.
            let described = described
                .replace("expected f64", "expected a number")
                .replace("expected a sequence", "expected a list")
                .replace("expected a map", "expected an object");
            // The path of the whole document is `.`. Only the message names a missing or repeated field.
            let field = named_field(error).unwrap_or(path);
            let problem = Problem::new(Code::InvalidRequest, described);
            if field == "." { problem } else { problem.at(field) }
        }
        Category::Syntax | Category::Eof | Category::Io => {
            Problem::new(Code::InvalidJson, format!("the body is not JSON: {described}"))
        }
    }
}

/// The field's name in serde's "missing field" and "duplicate field".
fn named_field(error: &serde_json::Error) -> Option<String> {
    let message = error.to_string();
    let quoted = ["missing field `", "duplicate field `"].iter().find_map(|start| message.strip_prefix(start))?;
    quoted.split_once('`').map(|(name, _)| name.to_owned())
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::Arc;
    use std::sync::atomic::AtomicUsize;
    use std::time::Duration;

    use axum::body::Body;
    use axum::extract::Request;
    use axum::http::{HeaderMap, HeaderValue, header};
    use flate2::Compression;
    use flate2::write::GzEncoder;
    use serde::Deserialize;

    use super::{DISCARD_LIMIT, is_json, parse, parse_with_ids, read_all, read_bytes};
    use crate::allowance::Allowance;
    use crate::answer_budget::{AnswerBudget, AnswerShare};
    use crate::body_budget::{BodyAllowance, BodyBudget, BodyPermit};
    use crate::limits::MAX_BODY;
    use crate::wire::ExternalId;
    use crate::{Code, Problem};

    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(deny_unknown_fields)]
    struct Wire {
        ids: Vec<u32>,
    }

    fn code_and_field(problem: Problem) -> (Code, Option<String>) {
        (problem.code, problem.field.map(String::from))
    }

    #[test]
    fn problems_name_the_wrong_field() {
        assert_eq!(parse::<Wire>(b" {\"ids\": [1]} "), Ok(Wire { ids: vec![1] }));
        for (body, code, field) in [
            ("{\"ids\": [1, \"2\"]}", Code::InvalidRequest, Some("ids[1]")),
            ("{}", Code::InvalidRequest, Some("ids")),
            ("{\"ids\": [], \"ids\": []}", Code::InvalidRequest, Some("ids")),
            ("{\"ids\": [], \"k\": 1}", Code::InvalidRequest, Some("k")),
            ("[[1]]", Code::InvalidRequest, None),
            ("null", Code::InvalidRequest, None),
            ("{\"ids\": [1e999]}", Code::InvalidRequest, Some("ids[0]")),
            ("{\"ids\": [1]", Code::InvalidJson, None),
            ("{\"ids\": [1]} x", Code::InvalidJson, None),
            ("", Code::InvalidJson, None),
        ] {
            let problem = parse::<Wire>(body.as_bytes()).unwrap_err();
            assert_eq!(code_and_field(problem), (code, field.map(str::to_owned)), "{body}");
        }
    }

    #[test]
    fn ids_are_integers_of_any_length() {
        #[derive(Debug, Deserialize, PartialEq)]
        struct Ids {
            ids: Vec<ExternalId>,
            k: Option<u32>,
        }
        let ids = |json: &str| parse_with_ids::<Ids>(json.as_bytes());
        let long = "184467440737095510101";
        let expected: Vec<ExternalId> = [long, "5", "-0"].iter().map(|id| ExternalId((*id).into())).collect();
        assert_eq!(ids(&format!("{{\"ids\": [{long}, 5, -0]}}")), Ok(Ids { ids: expected, k: None }));
        for (number, code, field) in [
            ("1.0", Code::InvalidRequest, Some("ids[1]")),
            ("1e3", Code::InvalidRequest, Some("ids[1]")),
            ("01", Code::InvalidJson, None),
        ] {
            let problem = ids(&format!("{{\"ids\": [{long}, {number}]}}")).unwrap_err();
            assert_eq!(code_and_field(problem), (code, field.map(str::to_owned)), "{number}");
        }
        // A number that is too long is not called a string.
        let problem = ids(&format!("{{\"ids\": [{long}], \"k\": {long}}}")).unwrap_err();
        assert_eq!(problem.field.as_deref(), Some("k"));
        assert_eq!(problem.detail, format!("invalid value: integer `{long}`, expected u32"));
    }

    #[test]
    fn json_has_many_content_types() {
        let is_json = |value| is_json(&HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_static(value))]));
        assert!(
            ["application/json", "Application/JSON; charset=utf-8", "application/problem+json"]
                .into_iter()
                .all(is_json)
        );
        assert!(!["text/json", "application/jsonl", "application/", "json"].into_iter().any(is_json));
    }

    #[tokio::test]
    async fn bodies_are_bounded_alone_and_together() {
        let budget = BodyBudget::new(2 * MAX_BODY);
        let peer = budget.peer([192, 0, 2, 1].into());
        let read = async |size: usize| {
            let permit = BodyPermit::empty(&peer);
            let outcome = read_all(Body::from(vec![b' '; size]), Some(&permit), &AtomicUsize::new(0)).await;
            outcome.map(|bytes| bytes.len()).map_err(|problem| problem.code)
        };
        assert_eq!(read(MAX_BODY).await, Ok(MAX_BODY));
        assert_eq!(read(MAX_BODY + 1).await, Err(Code::TooLarge));
        assert_eq!(read(DISCARD_LIMIT + 1).await, Err(Code::TooLarge));
        let other = BodyPermit::empty(&peer);
        assert!(other.take(MAX_BODY));
        assert_eq!((read(MAX_BODY).await, read(10).await), (Err(Code::Overloaded), Ok(10)));
    }

    #[tokio::test]
    async fn unpacked_bytes_count_against_the_budget() {
        let budget = BodyBudget::new(256 << 10);
        let peer = budget.peer([192, 0, 2, 1].into());
        let read = async |unpacked: usize| {
            let body = BodyAllowance { timeout: Duration::from_secs(30), permit: Arc::new(BodyPermit::empty(&peer)) };
            let allowance = Allowance { body, answers: AnswerShare::new(&AnswerBudget::default()) };
            let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
            encoder.write_all(&vec![b' '; unpacked]).unwrap();
            let request = Request::post("/").header(header::CONTENT_ENCODING, "gzip").extension(allowance);
            let request = request.body(Body::from(encoder.finish().unwrap())).unwrap();
            read_bytes(request).await.map(|(_, bytes)| bytes.len()).map_err(|problem| problem.code)
        };
        assert_eq!(read(200 << 10).await, Ok(200 << 10));
        assert_eq!(read(250 << 10).await, Err(Code::Overloaded));
        assert_eq!(read(MAX_BODY + 1).await, Err(Code::Overloaded), "the budget is smaller than the limit");
    }
}
