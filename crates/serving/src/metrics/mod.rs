//! The server's Prometheus metrics.

mod cache_series;
mod endpoint;
mod family;
mod judgements;
mod registry;
mod series;
mod traffic;

pub use endpoint::EndpointSeries;
pub use judgements::{Accuracy, Judgements};
pub use registry::{
    AnswerLogged, CatalogueReloaded, Disconnect, InFlight, Metrics, OpenConnection, Rejected, Reloaded, Stage,
};
pub(crate) use series::InLane;
pub use series::{DeviceSeconds, LaneSeries, RouteSeries, Series};
pub use traffic::{Latency, Traffic};
