//! What an error of the store means, and what to do about it.

use std::error::Error;

use crate::http::NoResponse;

/// The network in which machines and containers of AWS ask for credentials, if the settings have none.
const MACHINE_CREDENTIALS: &str = "169.254.";

const NO_CREDENTIALS: &str = "there are no credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, give the pod a web \
                              identity, or set AWS_SKIP_SIGNATURE=true for a public bucket";

/// The most bytes of a store's own words that an error repeats.
const WORDS: usize = 300;

/// Says in one sentence why the store did not do what it was asked for, and what to do. `endpoint` is that of the settings.
pub(crate) fn reason(error: &object_store::Error, endpoint: Option<&str>) -> String {
    let store = endpoint.map_or_else(|| "AWS".to_owned(), |endpoint| format!("AWS_ENDPOINT_URL={endpoint}"));
    if let Some(no_response) = find::<NoResponse>(error) {
        return match no_response {
            NoResponse { host, .. } if host.starts_with(MACHINE_CREDENTIALS) => NO_CREDENTIALS.to_owned(),
            NoResponse { needs_tls: true, .. } => {
                format!("{store} is not encrypted: give an endpoint with https, or set AWS_ALLOW_HTTP=true")
            }
            no_response => format!(
                "the store cannot be reached ({no_response}): check the network and AWS_ENDPOINT_URL, which is {}",
                endpoint.unwrap_or("not set")
            ),
        };
    }
    let text = full_text(error);
    if text.contains(&format!("http://{MACHINE_CREDENTIALS}")) {
        return NO_CREDENTIALS.to_owned();
    }
    let code = between(&text, "<Code>", "</Code>").unwrap_or_default();
    match code {
        "NoSuchBucket" => {
            format!("the bucket does not exist: check its name, AWS_REGION and the store, which is {store}")
        }
        "ExpiredToken" | "ExpiredTokenException" | "TokenRefreshRequired" | "InvalidToken" => format!(
            "the credentials have expired ({code}): start the process with new values of AWS_ACCESS_KEY_ID, \
             AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN, or use a web identity, which renews itself"
        ),
        "InvalidAccessKeyId" | "SignatureDoesNotMatch" | "InvalidClientTokenId" => {
            format!(
                "the store does not know these credentials ({code}): check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
            )
        }
        "RequestTimeTooSkewed" => "the clocks of this machine and of the store differ: set this one's".to_owned(),
        "PermanentRedirect" | "AuthorizationHeaderMalformed" | "IllegalLocationConstraintException" => {
            format!("the bucket is in another region ({code}): set AWS_REGION")
        }
        _ if is_denied(error) => {
            "the store denies access: the credentials need s3:ListBucket on the bucket and s3:GetObject on \
                                  its objects, and for `canet publish` s3:PutObject and s3:DeleteObject"
                .to_owned()
        }
        _ if text.contains("redirect without LOCATION") => "the bucket is in another region: set AWS_REGION".to_owned(),
        "" => format!("the store failed: {}", shortened(&text)),
        code => {
            let words = between(&text, "<Message>", "</Message>").unwrap_or_default();
            format!("the store failed: {code}: {}", shortened(words))
        }
    }
}

/// Whether the bucket itself is missing, rather than an object.
pub(crate) fn lacks_bucket(error: &object_store::Error) -> bool {
    full_text(error).contains("<Code>NoSuchBucket</Code>")
}

fn is_denied(error: &object_store::Error) -> bool {
    use object_store::Error::{PermissionDenied, Unauthenticated};
    matches!(error, PermissionDenied { .. } | Unauthenticated { .. })
        || full_text(error).contains("<Code>AccessDenied</Code>")
}

/// The first cause of a type.
fn find<'a, E: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a E> {
    error.downcast_ref().or_else(|| find(error.source()?))
}

/// The texts of an error and of its causes. Some hold the store's answer, others do not.
fn full_text(error: &(dyn Error + 'static)) -> String {
    let cause = error.source().map(|source| format!(" {}", full_text(source))).unwrap_or_default();
    format!("{error}{cause}")
}

fn between<'a>(text: &'a str, begin: &str, end: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(begin)?;
    rest.split_once(end).map(|(found, _)| found)
}

/// A text in one line of bounded length.
fn shortened(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(WORDS) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use object_store::client::{HttpError, HttpErrorKind};

    use super::*;

    fn failed(source: impl Error + Send + Sync + 'static) -> object_store::Error {
        object_store::Error::Generic { store: "S3", source: Box::new(source) }
    }

    /// An answer of S3, as the client repeats it in its error.
    fn answer(code: &str) -> object_store::Error {
        let body = format!("<Error><Code>{code}</Code><Message>Words\n of the store.</Message></Error>");
        failed(io::Error::other(format!("Server returned non-2xx status code: 400 Bad Request: {body}")))
    }

    #[test]
    fn an_answer_is_followed_by_what_to_do() {
        for (code, words) in [
            ("NoSuchBucket", "check its name, AWS_REGION and the store, which is AWS_ENDPOINT_URL=http://store:9"),
            ("ExpiredToken", "have expired (ExpiredToken): start the process with new values of AWS_ACCESS_KEY_ID"),
            ("SignatureDoesNotMatch", "check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"),
            ("RequestTimeTooSkewed", "clocks"),
            ("PermanentRedirect", "set AWS_REGION"),
            ("AccessDenied", "s3:ListBucket"),
            ("SlowDown", "the store failed: SlowDown: Words of the store."),
        ] {
            let said = reason(&answer(code), Some("http://store:9"));
            assert!(said.contains(words), "{said}");
        }
    }

    #[test]
    fn a_failure_without_a_code_is_one_bounded_line() {
        let said = reason(&failed(io::Error::other(format!("a\n{}", "b".repeat(1000)))), None);
        assert!(said.len() < 400 && !said.contains('\n') && said.ends_with('…'), "{said}");
    }

    #[test]
    fn a_store_without_an_answer_is_named() {
        let silent = |host: &str, needs_tls| {
            let no_response = NoResponse { host: host.to_owned(), needs_tls, cause: "connection refused".to_owned() };
            failed(HttpError::new(HttpErrorKind::Connect, no_response))
        };
        let said = reason(&silent("store:9", false), Some("http://store:9"));
        assert!(said.contains("(store:9: connection refused)") && said.contains("http://store:9"), "{said}");
        assert!(reason(&silent("store:9", true), Some("http://store:9")).contains("AWS_ALLOW_HTTP=true"));
        assert!(reason(&silent("169.254.169.254", false), None).contains("there are no credentials"));
        let refused = io::Error::other("Error performing PUT http://169.254.169.254/latest/api/token: 403 Forbidden");
        assert!(reason(&failed(refused), None).contains("there are no credentials"));
    }
}
