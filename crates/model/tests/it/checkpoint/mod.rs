//! Checkpoints: what is written comes back, and nothing damaged or half-written is ever loaded.

mod damage;
mod directory;
mod flags;
mod probes;
mod writing;
