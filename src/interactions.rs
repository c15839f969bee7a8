use std::path::Path;

use super::Failure;
use super::exit::say;
use canet_data::{Dataset, ReadOptions};
use canet_model::Model;

/// Reads data that a model is measured on, with a note on what a reader of the numbers has to know.
pub(crate) fn read_to_measure(path: &Path, skip_bad_lines: bool, model: &Model) -> Result<Dataset, Failure> {
    let dataset = read(path, skip_bad_lines, model)?;
    remark_on_origin(model, &dataset);
    Ok(dataset)
}

/// Says where a model was made from another file than the one that it is measured on.
pub(crate) fn remark_on_origin(model: &Model, dataset: &Dataset) {
    let name = &model.manifest().data.name;
    match (dataset.sha256 == model.manifest().data.sha256, learnt_everything(model)) {
        (true, _) => {}
        (false, false) => say(format_args!("the model was made from other data ({name})")),
        (false, true) => say(format_args!(
            "the model was made from another file ({name}) and has learnt every interaction of it (--newest-epochs): those \
             that are in both are no test of it"
        )),
    }
}

/// Reads data in a model's items.
pub(crate) fn read(path: &Path, skip_bad_lines: bool, model: &Model) -> Result<Dataset, Failure> {
    let dataset =
        Dataset::read_known(path, model.catalogue(), &ReadOptions { skip_bad_lines }).map_err(Failure::data)?;
    remarks(path, &dataset);
    if dataset.unknown > 0 {
        say(format_args!("interactions dropped because the model does not know their items: {}", dataset.unknown));
    }
    Ok(dataset)
}

/// Whether a model has learnt whatever the file at hand could ask it.
pub(crate) fn all_learnt(model: &Model, dataset: &Dataset) -> bool {
    learnt_everything(model) && dataset.sha256 == model.manifest().data.sha256
}

/// Whether a model has learnt what measures it too (`train --newest-epochs`).
fn learnt_everything(model: &Model) -> bool {
    model.manifest().training.as_ref().is_some_and(|training| training.everything)
}

/// Says what of a file was not read as it stands.
pub(crate) fn remarks(path: &Path, dataset: &Dataset) {
    if dataset.skipped.count > 0 {
        say(format_args!("{}", dataset.skipped));
    }
    if let Some(untimed) = &dataset.untimed {
        say(format_args!("{}: {untimed}", path.display()));
    }
}

/// Data in which nobody can be asked about.
pub(crate) fn nobody(path: &Path) -> Failure {
    Failure::Data(format!("{}: no user has the three interactions that an evaluation needs", path.display()))
}
