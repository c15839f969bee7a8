//! What the words mean: items, histories, routes, their cost, and rankings.
//!
//! Nothing here knows tensors, files or HTTP. Values are validated once, on construction, and what is behind
//! a type never checks again.

mod catalogue;
mod flops;
mod history;
mod item;
mod lane;
mod ranking;
mod route;
mod routing;

pub use catalogue::{Catalogue, CatalogueError};
pub use flops::{FfnInner, Flops, ModelShape, RequestFlops, RouterShape};
pub use history::{History, HistoryError};
pub use item::Item;
pub use lane::{BatchBy, BatchByError};
pub use ranking::{Candidates, Ranked, Selection, TopK, top_k};
pub use route::{Route, RouteSpace, RouteSpaceError, Slice};
pub use routing::{Choice, Reason, choose_route, choose_route_among};
