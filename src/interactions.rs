use std::path::Path;

use canet_data::{Dataset, ReadOptions};
use canet_model::Model;

use super::Failure;
use super::exit::say;

/// Reads interactions with a model's items.
pub(crate) fn read(path: &Path, skip_bad_lines: bool, model: &Model) -> Result<Dataset, Failure> {
    let dataset =
        Dataset::read_known(path, model.catalogue(), &ReadOptions { skip_bad_lines }).map_err(Failure::data)?;
    say_remarks(path, &dataset);
    if dataset.unknown > 0 {
        say(format_args!("interactions dropped because the model does not know their items: {}", dataset.unknown));
    }
    Ok(dataset)
}

/// Reads interactions to measure a model on, and says if the model was trained on other data.
pub(crate) fn read_to_measure(path: &Path, skip_bad_lines: bool, model: &Model) -> Result<Dataset, Failure> {
    let dataset = read(path, skip_bad_lines, model)?;
    say_origin(model, &dataset);
    Ok(dataset)
}

/// Says if the model was trained on another file than the one that measures it.
pub(crate) fn say_origin(model: &Model, dataset: &Dataset) {
    let name = &model.manifest().data.name;
    if dataset.sha256 == model.manifest().data.sha256 {
        return;
    }
    if trained_on_everything(model) {
        say(format_args!(
            "the model was trained on every interaction of another file ({name}), by --newest-epochs: interactions that \
             are in both files do not test it"
        ));
    } else {
        say(format_args!("the model was trained on other data ({name})"));
    }
}

/// Whether the model was trained on every interaction of the data set, so that none of them tests it.
pub(crate) fn all_trained_on(model: &Model, dataset: &Dataset) -> bool {
    trained_on_everything(model) && dataset.sha256 == model.manifest().data.sha256
}

/// Whether the training ended with the interactions that measured it (`train --newest-epochs`).
fn trained_on_everything(model: &Model) -> bool {
    model.manifest().training.as_ref().is_some_and(|training| training.everything)
}

/// Says which lines of a file were skipped, and whether it has no timestamps.
pub(crate) fn say_remarks(path: &Path, dataset: &Dataset) {
    if dataset.skipped.count > 0 {
        say(format_args!("{}", dataset.skipped));
    }
    if let Some(untimed) = &dataset.untimed {
        say(format_args!("{}: {untimed}", path.display()));
    }
}

/// The failure of an evaluation on data without a test case.
pub(crate) fn no_cases(path: &Path) -> Failure {
    Failure::Data(format!("{}: no user has the three interactions that an evaluation needs", path.display()))
}
