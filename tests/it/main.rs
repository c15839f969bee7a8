//! Everything that is tested through a public door, in one binary: LibTorch is linked once.

mod checkpoint;
mod data;
mod eval_command;
mod evaluation;
mod flops;
mod import;
mod metrics;
mod oracle;
mod setup;
mod state_dict;
mod support;
mod tidy;
mod train_command;
mod training;
