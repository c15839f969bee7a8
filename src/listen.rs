use std::net::{SocketAddr, TcpListener};
use std::str::FromStr;

use axum::Router;
use clap::Args;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::Failure;
use canet_api::{self, Connections};

/// Where a server is reached.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct ListenArgs {
    /// Address of the HTTP server; port 0 takes a free one, which the log names
    #[arg(long, env = "CANET_LISTEN", value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// Address of the gRPC server, or `off`
    #[arg(long, env = "CANET_GRPC", value_name = "ADDRESS", default_value = "127.0.0.1:8081")]
    grpc: Grpc,
    /// Address of a second HTTP server, without TLS, that answers /healthz and /readyz alone: for probes of a server that
    /// asks for TLS
    #[arg(long, env = "CANET_PROBE_LISTEN", value_name = "ADDRESS")]
    probe_listen: Option<SocketAddr>,
}

/// What is to be served, each at an address that is ours.
pub(crate) struct Listeners {
    /// HTTP.
    pub(crate) http: Listener,
    /// gRPC, where it is not off.
    pub(crate) grpc: Option<Listener>,
    /// Probes without TLS, where they are asked for.
    pub(crate) probes: Option<Listener>,
}

#[derive(Clone, Copy, Debug)]
enum Grpc {
    At(SocketAddr),
    Off,
}

impl FromStr for Grpc {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Grpc, &'static str> {
        match text {
            "off" => Ok(Grpc::Off),
            _ => text.parse().map(Grpc::At).map_err(|_| "give an address with its port, as 127.0.0.1:8081, or off"),
        }
    }
}

impl ListenArgs {
    /// Binds what is to be served.
    pub(crate) fn bind(self) -> Result<Listeners, Failure> {
        let http = Listener::bind(self.listen, "another --listen")?;
        let grpc = match self.grpc {
            Grpc::At(address) => Some(Listener::bind(address, "another --grpc, or --grpc off")?),
            Grpc::Off => None,
        };
        let probes = self.probe_listen.map(|address| Listener::bind(address, "another --probe-listen"));
        Ok(Listeners { http, grpc, probes: probes.transpose()? })
    }
}

/// An address that is ours, before anything is served there.
pub(crate) struct Listener(TcpListener);

/// What every listener waits for: the end of its sender.
pub(crate) type Stop = watch::Receiver<()>;

impl Listener {
    /// Binds `address`; where it cannot be had, the user may choose the `other`.
    fn bind(address: SocketAddr, other: &str) -> Result<Listener, Failure> {
        let bound = TcpListener::bind(address).and_then(|listener| {
            listener.set_nonblocking(true)?;
            Ok(Listener(listener))
        });
        bound.map_err(|error| Failure::Unavailable(format!("cannot listen on {address}: {error}; choose {other}")))
    }

    /// Serves `router` here as a task of `servers`, over HTTP/1 and HTTP/2. From `stop` on no new connection is taken,
    /// and the task ends with the last answer that a client waits for. Returns the address.
    pub(crate) fn serve(
        self,
        router: Router,
        connections: Connections,
        mut stop: Stop,
        servers: &mut JoinSet<()>,
    ) -> Result<SocketAddr, Failure> {
        let listener = tokio::net::TcpListener::from_std(self.0).map_err(Failure::unavailable)?;
        let address = listener.local_addr().map_err(Failure::unavailable)?;
        // Nothing is ever sent: an error says that the sender is gone.
        let stopped = async move { drop(stop.changed().await) };
        servers.spawn(canet_api::serve(listener, router, connections, stopped));
        Ok(address)
    }
}
