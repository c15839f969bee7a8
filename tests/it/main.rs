//! Tests of the binary, or of several crates together. They are one test binary, so that LibTorch is linked once.
//!
//! In a build without LibTorch (`--no-default-features`) the native forward is the reference, and tests of what only LibTorch
//! does are left out.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test says by a panic what is wrong")]
#![allow(clippy::disallowed_methods, reason = "tests are set up by environment variables and start processes")]

mod access;
mod amplification;
mod answer_log;
mod bad_input;
mod batch_bound;
mod bench_command;
mod blocked_log;
mod candidate;
mod catalogue_file;
mod chaos;
mod chaos_disk;
mod chaos_limits;
mod connections;
mod console;
mod damaged;
mod dashboards;
mod data_command;
mod eval_command;
mod exactly_once;
mod filters;
mod flags;
mod foreign_clients;
mod gate;
mod golden_http;
mod grpc;
mod grpc_bodies;
mod grpc_client;
mod grpc_malformed;
mod history_cache;
mod hostile;
mod http;
mod http2;
mod http2_client;
mod idle;
mod import;
mod inference;
mod items;
mod live_accuracy;
mod loadtest;
mod malformed;
mod manifests;
mod manual;
mod memory;
mod metrics;
mod mixed;
#[cfg(feature = "libtorch")]
mod native_build;
#[cfg(feature = "libtorch")]
mod newest;
mod object_store;
mod openapi;
mod oracle;
mod overload_http;
mod padding;
mod precision;
mod proxy;
mod rank_command;
mod raw;
mod readme;
mod recbole;
mod recommend_command;
mod reload;
mod reload_http;
mod report_command;
mod request_bodies;
mod serve_command;
mod server;
mod serving;
mod setup;
mod shadow;
mod small_catalogue;
mod stalled_answers;
mod supply_chain;
mod support;
mod terminal;
mod tls;
mod tls_clients;
mod tracing;
#[cfg(feature = "libtorch")]
mod train_command;
#[cfg(feature = "libtorch")]
mod train_stops;
mod unread_answers;
#[cfg(feature = "libtorch")]
mod warm_start;
