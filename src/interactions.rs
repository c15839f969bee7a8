//! Interaction data as several commands read it.

use std::path::{Path, PathBuf};

use clap::Args;
use clap::builder::BoolishValueParser;

use canet_data::{Dataset, ReadOptions};
use canet_model::Model;

use crate::Failure;
use crate::exit::say;
use crate::memory;

/// The data of a command that uses a trained model.
#[derive(Debug, Args)]
pub(crate) struct DataArgs {
    /// Interactions, in any format that `train` reads. Items that the model does not know are dropped
    #[arg(long, env = "CANET_DATA", value_name = "PATH")]
    data: PathBuf,
    /// Skip lines that cannot be read, and report their number
    #[arg(long, env = "CANET_SKIP_BAD_LINES", value_parser = BoolishValueParser::new())]
    skip_bad_lines: bool,
}

impl DataArgs {
    /// Reads the data with a model's items.
    pub(crate) fn read(&self, model: &Model) -> Result<Dataset, Failure> {
        let options = ReadOptions { skip_bad_lines: self.skip_bad_lines, max_bytes: memory::for_interactions() };
        let dataset = Dataset::read_known(&self.data, model.catalogue(), &options).map_err(Failure::data)?;
        remarks(&self.data, &dataset);
        if dataset.unknown > 0 {
            say(format_args!("interactions dropped because the model does not know their items: {}", dataset.unknown));
        }
        Ok(dataset)
    }

    /// Reads data to evaluate a model on, and remarks on their relation to the training data.
    pub(crate) fn read_to_measure(&self, model: &Model) -> Result<Dataset, Failure> {
        let dataset = self.read(model)?;
        remark_on_origin(model, &dataset);
        Ok(dataset)
    }

    /// The data have no user to evaluate.
    pub(crate) fn no_user(&self) -> Failure {
        Failure::Data(format!("{}: no user has the three interactions that an evaluation needs", self.data.display()))
    }
}

/// Prints a remark if the model was trained on other data than these.
pub(crate) fn remark_on_origin(model: &Model, dataset: &Dataset) {
    let name = &model.manifest().data.name;
    match (dataset.sha256 == model.manifest().data.sha256, learnt_everything(model)) {
        (true, _) => {}
        (false, false) => say(format_args!("the model was made from other data ({name})")),
        (false, true) => say(format_args!(
            "the model was made from another file ({name}) and has learnt every interaction of it (--newest-epochs): \
             interactions that are in both files do not test the model"
        )),
    }
}

/// Whether the model has learnt every interaction of the dataset, including those that would test it.
pub(crate) fn all_learnt(model: &Model, dataset: &Dataset) -> bool {
    learnt_everything(model) && dataset.sha256 == model.manifest().data.sha256
}

/// Whether the model's training ended on the validation and test items too (`train --newest-epochs`).
fn learnt_everything(model: &Model) -> bool {
    model.manifest().training.as_ref().is_some_and(|training| training.everything)
}

/// Prints what was skipped or assumed while reading a file.
pub(crate) fn remarks(path: &Path, dataset: &Dataset) {
    if dataset.skipped.count > 0 {
        say(format_args!("{}", dataset.skipped));
    }
    if let Some(untimed) = &dataset.untimed {
        say(format_args!("{}: {untimed}", path.display()));
    }
}
