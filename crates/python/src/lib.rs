//! The module `canet._native`, on which the Python package `canet` is built (`python/canet`).
//!
//! `model` opens a checkpoint and ranks with `canet_ranking`, as `canet rank` does. `reading` reads histories from lists,
//! NumPy arrays and Arrow arrays where they are. Everything that a person reads, such as documentation and types, is in the
//! Python package.

#![cfg(feature = "module")]

mod model;
mod reading;

use pyo3::prelude::*;

use crate::model::{Model, ModelError};

/// Fills the module.
#[pymodule]
fn _native(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("ModelError", module.py().get_type::<ModelError>())?;
    module.add_class::<Model>()
}
