//! Everything that is tested through a public door, in one binary: LibTorch is linked once.

mod checkpoint;
mod data;
mod flops;
mod setup;
mod support;
mod tidy;
mod eval_command;
mod evaluation;
mod import;
mod oracle;
mod support;
