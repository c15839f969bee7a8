use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::Failure;
use super::secret::Secret;
use canet_api::{Access, Admin, ApiKeys, Connections, Hosts, Origins, Tls, TlsFiles};

/// Who may connect, and how.
#[derive(Debug, Args)]
pub(crate) struct AccessArgs {
    /// API keys, separated by commas. Clients must send one as `x-api-key` or bearer token; probes and pages need none
    #[arg(long, env = "CANET_API_KEY", value_name = "KEYS", hide_env_values = true, value_delimiter = ',')]
    api_key: Vec<Secret>,
    /// File with further API keys, one a line. Unlike the flag, it does not show in the list of processes. It is read at the
    /// start alone
    #[arg(long, env = "CANET_API_KEY_FILE", value_name = "FILE")]
    api_key_file: Option<PathBuf>,
    /// Allow pages of these sites to call the server: origins as https://shop.example, separated by commas, or `*`
    #[arg(long, env = "CANET_CORS_ORIGIN", value_name = "ORIGINS", value_delimiter = ',')]
    cors_origin: Vec<String>,
    /// Further host names under which clients on this machine ask, separated by commas, or `*`. Without keys and TLS a server
    /// on a loopback address refuses names other than localhost and loopback addresses, because web pages could use them
    #[arg(long, env = "CANET_ALLOW_HOST", value_name = "NAMES", value_delimiter = ',')]
    allow_host: Vec<String>,
    /// PEM file with the server's certificate and its chain. Turns TLS on for HTTP and gRPC
    #[arg(long, env = "CANET_TLS_CERT", value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// PEM file with the certificate's private key
    #[arg(long, env = "CANET_TLS_KEY", value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// PEM file with authorities. Clients must then have a certificate from one of them
    #[arg(long, env = "CANET_TLS_CLIENT_CA", value_name = "FILE", requires = "tls_cert")]
    tls_client_ca: Option<PathBuf>,
    /// Largest number of open connections of each listener. When all are taken, the one that has been idle longest makes room for a new
    /// one. If none is idle, new ones wait
    #[arg(long, env = "CANET_MAX_CONNECTIONS", value_name = "N", default_value_t = 4096, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    max_connections: u32,
    /// Largest number of open connections of one client, which is an IPv4 address or a /64 network of IPv6; 0: no limit. Behind a
    /// proxy all clients share the proxy's address [default: half of --max-connections]
    #[arg(long, env = "CANET_MAX_CONNECTIONS_PER_CLIENT", value_name = "N", value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    max_connections_per_client: Option<u32>,
    /// Close each connection after about this many seconds, once its requests are answered, so that clients reconnect and
    /// find new servers [default: never]
    #[arg(long, env = "CANET_MAX_CONNECTION_AGE", value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..=2_592_000))]
    max_connection_age: Option<u32>,
}

impl AccessArgs {
    /// Who may do what. The hosts are those of a listener on a loopback address.
    pub(crate) fn access(&self, admin: Admin) -> Result<Access, Failure> {
        let mut keys = self.api_key.clone();
        if let Some(path) = &self.api_key_file {
            keys.extend(Secret::read_all(path)?);
        }
        let hosts = Hosts::local(&self.allow_host).map_err(|error| Failure::Usage(format!("--allow-host: {error}")))?;
        // A page has no key. A browser checks the name against the certificate.
        let is_open = keys.is_empty() && self.tls_cert.is_none();
        Ok(Access {
            admin: Some(admin),
            keys: ApiKeys::new(keys.iter().map(Secret::reveal)),
            hosts: if is_open { hosts } else { Hosts::Any },
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
        let per_client = self.max_connections_per_client.unwrap_or(self.max_connections.div_ceil(2));
        Ok(Connections {
            max_open: usize::try_from(self.max_connections).unwrap_or(usize::MAX),
            max_per_client: NonZeroUsize::new(usize::try_from(per_client).unwrap_or(usize::MAX)),
            max_age: self.max_connection_age.map(|seconds| Duration::from_secs(seconds.into())),
            tls: tls.transpose().map_err(Failure::usage)?,
            ..Connections::default()
        })
    }
}
