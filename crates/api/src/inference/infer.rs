use futures_util::stream::TryStreamExt;

use super::model::{INPUTS, OutputName, named};
use super::parameters::Parameters;
use super::tensor::{Input, Output, Values, input_problem};
use crate::answer_budget::AnswerShare;
use crate::answer_size::AnswerForm;
use crate::call::{Call, pin, slowest};
use crate::limits::{MAX_RANKED, MAX_ROWS, check_ids};
use crate::reservation::{Reservation, check_size};
use crate::validate::Accepted;
use crate::wire::{ExternalId, RecommendRequest, Recommendation, UserId};
use crate::{Problem, exact};
use canet_serving::{Generation, Recommender, Serving, Times};

/// Most items in the answer to one call, padding included.
const MAX_ITEMS: usize = MAX_RANKED as usize;

/// An inference request over either transport.
#[derive(Debug, Default)]
pub(super) struct InferRequest {
    pub(super) model: String,
    /// Empty means any version.
    pub(super) version: String,
    /// The answer repeats it.
    pub(super) id: Option<String>,
    pub(super) inputs: Vec<Input>,
    pub(super) parameters: Parameters,
    /// Names of the requested outputs. Empty means all.
    pub(super) outputs: Vec<String>,
}

/// The answer to an inference request.
pub(super) struct Inferred<'a> {
    pub(super) model: &'a str,
    /// The version that answered every row, or else the live one.
    pub(super) version: u64,
    /// The version of each row, if they differ.
    pub(super) versions: Option<String>,
    pub(super) id: Option<String>,
    /// The outputs in the requested order.
    outputs: Vec<OutputName>,
    rows: Vec<Recommendation<'a>>,
    /// Items of each row, padding included.
    k: usize,
    pub(super) times: Times,
}

impl Inferred<'_> {
    /// The output tensors.
    pub(super) fn outputs(&self) -> Vec<Output<'_>> {
        self.outputs.iter().map(|output| output.tensor(&self.rows, self.k)).collect()
    }
}

/// Pins the generations that will answer a request.
///
/// # Errors
/// 404 for another model, 422 without a history or with too many rows, 503 if no model is ready.
pub(super) fn pin_named(recommender: &Recommender, request: &InferRequest) -> Result<Serving, Problem> {
    let rows = history(request)?.shape.first().copied().unwrap_or(1);
    if rows > MAX_ROWS {
        let detail = format!("input \"history\" has {rows} rows: at most {MAX_ROWS} in one call");
        return Err(Problem::invalid("history", detail));
    }
    let serving = pin(recommender, rows)?;
    named(serving, &request.model, &request.version)
}

fn history(request: &InferRequest) -> Result<&Input, Problem> {
    input(request, "history")?.ok_or_else(|| {
        Problem::invalid("inputs", "input \"history\" is missing: BYTES [B], each a JSON list of ids, or INT64 [B, L]")
    })
}

/// The rows of a request, and what its answer will hold.
pub(super) struct Rows {
    id: Option<String>,
    outputs: Vec<OutputName>,
    rows: Vec<RecommendRequest>,
    /// Items of each row's answer.
    k: usize,
}

/// Reads the rows of a request, which takes long for a large one. It checks what all rows share, even if there are none.
///
/// # Errors
/// 422 with the wrong input, output or parameter.
pub(super) fn read_rows(call: Call<'_>, request: InferRequest) -> Result<Rows, Problem> {
    // Dense ids are those of the live model, whose description clients read.
    let generation = &call.serving.live;
    let outputs = outputs(&request)?;
    let k = match input(&request, "k")? {
        Some(Input { shape, values: Values::Int64(values), .. }) if shape.as_slice() == [1] => Some(count(values[0])?),
        Some(_) => return Err(input_problem("k", "it must be INT64 of shape [1]")),
        None => None,
    };
    let row = |history| {
        let mut row = RecommendRequest::new(history);
        row.k = k;
        request.parameters.apply(&mut row);
        row
    };
    call.accept(row(Vec::new()))?;
    let k = usize::try_from(row(Vec::new()).k(generation.model.catalogue().len())).unwrap_or(usize::MAX);
    let mut rows: Vec<RecommendRequest> = histories(history(&request)?, generation)?.into_iter().map(row).collect();
    if let Some(input) = input(&request, "history_start")? {
        let starts = history_starts(input, rows.len())?;
        rows.iter_mut().zip(starts).for_each(|(row, start)| row.history_start = Some(start));
    }
    if let Some(input) = input(&request, "user")? {
        let users = users(input, rows.len())?;
        for (row, user) in rows.iter_mut().zip(users) {
            row.user = user;
        }
    }
    if k.saturating_mul(rows.len()) > MAX_ITEMS {
        let detail = format!("{} rows of {k} items are too many for one call: at most {MAX_ITEMS} items", rows.len());
        return Err(Problem::invalid("k", detail));
    }
    Ok(Rows { id: request.id, outputs, rows, k })
}

/// Recommends for every row. If any row fails, the whole call fails. `answers` and `form` say where and how the answer will be
/// written.
///
/// # Errors
/// 429 if there is no room for the answer, or the problem of the row that failed.
pub(super) async fn infer<'a>(
    call: Call<'a>,
    Rows { id, outputs, rows, k }: Rows,
    answers: &AnswerShare,
    form: AnswerForm,
) -> Result<(Inferred<'a>, Reservation), Problem> {
    let Call { recommender, serving, .. } = call;
    let sizes = serving
        .generations()
        .map(|generation| form.tensors(generation, rows.len(), k, id.as_deref().unwrap_or_default()));
    let size = sizes.max_by_key(|size| size.bytes).unwrap_or_default();
    let reservation = Reservation::new(recommender, answers, size)?;

    // The first row that fails withdraws the others, which are counted as cancelled.
    let accepted = rows.into_iter().enumerate().map(|(place, row)| {
        let accepted = call.accept(row).map_err(|problem| in_row(problem, place))?;
        Ok(Accepted { place, ..accepted })
    });
    let answered: Vec<_> = call.answers(accepted).try_collect().await?;
    let times = slowest(answered.iter().map(|answered| answered.times));
    let rows: Vec<Recommendation<'_>> = answered.into_iter().map(|answered| answered.recommendation).collect();
    let texts = rows.iter().flat_map(|row| row.items.ids()).map(|id| form.written_item(id.len()));
    check_size(texts.sum(), reservation.bytes())?;
    let model = &serving.live.model;
    let (version, versions) = versions(&rows, model.version());
    Ok((Inferred { model: model.name(), version, versions, id, outputs, rows, k, times }, reservation))
}

/// Names the row, if the problem is with what each row has of its own.
fn in_row(problem: Problem, place: usize) -> Problem {
    match problem.field.as_deref() {
        Some(field @ ("history" | "history_start" | "user")) => {
            let (field, detail) = (format!("{field}[{place}]"), format!("row {place}: {}", problem.detail));
            Problem { detail: detail.into(), ..problem }.at(field)
        }
        _ => problem,
    }
}

/// The version that answered all rows. If they differ, `live`, and the version of each row as a list with commas.
fn versions(rows: &[Recommendation<'_>], live: u64) -> (u64, Option<String>) {
    let mut each = rows.iter().map(|row| row.model.version);
    let first = each.next().unwrap_or(live);
    if each.all(|version| version == first) {
        return (first, None);
    }
    let each: Vec<String> = rows.iter().map(|row| row.model.version.to_string()).collect();
    (live, Some(each.join(",")))
}

fn count(k: i64) -> Result<u64, Problem> {
    u64::try_from(k).map_err(|_| Problem::invalid("k", format!("`k` is {k}: it must be at least 1")))
}

/// The input called `name`.
///
/// # Errors
/// 422 if the request has it twice, or has an unknown input.
fn input<'a>(request: &'a InferRequest, name: &str) -> Result<Option<&'a Input>, Problem> {
    let unknown = |input: &&Input| INPUTS.iter().all(|known| known.name != input.name);
    if let Some(unknown) = request.inputs.iter().find(unknown) {
        return Err(input_problem(
            &unknown.name,
            "there is no such input: send `history` and optionally `k`, `history_start` and `user`",
        ));
    }
    let mut found = request.inputs.iter().filter(|input| input.name == name);
    match (found.next(), found.next()) {
        (_, Some(_)) => Err(input_problem(name, "it is sent twice")),
        (found, None) => Ok(found),
    }
}

/// The requested outputs, or all if the request names none.
///
/// # Errors
/// 422 if one is unknown or named twice. So an answer never exceeds one tensor of each.
fn outputs(request: &InferRequest) -> Result<Vec<OutputName>, Problem> {
    if request.outputs.is_empty() {
        return Ok(OutputName::ALL.to_vec());
    }
    let mut asked = Vec::new();
    for name in &request.outputs {
        match OutputName::ALL.into_iter().find(|known| known.signature().name == name) {
            Some(output) if !asked.contains(&output) => asked.push(output),
            Some(_) => return Err(Problem::invalid("outputs", format!("output {name:?} is requested twice"))),
            None => {
                let detail = format!("there is no output {name:?}: ask for items, scores or route");
                return Err(Problem::invalid("outputs", detail));
            }
        }
    }
    Ok(asked)
}

/// Each row's history as external ids.
fn histories(input: &Input, generation: &Generation) -> Result<Vec<Vec<ExternalId>>, Problem> {
    match (&input.values, input.shape.as_slice()) {
        (Values::Bytes(lists), [_]) => {
            let list = |(row, json): (usize, &Vec<u8>)| {
                exact::from_slice(json).map_err(|error| {
                    Problem::invalid(
                        format!("history[{row}]"),
                        format!("history[{row}] is not a JSON list of ids: {error}"),
                    )
                })
            };
            lists.iter().enumerate().map(list).collect()
        }
        (Values::Int64(ids), [rows, length]) => {
            let ids_of = |row: usize| {
                let dense = ids[row * length..][..*length].iter().filter(|id| **id != 0);
                // Before they become text, which takes many times the memory.
                check_ids("history", dense.clone().count())?;
                dense.map(|dense| external(*dense, row, generation)).collect()
            };
            (0..*rows).map(ids_of).collect()
        }
        _ => Err(input_problem(
            "history",
            "it must be BYTES [B], each a JSON list of ids, or INT64 [B, L] of dense ids, padded with 0",
        )),
    }
}

/// How many earlier items each row leaves out.
fn history_starts(input: &Input, rows: usize) -> Result<Vec<u64>, Problem> {
    let (Values::Int64(starts), [count]) = (&input.values, input.shape.as_slice()) else {
        return Err(input_problem("history_start", "it must be INT64 [B], a number for each row of `history`"));
    };
    if *count != rows {
        return Err(input_problem("history_start", &format!("it has {count} numbers for {rows} rows of `history`")));
    }
    let start = |(row, start): (usize, &i64)| {
        let wrong = |_| {
            Problem::invalid(
                format!("history_start[{row}]"),
                format!("history_start[{row}] is {start}: it must be at least 0"),
            )
        };
        u64::try_from(*start).map_err(wrong)
    };
    starts.iter().enumerate().map(start).collect()
}

/// Each row's user. `None` if the row's id is empty.
fn users(input: &Input, rows: usize) -> Result<Vec<Option<UserId>>, Problem> {
    let (Values::Bytes(users), [count]) = (&input.values, input.shape.as_slice()) else {
        return Err(input_problem("user", "it must be BYTES [B], an id for each row of `history`"));
    };
    if *count != rows {
        return Err(input_problem("user", &format!("it has {count} ids for {rows} rows of `history`")));
    }
    let user = |(row, user): (usize, &Vec<u8>)| match str::from_utf8(user) {
        Ok(user) => Ok(UserId::given(user)),
        Err(_) => Err(Problem::invalid(format!("user[{row}]"), format!("user[{row}] is not UTF-8"))),
    };
    users.iter().enumerate().map(user).collect()
}

/// The external id of a dense one. An unknown dense id is an error, because the caller cannot have it from this model.
fn external(dense: i64, row: usize, generation: &Generation) -> Result<ExternalId, Problem> {
    let ids = generation.model.catalogue().ids();
    let place = dense.checked_sub(1).and_then(|place| usize::try_from(place).ok());
    place.and_then(|place| ids.get(place)).cloned().map(ExternalId).ok_or_else(|| {
        let detail =
            format!("history[{row}] has the dense id {dense}: dense ids are 1 to {}, and 0 is padding", ids.len());
        Problem::invalid(format!("history[{row}]"), detail)
    })
}
