//! Everything that is tested through a public door, in one binary: LibTorch is linked once.

mod checkpoint;
mod data;
mod support;
