use std::path::Path;

use safetensors::Dtype;

use super::probes::Probe;
use super::tensors::{Array, Slot, TensorFile, size_limit, write as write_tensors};
use super::{CheckpointError, Probes, ProbesError, files};
use crate::ModelConfig;
use canet_domain::{History, Item, Ranked, RouteSpace};

const HISTORIES: &str = "histories";
const ROUTES: &str = "routes";
const TOP_ITEMS: &str = "items";
const TOP_SCORES: &str = "scores";

/// What `probes.safetensors` with `count` probes holds: histories 0-padded on the left, routes by their place in
/// the route order, dense ids and scores of the best items.
fn slots(count: usize, config: &ModelConfig) -> Vec<Slot> {
    let top = Probes::top_length(config);
    [
        (HISTORIES, Dtype::I64, vec![count, config.max_len]),
        (ROUTES, Dtype::I64, vec![count]),
        (TOP_ITEMS, Dtype::I64, vec![count, top]),
        (TOP_SCORES, Dtype::F32, vec![count, top]),
    ]
    .map(|(name, dtype, shape)| Slot { name: name.to_owned(), dtype, shape })
    .into()
}

/// Writes probes that were checked.
pub(super) fn write(path: &Path, probes: &Probes, config: &ModelConfig) -> Result<(), CheckpointError> {
    let (count, max_len, top) = (probes.list.len(), config.max_len, Probes::top_length(config));
    let mut histories = Vec::with_capacity(count * max_len);
    for probe in &probes.list {
        histories.resize(histories.len() + max_len - probe.history.len(), 0);
        histories.extend(probe.history.items().iter().map(|item| i64::from(item.id())));
    }
    let routes: Vec<i64> = probes.list.iter().map(|probe| probe.route.index() as i64).collect();
    let ranked = || probes.list.iter().flat_map(|probe| &probe.top);
    let items: Vec<i64> = ranked().map(|ranked| i64::from(ranked.item.id())).collect();
    let scores: Vec<f32> = ranked().map(|ranked| ranked.score).collect();
    let tensors = vec![
        (HISTORIES, Array::Integers { shape: vec![count, max_len], values: &histories }),
        (ROUTES, Array::Integers { shape: vec![count], values: &routes }),
        (TOP_ITEMS, Array::Integers { shape: vec![count, top], values: &items }),
        (TOP_SCORES, Array::Floats { shape: vec![count, top], values: &scores }),
    ];
    write_tensors(path, tensors)
}

/// Reads probes and checks that they are of a model of this configuration.
pub(super) fn read(
    path: &Path,
    sha256: &str,
    config: &ModelConfig,
    space: &RouteSpace,
) -> Result<Probes, CheckpointError> {
    let bad = |source| CheckpointError::Probes { path: path.to_owned(), source };
    let (file, size) = files::open_verified(path, sha256, size_limit(&slots(Probes::MAX, config)))?;
    let mut file = TensorFile::open(path, file, size)?;
    let count = file.shape(ROUTES).and_then(<[usize]>::first).copied().unwrap_or(0);
    if count == 0 || count > Probes::MAX {
        return Err(bad(ProbesError::Count(count)));
    }
    file.check(&slots(count, config))?;
    let (histories, routes) = (file.integers(HISTORIES)?, file.integers(ROUTES)?);
    let (items, scores) = (file.integers(TOP_ITEMS)?, file.floats(TOP_SCORES)?);
    let (max_len, top) = (config.max_len, Probes::top_length(config));
    let rows = histories.chunks_exact(max_len).zip(&routes).zip(items.chunks_exact(top).zip(scores.chunks_exact(top)));
    let mut list = Vec::with_capacity(count);
    for (probe, ((history, route), (items, scores))) in rows.enumerate() {
        let history = parse_history(history, max_len)
            .ok_or(ProbesError::History { probe, max_len, items: config.items })
            .map_err(bad)?;
        let route = usize::try_from(*route)
            .ok()
            .and_then(|index| space.route(index))
            .ok_or(ProbesError::Route { probe, last: space.len() - 1 })
            .map_err(bad)?;
        let ranked = items.iter().zip(scores).map(|(id, score)| Some(Ranked { item: item(*id)?, score: *score }));
        let top = ranked.collect::<Option<_>>().ok_or(ProbesError::Top { probe, count: top }).map_err(bad)?;
        list.push(Probe { history, route, top });
    }
    let probes = Probes { list };
    probes.check(config, space).map_err(bad)?;
    Ok(probes)
}

/// Items after the padding; zeros between them are refused.
fn parse_history(row: &[i64], max_len: usize) -> Option<History> {
    let items: Option<Vec<Item>> = row.iter().skip_while(|id| **id == 0).map(|id| item(*id)).collect();
    History::new(&items?, max_len).ok()
}

fn item(id: i64) -> Option<Item> {
    u32::try_from(id).ok().and_then(Item::new)
}
