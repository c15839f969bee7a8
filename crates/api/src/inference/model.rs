use super::tensor::DataType;
use crate::{Code, Problem};
use canet_serving::Generation;

/// A tensor of the model as its metadata tells it; -1 stands for any size.
pub(super) struct Signature {
    pub(super) name: &'static str,
    pub(super) data_type: DataType,
    pub(super) shape: &'static [i64],
}

/// What is taken. Dense ids may come for `history` instead; metadata knows one type a tensor.
pub(super) const INPUTS: [Signature; 2] = [
    Signature { name: "history", data_type: DataType::Bytes, shape: &[-1] },
    Signature { name: "k", data_type: DataType::Int64, shape: &[1] },
];

/// The server's name, and what runs its models.
pub(super) const SERVER: &str = "canet";

/// The server's version.
pub(super) const SERVER_VERSION: &str = env!("CARGO_PKG_VERSION");

/// Whether `generation` is the model that a probe names. Probes need no key: they are not told what serves instead.
///
/// # Errors
/// 404 where it is another.
pub(super) fn check_probed(generation: &Generation, name: &str, version: &str) -> Result<(), Problem> {
    check_name(generation, name, version).map_err(|problem| {
        let detail = if version.is_empty() {
            format!("the model {name:?} does not serve")
        } else {
            format!("version {version:?} of a model {name:?} does not serve")
        };
        Problem { detail: detail.into(), ..problem }
    })
}

/// Whether `generation` is the model that a client names; an empty version is any.
///
/// # Errors
/// 404 where it is another.
pub(super) fn check_name(generation: &Generation, name: &str, version: &str) -> Result<(), Problem> {
    if name != generation.model.name() {
        return Err(Problem::new(
            Code::NotFound,
            format!("there is no model {name:?}: {:?} serves", generation.model.name()),
        ));
    }
    if !version.is_empty() && version != generation.model.version().to_string() {
        let detail =
            format!("version {version:?} of {name:?} does not serve: version {} does", generation.model.version());
        return Err(Problem::new(Code::NotFound, detail));
    }
    Ok(())
}
