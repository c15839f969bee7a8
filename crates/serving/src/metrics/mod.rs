//! The server's Prometheus metrics.

mod cache_series;
mod endpoint;
mod family;
mod registry;
mod series;
mod traffic;

pub use endpoint::EndpointSeries;
pub use registry::{Disconnect, InFlight, Metrics, OpenConnection, Rejected, Reloaded, Stage};
pub(crate) use series::InLane;
pub use series::{DeviceSeconds, LaneSeries, RouteSeries, Series};
pub use traffic::{Latency, Traffic};
