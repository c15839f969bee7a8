use std::net::{SocketAddr, TcpListener};

use axum::Router;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::Failure;

/// An address that is ours, before anything is served there.
pub(super) struct Listener(TcpListener);

/// What every listener waits for: the end of its sender.
pub(super) type Stop = watch::Receiver<()>;

impl Listener {
    /// Binds `address`, which the user gave by `flag`.
    pub(super) fn bind(address: SocketAddr, flag: &str) -> Result<Listener, Failure> {
        let bound = TcpListener::bind(address).and_then(|listener| {
            listener.set_nonblocking(true)?;
            Ok(Listener(listener))
        });
        bound.map_err(|error| {
            Failure::Unavailable(format!("cannot listen on {address}: {error}; choose another {flag}"))
        })
    }

    /// Serves `router` here as a task of `servers`, over HTTP/1 and HTTP/2. From `stop` on no new connection is taken,
    /// and the task ends with the last answer that a client waits for. Returns the address.
    pub(super) fn serve(
        self,
        router: Router,
        mut stop: Stop,
        servers: &mut JoinSet<std::io::Result<()>>,
    ) -> Result<SocketAddr, Failure> {
        let listener = tokio::net::TcpListener::from_std(self.0).map_err(Failure::unavailable)?;
        let address = listener.local_addr().map_err(Failure::unavailable)?;
        // Who is on loopback matters to operators' endpoints.
        let service = router.into_make_service_with_connect_info::<SocketAddr>();
        // Nothing is ever sent: an error says that the sender is gone.
        let stopped = async move { drop(stop.changed().await) };
        servers.spawn(axum::serve(listener, service).with_graceful_shutdown(stopped).into_future());
        Ok(address)
    }
}
