//! Metrics and logs: what an operator sees of the server.

mod family;
mod logs;
mod metrics;
mod series;

pub use logs::{LogFormat, LogsError, install_logs};
pub use metrics::{InFlight, Metrics, Rejected, Stage};
pub use series::{LaneSeries, RouteSeries, Series};
