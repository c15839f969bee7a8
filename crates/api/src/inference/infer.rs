use futures_util::stream::{self, StreamExt, TryStreamExt};

use super::model::{INPUTS, check_name};
use super::outputs::OutputName;
use super::parameters::Parameters;
use super::tensor::{Input, Output, Values, fault};
use crate::Problem;
use crate::answer::{Call, pin, slowest};
use crate::arrival::Arrival;
use crate::validate::{accept, check_ids};
use crate::wire::{ItemId, RecommendRequest, Recommendation};
use canet_serving::{Generation, Recommender, Times};

/// Most items that one call may be answered with, those that fill its rows up included.
const MAX_ITEMS: usize = 1 << 20;

/// Most inputs of a call, and most outputs that it asks for: more than there are, so that one too many is told by name.
const MAX_TENSORS: usize = 64;

/// Checks how many inputs or outputs, as `name` says, a call has.
///
/// # Errors
/// 422 where they are too many.
pub(crate) fn check_tensors(name: &'static str, count: usize) -> Result<(), Problem> {
    if count <= MAX_TENSORS {
        return Ok(());
    }
    Err(Problem::invalid(name, format!("{count} {name} are too many for one call: at most {MAX_TENSORS}")))
}

/// An inference request, whatever it came by.
#[derive(Debug, Default)]
pub(super) struct InferRequest {
    pub(super) model: String,
    /// Empty: whichever serves.
    pub(super) version: String,
    pub(super) inputs: Vec<Input>,
    pub(super) parameters: Parameters,
    /// Names of the outputs that are asked for; empty: all.
    pub(super) outputs: Vec<String>,
}

/// The answer to an inference request.
#[derive(Debug)]
pub(super) struct Inferred {
    pub(super) model: String,
    pub(super) version: u64,
    /// As they were asked for.
    pub(super) outputs: Vec<Output>,
    pub(super) times: Times,
}

/// Recommends for every row; one that fails fails the call.
///
/// # Errors
/// 404 for another model, 422 with the input, output or parameter at fault, or why a row was refused.
pub(super) async fn infer(
    recommender: &Recommender,
    request: InferRequest,
    arrival: Arrival,
) -> Result<Inferred, Problem> {
    let history = input(&request, "history")?.ok_or_else(|| {
        Problem::invalid("inputs", "input \"history\" is missing: BYTES [B], each a JSON list of ids, or INT64 [B, L]")
    })?;
    let generation = pin(recommender, history.shape.first().copied().unwrap_or(1))?;
    check_name(&generation, &request.model, &request.version)?;
    let outputs = outputs(&request)?;
    let k = match input(&request, "k")? {
        Some(Input { shape, values: Values::Int64(values), .. }) if shape.as_slice() == [1] => Some(count(values[0])?),
        Some(_) => return Err(fault("k", "it must be INT64 of shape [1]")),
        None => None,
    };
    let row = |history| {
        let mut row = RecommendRequest::new(history);
        row.k = k;
        request.parameters.apply(&mut row);
        row
    };
    // What all rows ask for is checked once, and where there are none too.
    accept(row(Vec::new()), &generation, arrival)?;
    let k = usize::try_from(row(Vec::new()).k(generation.model.catalogue().len())).unwrap_or(usize::MAX);
    let rows: Vec<RecommendRequest> = histories(history, &generation)?.into_iter().map(row).collect();
    if k.saturating_mul(rows.len()) > MAX_ITEMS {
        let detail = format!("{} rows of {k} items are too many for one call: at most {MAX_ITEMS} items", rows.len());
        return Err(Problem::invalid("k", detail));
    }

    let call = Call::new(recommender, &generation, arrival);
    // All at once they would be more than may wait, and a call like this could never succeed, however idle the server.
    // The first that fails withdraws the others: they are counted as cancelled.
    let answers = stream::iter(rows.into_iter().map(|row| call.answer(row)));
    let answered: Vec<_> = answers.buffered(recommender.rows_at_once(&generation)).try_collect().await?;
    let times = slowest(answered.iter().map(|answered| answered.times));
    let rows: Vec<Recommendation<'_>> = answered.into_iter().map(|answered| answered.recommendation).collect();
    Ok(Inferred {
        model: generation.model.name().to_owned(),
        version: generation.model.version(),
        outputs: outputs.into_iter().map(|output| output.of(&rows, k)).collect(),
        times,
    })
}

fn count(k: i64) -> Result<u64, Problem> {
    u64::try_from(k).map_err(|_| Problem::invalid("k", format!("`k` is {k}: it must be at least 1")))
}

/// The input of this name.
///
/// # Errors
/// It stands there twice, or another one does that is not known.
fn input<'a>(request: &'a InferRequest, name: &str) -> Result<Option<&'a Input>, Problem> {
    let unknown = |input: &&Input| INPUTS.iter().all(|known| known.name != input.name);
    if let Some(unknown) = request.inputs.iter().find(unknown) {
        return Err(fault(&unknown.name, "there is no such input: send `history` and, if you like, `k`"));
    }
    let mut found = request.inputs.iter().filter(|input| input.name == name);
    match (found.next(), found.next()) {
        (_, Some(_)) => Err(fault(name, "it is there twice")),
        (found, None) => Ok(found),
    }
}

/// The outputs that are asked for, all where none is named.
///
/// # Errors
/// One is not known, or stands there twice: an answer is no larger than all of them.
fn outputs(request: &InferRequest) -> Result<Vec<OutputName>, Problem> {
    if request.outputs.is_empty() {
        return Ok(OutputName::ALL.to_vec());
    }
    let mut asked = Vec::new();
    for name in &request.outputs {
        match OutputName::ALL.into_iter().find(|known| known.signature().name == name) {
            Some(output) if !asked.contains(&output) => asked.push(output),
            Some(_) => return Err(Problem::invalid("outputs", format!("output {name:?} is asked for twice"))),
            None => {
                let detail = format!("there is no output {name:?}: ask for items, scores or route");
                return Err(Problem::invalid("outputs", detail));
            }
        }
    }
    Ok(asked)
}

/// Each row's history as external ids.
fn histories(input: &Input, generation: &Generation) -> Result<Vec<Vec<ItemId>>, Problem> {
    match (&input.values, input.shape.as_slice()) {
        (Values::Bytes(lists), [_]) => {
            let list = |(row, json): (usize, &Vec<u8>)| {
                serde_json::from_slice(json).map_err(|error| {
                    Problem::invalid(
                        format!("history[{row}]"),
                        format!("history[{row}] is no JSON list of ids: {error}"),
                    )
                })
            };
            lists.iter().enumerate().map(list).collect()
        }
        (Values::Int64(ids), [rows, length]) => {
            let ids_of = |row: usize| {
                let dense = ids[row * length..][..*length].iter().filter(|id| **id != 0);
                // Now: as text they take many times the room.
                check_ids("history", dense.clone().count())?;
                dense.map(|dense| external(*dense, row, generation)).collect()
            };
            (0..*rows).map(ids_of).collect()
        }
        _ => Err(fault("history", "it must be BYTES [B], each a JSON list of ids, or INT64 [B, L], dense ids and 0")),
    }
}

/// The external id of a dense one. A dense id that is not there is none that the caller could have from this model.
fn external(dense: i64, row: usize, generation: &Generation) -> Result<ItemId, Problem> {
    let ids = generation.model.catalogue().ids();
    let place = dense.checked_sub(1).and_then(|place| usize::try_from(place).ok());
    place.and_then(|place| ids.get(place)).cloned().map(ItemId).ok_or_else(|| {
        let detail = format!("history[{row}] has the dense id {dense}: they are from 1 to {}, and 0 pads", ids.len());
        Problem::invalid(format!("history[{row}]"), detail)
    })
}
