//! Makes checkpoints: the supernet with masked routes, the losses, the optimizer, and runs that survive a kill.

mod batch;
mod calibrate;
mod cut;
mod display;
mod error;
mod finish;
mod job;
mod log;
mod losses;
mod objective;
mod optimizer;
mod options;
mod parameters;
mod run;
mod state;
mod state_file;
mod supernet;
mod validation;

pub use batch::{Batch, Window, windows};
pub use cut::{Cut, MaskTables, Masks, one_hot};
pub use error::TrainError;
pub use job::{Outcome, TrainJob};
pub use losses::{LossWeights, Losses};
pub use optimizer::AdamWOptions;
pub use options::TrainOptions;
pub use parameters::Parameters;
pub use run::train;
pub use supernet::Supernet;
