use std::net::{SocketAddr, TcpListener};
use std::num::NonZeroUsize;
use std::str::FromStr;
use std::thread;
use std::time::Instant;

use axum::Router;
use clap::Args;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;

use super::Failure;
use super::address::Address;
use canet_api::{self, Connections, Hosts};

/// File descriptors for everything but connections: listeners, the runtime, the files of a model and of TLS, logs.
const RESERVED_DESCRIPTORS: usize = 128;

/// Most open connections of the listener for probes. Few ask there, and an idle one makes room for a new one.
const PROBE_CONNECTIONS: usize = 64;

/// The addresses of a server.
#[derive(Clone, Debug, Args)]
pub(crate) struct ListenArgs {
    /// Address of the HTTP server. Port 0 takes a free port, which the log names
    #[arg(long, env = "CANET_LISTEN", value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    listen: Address,
    /// Address of the gRPC server, or `off`
    #[arg(long, env = "CANET_GRPC", value_name = "ADDRESS", default_value = "127.0.0.1:8081")]
    grpc: GrpcAddress,
    /// Address of a second HTTP server, without TLS, that answers only /healthz and /readyz. It has a thread of its own, so
    /// that probes get their answer in time however busy the server is
    #[arg(long, env = "CANET_PROBE_LISTEN", value_name = "ADDRESS")]
    probe_listen: Option<Address>,
}

#[derive(Clone, Debug)]
enum GrpcAddress {
    At(Address),
    Off,
}

impl FromStr for GrpcAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<GrpcAddress, String> {
        match text {
            "off" => Ok(GrpcAddress::Off),
            _ => text.parse().map(GrpcAddress::At).map_err(|error: String| format!("{error}; or off")),
        }
    }
}

/// The bound addresses.
pub(crate) struct Listeners {
    pub(crate) http: Listener,
    /// `None` if gRPC is off.
    pub(crate) grpc: Option<Listener>,
    /// Probes without TLS.
    pub(crate) probes: Option<Listener>,
}

impl ListenArgs {
    /// Binds every address.
    pub(crate) fn bind(&self) -> Result<Listeners, Failure> {
        let http = Listener::bind(&self.listen, "another --listen")?;
        let grpc = match &self.grpc {
            GrpcAddress::At(address) => Some(Listener::bind(address, "another --grpc, or --grpc off")?),
            GrpcAddress::Off => None,
        };
        let probes = self.probe_listen.as_ref().map(|address| Listener::bind(address, "another --probe-listen"));
        Ok(Listeners { http, grpc, probes: probes.transpose()? })
    }
}

impl Listeners {
    /// Raises the process's limit on open files as far as the system allows. If the connections of all listeners do not
    /// fit, lowers their number: without a free descriptor the server could neither answer probes nor reload.
    pub(crate) fn fit(&self, connections: Connections) -> Connections {
        let listeners = 1 + usize::from(self.grpc.is_some());
        let reserved = RESERVED_DESCRIPTORS + if self.probes.is_some() { PROBE_CONNECTIONS } else { 0 };
        let wanted = (connections.max_open.saturating_mul(listeners)).saturating_add(reserved);
        let limit = match rlimit::increase_nofile_limit(wanted as u64) {
            Ok(limit) => usize::try_from(limit).unwrap_or(usize::MAX),
            Err(error) => {
                tracing::warn!(%error, "the limit on open files cannot be read: too many connections may exhaust it");
                return connections;
            }
        };
        let max_open = max_connections(limit.saturating_sub(reserved), listeners);
        if max_open >= connections.max_open {
            return connections;
        }
        tracing::warn!(
            limit,
            max_connections = max_open,
            "the limit on open files allows fewer connections than --max-connections: raise it (ulimit -n)"
        );
        let shrink = |limit: NonZeroUsize| limit.get().saturating_mul(max_open).div_ceil(connections.max_open);
        let max_per_client = connections.max_per_client.and_then(|limit| NonZeroUsize::new(shrink(limit)));
        Connections { max_open, max_per_client, ..connections }
    }
}

/// Connections of each listener if there are `descriptors` for all of them: at least one.
fn max_connections(descriptors: usize, listeners: usize) -> usize {
    (descriptors / listeners).max(1)
}

/// A bound address that does not accept connections yet.
pub(crate) struct Listener(TcpListener);

impl Listener {
    /// Binds `address`. The error suggests the `alternative`.
    fn bind(address: &Address, alternative: &str) -> Result<Listener, Failure> {
        let bound = address.resolve().and_then(TcpListener::bind).and_then(|listener| {
            listener.set_nonblocking(true)?;
            Ok(Listener(listener))
        });
        bound
            .map_err(|error| Failure::Unavailable(format!("cannot listen on {address}: {error}; choose {alternative}")))
    }

    /// The names under which clients ask here: `hosts`, or any if other machines reach the address.
    pub(crate) fn hosts(&self, hosts: &Hosts) -> Hosts {
        let is_loopback = self.0.local_addr().is_ok_and(|address| address.ip().to_canonical().is_loopback());
        if is_loopback { hosts.clone() } else { Hosts::Any }
    }
}

/// The tasks that serve the listeners.
pub(crate) struct Servers {
    connections: Connections,
    stop: watch::Sender<()>,
    tasks: JoinSet<()>,
}

impl Servers {
    /// No servers yet. All will treat their connections alike.
    pub(crate) fn new(connections: Connections) -> Servers {
        Servers { connections, stop: watch::Sender::new(()), tasks: JoinSet::new() }
    }

    /// With TLS, follows changes of the certificates. Returns whether there is TLS.
    pub(crate) fn follow_certificates(&self) -> bool {
        let tls = self.connections.tls.clone();
        tls.map(|tls| tokio::spawn(tls.follow())).is_some()
    }

    /// Serves `app` over HTTP/1 and HTTP/2. Returns the bound address.
    pub(crate) fn serve(&mut self, listener: Listener, app: Router) -> Result<SocketAddr, Failure> {
        let listener = tokio::net::TcpListener::from_std(listener.0).map_err(Failure::unavailable)?;
        let address = listener.local_addr().map_err(Failure::unavailable)?;
        self.tasks.spawn(canet_api::serve(listener, app, self.connections.clone(), self.stopped()));
        Ok(address)
    }

    /// Serves `app` without TLS on a thread and a runtime of its own. Returns the bound address.
    pub(crate) fn serve_apart(&mut self, listener: Listener, app: Router) -> Result<SocketAddr, Failure> {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Failure::unavailable)?;
        let entered = runtime.enter();
        let listener = tokio::net::TcpListener::from_std(listener.0).map_err(Failure::unavailable)?;
        drop(entered);
        let address = listener.local_addr().map_err(Failure::unavailable)?;
        let connections =
            Connections { max_open: PROBE_CONNECTIONS, max_per_client: None, tls: None, ..self.connections.clone() };
        let stopped = self.stopped();
        let (ending, ended) = oneshot::channel::<()>();
        let serve = move || {
            runtime.block_on(canet_api::serve(listener, app, connections, stopped));
            // First what the tasks hold.
            drop(runtime);
            drop(ending);
        };
        thread::Builder::new().name("probes".to_owned()).spawn(serve).map_err(Failure::resources)?;
        self.tasks.spawn(async move { drop(ended.await) });
        Ok(address)
    }

    /// Waits until the servers should stop.
    fn stopped(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut stop = self.stop.subscribe();
        // Nothing is ever sent, so this ends when the sender drops.
        async move { drop(stop.changed().await) }
    }

    /// Accepts no more connections and finishes the open requests. Returns false if `deadline` passes before.
    pub(crate) async fn stop_by(self, deadline: Instant) -> bool {
        let Servers { stop, mut tasks, .. } = self;
        drop(stop);
        let closed = async { while tasks.join_next().await.is_some() {} };
        tokio::time::timeout_at(deadline.into(), closed).await.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_descriptors_for_everything_else() {
        assert_eq!(max_connections(1024 - RESERVED_DESCRIPTORS, 2), 448);
        assert_eq!(max_connections(1024 - RESERVED_DESCRIPTORS - PROBE_CONNECTIONS, 2), 416);
        assert_eq!(max_connections(0, 2), 1);
    }
}
