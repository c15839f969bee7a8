//! Serves a recommender over HTTP, gRPC and the Open Inference Protocol, with an OpenAPI document and a console.
//!
//! [`app`] lists the HTTP endpoints and their layers, [`grpc::app`] the gRPC services and theirs; [`serve`] accepts
//! their connections. A handler reads a request into the types of `wire`, `validate` checks it against the model that
//! will answer it, and `call` asks the recommender. Handlers decide nothing about batches or devices. Every error
//! becomes a [`Problem`], and the table in [`Code`] maps it to a status on each transport.

mod access;
mod app;
mod attached;
mod body;
mod body_budget;
mod browser;
mod call;
mod codec;
mod deadline;
mod describe;
mod endpoint;
pub mod grpc;
mod inference;
mod items;
mod limits;
mod observe;
mod openapi;
mod ops;
mod pages;
mod problem;
pub mod proto;
mod recommend;
mod reload;
mod server;
mod spans;
#[cfg(test)]
mod testing;
mod traceparent;
mod transport;
mod validate;
mod wire;

pub use access::{Admin, ApiKeys};
pub use app::{Access, app, probes};
pub use body_budget::BodyBudget;
pub use browser::Origins;
pub use problem::{Code, CodeMapping, Problem};
pub use server::{Connections, Timeouts, Tls, TlsError, TlsFiles, serve};
pub use spans::{SpanExport, SpanExportError};

use canet_serving::metrics::Metrics;
use transport::Transport;

/// The metrics of a server, with a series for every code that a transport may answer.
///
/// # Errors
/// [`prometheus::Error`] if a family cannot be registered.
pub fn metrics() -> Result<Metrics, prometheus::Error> {
    Metrics::new(Transport::ALL.map(|transport| (transport.label(), transport.codes())))
}
