//! Interaction files: who took which item, in which order, and how that is split for training and evaluation.
//!
//! One door, [`Dataset::read`]. The forms of file, and how they are told apart, stand in [`Form`].

mod dataset;
mod error;
mod form;
mod gather;
mod lines;
mod locate;
mod moment;
mod sequences;
mod source;
mod split;
mod table;
mod titles;

pub use dataset::{Dataset, ReadOptions, Untimed};
pub use error::{BadLine, DataError, LineFault, Skipped};
pub use form::Form;
pub use split::{Case, Split};
