use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use object_store::aws::{AmazonS3, AmazonS3Builder, AmazonS3ConfigKey};
use object_store::{BackoffConfig, RetryConfig};
use ureq::tls::{Certificate, PemItem, RootCerts, parse_pem};

use crate::S3Address;
use crate::http::UreqConnector;

/// A variable with the file of the certificate authorities to trust, as AWS's own tools have it.
const AUTHORITIES: &str = "AWS_CA_BUNDLE";

/// How to reach a store and who asks: the variables `AWS_*` of a process. Neither errors nor `Debug` show their values, apart
/// from the endpoint's.
#[derive(Clone, Default)]
pub struct S3Settings {
    variables: Vec<(AmazonS3ConfigKey, String)>,
    authorities: Option<PathBuf>,
    endpoint: Option<String>,
}

/// A variable has no usable value.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The file of certificate authorities cannot be used.
    #[error("{AUTHORITIES}={path}: {reason}", path = .path.display())]
    Authorities {
        /// The file.
        path: PathBuf,
        /// The reason.
        reason: String,
    },
    /// The variables do not fit together.
    #[error("the variables AWS_* do not describe a store: {0}")]
    Variables(String),
}

impl S3Settings {
    /// Picks the settings out of a process's environment.
    pub fn from_variables(variables: impl IntoIterator<Item = (OsString, OsString)>) -> S3Settings {
        let mut settings = S3Settings::default();
        for (name, value) in variables {
            let (Some(name), Some(value)) = (name.to_str(), value.to_str()) else { continue };
            match name {
                _ if value.is_empty() => {}
                AUTHORITIES => settings.authorities = Some(PathBuf::from(value)),
                name if name.starts_with("AWS_") => {
                    let Ok(key) = name.to_ascii_lowercase().parse::<AmazonS3ConfigKey>() else { continue };
                    let general = ["AWS_ENDPOINT_URL", "AWS_ENDPOINT"];
                    if name == "AWS_ENDPOINT_URL_S3" || (general.contains(&name) && settings.endpoint.is_none()) {
                        settings.endpoint = Some(value.to_owned());
                    }
                    settings.variables.push((key, value.to_owned()));
                }
                _ => {}
            }
        }
        settings
    }

    /// The endpoint that replaces AWS's own, if one does.
    pub fn endpoint(&self) -> Option<&str> {
        self.endpoint.as_deref()
    }

    /// A client of the bucket.
    pub(crate) fn client(&self, address: &S3Address) -> Result<AmazonS3, SettingsError> {
        let variables = self.variables.iter();
        let builder = variables.fold(AmazonS3Builder::new(), |builder, (key, value)| builder.with_config(*key, value));
        let backoff =
            BackoffConfig { init_backoff: Duration::from_millis(100), max_backoff: Duration::from_secs(2), base: 2.0 };
        builder
            .with_bucket_name(address.bucket())
            // A reload waits for it, so it is short.
            .with_retry(RetryConfig { backoff, max_retries: 3, retry_timeout: Duration::from_secs(15) })
            .with_http_connector(UreqConnector { authorities: self.authorities()? })
            .build()
            .map_err(|error| SettingsError::Variables(error.to_string()))
    }

    fn authorities(&self) -> Result<RootCerts, SettingsError> {
        let Some(path) = &self.authorities else { return Ok(RootCerts::WebPki) };
        let unusable = |reason: String| SettingsError::Authorities { path: path.clone(), reason };
        let pem = fs::read(path).map_err(|error| unusable(error.to_string()))?;
        let mut certificates: Vec<Certificate<'static>> = Vec::new();
        for item in parse_pem(&pem) {
            if let PemItem::Certificate(certificate) = item.map_err(|error| unusable(error.to_string()))? {
                certificates.push(certificate);
            }
        }
        match certificates.is_empty() {
            true => Err(unusable("the file holds no certificate; it must be PEM".to_owned())),
            false => Ok(RootCerts::from(certificates)),
        }
    }
}

impl fmt::Debug for S3Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("S3Settings").field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(variables: &[(&str, &str)]) -> S3Settings {
        S3Settings::from_variables(variables.iter().map(|(name, value)| (name.into(), value.into())))
    }

    #[test]
    fn debug_shows_no_credential() {
        let settings = settings(&[("AWS_SECRET_ACCESS_KEY", "hush"), ("AWS_ENDPOINT_URL", "http://localhost:9")]);
        let shown = format!("{settings:?}");
        assert!(shown.contains("localhost:9") && !shown.contains("hush"), "{shown}");
    }

    #[test]
    fn half_a_credential_and_a_missing_bundle_are_refused() {
        let address = "s3://models/ml".parse().unwrap();
        let error = settings(&[("AWS_ACCESS_KEY_ID", "id")]).client(&address).unwrap_err().to_string();
        assert!(error.contains("AWS_*") && error.contains("SecretAccessKey"), "{error}");
        let error = settings(&[("AWS_CA_BUNDLE", "/none")]).client(&address).unwrap_err().to_string();
        assert!(error.starts_with("AWS_CA_BUNDLE=/none: No such file"), "{error}");
        assert!(settings(&[("AWS_REGION", ""), ("AWS_CA_BUNDLE", "")]).client(&address).is_ok());
    }
}
