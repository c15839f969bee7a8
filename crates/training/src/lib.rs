//! Makes checkpoints: the supernet with masked routes, the losses, the optimizer, and runs that survive a kill.

mod batch;
mod block;
mod calibrate;
mod cut;
mod defaults;
mod display;
mod dropout;
mod epochs;
mod error;
mod finish;
mod full_softmax;
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
mod sampled_softmax;
mod samples;
mod sandwich;
mod stage;
mod state;
mod state_file;
mod supernet;
mod terms;
mod validation;

pub use batch::{Batch, Sample};
pub use cut::{Cut, MaskTables, Masks, one_hot};
pub use defaults::Defaults;
pub use dropout::DropoutShares;
pub use error::TrainError;
pub use job::{Outcome, TrainJob};
pub use losses::{LossWeights, Losses};
pub use optimizer::AdamWOptions;
pub use options::{
    JointOptions, NewestOptions, Preset, RouterFit, RouterOptions, SandwichOptions, SettleOptions, TrainOptions,
};
pub use parameters::{Parameters, Recipe};
pub use run::train;
pub use samples::SampleOptions;
pub use stage::Stage;
pub use supernet::Supernet;
