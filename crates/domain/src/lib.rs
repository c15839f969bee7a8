//! The vocabulary of the workspace: items, histories, routes, their cost, and rankings.
//!
//! This crate knows no tensors, files or HTTP. A type validates its values on construction, so later code does not check
//! them again.

mod batch_by;
mod catalogue;
mod flops;
mod history;
mod item_set;
mod proportion;
mod ranking;
mod route;
mod routing;
mod text_sizes;
mod window;

pub use batch_by::{BatchBy, BatchByError};
pub use catalogue::{Catalogue, CatalogueError};
pub use flops::{FfnInner, Flops, ModelShape, RequestFlops, RouterShape};
pub use history::{History, HistoryError, Item};
pub use item_set::ItemSet;
pub use proportion::Proportion;
pub use ranking::{Candidates, Ranked, Selection, TopK, top_k};
pub use route::{Route, RouteSpace, RouteSpaceError, Slice};
pub use routing::{Choice, Reason, RoutePolicy, choose_route, choose_route_among};
pub use text_sizes::{TextSizes, json_length};
pub use window::Window;
