//! Serves a recommender over HTTP and gRPC, with an OpenAPI document and a console. The Open Inference Protocol runs
//! over both transports.
//!
//! [`app`] lists the HTTP endpoints and their layers. [`grpc::app`] lists the gRPC services and theirs. [`serve`] accepts
//! the connections. Every error becomes a [`Problem`], and the table in [`Code`] maps it to a status on each transport.
//!
//! An endpoint that ranks items takes three steps. Its handler reads the request into the types of `wire`, `validate`
//! checks them against the model that will answer, and `call` asks the recommender. No other endpoint uses `validate` or
//! `call`. Handlers decide nothing about batches or devices.

mod access;
mod allowance;
mod answer_budget;
mod answer_json;
mod answer_record;
mod answer_size;
mod app;
mod attached;
mod body;
mod body_budget;
mod body_turn;
mod browser;
mod call;
mod candidate;
mod client;
mod codec;
mod deadline;
mod describe;
mod endpoint;
mod exact;
pub mod grpc;
mod gzip;
mod heartbeat;
mod hosts;
mod inference;
mod items;
mod limits;
mod observe;
mod openapi;
mod ops;
mod pace;
mod pages;
mod problem;
pub mod proto;
mod recommend;
mod reload;
mod reservation;
mod restriction;
mod server;
mod side;
mod spans;
#[cfg(test)]
mod testing;
mod title_index;
mod traceparent;
mod transport;
mod turns;
mod unpack;
mod validate;
mod wire;

pub use access::{Admin, ApiKeys};
pub use answer_budget::AnswerBudget;
pub use app::{Access, app, probes};
pub use body_budget::BodyBudget;
pub use browser::Origins;
pub use heartbeat::Heartbeat;
pub use hosts::Hosts;
pub use problem::{Code, CodeMapping, Problem};
pub use server::{Connections, Timeouts, Tls, TlsError, TlsFiles, serve};
pub use spans::{SpanExport, SpanExportError};

use canet_serving::metrics::Metrics;

/// The metrics of a server. [`app`] and [`grpc::app`] add a series for every endpoint and every code that it may answer.
///
/// # Errors
/// [`prometheus::Error`] if a family cannot be registered.
pub fn metrics() -> Result<Metrics, prometheus::Error> {
    Metrics::new()
}
