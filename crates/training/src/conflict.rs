use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

use crate::job::TrainJob;
use crate::options::TrainOptions;
use crate::state::Progress;

/// The flag of each value in the options and in the configuration, by its path in their JSON.
const FLAGS: [(&str, &str); 41] = [
    ("preset", "--preset"),
    ("epochs", "--epochs"),
    ("samples.loss_positions", "--loss-positions"),
    ("samples.per_user", "--samples-per-user"),
    ("batch_size", "--batch-size"),
    ("learning_rate", "--lr"),
    ("warmup_steps", "--warmup-steps"),
    ("optimizer.weight_decay", "--weight-decay"),
    ("optimizer.clip_norm", "--clip-norm"),
    ("dropout", "--dropout"),
    ("tied", "--tie-embeddings"),
    ("patience", "--patience"),
    ("seed", "--seed"),
    ("flops_budget", "--flops-budget"),
    ("exclude_seen", "--include-seen"),
    ("joint.temperature", "--temperature"),
    ("joint.weights.guide", "--guide-weight"),
    ("joint.weights.balance", "--balance-weight"),
    ("joint.weights.flops", "--flops-weight"),
    ("sandwich.negatives", "--negatives"),
    ("sandwich.distillation", "--distillation"),
    ("sandwich.narrow_boost", "--narrow-boost"),
    ("router.holdout", "--router-holdout"),
    ("settle.epochs", "--settle-epochs"),
    ("settle.learning_rate", "--settle-lr"),
    ("newest.epochs", "--newest-epochs"),
    ("from.name", "--from"),
    ("from.version", "the version of --from"),
    ("from.digest", "the digest of --from"),
    ("config.max_len", "--max-len"),
    ("config.hidden", "--hidden"),
    ("config.layers", "--layers"),
    ("config.embedding", "--embedding"),
    ("config.heads", "--heads"),
    ("config.attention_scale", "--attention-scale"),
    ("config.ffn_inner", "--ffn-inner"),
    ("config.positions", "--positions"),
    ("config.embedding_norm", "--embedding-norm"),
    ("config.history_stride", "--history-stride"),
    ("config.norm_eps", "--norm-eps"),
    ("config.items", "the number of items in --data"),
];

/// What keeps a job from continuing a training.
#[derive(Debug)]
pub(crate) struct Conflict {
    /// What differs, as `--lr 0.01 (now 0.001)`.
    pub differences: String,
    /// How to continue the training.
    pub remedy: &'static str,
}

impl Conflict {
    const BY_FLAGS: &'static str = "give its values to continue it (flags of stages that have not begun may differ)";
    const BY_NO_FLAG: &'static str =
        "no flag sets all of these, so continue it with the version of canet that began it";
}

impl Progress {
    /// What keeps a job from continuing this training; `None` if nothing does. Options of stages that have not begun may
    /// differ.
    pub(crate) fn differs_from(&self, job: &TrainJob<'_>) -> Option<Conflict> {
        if self.parsed_sha256 != job.dataset.parsed_sha256 {
            // Sizes and defaults follow from the data, so nothing else is worth comparing.
            let digest = |sha256: &str| sha256.chars().take(12).collect::<String>();
            let (before, now) = (digest(&self.parsed_sha256), digest(&job.dataset.parsed_sha256));
            let differences = format!("--data of SHA-256 {before} (now {now})");
            return Some(Conflict { differences, remedy: Conflict::BY_FLAGS });
        }
        let before = self.options.continued_by(&job.options, self.begun());
        if before == job.options && self.config == job.config {
            return None;
        }
        let [before, now] = [leaves(&before, &self.config), leaves(&job.options, &job.config)];
        Some(conflict_of(&before, &now))
    }
}

/// The conflict between two sets of single values, by path.
fn conflict_of(before: &BTreeMap<String, Value>, now: &BTreeMap<String, Value>) -> Conflict {
    let paths = before.keys().chain(now.keys().filter(|path| !before.contains_key(*path)));
    let mut remedy = Conflict::BY_FLAGS;
    let mut differences = Vec::new();
    for path in paths.filter(|path| before.get(*path) != now.get(*path)) {
        let flag = FLAGS.iter().find(|(known, _)| known == path).map(|(_, flag)| *flag);
        if flag.is_none() {
            remedy = Conflict::BY_NO_FLAG;
        }
        let [before, now] = [before, now].map(|values| shown(path, values.get(path)));
        differences.push(format!("{} {before} (now {now})", flag.unwrap_or(path)));
    }
    Conflict { differences: differences.join(", "), remedy }
}

/// The single values of options and configuration, by path.
fn leaves(options: &TrainOptions, config: &impl Serialize) -> BTreeMap<String, Value> {
    let mut leaves = BTreeMap::new();
    collect(serde_json::to_value(options).unwrap_or_default(), "", &mut leaves);
    collect(serde_json::to_value(config).unwrap_or_default(), "config", &mut leaves);
    leaves
}

fn collect(value: Value, path: &str, leaves: &mut BTreeMap<String, Value>) {
    match value {
        Value::Object(fields) => {
            for (name, field) in fields {
                let path = if path.is_empty() { name } else { format!("{path}.{name}") };
                collect(field, &path, leaves);
            }
        }
        leaf => drop(leaves.insert(path.to_owned(), leaf)),
    }
}

/// A value as its flag takes it. The configuration leaves out values at their default.
fn shown(path: &str, value: Option<&Value>) -> String {
    match value {
        None if path.starts_with("from.") => "none".to_owned(),
        None => "at its default".to_owned(),
        Some(Value::Null) if path == "sandwich.negatives" => "the whole catalogue".to_owned(),
        Some(Value::Null) => "all".to_owned(),
        Some(Value::Bool(flag)) if path == "exclude_seen" => (!flag).to_string(),
        // The name of a model may have the sign that stands for a hyphen in the values of enums.
        Some(Value::String(text)) if path.starts_with("from.") => text.clone(),
        Some(Value::String(text)) => text.replace('_', "-"),
        Some(Value::Array(values)) if values.is_empty() => "hidden".to_owned(),
        Some(Value::Array(values)) => values.iter().map(Value::to_string).collect::<Vec<_>>().join(","),
        Some(other) => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::warm_start::SourceRecord;

    /// Values that no flag sets.
    const FIXED: [&str; 6] =
        ["optimizer.betas", "optimizer.eps", "config.router.dim", "config.router.heads", "config.router.ffn", "config"];

    #[test]
    fn every_option_has_its_flag() {
        let progress = Progress::for_tests();
        let config = canet_model::ModelConfig {
            positions: canet_model::Positions::Relative,
            embedding_norm: true,
            norm_eps: 1e-3,
            history_stride: 2,
            ..progress.config.clone()
        };
        let from = SourceRecord { name: String::new(), version: 1, digest: String::new() };
        let options = TrainOptions { from: Some(from), ..progress.options.clone() };
        let leaves = leaves(&options, &config);
        for path in leaves.keys() {
            let known = FLAGS.iter().any(|(known, _)| known == path) || FIXED.contains(&path.as_str());
            assert!(known, "{path} has no flag");
        }
        for (path, _) in FLAGS {
            assert!(leaves.contains_key(path), "{path} is no option");
        }
    }

    /// Two versions of the program may choose these values differently for the same flags.
    #[test]
    fn values_that_no_flag_sets_need_the_program_that_chose_them() {
        let before = Progress::for_tests();
        let mut options = before.options.clone();
        let conflict = |options: &TrainOptions| {
            conflict_of(&leaves(&before.options, &before.config), &leaves(options, &before.config))
        };
        options.learning_rate = 0.5;
        let Conflict { differences, remedy } = conflict(&options);
        assert_eq!((differences.as_str(), remedy), ("--lr 0.1 (now 0.5)", Conflict::BY_FLAGS));
        options.optimizer.betas[1] = 0.999;
        let Conflict { differences, remedy } = conflict(&options);
        assert!(differences.contains("optimizer.betas 0.9,0.98 (now 0.9,0.999)"), "{differences}");
        assert_eq!(remedy, Conflict::BY_NO_FLAG);
    }

    #[test]
    fn values_are_shown_as_flags_take_them() {
        assert_eq!(shown("config.hidden", Some(&serde_json::json!([4, 8]))), "4,8");
        assert_eq!(shown("samples.per_user", Some(&Value::Null)), "all");
        assert_eq!(shown("sandwich.negatives", Some(&Value::Null)), "the whole catalogue");
        assert_eq!(shown("exclude_seen", Some(&true.into())), "false");
        assert_eq!(shown("learning_rate", Some(&0.001.into())), "0.001");
        assert_eq!(shown("config.positions", None), "at its default");
        assert_eq!(shown("router.kind", Some(&"two_words".into())), "two-words");
        assert_eq!(shown("from.name", Some(&"ml_100k".into())), "ml_100k");
    }
}
