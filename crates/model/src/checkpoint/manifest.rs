use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Calibration;
use crate::ModelConfig;
use canet_domain::{Flops, RoutePolicy, RouteSpace};

/// The content of `canet.json`. Unknown fields are refused.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Version of this layout: [`Manifest::FORMAT`].
    pub format: u32,
    /// Time of writing, in UTC as RFC 3339.
    pub created: String,
    /// Sizes and flags of the network.
    pub config: ModelConfig,
    /// The data behind the weights.
    pub data: DataRecord,
    /// Measured quality.
    pub metrics: MetricsRecord,
    /// Cost.
    pub flops: FlopsRecord,
    /// Biases by budget. Without them the router's argmax is the choice under every budget.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calibration: Option<Calibration>,
    /// The training. It is unknown for imported models and for some older versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub training: Option<TrainingRecord>,
    /// Whether a request that does not say leaves out the items of its own history. The metrics were measured under this
    /// rule too. A manifest without this field says `true`.
    #[serde(default = "default_exclude_seen", skip_serializing_if = "is_true")]
    pub exclude_seen: bool,
    /// Every other file of the checkpoint except the titles.
    pub files: FileRecords,
}

impl Manifest {
    /// Version of the layout that this program writes and reads.
    pub const FORMAT: u32 = 1;

    /// Whether the model's weights have learnt every interaction of the data that they were trained on at some time.
    pub fn has_learnt_everything(&self) -> bool {
        self.training.as_ref().is_some_and(|training| training.everything || training.from_everything)
    }

    /// Whether the model's figures may be too good, because its training started from weights that knew what tested it.
    pub fn started_from_everything(&self) -> bool {
        self.training.as_ref().is_some_and(|training| training.from_everything)
    }

    /// Epochs that were complete when the time limit ended the training. `None` if it ended by itself.
    pub fn cut_short_after(&self) -> Option<u64> {
        self.training.as_ref()?.cut_short_after
    }

    /// What decides routes under a budget: the calibration, or the router as it is without one. In a model of one route, no
    /// router runs.
    pub fn policy(&self, space: &RouteSpace, budget: f64) -> RoutePolicy {
        match &self.calibration {
            _ if space.len() == 1 => RoutePolicy::Fixed(space.full()),
            Some(calibration) => calibration.policy(space, budget),
            None => RoutePolicy::Router(vec![0.0; space.len()]),
        }
    }

    /// The value that a budget adds to each route's logit where the router decides. The values are zero without a
    /// calibration.
    pub fn bias(&self, space: &RouteSpace, budget: f64) -> Vec<f32> {
        self.calibration.as_ref().map_or_else(|| vec![0.0; space.len()], |calibration| calibration.bias(budget))
    }
}

/// The data that a model was trained on, or the file that it was imported from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DataRecord {
    /// The file's name.
    pub name: String,
    /// SHA-256 of the file, in hexadecimal.
    pub sha256: String,
    /// SHA-256 of what was understood of the data, in hexadecimal. It does not depend on the form of the files. Unknown for
    /// imported models and for older versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parsed_sha256: Option<String>,
    /// Number of users, if known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub users: Option<u64>,
    /// Number of items.
    pub items: u64,
    /// Number of interactions, if known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interactions: Option<u64>,
}

/// The program and the options of a training. With the data and the configuration they fix its result.
///
/// The options are kept as names and values, because their meaning changes with the program.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainingRecord {
    /// Version of the program that finished the training.
    pub program: String,
    /// The options, by name.
    pub options: BTreeMap<String, Value>,
    /// Whether the model trained on every interaction of its data after its metrics were measured, including those that
    /// measured it.
    #[serde(default, skip_serializing_if = "is_false")]
    pub everything: bool,
    /// Whether the training started from the weights of a model with `everything`, or of one that started so. They may know
    /// the interactions that validated and tested this model.
    #[serde(default, skip_serializing_if = "is_false")]
    pub from_everything: bool,
    /// Epochs that were complete when the time limit last ended a stage. Missing if every stage ended by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cut_short_after: Option<u64>,
}

fn default_exclude_seen() -> bool {
    true
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands over a reference")]
fn is_true(flag: &bool) -> bool {
    *flag
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands over a reference")]
fn is_false(flag: &bool) -> bool {
    !flag
}

/// Metrics by name, as the training measured them. An imported model has none.
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
    /// The first metric that is not finite, as in `validation.ndcg@10`. JSON cannot hold it.
    pub(super) fn not_finite(&self) -> Option<String> {
        [("validation", &self.validation), ("test", &self.test)].into_iter().find_map(|(split, metrics)| {
            let (name, _) = metrics.as_ref()?.iter().find(|(_, value)| !value.is_finite())?;
            Some(format!("{split}.{name}"))
        })
    }
}

/// Cost of a request with a history of `max_len` items.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct FlopsRecord {
    /// The full slice, without the router.
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
    /// The costs of a checked configuration.
    pub(super) fn of(config: &ModelConfig, space: &RouteSpace) -> FlopsRecord {
        let shape = config.shape();
        FlopsRecord {
            full: shape.full_flops(space, config.max_len),
            smallest: shape.route_flops(space, space.smallest(), config.max_len),
            router: shape.router_flops(space.len(), config.max_len),
        }
    }
}

/// The files of a checkpoint. The names are fixed, so a manifest cannot point outside its directory.
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

/// The expected content of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileRecord {
    /// SHA-256, in hexadecimal.
    pub sha256: String,
}

/// A time in UTC as RFC 3339, to the second. A time before 1970 becomes 1970.
pub fn rfc3339(time: SystemTime) -> String {
    humantime::format_rfc3339_seconds(time.max(UNIX_EPOCH)).to_string()
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::rfc3339;

    #[test]
    fn a_time_is_utc_to_the_second() {
        let time = UNIX_EPOCH + Duration::from_millis(1_709_251_199_999);
        assert_eq!(rfc3339(time), "2024-02-29T23:59:59Z");
        assert_eq!(rfc3339(UNIX_EPOCH - Duration::from_secs(1)), "1970-01-01T00:00:00Z");
    }
}
