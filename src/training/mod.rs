//! Makes checkpoints: the supernet with masked routes, the losses, the optimizer, and runs that survive a kill.

mod batch;
mod block;
mod calibrate;
mod contrast;
mod cut;
mod display;
mod dropout;
mod epochs;
mod error;
mod finish;
mod holdout;
mod job;
mod joint;
mod log;
mod losses;
mod measured;
mod optimizer;
mod options;
mod parameters;
mod router;
mod run;
mod sandwich;
mod stage;
mod state;
mod state_file;
mod supernet;
mod terms;
mod validation;

pub use batch::{Batch, Window, windows};
pub use cut::{Cut, MaskTables, Masks, one_hot};
pub use error::TrainError;
pub use job::{Outcome, TrainJob};
pub use losses::{LossWeights, Losses};
pub use optimizer::AdamWOptions;
pub use options::{
    JointOptions, NewestOptions, Preset, RouterFit, RouterOptions, SandwichOptions, SettleOptions, TrainOptions,
};
pub use parameters::Parameters;
pub use run::train;
pub use stage::Stage;
pub use supernet::Supernet;
