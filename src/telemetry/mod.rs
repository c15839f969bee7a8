//! Metrics, logs and spans: what an operator sees of the server.

mod family;
mod logs;
mod metrics;
mod reloads;
mod series;
mod spans;
mod stale;
mod traffic;

pub use logs::{LogFormat, LogsError, install_logs};
pub use metrics::{InFlight, Metrics, Rejected, Stage};
pub use reloads::Reloaded;
pub use series::{LaneSeries, RouteSeries, Series, Spent};
pub use spans::{Caller, ExportedSpan, SpanExport, SpanExportError, export_call};
pub use traffic::{Latency, Traffic};
