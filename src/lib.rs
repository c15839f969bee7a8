//! CANet: a light router reads a user's history and picks the slice of one recommender that runs.
//!
//! The floors, top down; imports go down only (`tests/it/tidy.rs` checks it):
//!
//! - [`app`]: the command line, signals, exit codes
//! - `api`: axum; wire types, the one error table
//! - `serving` and `training`: siblings, the one executes requests, the other makes checkpoints
//! - `evaluation`: full-ranking metrics and the baselines
//! - [`model`] and `data`: the network and its checkpoints; interaction files
//! - `telemetry`: metrics and logs
//! - [`domain`]: items, histories, routes, their cost, rankings
//!
//! Without the feature `libtorch` there is neither `training` nor `model::libtorch`: a server for CPUs.
//!
//! `src/ARCHITECTURE.md` tells the life of a request, of a training step and of a checkpoint.

pub mod api;
pub mod app;
pub mod data;
pub mod domain;
pub mod evaluation;
pub mod model;
pub mod serving;
pub mod telemetry;
#[cfg(feature = "libtorch")]
pub mod training;

/// Most of what a call allocates is small and lasts no longer than the call, which the C library's allocator takes longer for.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[cfg(not(any(feature = "libtorch", feature = "native")))]
compile_error!("a build needs something to compute with: --features libtorch, the default, or --features native");
