//! Feeds parsers with mutated inputs and checks every answer.
//!
//! A [`Target`] has a corpus: valid inputs, and inputs that once revealed a fault. Each case takes one of them and applies a
//! few [`Edit`]s. The check of the target says whether the input was [accepted or refused](Outcome), and panics if the answer
//! is wrong. A failing case is shrunk to as few edits as possible.
//!
//! The targets are the tests of this crate. `cargo test` runs a fixed number of cases of each, always the same ones.
//! `make fuzz SECONDS=60` runs new ones for that time.

mod edit;
mod target;

pub use edit::{Edit, Mutant};
pub use target::{Budget, Outcome, Report, Seed, Target};
