//! Recommends to many users at once, without a server.
//!
//! `canet rank` and the Python module share it. [`Sequences`] holds the items of many users in one list. [`BatchRanker`] routes
//! and ranks batches of them, as the server ranks requests: it leaves out seen, excluded and hidden items, and ranks by popularity
//! if the model knows no item of a user.

mod batch_ranker;
mod sequences;

pub use batch_ranker::{
    BatchRanker, MAX_RANKED_ITEMS, OptionsError, RankError, RankingOptions, Recommended, UserItems,
};
pub use sequences::Sequences;
