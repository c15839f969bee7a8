use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName};
use axum::middleware::Next;
use axum::response::Response;
use subtle::Choice;

use super::secret::{Secret, bearer};
use super::transport::Transport;
use super::{Code, Problem};

/// Where a key stands unless it is a bearer token.
pub(crate) const HEADER: HeaderName = HeaderName::from_static("x-api-key");

/// The keys that open the API, or none where it is open to everybody.
#[derive(Clone, Default)]
pub struct ApiKeys(Arc<[Secret]>);

impl ApiKeys {
    /// Any of `keys` will do, so that one can be replaced while the other is still in use.
    pub fn new<'a>(keys: impl IntoIterator<Item = &'a str>) -> ApiKeys {
        ApiKeys(keys.into_iter().map(Secret::new).collect())
    }

    /// Whether everybody may ask.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// # Errors
    /// 401 where keys are asked for and the headers have none of them.
    pub fn check(&self, headers: &HeaderMap) -> Result<(), Problem> {
        if self.is_empty() {
            return Ok(());
        }
        let given = match headers.get(HEADER) {
            Some(key) => key.to_str().ok(),
            None => bearer(headers),
        };
        let Some(given) = given else {
            let detail = "send an API key as `x-api-key: KEY` or `authorization: Bearer KEY`";
            return Err(Problem::new(Code::Unauthorized, detail));
        };
        // Every key is compared, whichever it is.
        let known = self.0.iter().fold(Choice::from(0), |known, key| known | key.is(given));
        if known.into() {
            Ok(())
        } else {
            Err(Problem::new(Code::Unauthorized, "this is none of the server's API keys"))
        }
    }
}

/// Lets nobody pass without a key.
pub(crate) async fn check(State(keys): State<ApiKeys>, request: Request, next: Next) -> Response {
    match keys.check(request.headers()) {
        Ok(()) => next.run(request).await,
        Err(problem) => Transport::Http.refusal(request.uri().path())(problem),
    }
}
