//! Trains models and writes their checkpoints.
//!
//! [`train`] takes a [`TrainJob`] through the stages of its [`Preset`]. A training that is stopped or killed resumes
//! from its saved state.
//!
//! | Modules | Content |
//! |---|---|
//! | `pipeline`, `context`, `epochs`, `router` | the order of the stages, what a stage may use, and the stages |
//! | `state`, `state_file`, `conflict`, `records`, `log` | what a training saves and logs, and which job may continue it |
//! | `display`, `forecast` | what a training shows, and how long it still takes |
//! | `validation`, `calibration`, `price`, `checkpoint` | accuracy, route biases of budgets, and the result |
//! | `sandwich`, `full_softmax`, `sampled_softmax`, `joint`, `losses`, `step_loss` | the objectives |
//! | `supernet`, `block`, `layers`, `dropout`, `subnet_mask` | the forward pass of training |
//! | `batch`, `samples`, `holdout`, `distillation_plan` | the training data, and how many steps the router takes |
//! | `parameters`, `warm_start`, `optimizer`, `tensors` | weights, AdamW, operations on tensors |
//! | `job`, `options`, `defaults`, `memory`, `stage`, `error` | what to train and how |

mod batch;
mod block;
mod calibration;
mod checkpoint;
mod conflict;
mod context;
mod defaults;
mod display;
mod distillation_plan;
mod dropout;
mod epochs;
mod error;
mod forecast;
mod full_softmax;
mod holdout;
mod job;
mod joint;
mod layers;
mod log;
mod losses;
mod memory;
mod optimizer;
mod options;
mod parameters;
mod pipeline;
mod price;
mod records;
mod route_ranks;
mod router;
mod sampled_softmax;
mod samples;
mod sandwich;
mod stage;
mod state;
mod state_file;
mod step_loss;
mod subnet_mask;
mod supernet;
mod tensors;
#[cfg(test)]
mod torch_seed;
mod validation;
mod warm_start;
mod width_rates;

pub use batch::{Batch, Sample};
pub use defaults::Defaults;
pub use dropout::DropoutShares;
pub use error::TrainError;
pub use job::{Finished, TrainJob, TrainOutcome};
pub use losses::LossWeights;
pub use memory::MemoryEstimate;
pub use optimizer::AdamWOptions;
pub use options::{JointOptions, NewestOptions, RouterOptions, SandwichOptions, SettleOptions, TrainOptions};
pub use parameters::{ParameterOptions, Parameters, Recipe};
pub use pipeline::{discards_earlier, recorded_source, train};
pub use samples::SampleOptions;
pub use stage::{Preset, Stage};
pub use subnet_mask::{MaskTables, RowMasks, SubnetMask, one_hot};
pub use supernet::Supernet;
pub use warm_start::{SourceRecord, is_tied};
