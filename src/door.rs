use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::Failure;
use super::secret::Secret;
use canet_api::{Access, Admin, ApiKeys, Connections, Origins, Tls, TlsFiles};

/// Who gets in, and how.
#[derive(Debug, Args)]
pub(crate) struct DoorArgs {
    /// Keys, any of which opens everything but probes and pages, as `x-api-key` or bearer token; several with commas
    #[arg(long, env = "CANET_API_KEY", value_name = "KEYS", hide_env_values = true, value_delimiter = ',')]
    api_key: Vec<Secret>,
    /// Sites whose pages may ask from a browser, as https://shop.example, or `*`; several with commas
    #[arg(long, env = "CANET_CORS_ORIGIN", value_name = "ORIGINS", value_delimiter = ',')]
    cors_origin: Vec<String>,
    /// PEM file of the server's certificate and what leads from it to a root; TLS then, on every listener
    #[arg(long, env = "CANET_TLS_CERT", value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// PEM file of the certificate's private key
    #[arg(long, env = "CANET_TLS_KEY", value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// PEM file of the authorities that clients' certificates must come from
    #[arg(long, env = "CANET_TLS_CLIENT_CA", value_name = "FILE", requires = "tls_cert")]
    tls_client_ca: Option<PathBuf>,
    /// Most connections that a listener has open; more wait until one closes
    #[arg(long, env = "CANET_MAX_CONNECTIONS", value_name = "N", default_value_t = 4096, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    max_connections: u32,
    /// Seconds after which a connection ends with what it is asked by then, give or take a tenth, so that clients that keep
    /// theirs find servers that came later [default: none]
    #[arg(long, env = "CANET_MAX_CONNECTION_AGE", value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..=2_592_000))]
    max_connection_age: Option<u32>,
}

impl DoorArgs {
    /// Who may do what.
    pub(crate) fn access(&self, admin: Admin) -> Result<Access, Failure> {
        Ok(Access {
            admin: Some(admin),
            keys: ApiKeys::new(self.api_key.iter().map(Secret::reveal)),
            origins: Origins::parse(&self.cors_origin)
                .map_err(|error| Failure::Usage(format!("--cors-origin: {error}")))?,
        })
    }

    /// How listeners treat connections.
    pub(crate) fn connections(&self) -> Result<Connections, Failure> {
        let tls = match (&self.tls_cert, &self.tls_key) {
            (Some(certificates), Some(key)) => Some(Tls::load(TlsFiles {
                certificates: certificates.clone(),
                key: key.clone(),
                client_authorities: self.tls_client_ca.clone(),
            })),
            _ => None,
        };
        let most = usize::try_from(self.max_connections).unwrap_or(usize::MAX);
        let oldest = self.max_connection_age.map(|seconds| Duration::from_secs(seconds.into()));
        Ok(Connections { most, oldest, tls: tls.transpose().map_err(Failure::usage)?, ..Connections::default() })
    }
}
