//! Checkpoints: what is written comes back, and nothing damaged or half-written is ever loaded.

#![expect(clippy::unwrap_used, reason = "a test's helper may panic")]

mod damage;
mod directory;
mod probes;
mod writing;
