use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// How often the files are looked at.
const POLL: Duration = Duration::from_secs(1);

/// Where a server's identity lies, in PEM.
#[derive(Clone, Debug)]
pub struct TlsFiles {
    /// The server's certificate and what leads from it to a root.
    pub certificates: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// The authorities that clients' certificates must come from; without them clients need none.
    pub client_authorities: Option<PathBuf>,
}

/// Why files make no identity.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("{}: cannot read it: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file does not hold what it should.
    #[error("{}: no {what} in PEM: {reason}", path.display())]
    Pem {
        /// The file.
        path: PathBuf,
        /// What it should hold.
        what: &'static str,
        /// Why not.
        reason: String,
    },
    /// The files do not go together, or no client could use them.
    #[error("{}: {reason}", path.display())]
    Rejected {
        /// The file at fault.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
}

/// The server's identity, read anew when its files change.
#[derive(Clone)]
pub struct Tls {
    files: Arc<TlsFiles>,
    config: Arc<ArcSwap<ServerConfig>>,
    /// The files' state just before they were read.
    loaded: Stamp,
}

impl Tls {
    /// Reads the files.
    ///
    /// # Errors
    /// [`TlsError`] with the file.
    pub fn load(files: TlsFiles) -> Result<Tls, TlsError> {
        // Before they are read: what changes meanwhile is new to `follow`.
        let loaded = stamp(&files);
        let config = ArcSwap::from(read(&files)?);
        Ok(Tls { files: Arc::new(files), config: Arc::new(config), loaded })
    }

    /// Follows the files for ever. New connections get what they hold now; open ones keep what they have. Files that
    /// make no identity change nothing: a key may be replaced a moment after its certificate.
    pub async fn follow(self) {
        let mut known = self.loaded;
        loop {
            tokio::time::sleep(POLL).await;
            let files = Arc::clone(&self.files);
            // A file system may hang, and no thread that answers requests should.
            let looked = tokio::task::spawn_blocking(move || {
                let found = stamp(&files);
                (found != known).then(|| (found, read(&files)))
            });
            let Ok(looked) = looked.await else { return };
            let Some((found, config)) = looked else { continue };
            known = found;
            match config {
                Ok(config) => {
                    self.config.store(config);
                    tracing::info!("new TLS certificates are in use");
                }
                Err(error) => tracing::warn!(%error, "new TLS files are refused, the old ones stay in use"),
            }
        }
    }

    /// The handshake of one connection.
    pub(super) async fn accept<S: AsyncRead + AsyncWrite + Unpin>(&self, stream: S) -> io::Result<TlsStream<S>> {
        TlsAcceptor::from(self.config.load_full()).accept(stream).await
    }
}

/// What tells one state of the files from another without reading them.
type Stamp = [Option<(u64, u64, Option<SystemTime>)>; 3];

fn stamp(files: &TlsFiles) -> Stamp {
    let about = |about: Metadata| (about.ino(), about.len(), about.modified().ok());
    [Some(&files.certificates), Some(&files.key), files.client_authorities.as_ref()]
        .map(|path| path.and_then(|path| fs::metadata(path).ok()).map(about))
}

fn read(files: &TlsFiles) -> Result<Arc<ServerConfig>, TlsError> {
    let rejected = |path: &Path, error: &dyn std::error::Error| TlsError::Rejected {
        path: path.to_owned(),
        reason: error.to_string(),
    };
    let certificates = certificates(&files.certificates)?;
    let key = PrivateKeyDer::from_pem_slice(&bytes(&files.key)?).map_err(|error| TlsError::Pem {
        path: files.key.clone(),
        what: "private key",
        reason: error.to_string(),
    })?;
    let provider = Arc::new(ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| rejected(&files.certificates, &error))?;
    let builder = match &files.client_authorities {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let mut roots = RootCertStore::empty();
            for authority in self::certificates(path)? {
                roots.add(authority).map_err(|error| rejected(path, &error))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
            builder.with_client_cert_verifier(verifier.map_err(|error| rejected(path, &error))?)
        }
    };
    let mut config =
        builder.with_single_cert(certificates, key).map_err(|error| rejected(&files.certificates, &error))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

fn bytes(path: &Path) -> Result<Vec<u8>, TlsError> {
    fs::read(path).map_err(|source| TlsError::Io { path: path.to_owned(), source })
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let fault = |reason: String| TlsError::Pem { path: path.to_owned(), what: "certificate", reason };
    let bytes = bytes(path)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    let found = found.map_err(|error| fault(error.to_string()))?;
    if found.is_empty() { Err(fault("there is none".to_owned())) } else { Ok(found) }
}
