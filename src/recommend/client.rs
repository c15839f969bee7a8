use std::collections::BTreeMap;
use std::fmt::Display;
use std::path::Path;
use std::time::Duration;
use std::{fs, io};

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use ureq::Agent;
use ureq::http::StatusCode;
use ureq::tls::{Certificate, ClientCert, PemItem, PrivateKey, RootCerts, TlsConfig, parse_pem};

use crate::Failure;

/// Largest response that is read, in bytes. The whole ranking of some hundred thousand items fits.
const MAX_RESPONSE: u64 = 64 << 20;

/// The body of `POST /recommend`. The server chooses the fields that are left out.
#[derive(Serialize)]
pub(super) struct RecommendRequest<'a> {
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
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) exclude_seen: Option<bool>,
    pub(super) timeout_ms: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) user: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) filter: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) max_per: BTreeMap<&'a str, u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) history_start: Option<u64>,
}

/// A client of one server.
pub(super) struct Client<'a> {
    /// Without a trailing slash.
    pub(super) url: &'a str,
    pub(super) api_key: Option<&'a str>,
    /// File of the certificates to trust; `None` for those of the public authorities.
    pub(super) authorities: Option<&'a Path>,
    /// Files of the client certificate and its private key.
    pub(super) identity: Option<(&'a Path, &'a Path)>,
    /// Time limit of the whole call.
    pub(super) timeout: Duration,
}

/// An error response (RFC 9457).
#[derive(Deserialize)]
struct Problem {
    code: String,
    detail: String,
    field: Option<String>,
}

impl Client<'_> {
    /// Sends a request and returns the JSON of the response.
    ///
    /// # Errors
    /// [`Failure::Usage`] if the request is at fault, [`Failure::Unavailable`] if the server or the network is.
    pub(super) fn recommend(&self, request: &RecommendRequest<'_>) -> Result<String, Failure> {
        let url = format!("{}/recommend", self.url);
        let body = serde_json::to_vec(request).map_err(Failure::usage)?;
        let mut call = self.agent()?.post(&url).content_type("application/json");
        if let Some(key) = self.api_key {
            call = call.header("x-api-key", key);
        }
        let mut response = call.send(&body[..]).map_err(|error| self.no_response(&error))?;
        let text = response.body_mut().with_config().limit(MAX_RESPONSE).read_to_string();
        let text = text.map_err(|error| self.no_response(&error))?;
        let status = response.status();
        if status.is_success() { Ok(text) } else { Err(self.error_response(status, &text)) }
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
            // A redirect would send the request and the API key to another server.
            .max_redirects(0)
            .timeout_global(Some(self.timeout))
            .tls_config(tls)
            .build();
        Ok(config.into())
    }

    /// The failure if no response arrived.
    fn no_response(&self, error: &ureq::Error) -> Failure {
        match error {
            ureq::Error::BadUri(_) | ureq::Error::Http(_) => {
                Failure::usage(format!("--url {}: {error}; give it as http://HOST:PORT", self.url))
            }
            ureq::Error::BodyExceedsLimit(_) => {
                Failure::data(format!("{}: the response is longer than {MAX_RESPONSE} bytes", self.url))
            }
            _ if is_of_tls(error) => Failure::unavailable(format!(
                "{}: {error}; --ca must name a file with the authority of the server's certificate",
                self.url
            )),
            _ => Failure::unavailable(format!("{}: {error}; is the server running?", self.url)),
        }
    }

    /// The failure for an error response. Below 500 the request is at fault, except if the server is overloaded (429).
    fn error_response(&self, status: StatusCode, text: &str) -> Failure {
        let reason = match serde_json::from_str(text) {
            Ok(Problem { code, detail, field: Some(field) }) => format!("{code}, field `{field}`: {detail}"),
            Ok(Problem { code, detail, field: None }) => format!("{code}: {detail}"),
            Err(_) => "the response gives no reason, so this may be no canet server".to_owned(),
        };
        let hint = match (status, self.api_key) {
            (StatusCode::UNAUTHORIZED, None) => "; give --api-key",
            (StatusCode::TOO_MANY_REQUESTS, _) => "; try again",
            _ => "",
        };
        let message = format!("{} refused with {}: {reason}{hint}", self.url, status.as_u16());
        if status.is_client_error() && status != StatusCode::TOO_MANY_REQUESTS {
            Failure::usage(message)
        } else {
            Failure::unavailable(message)
        }
    }
}

/// Reads the certificates in the PEM file of a flag.
fn certificates(flag: &str, path: &Path) -> Result<Vec<Certificate<'static>>, Failure> {
    let items: Result<Vec<PemItem<'_>>, _> = parse_pem(&read(flag, path)?).collect();
    let items = items.map_err(|error| bad_file(flag, path, error))?;
    let certificates = items.into_iter().filter_map(|item| match item {
        PemItem::Certificate(certificate) => Some(certificate.to_owned()),
        _ => None,
    });
    let certificates: Vec<Certificate<'static>> = certificates.collect();
    if certificates.is_empty() {
        Err(bad_file(flag, path, "the file contains no certificate"))
    } else {
        Ok(certificates)
    }
}

fn private_key(path: &Path) -> Result<PrivateKey<'static>, Failure> {
    PrivateKey::from_pem(&read("--key", path)?).map_err(|error| bad_file("--key", path, error))
}

fn read(flag: &str, path: &Path) -> Result<Vec<u8>, Failure> {
    fs::read(path).map_err(|error| bad_file(flag, path, error))
}

fn bad_file(flag: &str, path: &Path, reason: impl Display) -> Failure {
    Failure::usage(format!("{flag} {}: {reason}", path.display()))
}
/// Whether the server was reached, and its certificate or its TLS is at fault.
fn is_of_tls(error: &ureq::Error) -> bool {
    match error {
        ureq::Error::Tls(_) | ureq::Error::Rustls(_) => true,
        ureq::Error::Io(error) => error.kind() == io::ErrorKind::InvalidData,
        _ => false,
    }
}
