use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use super::Problem;
use super::allowance::Allowance;
use canet_catalogue::KeySummary;
use canet_domain::{Proportion, Route};
use canet_model::ModelConfig;
use canet_model::checkpoint::{DataRecord, FlopsRecord, MetricsRecord, rfc3339};
use canet_serving::metrics::{Accuracy, Latency, Traffic};
use canet_serving::{Candidate, CatalogueView, Generation, Recommender};

/// The checkpoint that serves, and the candidate.
#[derive(Serialize, ToSchema)]
pub(crate) struct Model<'a> {
    #[serde(flatten)]
    live: ModelDescription<'a>,
    /// The checkpoint that answers a share of the users. `null` without a candidate.
    candidate: Option<CandidateModel<'a>>,
}

/// The candidate.
#[derive(Serialize, ToSchema)]
struct CandidateModel<'a> {
    /// The share of the users whom it answers.
    share: f64,
    #[serde(flatten)]
    model: ModelDescription<'a>,
}

/// One checkpoint.
#[derive(Serialize, ToSchema)]
struct ModelDescription<'a> {
    name: &'a str,
    version: u64,
    /// SHA-256 of the checkpoint's list of files and their digests.
    digest: &'a str,
    /// UTC, RFC 3339.
    created: &'a str,
    config: &'a ModelConfig,
    data: &'a DataRecord,
    metrics: &'a MetricsRecord,
    flops: FlopsRecord,
    /// The number format of its layers: fp32 or bf16.
    precision: &'static str,
    /// Whether a request that does not say leaves out the items of its history.
    exclude_seen: bool,
    /// The route of every request that names none. `null` if the router chooses.
    #[schema(required)]
    fixed_route: Option<&'a str>,
    /// `null` if the checkpoint has no calibration. A request's `budget` then changes nothing.
    budget: Option<Budget<'a>>,
    /// The catalogue file over the checkpoint's items. `null` if the server has none.
    #[schema(required)]
    catalogue: Option<CatalogueDescription>,
}

/// A catalogue file.
#[derive(Serialize, ToSchema)]
pub(crate) struct CatalogueDescription {
    /// SHA-256 of the file.
    pub(crate) digest: String,
    /// When the server read it: UTC, RFC 3339.
    pub(crate) read: String,
    /// Items in the file.
    pub(crate) items: usize,
    /// Items of the checkpoint that are hidden.
    pub(crate) hidden: usize,
    /// Ids of the file that the checkpoint does not know.
    pub(crate) unknown: usize,
    /// Items of the checkpoint that the file lacks. They are visible and have no values.
    pub(crate) missing: usize,
    /// The keys that `filter` and `max_per` may name.
    pub(crate) keys: Vec<CatalogueKey>,
}

/// A key of a catalogue file.
#[derive(Serialize, ToSchema)]
pub(crate) struct CatalogueKey {
    pub(crate) name: String,
    /// How many values the key has.
    pub(crate) values: usize,
}

impl CatalogueDescription {
    /// Of a state of the file.
    pub(crate) fn of(view: &CatalogueView) -> CatalogueDescription {
        let index = &view.index;
        let key = |key: KeySummary<'_>| CatalogueKey { name: key.name.to_owned(), values: key.values.len() };
        CatalogueDescription {
            digest: index.table().sha256().to_owned(),
            read: rfc3339(view.read_at),
            items: index.table().len(),
            hidden: index.hidden(),
            unknown: index.unknown(),
            missing: index.missing(),
            keys: index.keys().map(key).collect(),
        }
    }
}

/// How a compute budget selects routes.
#[derive(Serialize, ToSchema)]
struct Budget<'a> {
    /// The budget of requests that name none.
    default: f64,
    /// The calibrated budgets, ascending. Between two of them the router's bias is interpolated, or the smaller one applies if
    /// a route stands for either. Above the last one requests spend no more.
    points: Vec<BudgetPoint<'a>>,
}

/// A budget, and the share of the full model's FLOPs that validation data spent under it.
#[derive(Serialize, ToSchema)]
#[schema(as = Spent)]
struct BudgetPoint<'a> {
    budget: f64,
    /// The route of every request under this budget. `null` if the router decides.
    route: Option<&'a str>,
    spent: f64,
}

/// Every route of the checkpoint that serves, and of the candidate.
#[derive(Serialize, ToSchema)]
pub(crate) struct Routes<'a> {
    #[serde(flatten)]
    live: RouteTable<'a>,
    /// The candidate's routes. `null` without a candidate.
    candidate: Option<CandidateRoutes<'a>>,
}

/// The routes of the candidate.
#[derive(Serialize, ToSchema)]
struct CandidateRoutes<'a> {
    version: u64,
    /// The share of the users whom it answers.
    share: f64,
    #[serde(flatten)]
    table: RouteTable<'a>,
}

/// The routes of one checkpoint.
#[derive(Serialize, ToSchema)]
struct RouteTable<'a> {
    /// History length of the costs.
    length: usize,
    router_flops: u64,
    full_flops: u64,
    /// Start of this version's counts and latencies: UTC, RFC 3339.
    since: String,
    routes: Vec<RouteEntry<'a>>,
}

#[derive(Serialize, ToSchema)]
struct RouteEntry<'a> {
    name: &'a str,
    hidden: usize,
    layers: usize,
    embedding: usize,
    /// The slice's FLOPs, without the router.
    flops: u64,
    /// Share of the full model's FLOPs that the slice saves, without the router.
    saved: f64,
    /// Requests that this route answered.
    rows: u64,
    /// Share of the requests that any route answered. 0 before the first.
    share: f64,
    /// From a request's arrival to its answer. `null` before the first.
    #[schema(required)]
    latency: Option<LatencyMs>,
    /// Over all answers of this version that were judged. The router sends other users over other routes, so routes cannot be
    /// compared by it.
    accuracy: HitRate,
    /// Over the judged answers whose route was drawn at random (`--explore`). It compares routes on comparable users.
    explored: HitRate,
}

/// How often the user's next item was among the first ten of an answer.
#[derive(Serialize, ToSchema)]
struct HitRate {
    /// Answers that the user's next request judged.
    judged: u64,
    /// Those that had the next item.
    hits: u64,
    /// `hits / judged`. `null` before the first.
    #[schema(required)]
    rate: Option<f64>,
    /// Wilson's 95 % interval of the rate: its lower and its upper bound. `null` before the first.
    #[schema(required)]
    interval: Option<[f64; 2]>,
}

impl From<Proportion> for HitRate {
    fn from(proportion: Proportion) -> HitRate {
        let Proportion { successes, trials } = proportion;
        HitRate { judged: trials, hits: successes, rate: proportion.share(), interval: proportion.interval() }
    }
}

/// Latency in milliseconds. Quantiles are interpolated within the buckets of `canet_route_latency_seconds`.
#[derive(Serialize, ToSchema)]
struct LatencyMs {
    mean: f64,
    p50: f64,
    p99: f64,
}

impl From<Latency> for LatencyMs {
    fn from(seconds: Latency) -> LatencyMs {
        LatencyMs { mean: seconds.mean * 1e3, p50: seconds.p50 * 1e3, p99: seconds.p99 * 1e3 }
    }
}

/// `GET /model`.
///
/// # Errors
/// 429 if there is no room for the answer, 503 if no model is ready.
#[utoipa::path(
    get,
    path = "/model",
    operation_id = "model",
    tag = "Describe",
    summary = "The model",
    description = "The checkpoint that serves: its training data, sizes, quality and cost. Beside it the candidate, if there is one.",
    responses((status = 200, description = "The checkpoint", body = Model))
)]
pub(crate) async fn model(State(recommender): State<Arc<Recommender>>, request: Request) -> Result<Response, Problem> {
    let serving = recommender.serving()?;
    let candidate = serving.candidate.as_ref().map(|Candidate { generation, split }| CandidateModel {
        share: split.share(),
        model: ModelDescription::of(generation),
    });
    respond(&request, &Model { live: ModelDescription::of(&serving.live), candidate })
}

impl<'a> ModelDescription<'a> {
    fn of(generation: &'a Generation) -> ModelDescription<'a> {
        let manifest = generation.model.manifest();
        let budget = manifest.calibration.as_ref().map(|calibration| Budget {
            default: generation.budget,
            points: calibration
                .reachable()
                .iter()
                .map(|point| BudgetPoint { budget: point.budget, route: point.route.as_deref(), spent: point.spent })
                .collect(),
        });
        ModelDescription {
            name: generation.model.name(),
            version: generation.model.version(),
            digest: generation.model.digest(),
            created: &manifest.created,
            config: &manifest.config,
            data: &manifest.data,
            metrics: &manifest.metrics,
            flops: manifest.flops,
            precision: generation.model.precision().name(),
            exclude_seen: manifest.exclude_seen,
            fixed_route: generation.fixed_route.map(|route| generation.model.space().name(route)),
            budget,
            catalogue: generation.catalogue_view().as_deref().map(CatalogueDescription::of),
        }
    }
}

/// `GET /routes`: every route by name, with its cost for the longest history, its traffic, latency and live accuracy.
///
/// # Errors
/// 429 if there is no room for the answer, 503 if no model is ready.
#[utoipa::path(
    get,
    path = "/routes",
    operation_id = "routes",
    tag = "Describe",
    summary = "The routes",
    description = "Every route by name, with its cost for the longest history, its traffic, latency and live accuracy. Beside them those of \
                   the candidate, if there is one.",
    responses((status = 200, description = "The routes, the cheapest widths first", body = Routes))
)]
pub(crate) async fn routes(State(recommender): State<Arc<Recommender>>, request: Request) -> Result<Response, Problem> {
    let serving = recommender.serving()?;
    let candidate = serving.candidate.as_ref().map(|Candidate { generation, split }| CandidateRoutes {
        version: generation.model.version(),
        share: split.share(),
        table: RouteTable::of(generation),
    });
    respond(&request, &Routes { live: RouteTable::of(&serving.live), candidate })
}

/// A description as JSON. Its bytes count against the answers of the connection.
///
/// # Errors
/// 429 if there is no room for the answer.
fn respond(request: &Request, description: &impl Serialize) -> Result<Response, Problem> {
    let json = serde_json::to_vec(description).map_err(Problem::unwritable)?;
    let body = Allowance::answers(request.extensions()).hold(json)?;
    Ok(([(header::CONTENT_TYPE, "application/json")], body).into_response())
}

impl<'a> RouteTable<'a> {
    fn of(generation: &'a Generation) -> RouteTable<'a> {
        let (space, shape, length) = (generation.model.space(), generation.model.shape(), generation.max_len());
        let full_flops = shape.full_flops(space, length);
        let traffic: Vec<Traffic> = space.routes().map(|route| generation.series.route(route).traffic()).collect();
        let rows: u64 = traffic.iter().map(|traffic| traffic.rows).sum();
        let entry = |(route, traffic): (Route, &Traffic)| {
            let (slice, flops) = (space.slice(route), shape.route_flops(space, route, length));
            let Accuracy { all, explored } = generation.judgements.accuracy(route);
            RouteEntry {
                name: space.name(route),
                hidden: slice.hidden,
                layers: slice.layers,
                embedding: slice.embedding,
                flops,
                saved: 1.0 - flops as f64 / full_flops as f64,
                rows: traffic.rows,
                share: traffic.rows as f64 / rows.max(1) as f64,
                latency: traffic.latency.map(LatencyMs::from),
                accuracy: all.into(),
                explored: explored.into(),
            }
        };
        RouteTable {
            length,
            router_flops: shape.router_flops(space.len(), length),
            full_flops,
            since: rfc3339(generation.series.since()),
            routes: space.routes().zip(&traffic).map(entry).collect(),
        }
    }
}
