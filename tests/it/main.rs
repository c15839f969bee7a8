//! Everything that is tested through a public door, in one binary: LibTorch is linked once.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test says by a panic what is wrong")]

mod admission;
mod bad_input;
mod checkpoint;
mod console;
mod cost;
mod data;
mod degrade;
mod eval_command;
mod evaluation;
mod evaluation_metrics;
mod flops;
mod foreign_clients;
mod golden_http;
mod grpc;
mod grpc_client;
mod grpc_malformed;
mod http;
mod import;
mod inference;
mod lanes;
mod memory;
mod metrics;
mod mixed;
mod openapi;
mod oracle;
mod overload;
mod overload_http;
mod padding;
mod readme;
mod recommend_command;
mod reload;
mod reload_http;
mod serve_command;
mod server;
mod serving;
mod setup;
mod shadow;
mod spoilt;
mod state_dict;
mod support;
mod tidy;
mod tracing;
mod train_command;
mod training;
