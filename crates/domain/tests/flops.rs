//! The cost formulas against PyTorch's own flop counter (`tests/fixtures/make_flops.py`).

#![allow(clippy::unwrap_used, reason = "a failed test panics")]

use canet_domain::{FfnInner, ModelShape, RouteSpace, RouterShape, Slice};
use serde::Deserialize;

#[derive(Deserialize)]
struct Fixture {
    spaces: Vec<Space>,
}

#[derive(Deserialize)]
struct Space {
    name: String,
    items: usize,
    ffn_inner: String,
    hidden: Vec<usize>,
    layers: Vec<usize>,
    embedding: Vec<usize>,
    router: Router,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Router {
    dim: usize,
    ffn: usize,
}

#[derive(Deserialize)]
struct Case {
    length: usize,
    router: u64,
    routes: Vec<u64>,
}

impl Space {
    fn shape(&self) -> ModelShape {
        ModelShape {
            items: self.items,
            width: self.hidden[self.hidden.len() - 1],
            ffn_inner: if self.ffn_inner == "full" { FfnInner::Full } else { FfnInner::Slice },
            router: RouterShape { dim: self.router.dim, ffn: self.router.ffn },
        }
    }

    fn routes(&self) -> RouteSpace {
        RouteSpace::new(self.hidden.clone(), self.layers.clone(), self.embedding.clone()).unwrap()
    }
}

fn fixture() -> Fixture {
    serde_json::from_str(include_str!("../../../tests/fixtures/flops.json")).unwrap()
}

#[test]
fn every_route_costs_what_pytorch_counts() {
    for space in fixture().spaces {
        let (shape, routes) = (space.shape(), space.routes());
        for case in &space.cases {
            let found: Vec<u64> = routes.routes().map(|route| shape.route_flops(&routes, route, case.length)).collect();
            assert_eq!(found, case.routes, "{}, {} items", space.name, case.length);
            assert_eq!(found.last(), Some(&shape.full_flops(&routes, case.length)), "{}", space.name);
        }
    }
}

#[test]
fn the_router_costs_what_pytorch_counts() {
    for space in fixture().spaces {
        let (shape, routes) = (space.shape(), space.routes());
        for case in &space.cases {
            let found = shape.router_flops(routes.len(), case.length);
            assert_eq!(found, case.router, "{}, {} items", space.name, case.length);
        }
    }
}

#[test]
fn the_default_space_at_50_items_of_3416_has_the_known_costs() {
    let shape =
        ModelShape { items: 3416, width: 128, ffn_inner: FfnInner::Slice, router: RouterShape { dim: 32, ffn: 128 } };
    let routes = RouteSpace::new(vec![64, 96, 128], vec![2, 4, 6, 8], vec![64, 96, 128]).unwrap();
    let millions = |flops: u64, digits: i32| (flops as f64 / 1e6 * 10f64.powi(digits)).round() / 10f64.powi(digits);
    assert_eq!(millions(shape.full_flops(&routes, 50), 2), 152.73);
    assert_eq!(millions(shape.route_flops(&routes, routes.smallest(), 50), 3), 7.316);
    assert_eq!(millions(shape.router_flops(routes.len(), 50), 3), 0.234);
}

#[test]
fn kept_positions_save_their_share_of_the_blocks_that_pytorch_counts() {
    for space in fixture().spaces {
        let (shape, routes) = (space.shape(), space.routes());
        let [shallow, deep, ..] = space.layers[..] else { continue };
        for case in &space.cases {
            for route in routes.routes() {
                let slice = routes.slice(route);
                // The same slice at two depths differs by whole blocks.
                let of_depth = |layers| case.routes[routes.find(Slice { layers, ..slice }).unwrap().index()];
                let block = (of_depth(deep) - of_depth(shallow)) / (deep - shallow) as u64;
                let embedding = 2 * (case.length * slice.embedding * slice.hidden) as u64;
                let reused = |kept: usize| shape.reused_flops(slice, case.length, vec![kept; slice.layers - 1]);
                let blocks = slice.layers as u64 - 1;
                let expected = if blocks == 0 { 0 } else { blocks * block + embedding };
                assert_eq!(reused(case.length), expected, "{}: {slice} {}", space.name, case.length);
                for kept in 0..case.length {
                    assert_eq!(reused(kept) * case.length as u64, reused(case.length) * kept as u64);
                }
            }
        }
    }
}
