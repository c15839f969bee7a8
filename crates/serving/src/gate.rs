use std::collections::BTreeMap;

use canet_model::checkpoint::{DataRecord, Manifest};

/// Compares the recorded accuracy of versions before one replaces another.
///
/// It compares the NDCG@10 that the trainings measured on their validation splits. Two versions are comparable if they were
/// measured on the same kind of data and under the same rule for items of the history. The same kind of data is data with the
/// same digest, or with names that differ in their digits alone, as `log-2026-11-28.csv` and `log-2026-11-29.csv` do.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Gate {
    /// The largest share of the live version's NDCG@10 that a new version may lack, from 0 up to but not including 1.
    pub max_regression: f64,
    /// What happens if the records leave doubt.
    pub doubt: Doubt,
}

/// What a [`Gate`] does with a version if the records do not prove that it is worse.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doubt {
    /// It is refused if it lacks more than the share, however uncertain the figures are, and if it has no figure.
    Refuse,
    /// It is refused only if it lacks more than the share and more than chance explains, or if it has no figure and would
    /// replace a version that has one.
    Accept,
}

/// How many standard errors of the difference chance explains.
const CHANCE: f64 = 2.0;

/// The recorded accuracy of a version.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Measured {
    version: u64,
    /// NDCG@10 on the validation split.
    ndcg: Option<f64>,
    /// Its standard error, if that is recorded.
    error: Option<f64>,
    data: DataRecord,
    exclude_seen: bool,
    /// Whether the accuracy may be too good, because the training started from weights that knew what measured it.
    is_doubtful: bool,
}

/// A version that the gate keeps from serving.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Regression {
    /// Its accuracy is too far below the live version's.
    #[error(
        "version {version} has a validation NDCG@10 of {ndcg:.4} and version {live}, which serves, has {live_ndcg:.4}: that is \
         {:.1} % less, and --max-regression allows {:.1} %. To load it all the same, name it in POST /admin/reload",
        (1.0 - ndcg / live_ndcg) * 100.0,
        max_regression * 100.0
    )]
    Worse {
        /// The refused version.
        version: u64,
        /// Its NDCG@10.
        ndcg: f64,
        /// The version that serves.
        live: u64,
        /// That version's NDCG@10.
        live_ndcg: f64,
        /// The share that a version may lack.
        max_regression: f64,
    },
    /// Its accuracy is not recorded.
    #[error(
        "version {version} records no validation NDCG@10, so it cannot be compared with version {live}, which serves. To load \
         it all the same, name it in POST /admin/reload, or watch with --max-regression off"
    )]
    Unmeasured {
        /// The refused version.
        version: u64,
        /// The version that serves.
        live: u64,
    },
}

impl Measured {
    /// The accuracy of the route that a server runs: of the router's choice, or of the largest or smallest route if it runs
    /// that for every request.
    pub(crate) fn of(version: u64, manifest: &Manifest, fixed_route: Option<&str>) -> Measured {
        let policy = fixed_route.filter(|route| matches!(*route, "full" | "smallest")).unwrap_or("auto");
        let validation = manifest.metrics.validation.as_ref();
        let metric = |suffix: &str| {
            let named = |metrics: &BTreeMap<String, f64>| {
                let name = format!("ndcg@10{suffix}");
                metrics.get(&format!("{policy}.{name}")).or_else(|| metrics.get(&name)).copied()
            };
            validation.and_then(named)
        };
        Measured {
            version,
            ndcg: metric(""),
            error: metric(".se"),
            data: manifest.data.clone(),
            exclude_seen: manifest.exclude_seen,
            is_doubtful: manifest.started_from_everything(),
        }
    }

    /// Whether the two figures can be compared.
    fn is_comparable(&self, other: &Measured) -> bool {
        let (data, others) = (&self.data, &other.data);
        let is_parsed_alike = data.parsed_sha256.is_some() && data.parsed_sha256 == others.parsed_sha256;
        !(self.is_doubtful || other.is_doubtful)
            && self.exclude_seen == other.exclude_seen
            && (data.sha256 == others.sha256 || is_parsed_alike || undated(&data.name).eq(undated(&others.name)))
    }
}

/// A name without its digits: exports of one log differ in a date or a count.
fn undated(name: &str) -> impl Iterator<Item = char> + '_ {
    name.chars().filter(|letter| !letter.is_ascii_digit())
}

impl Gate {
    /// Checks whether `new` may replace `live`.
    ///
    /// # Errors
    /// [`Regression`] if it may not.
    pub(crate) fn check(&self, new: &Measured, live: &Measured) -> Result<(), Regression> {
        let Some(ndcg) = new.ndcg else {
            return match self.doubt == Doubt::Refuse || live.ndcg.is_some() {
                true => Err(Regression::Unmeasured { version: new.version, live: live.version }),
                false => Ok(()),
            };
        };
        let Some(live_ndcg) = live.ndcg.filter(|_| new.is_comparable(live)) else {
            tracing::info!(
                version = new.version,
                live = live.version,
                data = new.data.name,
                live_data = live.data.name,
                "the recorded accuracies are not comparable: the version is not held to the live one's"
            );
            return Ok(());
        };
        let Gate { max_regression, doubt } = *self;
        // On the same data both figures are of the same users. Their difference then varies less than this, so the test is lenient.
        let chance = match (doubt, new.error, live.error) {
            (Doubt::Accept, Some(error), Some(live_error)) => CHANCE * error.hypot(live_error),
            _ => 0.0,
        };
        if ndcg >= live_ndcg * (1.0 - max_regression) || live_ndcg - ndcg <= chance {
            return Ok(());
        }
        Err(Regression::Worse { version: new.version, ndcg, live: live.version, live_ndcg, max_regression })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GATE: Gate = Gate { max_regression: 0.05, doubt: Doubt::Accept };

    const STRICT: Gate = Gate { doubt: Doubt::Refuse, ..GATE };

    fn measured(version: u64, ndcg: impl Into<Option<f64>>) -> Measured {
        let data = DataRecord {
            name: "log.csv".to_owned(),
            sha256: version.to_string(),
            parsed_sha256: None,
            users: None,
            items: 9,
            interactions: None,
        };
        Measured { version, ndcg: ndcg.into(), error: None, data, exclude_seen: true, is_doubtful: false }
    }

    fn named(name: &str, measured: Measured) -> Measured {
        Measured { data: DataRecord { name: name.to_owned(), ..measured.data }, ..measured }
    }

    #[test]
    fn a_version_may_lack_the_share_and_no_more() {
        let live = measured(1, 0.2);
        for (ndcg, passes) in [(0.3, true), (0.2, true), (0.190_001, true), (0.189_9, false), (0.0, false)] {
            assert_eq!(GATE.check(&measured(2, ndcg), &live).is_ok(), passes, "{ndcg}");
        }
        let refused = GATE.check(&measured(2, 0.1), &live).unwrap_err().to_string();
        assert!(refused.starts_with("version 2 has a validation NDCG@10 of 0.1000 and version 1"), "{refused}");
        assert!(refused.contains("0.2000: that is 50.0 % less, and --max-regression allows 5.0 %"), "{refused}");
        let exact = Gate { max_regression: 0.0, ..GATE };
        assert!(exact.check(&measured(2, 0.2), &live).is_ok());
        assert!(exact.check(&measured(2, 0.199), &live).is_err());
        // Nothing is worse than nothing.
        assert!(GATE.check(&measured(2, 0.0), &measured(1, 0.0)).is_ok());
    }

    #[test]
    fn a_drop_that_chance_explains_is_doubtful() {
        let noisy = |version, ndcg| Measured { error: Some(0.01), ..measured(version, ndcg) };
        // Two standard errors of the difference are 0.0283.
        for (ndcg, passes) in [(0.19, true), (0.173, true), (0.171, false), (0.1, false)] {
            assert_eq!(GATE.check(&noisy(2, ndcg), &noisy(1, 0.2)).is_ok(), passes, "{ndcg}");
        }
        assert!(STRICT.check(&noisy(2, 0.173), &noisy(1, 0.2)).is_err());
        // Without both errors nothing is known of chance.
        assert!(GATE.check(&noisy(2, 0.173), &measured(1, 0.2)).is_err());
        // However precise the figures are, the share may be lacking.
        let precise = |version, ndcg| Measured { error: Some(1e-6), ..measured(version, ndcg) };
        assert!(GATE.check(&precise(2, 0.191), &precise(1, 0.2)).is_ok());
    }

    #[test]
    fn a_version_without_metrics_replaces_none_that_has_some() {
        let unmeasured = Err(Regression::Unmeasured { version: 2, live: 1 });
        assert_eq!(GATE.check(&measured(2, None), &measured(1, 0.2)), unmeasured);
        assert_eq!(STRICT.check(&measured(2, None), &measured(1, 0.2)), unmeasured);
        assert_eq!(GATE.check(&measured(2, None), &measured(1, None)), Ok(()));
        assert_eq!(STRICT.check(&measured(2, None), &measured(1, None)), unmeasured);
        assert_eq!(STRICT.check(&measured(2, 0.01), &measured(1, None)), Ok(()));
    }

    #[test]
    fn only_the_same_kind_of_data_is_compared() {
        let live = named("log-2026-11-28.csv", measured(1, 0.2));
        let worse = |name: &str| named(name, measured(2, 0.1));
        assert!(GATE.check(&worse("log-2026-11-29.csv"), &live).is_err());
        assert!(GATE.check(&worse("other.csv"), &live).is_ok());
        let same = |sha256: &str, parsed: Option<&str>| {
            let worse = worse("renamed.csv");
            let data = DataRecord {
                sha256: sha256.to_owned(),
                parsed_sha256: parsed.map(str::to_owned),
                ..worse.data.clone()
            };
            Measured { data, ..worse }
        };
        assert!(GATE.check(&same("1", None), &live).is_err());
        assert!(GATE.check(&same("2", None), &live).is_ok());
        let parsed =
            Measured { data: DataRecord { parsed_sha256: Some("p".to_owned()), ..live.data.clone() }, ..live.clone() };
        assert!(GATE.check(&same("2", Some("p")), &parsed).is_err());
        assert!(GATE.check(&same("2", Some("q")), &parsed).is_ok());
        let seen = Measured { exclude_seen: false, ..worse("log-2026-11-29.csv") };
        assert!(GATE.check(&seen, &live).is_ok());
        let doubtful = Measured { is_doubtful: true, ..live.clone() };
        assert!(GATE.check(&worse("log-2026-11-29.csv"), &doubtful).is_ok());
    }
}
