use std::sync::Arc;

use prometheus::{Histogram, IntCounter};

use super::Metrics;
use canet_domain::{Proportion, Reason, Route, RouteSpace};

/// How many versions that do not serve any more keep their series, because their answers may still be judged.
const RETIRED: usize = 2;

/// The families of the live accuracy. Only [`Metrics::judgements`] removes their series.
pub(super) const FAMILIES: &[&str] = &["judged_total", "hits_total", "reciprocal_rank"];

/// The series of one version's live accuracy, resolved once.
#[derive(Debug)]
pub struct Judgements {
    version: String,
    routes: Vec<RouteJudgements>,
}

/// The series of one route.
#[derive(Debug)]
struct RouteJudgements {
    name: String,
    /// In the order of [`Reason::ROUTED`].
    by_reason: [Counters; Reason::ROUTED.len()],
    reciprocal_rank: Histogram,
}

#[derive(Debug)]
struct Counters {
    judged: IntCounter,
    hits: IntCounter,
}

/// How often a route's judged answers had the user's next item.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Accuracy {
    /// All answers.
    pub all: Proportion,
    /// Answers whose route was drawn at random. Only these compare routes on comparable users.
    pub explored: Proportion,
}

impl Judgements {
    fn new(metrics: &Metrics, space: &RouteSpace, version: u64) -> Judgements {
        let version = version.to_string();
        let route = |route: Route| {
            let name = space.name(route);
            let counters = |reason: Reason| Counters {
                judged: metrics.judged_total.with_label_values(&[name, &version, reason.name()]),
                hits: metrics.hits_total.with_label_values(&[name, &version, reason.name()]),
            };
            RouteJudgements {
                name: name.to_owned(),
                by_reason: Reason::ROUTED.map(counters),
                reciprocal_rank: metrics.reciprocal_rank.with_label_values(&[name, &version]),
            }
        };
        Judgements { routes: space.routes().map(route).collect(), version }
    }

    /// Counts an answer whose user went on. `rank` is the place of the next item in it, from 1; `None` is a miss.
    pub(crate) fn judged(&self, route: Route, reason: Reason, rank: Option<usize>) {
        let Some(series) = self.routes.get(route.index()) else { return };
        let Some(place) = reason.routed_index() else { return };
        let counters = &series.by_reason[place];
        // The hit first: a scrape in between must not find fewer hits than it will.
        if rank.is_some() {
            counters.hits.inc();
        }
        counters.judged.inc();
        series.reciprocal_rank.observe(rank.map_or(0.0, |rank| 1.0 / rank as f64));
    }

    /// The live accuracy of a route so far.
    pub fn accuracy(&self, route: Route) -> Accuracy {
        let mut accuracy = Accuracy::default();
        let Some(series) = self.routes.get(route.index()) else { return accuracy };
        for (reason, Counters { judged, hits }) in Reason::ROUTED.iter().zip(&series.by_reason) {
            let trials = judged.get();
            let counted = Proportion { successes: hits.get().min(trials), trials };
            accuracy.all.successes += counted.successes;
            accuracy.all.trials += counted.trials;
            if *reason == Reason::Explored {
                accuracy.explored = counted;
            }
        }
        accuracy
    }

    fn is_of(&self, space: &RouteSpace, version: u64) -> bool {
        let names = self.routes.iter().map(|route| route.name.as_str());
        self.version == version.to_string() && names.eq(space.routes().map(|route| space.name(route)))
    }
}

impl Metrics {
    /// The series of a version's live accuracy, which exist from now on. Series of versions that ceased to serve long ago go.
    pub(crate) fn judgements(&self, space: &RouteSpace, version: u64) -> Arc<Judgements> {
        let mut kept = self.judgements.lock();
        let is_live = |judgements: &Arc<Judgements>| Arc::strong_count(judgements) > 1;
        if let Some(same) = kept.iter().find(|kept| is_live(kept) && kept.is_of(space, version)) {
            return Arc::clone(same);
        }
        let judgements = Arc::new(Judgements::new(self, space, version));
        // Another checkpoint had this version. The routes that both have go on counting.
        for replaced in kept.extract_if(.., |kept| kept.version == judgements.version) {
            let gone = replaced.routes.iter().filter(|route| space.named(&route.name).is_none());
            gone.for_each(|route| self.remove_route(&replaced.version, &route.name));
        }
        let mut retired = kept.iter().filter(|kept| !is_live(kept)).count();
        kept.retain(|kept| {
            let goes = !is_live(kept) && retired > RETIRED;
            if goes {
                retired -= 1;
                kept.routes.iter().for_each(|route| self.remove_route(&kept.version, &route.name));
            }
            !goes
        });
        kept.push(Arc::clone(&judgements));
        judgements
    }

    /// Removes the series of a version's route. Errors mean that one is already gone.
    fn remove_route(&self, version: &str, route: &str) {
        for reason in Reason::ROUTED {
            drop(self.judged_total.remove_label_values(&[route, version, reason.name()]));
            drop(self.hits_total.remove_label_values(&[route, version, reason.name()]));
        }
        drop(self.reciprocal_rank.remove_label_values(&[route, version]));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::Metrics;
    use canet_domain::{Proportion, Reason, RouteSpace};

    fn space(layers: Vec<usize>) -> RouteSpace {
        RouteSpace::new(vec![8], layers, vec![8]).unwrap()
    }

    #[test]
    fn explored_answers_count_among_all_and_apart() {
        let (metrics, space) = (Metrics::new().unwrap(), space(vec![1, 2]));
        let judgements = metrics.judgements(&space, 3);
        judgements.judged(space.full(), Reason::Router, Some(4));
        judgements.judged(space.full(), Reason::Explored, None);
        judgements.judged(space.full(), Reason::Explored, Some(1));
        let accuracy = judgements.accuracy(space.full());
        assert_eq!(accuracy.all, Proportion { successes: 2, trials: 3 });
        assert_eq!(accuracy.explored, Proportion { successes: 1, trials: 2 });
        assert_eq!(judgements.accuracy(space.smallest()).all, Proportion::default());
        let text = metrics.render().unwrap();
        let value =
            |series: &str| text.lines().find_map(|line| line.strip_prefix(&format!("canet_{series} "))).unwrap();
        assert_eq!(value("hits_total{reason=\"explored\",route=\"h8-l2-e8\",version=\"3\"}"), "1");
        assert_eq!(value("reciprocal_rank_sum{route=\"h8-l2-e8\",version=\"3\"}"), "1.25");
        assert_eq!(value("reciprocal_rank_bucket{route=\"h8-l2-e8\",version=\"3\",le=\"0.25\"}"), "2");
    }

    #[test]
    fn series_outlive_their_version_for_two_further_ones() {
        let (metrics, space) = (Metrics::new().unwrap(), space(vec![1, 2]));
        let versions = || -> Vec<u64> {
            let text = metrics.render().unwrap();
            let of_version = |version: &u64| text.contains(&format!("version=\"{version}\""));
            (1..=9).filter(of_version).collect()
        };
        let live = metrics.judgements(&space, 1);
        assert!(Arc::ptr_eq(&live, &metrics.judgements(&space, 1)), "two generations of a version share its series");
        for version in 2..=5 {
            drop(metrics.judgements(&space, version));
        }
        // Version 1 still serves. The last one is not retired before the next comes.
        assert_eq!(versions(), [1, 3, 4, 5]);
        drop(live);
        drop(metrics.judgements(&space, 6));
        assert_eq!(versions(), [4, 5, 6]);
    }

    #[test]
    fn routes_that_the_next_version_lacks_stay_until_their_version_goes() {
        let metrics = Metrics::new().unwrap();
        let names = |route: &str, version: u64| {
            let text = metrics.render().unwrap();
            text.contains(&format!("canet_judged_total{{reason=\"router\",route=\"{route}\",version=\"{version}\"}}"))
        };
        drop(metrics.judgements(&space(vec![1, 2]), 1));
        drop(metrics.judgements(&space(vec![1, 3]), 2));
        metrics.keep_series(&["h8-l1-e8", "h8-l3-e8"].map(String::from).into());
        assert!(names("h8-l2-e8", 1) && names("h8-l3-e8", 2));
        // A checkpoint that has the version of another one.
        drop(metrics.judgements(&space(vec![1, 2]), 2));
        assert!(names("h8-l2-e8", 2) && names("h8-l1-e8", 2) && !names("h8-l3-e8", 2));
    }
}
