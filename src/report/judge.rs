use super::findings::{Bound, Cost, Over, PermutedFinding, Point, Policy, RouteFinding, Value};
use super::study::Study;
use super::timing::Times;
use canet_domain::{Route, RouteSpace};
use canet_evaluation::{Halves, Hull, Outcome, Permuted, Replicated, frequencies};

/// A route counts as used from this share of the users on.
pub(super) const IN_USE: f64 = 0.02;

/// Models of one route space on the same users, and what their routes take here.
pub(super) struct Judge<'a> {
    pub(super) space: &'a RouteSpace,
    /// At least one.
    pub(super) studies: &'a [Study],
    pub(super) times: &'a Times,
    pub(super) halves: Halves,
    pub(super) seed: u64,
}

impl Judge<'_> {
    /// A number of each user by model, as one.
    pub(super) fn value(&self, of: impl Fn(&Study) -> Vec<f64>) -> Value {
        Replicated::of(&self.studies.iter().map(of).collect::<Vec<_>>()).into()
    }

    fn mean(&self, of: impl Fn(&Study) -> f64) -> f64 {
        self.studies.iter().map(of).sum::<f64>() / self.studies.len() as f64
    }

    /// Mean seconds by route; users and sizes are the same for every model.
    pub(super) fn seconds(&self, study: &Study) -> Vec<f64> {
        self.times.by_route(&study.test, self.space.routes())
    }

    /// FLOPs of the full route.
    pub(super) fn full_flops(&self) -> f64 {
        self.mean(|study| study.costs[self.space.full().index()])
    }

    fn full_seconds(&self) -> f64 {
        self.mean(|study| self.seconds(study)[self.space.full().index()])
    }

    pub(super) fn router(&self) -> Cost {
        Cost {
            flops: self.mean(|study| study.test.router_cost()),
            seconds: self.mean(|study| self.times.router(&study.test)),
        }
    }

    /// A route for everybody.
    pub(super) fn route(&self, route: Route) -> RouteFinding {
        let full = self.space.full();
        let place = route.index();
        let cost = Cost {
            flops: self.mean(|study| study.costs[place]),
            seconds: self.mean(|study| self.seconds(study)[place]),
        };
        RouteFinding {
            name: self.space.name(route).to_owned(),
            cost,
            rounds: self.times.routes[place].rounds(),
            saved: 1.0 - cost.flops / self.full_flops(),
            test: self.value(|study| study.test.fixed(route).values),
            validation: self.mean(|study| study.validation.fixed(route).estimate().mean),
            over_full: self.value(|study| study.test.fixed(route).differences(&study.test.fixed(full))),
            on_hulls: self.studies.iter().filter(|study| study.hull.routes().contains(&route)).count(),
        }
    }

    /// The validation's best route for everybody.
    pub(super) fn strongest(&self) -> Policy {
        let route = |study: &Study| study.strongest().unwrap_or(self.space.full());
        Policy {
            cost: Cost {
                flops: self.mean(|study| study.costs[route(study).index()]),
                seconds: self.mean(|study| self.seconds(study)[route(study).index()]),
            },
            test: self.value(|study| study.test.fixed(route(study)).values),
        }
    }

    /// Each route as often.
    pub(super) fn random(&self) -> Policy {
        let uniform = vec![1.0 / self.space.len() as f64; self.space.len()];
        Policy {
            cost: Cost {
                flops: self.mean(|study| study.test.drawn(&uniform).flops),
                seconds: self.mean(|study| dot(&uniform, &self.seconds(study))),
            },
            test: self.value(|study| study.test.drawn(&uniform).values),
        }
    }

    /// The best route of each user in hindsight.
    pub(super) fn oracle(&self) -> Bound {
        Bound {
            flops: self.mean(|study| study.test.oracle(self.space).flops),
            test: self.value(|study| study.test.oracle(self.space).values),
        }
    }

    /// The routers at one of the budgets.
    pub(super) fn point(&self, place: usize, budget: Option<f64>) -> Point {
        let choices = |study: &'_ Study| study.choices[place].clone();
        let routed = |study: &Study| study.test.assigned(&study.choices[place]);
        let over = |other: &dyn Fn(&Study) -> Outcome| -> Value {
            self.value(|study| routed(study).differences(&other(study)))
        };
        let shares = |study: &Study| frequencies(&study.choices[place], self.space.len());
        let cost = Cost {
            flops: self.mean(|study| routed(study).flops),
            seconds: self.mean(|study| self.times.routed(&study.test, &study.choices[place])),
        };
        let dealt: Vec<Permuted> = self
            .studies
            .iter()
            .map(|study| Permuted::deal(&study.test, &choices(study), self.seed.wrapping_add(place as u64)))
            .collect();
        let permuted = Permuted::mean_of(&dealt);
        let named = |route: Route| {
            let share = self.mean(|study| shares(study)[route.index()]);
            (share > 0.0).then(|| (self.space.name(route).to_owned(), share))
        };
        Point {
            budget,
            cost,
            saved: 1.0 - cost.flops / self.full_flops(),
            seconds_saved: 1.0 - cost.seconds / self.full_seconds(),
            test: self.value(|study| routed(study).values),
            matched: Policy {
                cost: Cost {
                    flops: self.mean(|study| study.test.drawn(&shares(study)).flops + study.test.router_cost()),
                    seconds: self
                        .mean(|study| dot(&shares(study), &self.seconds(study)) + self.times.router(&study.test)),
                },
                test: self.value(|study| study.test.drawn(&shares(study)).values),
            },
            over: Over {
                hull: over(&|study| self.equal_flops(study, place)),
                hull_by_time: over(&|study| self.equal_time(study, place)),
                hull_cross_fitted: over(&|study| {
                    let cost = routed(study).flops;
                    self.halves.static_mixture(self.space, &study.validation, &study.test, cost)
                }),
                full: over(&|study| study.test.fixed(self.space.full())),
                strongest: over(&|study| study.test.fixed(study.strongest().unwrap_or(self.space.full()))),
                matched: over(&|study| study.test.drawn(&shares(study))),
            },
            permuted: PermutedFinding {
                own: permuted.own,
                mean: permuted.mean(),
                interval: permuted.interval(),
                p: permuted.p(),
            },
            shares: self.space.routes().filter_map(named).collect(),
            routes_in_use: self.mean(|study| shares(study).iter().filter(|share| **share >= IN_USE).count() as f64),
        }
    }

    /// The static mixture of a model that costs as many FLOPs as its router at a budget.
    pub(super) fn equal_flops(&self, study: &Study, place: usize) -> Outcome {
        let cost = study.test.assigned(&study.choices[place]).flops;
        study.test.drawn(&study.hull.mixture(&study.costs, cost))
    }

    fn equal_time(&self, study: &Study, place: usize) -> Outcome {
        let seconds = self.seconds(study);
        let cost = self.times.routed(&study.test, &study.choices[place]);
        study.test.drawn(&self.hull_by_time(study).mixture(&seconds, cost))
    }

    fn hull_by_time(&self, study: &Study) -> Hull {
        Hull::of(self.space, &self.seconds(study), &study.validation.means(|_| true))
    }

    /// Corners of the mean over the models of value over FLOPs.
    pub(super) fn hull(&self) -> Vec<[f64; 2]> {
        self.corners(|study| (study.hull.clone(), study.costs.clone()))
    }

    /// Corners of the mean over the models of value over seconds.
    pub(super) fn hull_over_time(&self) -> Vec<[f64; 2]> {
        self.corners(|study| (self.hull_by_time(study), self.seconds(study)))
    }

    fn corners(&self, of: impl Fn(&Study) -> (Hull, Vec<f64>)) -> Vec<[f64; 2]> {
        let hulls: Vec<(Hull, Vec<f64>)> = self.studies.iter().map(of).collect();
        let corner = |(hull, costs): &(Hull, Vec<f64>)| -> Vec<f64> {
            hull.routes().iter().map(|route| costs[route.index()]).collect()
        };
        let mut costs: Vec<f64> = hulls.iter().flat_map(corner).collect();
        costs.sort_unstable_by(f64::total_cmp);
        costs.dedup();
        let value = |cost: f64| -> f64 {
            let of = |(study, (hull, costs)): (&Study, &(Hull, Vec<f64>))| {
                study.test.drawn(&hull.mixture(costs, cost)).estimate().mean
            };
            self.studies.iter().zip(&hulls).map(of).sum::<f64>() / hulls.len() as f64
        };
        costs.iter().map(|cost| [*cost, value(*cost)]).collect()
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}
