use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// How often the server checks the files for changes.
const POLL: Duration = Duration::from_secs(1);

/// The PEM files of a server's identity.
#[derive(Clone, Debug)]
pub struct TlsFiles {
    /// The server's certificate and its chain to a root.
    pub certificates: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// The authorities that must have issued a client's certificate. `None`: clients need no certificate.
    pub client_authorities: Option<PathBuf>,
}

/// The files are not a usable identity.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("{}: cannot read it: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// A file lacks its certificate or key.
    #[error("{}: no {what} in PEM: {reason}", path.display())]
    Pem {
        /// The file.
        path: PathBuf,
        /// The missing content.
        what: &'static str,
        /// The parser's reason.
        reason: String,
    },
    /// The files contradict each other, or no client could use them.
    #[error("{}: {reason}", path.display())]
    Rejected {
        /// The wrong file.
        path: PathBuf,
        /// The reason.
        reason: String,
    },
}

/// The server's identity. It follows changes of its files.
#[derive(Clone)]
pub struct Tls {
    files: Arc<TlsFiles>,
    config: Arc<ArcSwap<ServerConfig>>,
    /// The state of the files just before they were read.
    loaded: Stamp,
}

impl Tls {
    /// Reads the files.
    ///
    /// # Errors
    /// [`TlsError`] with the file.
    pub fn load(files: TlsFiles) -> Result<Tls, TlsError> {
        // Taken before the files are read, so that `follow` notices a change in between.
        let loaded = stamp(&files);
        let config = ArcSwap::from(read(&files)?);
        Ok(Tls { files: Arc::new(files), config: Arc::new(config), loaded })
    }

    /// Follows the files for ever. New connections use the new identity, open ones keep the old. Unusable files change
    /// nothing: the key may be replaced a moment after the certificate.
    pub async fn follow(self) {
        let mut known = self.loaded;
        // The reason why a file could not be read when it was last tried.
        let mut unread = None;
        loop {
            tokio::time::sleep(POLL).await;
            let files = Arc::clone(&self.files);
            // A file system may hang. That must not block a thread that answers requests.
            let checked = tokio::task::spawn_blocking(move || {
                let found = stamp(&files);
                (found != known).then(|| (found, read(&files)))
            });
            let Ok(checked) = checked.await else { return };
            let Some((found, config)) = checked else { continue };
            let is_unread = matches!(config, Err(TlsError::Io { .. }));
            // What cannot be read is tried again each time, and logged when the reason changes.
            if !is_unread {
                known = found;
            }
            match config {
                Ok(config) => {
                    unread = None;
                    self.config.store(config);
                    tracing::info!("new TLS certificates are in use");
                }
                Err(error) => {
                    let reason = is_unread.then(|| error.to_string());
                    if reason.is_none() || reason != unread {
                        tracing::warn!(%error, "the new TLS files are refused: the old identity stays in use");
                    }
                    unread = reason;
                }
            }
        }
    }

    /// Performs the handshake of one connection.
    pub(super) async fn accept<S: AsyncRead + AsyncWrite + Unpin>(&self, stream: S) -> io::Result<TlsStream<S>> {
        TlsAcceptor::from(self.config.load_full()).accept(stream).await
    }
}

/// Inode, length, and seconds and nanoseconds of the last change of each file's contents, owner or mode.
type Stamp = [Option<(u64, u64, (i64, i64))>; 3];

fn stamp(files: &TlsFiles) -> Stamp {
    let about = |about: Metadata| (about.ino(), about.len(), (about.ctime(), about.ctime_nsec()));
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

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_file_that_may_now_be_read_is_a_changed_one() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key.pem");
        fs::write(&path, "key").unwrap();
        let files = TlsFiles { certificates: path.clone(), key: path.clone(), client_authorities: None };
        let before = stamp(&files);
        assert_eq!(before, stamp(&files));
        // Two changes within one tick of the file system's clock look alike.
        let mut modes = [0o600, 0o644].into_iter().cycle().take(1_000_000);
        assert!(modes.any(|mode| {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            stamp(&files) != before
        }));
    }
}
