//! Everything that is tested through a public door, in one binary: LibTorch is linked once.

mod bad_input;
mod checkpoint;
mod data;
mod http;
mod import;
mod lanes;
mod metrics;
mod oracle;
mod serve_command;
mod server;
mod serving;
mod support;
