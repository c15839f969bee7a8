use std::fmt::Display;
use std::fs;
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use ureq::Agent;
use ureq::http::StatusCode;
use ureq::tls::{Certificate, ClientCert, PemItem, PrivateKey, RootCerts, TlsConfig, parse_pem};

use super::super::Failure;

/// Longest answer that is read: the whole of a catalogue of some hundred thousand items.
const LARGEST_ANSWER: u64 = 64 << 20;

/// The body of `POST /recommend`; what is left out is the server's to choose.
#[derive(Serialize)]
pub(super) struct Request<'a> {
    pub(super) history: Vec<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) k: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) route: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) budget: Option<f64>,
    pub(super) exclude: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) candidates: Option<&'a [String]>,
    pub(super) exclude_seen: bool,
    pub(super) timeout_ms: u64,
}

/// Where to ask, and how.
pub(super) struct Server<'a> {
    /// Without a slash at its end.
    pub(super) url: &'a str,
    pub(super) key: Option<&'a str>,
    /// Certificates to trust; `None` are the public authorities'.
    pub(super) authorities: Option<&'a Path>,
    /// Certificate and private key to show.
    pub(super) identity: Option<(&'a Path, &'a Path)>,
    /// For the call as a whole.
    pub(super) patience: Duration,
}

/// A fault as servers say it (RFC 9457).
#[derive(Deserialize)]
struct Problem {
    code: String,
    detail: String,
    field: Option<String>,
}

impl Server<'_> {
    /// The answer's JSON.
    ///
    /// # Errors
    /// [`Failure::Usage`] where the request is at fault, [`Failure::Unavailable`] where the server is, or the way to it.
    pub(super) fn ask(&self, request: &Request<'_>) -> Result<String, Failure> {
        let url = format!("{}/recommend", self.url);
        let body = serde_json::to_vec(request).map_err(Failure::usage)?;
        let mut call = self.agent()?.post(&url).content_type("application/json");
        if let Some(key) = self.key {
            call = call.header("x-api-key", key);
        }
        let mut response = call.send(&body[..]).map_err(|error| self.unanswered(&error))?;
        let text = response.body_mut().with_config().limit(LARGEST_ANSWER).read_to_string();
        let text = text.map_err(|error| self.unanswered(&error))?;
        let status = response.status();
        if status.is_success() { Ok(text) } else { Err(self.refused(status, &text)) }
    }

    fn agent(&self) -> Result<Agent, Failure> {
        let roots = match self.authorities {
            Some(path) => RootCerts::from(certificates("--ca", path)?),
            None => RootCerts::WebPki,
        };
        let identity = match self.identity {
            Some((certificate, key)) => {
                Some(ClientCert::new_with_certs(&certificates("--cert", certificate)?, private_key(key)?))
            }
            None => None,
        };
        let tls = TlsConfig::builder().root_certs(roots).client_cert(identity).build();
        let config = Agent::config_builder()
            .http_status_as_error(false)
            // A POST is not repeated elsewhere.
            .max_redirects(0)
            .timeout_global(Some(self.patience))
            .tls_config(tls)
            .build();
        Ok(config.into())
    }

    /// No answer at all.
    fn unanswered(&self, error: &ureq::Error) -> Failure {
        match error {
            ureq::Error::BadUri(_) | ureq::Error::Http(_) => {
                Failure::usage(format!("--url {}: {error}; give it as http://HOST:PORT", self.url))
            }
            ureq::Error::BodyExceedsLimit(_) => Failure::data(format!("{}: the answer is too long", self.url)),
            _ => Failure::unavailable(format!("{}: {error}; is the server there?", self.url)),
        }
    }

    /// An answer that is a fault: the request's below 500, but for a server that is too busy.
    fn refused(&self, status: StatusCode, text: &str) -> Failure {
        let said = match serde_json::from_str(text) {
            Ok(Problem { code, detail, field: Some(field) }) => format!("{code}, field `{field}`: {detail}"),
            Ok(Problem { code, detail, field: None }) => format!("{code}: {detail}"),
            Err(_) => "it says no more, so it may be no canet server".to_owned(),
        };
        let hint = match (status, self.key) {
            (StatusCode::UNAUTHORIZED, None) => "; give --api-key",
            (StatusCode::TOO_MANY_REQUESTS, _) => "; try again",
            _ => "",
        };
        let message = format!("{} refused with {}: {said}{hint}", self.url, status.as_u16());
        if status.is_client_error() && status != StatusCode::TOO_MANY_REQUESTS {
            Failure::usage(message)
        } else {
            Failure::unavailable(message)
        }
    }
}

/// The certificates of a flag's PEM file.
fn certificates(flag: &str, path: &Path) -> Result<Vec<Certificate<'static>>, Failure> {
    let items: Result<Vec<PemItem<'_>>, _> = parse_pem(&read(flag, path)?).collect();
    let items = items.map_err(|error| at_fault(flag, path, error))?;
    let certificates = items.into_iter().filter_map(|item| match item {
        PemItem::Certificate(certificate) => Some(certificate.to_owned()),
        _ => None,
    });
    let certificates: Vec<Certificate<'static>> = certificates.collect();
    if certificates.is_empty() { Err(at_fault(flag, path, "there is no certificate in it")) } else { Ok(certificates) }
}

fn private_key(path: &Path) -> Result<PrivateKey<'static>, Failure> {
    PrivateKey::from_pem(&read("--key", path)?).map_err(|error| at_fault("--key", path, error))
}

fn read(flag: &str, path: &Path) -> Result<Vec<u8>, Failure> {
    fs::read(path).map_err(|error| at_fault(flag, path, error))
}

fn at_fault(flag: &str, path: &Path, fault: impl Display) -> Failure {
    Failure::usage(format!("{flag} {}: {fault}", path.display()))
}
