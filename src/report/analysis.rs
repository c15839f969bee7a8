use super::findings::{
    Cost, OperatingPoint, OracleFinding, PairedDifferences, PermutationFinding, PolicyFinding, RouteFinding, Value,
};
use super::measured::MeasuredModel;
use super::timing::RequestTimes;
use canet_domain::{Route, RouteSpace};
use canet_evaluation::{
    Contender, MultiModelEstimate, PermutationTest, PolicyOutcome, SeenItems, TwoFolds, UpperHull, Verdict,
    VerdictInputs, best_affordable_route, route_frequencies, selection_step,
};
use std::collections::BTreeSet;
use std::convert::Infallible;

/// A route counts as used from this share of the users on.
pub(super) const IN_USE: f64 = 0.02;

/// Turns the measurements of several models into findings. The models have one route space and the same users.
pub(super) struct Analysis<'a> {
    pub(super) space: &'a RouteSpace,
    /// At least one.
    pub(super) models: &'a [MeasuredModel],
    pub(super) times: &'a RequestTimes,
    pub(super) folds: TwoFolds,
    pub(super) seed: u64,
}

impl Analysis<'_> {
    /// Combines a quantity that each model has for each user.
    pub(super) fn value(&self, of: impl Fn(&MeasuredModel) -> Vec<f64>) -> Value {
        MultiModelEstimate::of(&self.models.iter().map(of).collect::<Vec<_>>()).into()
    }

    fn mean(&self, of: impl Fn(&MeasuredModel) -> f64) -> f64 {
        self.models.iter().map(of).sum::<f64>() / self.models.len() as f64
    }

    /// Mean seconds by route, without the router.
    fn seconds(&self, model: &MeasuredModel) -> Vec<f64> {
        self.times.by_route(&model.test, self.space.routes())
    }

    /// FLOPs of the full route.
    pub(super) fn full_flops(&self) -> f64 {
        self.mean(|model| model.costs[self.space.full().index()])
    }

    fn full_seconds(&self) -> f64 {
        self.mean(|model| self.seconds(model)[self.space.full().index()])
    }

    pub(super) fn router(&self) -> Cost {
        Cost {
            flops: self.mean(|model| model.test.router_cost()),
            seconds: self.mean(|model| self.times.router(&model.test)),
        }
    }

    /// One route for every user.
    pub(super) fn route(&self, route: Route) -> RouteFinding {
        let full = self.space.full();
        let place = route.index();
        let cost = Cost {
            flops: self.mean(|model| model.costs[place]),
            seconds: self.mean(|model| self.seconds(model)[place]),
        };
        RouteFinding {
            name: self.space.name(route).to_owned(),
            cost,
            rounds: self.times.routes[place].rounds(),
            saved: 1.0 - cost.flops / self.full_flops(),
            test: self.value(|model| model.test.fixed(route).values),
            validation: self.mean(|model| model.validation.fixed(route).estimate().mean),
            over_full: self.value(|model| model.test.fixed(route).differences(&model.test.fixed(full))),
            on_hulls: self.models.iter().filter(|model| model.hull.vertices().contains(&route)).count(),
        }
    }

    pub(super) fn strongest_of(&self, model: &MeasuredModel) -> Route {
        model.strongest().unwrap_or(self.space.full())
    }

    /// Each model's route with the best validation metric, for every user.
    pub(super) fn strongest(&self) -> PolicyFinding {
        let place = |model: &MeasuredModel| self.strongest_of(model).index();
        PolicyFinding {
            cost: Cost {
                flops: self.mean(|model| model.costs[place(model)]),
                seconds: self.mean(|model| self.seconds(model)[place(model)]),
            },
            test: self.value(|model| model.test.fixed(self.strongest_of(model)).values),
        }
    }

    /// The routes that servers run for everybody under a budget instead of asking the router, without repeats.
    fn fixed(&self, place: usize) -> Vec<String> {
        self.names(self.models.iter().filter_map(|model| model.fixed[place]))
    }

    /// The names of routes in their order, without repeats.
    fn names(&self, routes: impl Iterator<Item = Route>) -> Vec<String> {
        let routes: BTreeSet<Route> = routes.collect();
        routes.into_iter().map(|route| self.space.name(route).to_owned()).collect()
    }

    /// The route that every model runs for everybody under a budget; `None` if a router decides or the models differ.
    fn fixed_in_all(&self, place: usize) -> Option<Route> {
        let first = self.models.first()?.fixed[place];
        first.filter(|_| self.models.iter().all(|model| model.fixed[place] == first))
    }

    /// The verdict about the models at one budget, which has the index `place`. Each model is measured as a server runs it: by
    /// the route of the budget, or by its router if the budget has none.
    pub(super) fn verdict(
        &self,
        place: usize,
        budget: Option<f64>,
        simple: &SimpleBaselines,
        seen: SeenItems,
    ) -> Verdict {
        let fixed = self.fixed_in_all(place);
        let routed = |model: &MeasuredModel| match model.fixed[place] {
            Some(route) => model.test.fixed(route),
            None => model.test.assigned(&model.choices[place]),
        };
        let slice =
            |model: &MeasuredModel| fixed.unwrap_or_else(|| self.best_affordable_route(model, routed(model).flops));
        let slices: Vec<Route> = self.models.iter().map(slice).collect();
        let contender = |name: &str, outcome: &dyn Fn(&MeasuredModel) -> PolicyOutcome| Contender {
            name: name.to_owned(),
            route: Some(name.to_owned()),
            values: self.models.iter().map(|model| outcome(model).values).collect(),
            flops: Some(self.mean(|model| outcome(model).flops)),
        };
        let without_network = |name: &str, values: &Vec<f64>| Contender {
            name: name.to_owned(),
            route: None,
            values: vec![values.clone(); self.models.len()],
            flops: None,
        };
        Verdict::new(&VerdictInputs {
            routes: self.space.len(),
            budget,
            fixed: fixed.map(|route| self.space.name(route).to_owned()),
            routed: contender("auto", &routed),
            full: contender("full", &|model| model.test.fixed(self.space.full())),
            // The recommended command names the first model, so its slice is the one to serve.
            slice: Contender {
                route: slices.first().map(|route| self.space.name(*route).to_owned()),
                ..contender(&self.names(slices.iter().copied()).join(" or "), &|model| model.test.fixed(slice(model)))
            },
            popularity: without_network("popularity", &simple.popularity),
            markov: without_network("markov", &simple.markov),
            full_flops: self.full_flops(),
            repeats: simple.repeats,
            seen,
        })
    }

    /// The single route of the verdict: the best one on validation that costs at most `limit`. It is chosen on the same users
    /// as in `train` and `eval`.
    fn best_affordable_route(&self, model: &MeasuredModel, limit: f64) -> Route {
        let every = selection_step(model.validation.cases_by_user().users());
        let means = model.validation.means(|user| user.is_multiple_of(every));
        let value = |route: Route| Ok::<f64, Infallible>(means[route.index()]);
        let Ok(route) = best_affordable_route(self.space, &model.costs, limit, value);
        route
    }

    /// Routes drawn uniformly.
    pub(super) fn random(&self) -> PolicyFinding {
        let uniform = vec![1.0 / self.space.len() as f64; self.space.len()];
        PolicyFinding {
            cost: Cost {
                flops: self.mean(|model| model.test.drawn(&uniform).flops),
                seconds: self.mean(|model| dot(&uniform, &self.seconds(model))),
            },
            test: self.value(|model| model.test.drawn(&uniform).values),
        }
    }

    /// The best route of each user in hindsight.
    pub(super) fn oracle(&self) -> OracleFinding {
        OracleFinding {
            flops: self.mean(|model| model.test.oracle(self.space).flops),
            test: self.value(|model| model.test.oracle(self.space).values),
        }
    }

    /// The models' routers at one budget, which has the index `place`.
    pub(super) fn operating_point(&self, place: usize, budget: Option<f64>) -> OperatingPoint {
        let routed = |model: &MeasuredModel| model.test.assigned(&model.choices[place]);
        let shares = |model: &MeasuredModel| route_frequencies(&model.choices[place], self.space.len());
        let cost = Cost {
            flops: self.mean(|model| routed(model).flops),
            seconds: self.mean(|model| self.times.routed(&model.test, &model.choices[place])),
        };
        let share_of = |route: Route| {
            let share = self.mean(|model| shares(model)[route.index()]);
            (share > 0.0).then(|| (self.space.name(route).to_owned(), share))
        };
        OperatingPoint {
            budget,
            fixed: self.fixed(place),
            fixed_in: self.models.iter().filter(|model| model.fixed[place].is_some()).count(),
            cost,
            saved: 1.0 - cost.flops / self.full_flops(),
            seconds_saved: 1.0 - cost.seconds / self.full_seconds(),
            test: self.value(|model| routed(model).values),
            matched: PolicyFinding {
                cost: Cost {
                    flops: self.mean(|model| model.test.drawn(&shares(model)).flops + model.test.router_cost()),
                    seconds: self
                        .mean(|model| dot(&shares(model), &self.seconds(model)) + self.times.router(&model.test)),
                },
                test: self.value(|model| model.test.drawn(&shares(model)).values),
            },
            over: self.differences(place),
            permuted: self.permutation_test(place),
            shares: self.space.routes().filter_map(share_of).collect(),
            routes_in_use: self.mean(|model| shares(model).iter().filter(|share| **share >= IN_USE).count() as f64),
        }
    }

    fn differences(&self, place: usize) -> PairedDifferences {
        let over = |other: &dyn Fn(&MeasuredModel) -> PolicyOutcome| -> Value {
            self.value(|model| model.test.assigned(&model.choices[place]).differences(&other(model)))
        };
        PairedDifferences {
            hull: over(&|model| self.mixture_of_equal_flops(model, place)),
            hull_by_time: over(&|model| self.mixture_of_equal_time(model, place)),
            hull_cross_fitted: over(&|model| {
                let cost = model.test.assigned(&model.choices[place]).flops;
                self.folds.static_mixture(self.space, &model.validation, &model.test, cost)
            }),
            full: over(&|model| model.test.fixed(self.space.full())),
            strongest: over(&|model| model.test.fixed(self.strongest_of(model))),
            matched: over(&|model| model.test.drawn(&route_frequencies(&model.choices[place], self.space.len()))),
        }
    }

    fn permutation_test(&self, place: usize) -> PermutationFinding {
        let seed = self.seed.wrapping_add(place as u64);
        let test = |model: &MeasuredModel| PermutationTest::run(&model.test, &model.choices[place], seed);
        let test = PermutationTest::mean_of(&self.models.iter().map(test).collect::<Vec<_>>());
        PermutationFinding {
            own: test.observed,
            mean: test.permuted_mean(),
            interval: test.permuted_interval(),
            gains_nothing: test.permuted_gain_nothing(),
            p: test.p(),
        }
    }

    /// The static mixture of a model that costs as many FLOPs as its router at a budget.
    pub(super) fn mixture_of_equal_flops(&self, model: &MeasuredModel, place: usize) -> PolicyOutcome {
        let cost = model.test.assigned(&model.choices[place]).flops;
        model.test.drawn(&model.hull.mixture(&model.costs, cost))
    }

    fn mixture_of_equal_time(&self, model: &MeasuredModel, place: usize) -> PolicyOutcome {
        let seconds = self.seconds(model);
        let cost = self.times.routed(&model.test, &model.choices[place]);
        model.test.drawn(&self.hull_by_time(model).mixture(&seconds, cost))
    }

    fn hull_by_time(&self, model: &MeasuredModel) -> UpperHull {
        UpperHull::of(self.space, &self.seconds(model), &model.validation.means(|_| true))
    }

    /// `[FLOPs, value]` of the best static mixtures on the test split, as means over the models.
    pub(super) fn hull_vertices(&self) -> Vec<[f64; 2]> {
        self.mean_vertices(|model| (model.hull.clone(), model.costs.clone()))
    }

    /// `[seconds, value]` of the best static mixtures on the test split, as means over the models.
    pub(super) fn hull_vertices_by_time(&self) -> Vec<[f64; 2]> {
        self.mean_vertices(|model| (self.hull_by_time(model), self.seconds(model)))
    }

    /// The vertices of the models' mean curve. `of` returns a model's hull and the routes' costs.
    fn mean_vertices(&self, of: impl Fn(&MeasuredModel) -> (UpperHull, Vec<f64>)) -> Vec<[f64; 2]> {
        let hulls: Vec<(UpperHull, Vec<f64>)> = self.models.iter().map(of).collect();
        let vertex_costs = |(hull, costs): &(UpperHull, Vec<f64>)| -> Vec<f64> {
            hull.vertices().iter().map(|route| costs[route.index()]).collect()
        };
        let mut costs: Vec<f64> = hulls.iter().flat_map(vertex_costs).collect();
        costs.sort_unstable_by(f64::total_cmp);
        costs.dedup();
        let value = |cost: f64| -> f64 {
            let of = |(model, (hull, costs)): (&MeasuredModel, &(UpperHull, Vec<f64>))| {
                model.test.drawn(&hull.mixture(costs, cost)).estimate().mean
            };
            self.models.iter().zip(&hulls).map(of).sum::<f64>() / hulls.len() as f64
        };
        costs.iter().map(|cost| [*cost, value(*cost)]).collect()
    }
}

/// NDCG@10 of the baselines without a network, by user.
pub(super) struct SimpleBaselines {
    pub(super) popularity: Vec<f64>,
    pub(super) markov: Vec<f64>,
    /// Share of the test items that are in their user's own history.
    pub(super) repeats: f64,
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}
