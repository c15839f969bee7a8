//! The weights with which a training begins that starts from another model.

use canet_domain::{Catalogue, RouteSpace};
use canet_model::checkpoint::Checkpoint;
use canet_model::{Axis, HostTensor, ModelConfig, Parameter, Positions, Weights};
use serde::{Deserialize, Serialize};

use crate::parameters::{ITEM_EMBEDDING, OUTPUT_WEIGHT};

/// The model that a training started from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceRecord {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: u64,
    /// SHA-256 of its manifest, in hexadecimal.
    pub digest: String,
}

impl SourceRecord {
    /// The record of a checkpoint.
    pub fn of(checkpoint: &Checkpoint) -> SourceRecord {
        let Checkpoint { name, version, digest, .. } = checkpoint;
        SourceRecord { name: name.clone(), version: *version, digest: digest.clone() }
    }
}

/// Where one row or column of a weight comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// This one of the source.
    Source(usize),
    /// The mean over the source's items. Only rows of items have it.
    Mean,
    /// The weight keeps its initial values.
    Initial,
}

/// What both models have, of the axes on which places of one index need not be alike.
struct Common {
    items: Vec<Place>,
    routes: Vec<Place>,
    /// The number of attention heads.
    heads: usize,
}

/// Replaces initial weights of a configuration by those of the source, where both models have them.
///
/// Items are matched by their ids, and routes by their names. Items that the source lacks get the mean row of the source's
/// items. A slice that both models have then computes what it computes in the source, apart from items, if both follow the
/// same rules. The configurations must have the same heads, positions and router.
pub(crate) fn start_from(weights: &mut Weights, config: &ModelConfig, ids: &[Box<str>], source: &Checkpoint) {
    let common = Common {
        items: item_places(ids, &source.catalogue),
        routes: route_places(config, &source.space),
        heads: config.heads,
    };
    for Parameter { name, axes, .. } in config.parameters() {
        let (Ok(tensor), Ok(from)) = (weights.get(&name), source.weights.get(&name)) else { continue };
        let mut tensor = tensor.clone();
        let sizes = tensor.shape.iter().zip(&from.shape);
        let places: Vec<Vec<Place>> =
            axes.iter().zip(sizes).map(|(axis, (size, theirs))| common.places(*axis, *size, *theirs)).collect();
        transplant(&mut tensor, from, &places);
        weights.insert(name, tensor);
    }
}

/// Multiplies the residual scalars of the backbone into the last layers of their sublayers, and sets them to 1. The model
/// computes what it computed before. A training of [`Recipe::Plain`](crate::Recipe::Plain) takes them as 1.
pub(crate) fn fold_residuals(weights: &mut Weights) {
    const SUBLAYERS: [(&str, &str); 2] = [("attention_residual", "attention.output"), ("ffn_residual", "ffn.outer")];
    let names: Vec<String> = weights.iter().map(|(name, _)| name.to_owned()).collect();
    for name in names.iter().filter(|name| name.starts_with("backbone.")) {
        for (scalar, layer) in SUBLAYERS {
            let Some(block) = name.strip_suffix(scalar) else { continue };
            let factor = weights.get(name).map_or(1.0, |tensor| tensor.data[0]);
            for scaled in [format!("{block}{layer}.weight"), format!("{block}{layer}.bias")] {
                let Ok(tensor) = weights.get(&scaled) else { continue };
                let data = tensor.data.iter().map(|value| value * factor).collect();
                let tensor = HostTensor { shape: tensor.shape.clone(), data };
                weights.insert(scaled, tensor);
            }
            weights.insert(name.clone(), HostTensor { shape: Vec::new(), data: vec![1.0] });
        }
    }
}

/// Whether a model scores items by the table by which it reads them.
pub fn is_tied(checkpoint: &Checkpoint) -> bool {
    let table = |name| checkpoint.weights.get(name).ok();
    let tables = (table(ITEM_EMBEDDING), table(OUTPUT_WEIGHT));
    matches!(tables, (Some(read), Some(scored)) if read == scored)
}

impl Common {
    /// The places of an axis of `size` places, which has `theirs` in the source.
    fn places(&self, axis: Axis, size: usize, theirs: usize) -> Vec<Place> {
        match axis {
            Axis::Items => self.items.clone(),
            Axis::Routes => self.routes.clone(),
            Axis::Positions(Positions::Newest) => suffix(size, theirs),
            Axis::Positions(Positions::Oldest | Positions::Relative) => prefix(size, theirs),
            Axis::HeadedHidden => head_places(self.heads, size, theirs),
            Axis::Layers | Axis::Heads | Axis::Embedding | Axis::Hidden | Axis::Inner => prefix(size, theirs),
            Axis::RouterHidden | Axis::RouterInner => prefix(size, theirs),
        }
    }
}

/// The padding and the items.
fn item_places(ids: &[Box<str>], source: &Catalogue) -> Vec<Place> {
    let items = ids.iter().map(|id| source.item(id).map_or(Place::Mean, |item| Place::Source(item.column())));
    std::iter::once(Place::Source(0)).chain(items).collect()
}

fn route_places(config: &ModelConfig, source: &RouteSpace) -> Vec<Place> {
    // The caller has checked the configuration.
    let Ok(space) = config.check() else { return Vec::new() };
    let place = |name: &str| source.parse(name).map_or(Place::Initial, |route| Place::Source(route.index()));
    space.routes().map(|route| place(space.name(route))).collect()
}

/// The first ones of both.
fn prefix(size: usize, theirs: usize) -> Vec<Place> {
    (0..size).map(|index| if index < theirs { Place::Source(index) } else { Place::Initial }).collect()
}

/// The last ones of both.
fn suffix(size: usize, theirs: usize) -> Vec<Place> {
    let place = |index: usize| (index + theirs).checked_sub(size).map_or(Place::Initial, Place::Source);
    (0..size).map(place).collect()
}

/// A prefix of each head.
fn head_places(heads: usize, width: usize, theirs: usize) -> Vec<Place> {
    let (size, their_size) = (width / heads, theirs / heads);
    let place = |index: usize| match (index / size, index % size) {
        (head, within) if within < their_size => Place::Source(head * their_size + within),
        _ => Place::Initial,
    };
    (0..width).map(place).collect()
}

/// Copies the values of a weight whose places are all in the source.
fn transplant(tensor: &mut HostTensor, source: &HostTensor, axes: &[Vec<Place>]) {
    let mean = axes.first().is_some_and(|axis| axis.contains(&Place::Mean)).then(|| mean_item(source));
    for (index, value) in tensor.data.iter_mut().enumerate() {
        let (mut rest, mut stride, mut offset) = (index, 1, Some(0));
        let mut is_mean = false;
        for (axis, size) in axes.iter().zip(&source.shape).rev() {
            match axis[rest % axis.len()] {
                Place::Source(at) => offset = offset.map(|offset| offset + at * stride),
                Place::Mean => is_mean = true,
                Place::Initial => offset = None,
            }
            (rest, stride) = (rest / axis.len(), stride * size);
        }
        match (offset, &mean) {
            (Some(offset), Some(mean)) if is_mean => *value = mean[offset],
            (Some(offset), _) => *value = source.data[offset],
            (None, _) => {}
        }
    }
}

/// The mean row of the items of a table. Row 0 is the padding's.
fn mean_item(table: &HostTensor) -> Vec<f32> {
    let rows = table.shape.first().copied().unwrap_or(1);
    let columns = (table.data.len() / rows.max(1)).max(1);
    let mut sums = vec![0.0_f64; columns];
    for row in table.data.chunks_exact(columns).skip(1) {
        sums.iter_mut().zip(row).for_each(|(sum, value)| *sum += f64::from(*value));
    }
    let items = rows.saturating_sub(1).max(1) as f64;
    sums.into_iter().map(|sum| (sum / items) as f32).collect()
}

#[cfg(test)]
mod tests {
    use super::Place::{Initial, Mean, Source};
    use super::*;

    #[test]
    fn a_weight_takes_what_both_models_have() {
        let source = HostTensor { shape: vec![3, 2], data: vec![0.0, 0.5, 1.0, 2.0, 3.0, 6.0] };
        let mut tensor = HostTensor { shape: vec![4, 3], data: vec![9.0; 12] };
        let axes = [vec![Source(0), Source(2), Mean, Initial], prefix(3, 2)];
        transplant(&mut tensor, &source, &axes);
        assert_eq!(tensor.data, [0.0, 0.5, 9.0, 3.0, 6.0, 9.0, 2.0, 4.0, 9.0, 9.0, 9.0, 9.0]);
        let mut scalar = HostTensor { shape: vec![], data: vec![9.0] };
        transplant(&mut scalar, &HostTensor { shape: vec![], data: vec![1.0] }, &[]);
        assert_eq!(scalar.data, [1.0]);
    }

    #[test]
    fn positions_and_heads_keep_their_meaning() {
        assert_eq!(suffix(2, 3), [Source(1), Source(2)]);
        assert_eq!(suffix(3, 2), [Initial, Source(0), Source(1)]);
        assert_eq!(prefix(3, 2), [Source(0), Source(1), Initial]);
        // Two heads of 3 out of two heads of 2, and the other way round.
        assert_eq!(head_places(2, 6, 4), [Source(0), Source(1), Initial, Source(2), Source(3), Initial]);
        assert_eq!(head_places(2, 4, 6), [Source(0), Source(1), Source(3), Source(4)]);
    }
}
