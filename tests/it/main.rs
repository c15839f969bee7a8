//! Everything that is tested through a public door, in one binary: LibTorch is linked once.

mod bad_input;
mod checkpoint;
mod data;
mod http;
mod lanes;
mod metrics;
mod serve_command;
mod server;
mod serving;
mod support;
