//! Checkpoints come back as they were written, and damaged or unfinished ones are never loaded.

mod damage;
mod directory;
mod flags;
mod origin;
mod probes;
mod writing;
