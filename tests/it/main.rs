//! Everything that is tested through a public door, in one binary: LibTorch is linked once.

mod checkpoint;
mod data;
mod import;
mod oracle;
mod state_dict;
mod support;
