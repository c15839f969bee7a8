use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Calibration;
use crate::ModelConfig;
use canet_domain::{Flops, RouteSpace};

/// What `canet.json` holds. Fields that it does not know are refused.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Version of this layout, [`Manifest::FORMAT`].
    pub format: u32,
    /// When the checkpoint was written: UTC, RFC 3339.
    pub created: String,
    /// Sizes and flags of the network.
    pub config: ModelConfig,
    /// What the weights come from.
    pub data: DataRecord,
    /// How good the model is.
    pub metrics: MetricsRecord,
    /// What it costs.
    pub flops: FlopsRecord,
    /// How a budget becomes a choice of routes; without it the router's own argmax counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calibration: Option<Calibration>,
    /// How it was trained; of imported models and of older versions this is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub training: Option<TrainingRecord>,
    /// Every other file of the checkpoint but the titles.
    pub files: FileRecords,
}

impl Manifest {
    /// The layout that this program writes and reads.
    pub const FORMAT: u32 = 1;

    /// What is added to the router's logits to spend a share of the full model's FLOPs, one value a route of `space`: zero
    /// where nothing was calibrated.
    pub fn bias(&self, space: &RouteSpace, budget: f64) -> Vec<f32> {
        self.calibration.as_ref().map_or_else(|| vec![0.0; space.len()], |calibration| calibration.bias(budget))
    }
}

/// The data that a model was trained on, or the file that it was imported from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DataRecord {
    /// Its name: the file's.
    pub name: String,
    /// SHA-256 of the file, in hexadecimal.
    pub sha256: String,
    /// Users in it, where known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub users: Option<u64>,
    /// Items in it.
    pub items: u64,
    /// Interactions in it, where known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interactions: Option<u64>,
}

/// What fixes the result of a training beside data and sizes. What an option means is training's knowledge and changes
/// with the program, so here they are names and values.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainingRecord {
    /// Version of the program that finished it.
    pub program: String,
    /// The options by name.
    pub options: BTreeMap<String, Value>,
    /// Whether, after its metrics were measured, the model went on to learn every interaction of its data, those that
    /// measured it too.
    #[serde(default, skip_serializing_if = "is_false")]
    pub everything: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands over a reference")]
fn is_false(flag: &bool) -> bool {
    !flag
}

/// Metrics by name, as training measured them; an imported model has none.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct MetricsRecord {
    /// On the validation split.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validation: Option<BTreeMap<String, f64>>,
    /// On the test split.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub test: Option<BTreeMap<String, f64>>,
}

impl MetricsRecord {
    /// The first metric that JSON cannot hold, as `validation.ndcg@10`.
    pub(super) fn not_finite(&self) -> Option<String> {
        [("validation", &self.validation), ("test", &self.test)].into_iter().find_map(|(split, metrics)| {
            let (name, _) = metrics.as_ref()?.iter().find(|(_, value)| !value.is_finite())?;
            Some(format!("{split}.{name}"))
        })
    }
}

/// Cost of one request with a history of `max_len` items.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct FlopsRecord {
    /// The full slice, without a router.
    #[schema(value_type = u64)]
    pub full: Flops,
    /// The smallest slice, without the router.
    #[schema(value_type = u64)]
    pub smallest: Flops,
    /// The router.
    #[schema(value_type = u64)]
    pub router: Flops,
}

impl FlopsRecord {
    /// The costs that follow from a checked configuration.
    pub(super) fn of(config: &ModelConfig, space: &RouteSpace) -> FlopsRecord {
        let shape = config.shape();
        FlopsRecord {
            full: shape.full_flops(space, config.max_len),
            smallest: shape.route_flops(space, space.smallest(), config.max_len),
            router: shape.router_flops(space.len(), config.max_len),
        }
    }
}

/// The files of a checkpoint: these names and no others, so that a manifest can point nowhere else.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileRecords {
    /// The weights and the popularity counts.
    #[serde(rename = "weights.safetensors")]
    pub weights: FileRecord,
    /// The external ids.
    #[serde(rename = "items.tsv")]
    pub items: FileRecord,
    /// The recorded answers.
    #[serde(rename = "probes.safetensors")]
    pub probes: FileRecord,
}

/// What a file must be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileRecord {
    /// Its SHA-256 in hexadecimal.
    pub sha256: String,
}
