//! TLS and mutual TLS: certificates made here, the binary as it is started, rustls as the client.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use canet_api::{Access, Connections, Tls, TlsFiles};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use super::server::{HANGS, Process, Server, numbered, run};
use super::support::{draft, small_config};

pub(crate) type Authority = CertifiedIssuer<'static, KeyPair>;

pub(crate) fn authority(name: &str) -> Authority {
    let mut params = CertificateParams::new([]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, name);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// A certificate for this machine and its key, as DER and as PEM.
pub(crate) struct Identity {
    pub(crate) certificate: rcgen::Certificate,
    pub(crate) key: KeyPair,
}

pub(crate) fn identity(authority: &Authority) -> Identity {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(["localhost".to_owned()]).unwrap();
    Identity { certificate: params.signed_by(&key, authority).unwrap(), key }
}

/// The files of one server.
pub(crate) struct Files {
    directory: tempfile::TempDir,
    model: PathBuf,
}

impl Files {
    pub(crate) fn new() -> Files {
        let directory = tempfile::tempdir().unwrap();
        let model = directory.path().join("small");
        numbered(draft(small_config(), 3)).write(&model).unwrap();
        Files { directory, model }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, content: &str) -> PathBuf {
        // Renamed into place, as tools that renew certificates do it.
        std::fs::write(self.path("aside"), content).unwrap();
        std::fs::rename(self.path("aside"), self.path(name)).unwrap();
        self.path(name)
    }

    pub(crate) fn install(&self, identity: &Identity) {
        self.write("cert.pem", &identity.certificate.pem());
        self.write("key.pem", &identity.key.serialize_pem());
    }

    pub(crate) fn serve(&self, more: &[&str]) -> Process {
        let process = self.launch(more);
        process.log_line("ready");
        process
    }

    /// Starts a server and waits until it listens.
    pub(crate) fn launch(&self, more: &[&str]) -> Process {
        let (cert, key) = (self.path("cert.pem"), self.path("key.pem"));
        let files = ["--tls-cert", cert.to_str().unwrap(), "--tls-key", key.to_str().unwrap()];
        Process::launch(&self.model, &[&files, more].concat())
    }
}

pub(crate) type Connection = StreamOwned<ClientConnection, TcpStream>;

pub(crate) fn config(trusted: &Authority, own: Option<&Identity>) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(trusted.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    match own {
        None => builder.with_no_client_auth(),
        Some(Identity { certificate, key }) => {
            let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
            builder.with_client_auth_cert(vec![certificate.der().clone()], key).unwrap()
        }
    }
}

fn connect(server: &Process, config: ClientConfig) -> Connection {
    connect_to(server.client.address, config)
}

pub(crate) fn connect_to(address: SocketAddr, config: ClientConfig) -> Connection {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(HANGS)).unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    StreamOwned::new(ClientConnection::new(Arc::new(config), name).unwrap(), stream)
}

/// The status of a request on a connection that stays open.
fn ask(connection: &mut Connection) -> io::Result<String> {
    connection.write_all(b"GET /readyz HTTP/1.1\r\nhost: localhost\r\n\r\n")?;
    let mut answer = Vec::new();
    while !answer.ends_with(b"ready\n") {
        let mut bytes = [0; 1024];
        let read = connection.read(&mut bytes)?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        answer.extend_from_slice(&bytes[..read]);
    }
    Ok(String::from_utf8_lossy(&answer).lines().next().unwrap_or_default().to_owned())
}

const OK: &str = "HTTP/1.1 200 OK";

#[test]
fn new_certificates_are_used_and_bad_ones_refused_without_closing_a_connection() {
    let (first, second) = (authority("first"), authority("second"));
    let files = Files::new();
    files.install(&identity(&first));
    let server = files.serve(&[]);

    // Who sends no handshake keeps nobody waiting.
    let silent = TcpStream::connect(server.client.address).unwrap();
    let mut old = connect(&server, config(&first, None));
    assert_eq!(ask(&mut old).unwrap(), OK);
    assert!(ask(&mut connect(&server, config(&second, None))).is_err());
    // Nor is HTTP without TLS answered.
    assert!(server.client.try_send("GET", "/readyz", &[], b"").is_err());
    drop(silent);

    files.write("cert.pem", "no certificate");
    server.log_line("refused");
    assert_eq!(ask(&mut connect(&server, config(&first, None))).unwrap(), OK);
    files.install(&identity(&second));
    server.log_line("new TLS certificates are in use");
    assert_eq!(ask(&mut connect(&server, config(&second, None))).unwrap(), OK);
    assert!(ask(&mut connect(&server, config(&first, None))).is_err());
    assert_eq!(ask(&mut old).unwrap(), OK);
}

#[test]
fn certificates_that_came_between_the_start_and_the_first_look_are_used() {
    let (first, second) = (authority("first"), authority("second"));
    let files = Files::new();
    files.install(&identity(&first));
    let (certificates, key) = (files.path("cert.pem"), files.path("key.pem"));
    let tls = Tls::load(TlsFiles { certificates, key, client_authorities: None }).unwrap();
    files.install(&identity(&second));
    let server = Server::behind(Access::default(), Connections { tls: Some(tls.clone()), ..Connections::default() });
    let ask = |trusted: &Authority| ask(&mut connect_to(server.client.address, config(trusted, None)));
    assert_eq!(ask(&first).unwrap(), OK);
    let follower = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    follower.spawn(tls.follow());
    while ask(&second).is_err() {}
    assert!(ask(&first).is_err());
}

#[test]
fn http_2_is_offered() {
    let authority = authority("one");
    let files = Files::new();
    files.install(&identity(&authority));
    let server = files.serve(&[]);
    for (offered, chosen) in [(&["h2", "http/1.1"][..], "h2"), (&["http/1.1"][..], "http/1.1")] {
        let mut config = config(&authority, None);
        config.alpn_protocols = offered.iter().map(|name| name.as_bytes().to_vec()).collect();
        let mut connection = connect(&server, config);
        connection.conn.complete_io(&mut connection.sock).unwrap();
        assert_eq!(connection.conn.alpn_protocol(), Some(chosen.as_bytes()));
    }
}

#[test]
fn with_an_authority_for_clients_others_are_refused() {
    let (servers, clients) = (authority("servers"), authority("clients"));
    let files = Files::new();
    files.install(&identity(&servers));
    let ca = files.write("clients.pem", &clients.pem());
    let server = files.serve(&["--tls-client-ca", ca.to_str().unwrap()]);
    let member = identity(&clients);
    assert_eq!(ask(&mut connect(&server, config(&servers, Some(&member)))).unwrap(), OK);
    let stranger = identity(&authority("strangers"));
    for own in [None, Some(&stranger)] {
        assert!(ask(&mut connect(&server, config(&servers, own))).is_err());
    }
}

#[test]
fn files_that_make_no_identity_are_named_at_the_start() {
    let authority = authority("one");
    let files = Files::new();
    files.install(&identity(&authority));
    let (cert, key) = (files.path("cert.pem"), files.path("key.pem"));
    let other = files.write("other.pem", &identity(&authority).key.serialize_pem());
    let empty = files.write("empty.pem", "");
    let missing = files.path("missing.pem");
    let cases: [(&Path, &Path, &Path); 4] =
        [(&missing, &key, &missing), (&empty, &key, &empty), (&cert, &cert, &cert), (&cert, &other, &cert)];
    for (cert, key, fault) in cases {
        let mut command = super::server::canet(&["serve", "--listen", "127.0.0.1:0", "--device", "cpu"]);
        command.arg("--model").arg(&files.model).arg("--tls-cert").arg(cert).arg("--tls-key").arg(key);
        let (code, stderr) = run(&mut command);
        assert!(code == Some(64) && stderr.contains(fault.to_str().unwrap()), "{stderr}");
    }
}
