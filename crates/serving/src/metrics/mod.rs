//! The server's Prometheus metrics.

mod cache_series;
mod endpoint;
mod family;
mod judgements;
mod labels;
mod registry;
mod series;
mod traffic;

pub use endpoint::EndpointSeries;
pub use judgements::{Accuracy, Judgements};
pub(crate) use labels::Released;
pub use labels::{AnswerLogged, CatalogueReloaded, Disconnect, Rejected, Reloaded, Stage};
pub use registry::{Counted, Metrics};
pub use series::{DeviceSeconds, LaneSeries, RouteSeries, Series};
pub use traffic::{Latency, Traffic};
