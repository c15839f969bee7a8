use std::sync::atomic::{AtomicU64, Ordering};

use super::uniform::uniform;
use canet_domain::{Route, RouteSpace};

/// Sends a share of the routed rows over a route that is drawn at random from all routes of the model.
///
/// The router sends different users over different routes, so the accuracy of its routes cannot be compared. The rows of
/// this sample are comparable: chance decides which are in it, and which route they run.
#[derive(Debug)]
pub struct Exploration {
    share: f64,
    /// The state of SplitMix64. Each draw takes the next number, whichever thread draws it.
    state: AtomicU64,
}

/// A row's draw: it runs a random route.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Draw(u64);

/// SplitMix64's step.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

impl Exploration {
    /// Explores with `share` of the rows. `seed` makes the choice of rows and routes repeatable.
    pub fn new(share: f64, seed: u64) -> Exploration {
        Exploration { share, state: AtomicU64::new(seed) }
    }

    /// Whether the next row explores.
    pub(crate) fn draw(&self) -> Option<Draw> {
        let state = self.state.fetch_add(STEP, Ordering::Relaxed).wrapping_add(STEP);
        let drawn = mix(state);
        (uniform(drawn) < self.share).then(|| Draw(mix(drawn)))
    }
}

impl Draw {
    /// The row's route.
    pub(crate) fn route(self, space: &RouteSpace) -> Route {
        // A space has far fewer than 2^32 routes, so that all are equally likely but for a part in 2^32.
        let index = (self.0 % space.len().max(1) as u64) as usize;
        space.route(index).unwrap_or_else(|| space.full())
    }
}

fn mix(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

#[cfg(test)]
mod tests {
    use super::Exploration;
    use canet_domain::RouteSpace;

    #[test]
    fn the_share_is_kept_and_every_route_is_as_likely() {
        let space = RouteSpace::new(vec![8, 16], vec![1, 2], vec![8]).unwrap();
        let exploration = Exploration::new(0.1, 7);
        let mut drawn = vec![0_u32; space.len()];
        for _ in 0..100_000 {
            if let Some(draw) = exploration.draw() {
                drawn[draw.route(&space).index()] += 1;
            }
        }
        // Within five standard errors: 95 of all draws, 43 of a route's.
        let all: u32 = drawn.iter().sum();
        assert!(all.abs_diff(10_000) < 475, "{all}");
        for count in &drawn {
            assert!(count.abs_diff(all / 4) < 215, "{drawn:?}");
        }
        assert!((0..1000).all(|_| Exploration::new(1.0, 3).draw().is_some()));
    }
}
