//! Answers with kept states are the same to the bit as without.

use std::collections::HashSet;

use canet_cpu::{CpuForward, CpuOptions, Level};
use canet_domain::{Candidates, History, Item, Ranked, Route, Selection, Window};
use canet_model::{Forward, HistoryCache, ModelConfig, Positions, Precision, Query};
use canet_testing::{full_size_config, item, odd_config, random_weights, rng, small_config};
use proptest::prelude::*;
use rand::Rng;
use rand_chacha::ChaCha8Rng;

use super::options;

/// Everything that one case varies.
#[derive(Clone, Copy, Debug)]
struct Sessions {
    seed: u64,
    /// Bytes of the cache.
    budget: usize,
    stride: usize,
    batches: usize,
}

/// Users that return: their histories grow, are cut, and begin alike.
struct Users {
    histories: Vec<Vec<Item>>,
    items: u32,
}

impl Users {
    fn new(items: usize, rng: &mut ChaCha8Rng) -> Users {
        let mut users = Users { histories: Vec::new(), items: items as u32 };
        users.histories = (0..5).map(|_| vec![users.draw(rng); 2]).collect();
        users
    }

    fn draw(&self, rng: &mut ChaCha8Rng) -> Item {
        item(rng.gen_range(1..=self.items))
    }

    /// The history of a user's next request.
    fn next(&mut self, window: Window, rng: &mut ChaCha8Rng) -> History {
        let user = rng.gen_range(0..self.histories.len());
        match rng.gen_range(0..12) {
            // Another user with the same beginning.
            0 => self.histories[user] = self.histories[(user + 1) % 5].clone(),
            1 => {
                let cut = rng.gen_range(1..=self.histories[user].len());
                self.histories[user].truncate(cut);
            }
            2 => {}
            many => {
                let new: Vec<Item> = (0..1 + many % 4).map(|_| self.draw(rng)).collect();
                self.histories[user].extend(new);
            }
        }
        History::in_window(&self.histories[user], window, 0).unwrap()
    }
}

fn bits(rankings: &[Vec<Ranked>]) -> Vec<Vec<(Item, u32)>> {
    let bits = |ranked: &Ranked| (ranked.item, ranked.score.to_bits());
    rankings.iter().map(|ranking| ranking.iter().map(bits).collect()).collect()
}

/// Runs sessions with the cache and without. Returns how many FLOPs the cache saved.
fn run(config: &ModelConfig, sessions: Sessions, options: CpuOptions) -> u64 {
    let Sessions { seed, budget, stride, batches } = sessions;
    let mut rng = rng(seed);
    let (weights, space) = (random_weights(config, &mut rng), config.check().unwrap());
    let load = |options| CpuForward::load(config, &weights, options).unwrap();
    let keeping = load(CpuOptions { history_cache: budget, ..options });
    // The reference runs each row alone on one thread.
    let reference = load(CpuOptions { threads: 1, ..options });
    let (mut users, excluded) = (Users::new(config.items, &mut rng), HashSet::new());
    let selection = Selection { k: 7, excluded: &excluded, candidates: Candidates::All };
    let window = Window { max_len: config.max_len, stride };
    let mut saved = 0;
    for _ in 0..batches {
        let rows: Vec<(Route, History)> = (0..rng.gen_range(1..=7))
            .map(|_| (space.route(rng.gen_range(0..space.len())).unwrap(), users.next(window, &mut rng)))
            .collect();
        let rows: Vec<(Route, Query<'_>)> =
            rows.iter().map(|(route, history)| (*route, Query { history, selection })).collect();
        let predicted: Vec<u64> = rows
            .iter()
            .map(|(route, query)| keeping.history_cache().map_or(0, |cache| cache.reusable(*route, query.history)))
            .collect();
        let found = keeping.rank_reusing(&rows).unwrap();
        let expected: Vec<_> = rows.iter().flat_map(|row| reference.rank(&[*row]).unwrap()).collect();
        assert_eq!(bits(&found.rankings), bits(&expected), "{sessions:?}");
        // The first row of a batch finds what was predicted, unless too little of it is worth using.
        if rows.len() == 1 && found.reused(0) > 0 {
            assert_eq!(found.reused(0), predicted[0]);
        }
        for (row, (route, query)) in rows.iter().enumerate() {
            let all = config.shape().route_flops(&space, *route, query.history.len());
            assert!(found.reused(row) < all);
            saved += found.reused(row);
        }
        let stats = keeping.history_cache().map(HistoryCache::stats).unwrap_or_default();
        assert!(stats.entries == 0 || stats.bytes <= budget as u64, "{stats:?} {sessions:?}");
    }
    saved
}

fn sessions() -> impl Strategy<Value = Sessions> {
    let budget = prop_oneof![Just(1_usize << 20), 2_000..40_000_usize, Just(0)];
    (any::<u64>(), budget, 1..=12_usize, 1..14_usize).prop_map(|(seed, budget, stride, batches)| Sessions {
        seed,
        budget,
        stride,
        batches,
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(60) })]

    #[test]
    fn no_bit_of_an_answer_depends_on_the_cache(sessions in sessions(), relative in any::<bool>(), threads in 1..3_usize) {
        let positions = if relative { Positions::Relative } else { Positions::Oldest };
        // Without a depth of one block every row keeps states.
        let layers = if sessions.seed % 2 == 0 { vec![1, 2, 4] } else { vec![2, 3, 5] };
        let embedding_norm = sessions.seed % 3 == 0;
        let config = ModelConfig { positions, layers, embedding_norm, ..small_config() };
        let precision = if sessions.seed % 5 == 0 { Precision::Bf16 } else { Precision::Fp32 };
        run(&config, sessions, options(Level::best(), precision, threads));
    }
}

#[test]
#[cfg_attr(debug_assertions, ignore = "takes minutes without optimisation")]
fn no_bit_depends_on_the_cache_for_large_and_odd_sizes_on_every_level() {
    let large = ModelConfig { layers: vec![1, 2, 4], ..full_size_config(500) };
    for (seed, config) in [odd_config(), large].into_iter().enumerate() {
        for (positions, level) in
            [Positions::Relative, Positions::Oldest].into_iter().zip([Level::best()].iter().cycle())
        {
            let config = ModelConfig { positions, ..config.clone() };
            let (stride, seed) = (config.max_len / 4, seed as u64);
            let sessions = Sessions { seed, budget: 64 << 20, stride, batches: 40 };
            assert!(run(&config, sessions, options(*level, Precision::Fp32, 2)) > 0);
        }
        for level in Level::available() {
            let config = ModelConfig { positions: Positions::Relative, ..config.clone() };
            let sessions = Sessions { seed: 9, budget: 3 << 20, stride: 10, batches: 12 };
            run(&config, sessions, options(level, Precision::Bf16, 1));
            run(&config, sessions, options(level, Precision::Fp32, 1));
        }
    }
}

#[test]
fn a_returning_history_reuses_all_but_its_new_items() {
    let config = ModelConfig { positions: Positions::Relative, ..small_config() };
    let mut rng = rng(4);
    let (weights, space) = (random_weights(&config, &mut rng), config.check().unwrap());
    let options = CpuOptions { history_cache: 1 << 20, ..CpuOptions::fastest(Precision::Fp32, 1) };
    let forward = CpuForward::load(&config, &weights, options).unwrap();
    let items: Vec<Item> = (1..=12).map(item).collect();
    let excluded = HashSet::new();
    let reused = |route: Route, length: usize| {
        let history = History::new(&items[..length], 12).unwrap();
        let selection = Selection { k: 5, excluded: &excluded, candidates: Candidates::All };
        forward.rank_reusing(&[(route, Query { history: &history, selection })]).unwrap().reused(0)
    };
    let cost = |route: Route, length: usize, kept: &[usize]| {
        config.shape().reused_flops(space.slice(route), length, kept.iter().copied())
    };
    let [full, shallow] = ["h12-l4-e10", "h12-l2-e10"].map(|name| space.parse(name).unwrap());
    assert_eq!(reused(shallow, 8), 0);
    assert_eq!(reused(shallow, 8), cost(shallow, 8, &[8]));
    // A deeper route continues with the blocks that are missing, a shallower one reads the first.
    assert_eq!(reused(full, 9), cost(full, 9, &[8]));
    assert_eq!(reused(full, 10), cost(full, 10, &[9, 9, 9]));
    assert_eq!(reused(shallow, 11), cost(shallow, 11, &[10]));
    assert_eq!(reused(full, 12), cost(full, 12, &[11, 10, 10]));
    // A part of a kept history needs nothing new. Another width and a route of one block know nothing.
    assert_eq!(reused(full, 6), cost(full, 6, &[6, 6, 6]));
    assert_eq!(reused(space.parse("h8-l4-e10").unwrap(), 12), 0);
    assert_eq!(reused(space.parse("h12-l1-e10").unwrap(), 12), 0);
    let cache = forward.history_cache().unwrap();
    let stats = cache.stats();
    assert_eq!((stats.entries, stats.hits, stats.misses_of_history, stats.misses_of_slice), (2, 6, 1, 1));
    cache.close();
    assert_eq!(reused(full, 12), 0);
    assert_eq!((reused(full, 12), cache.stats().entries, cache.stats().bytes), (0, 0, 0));
}

#[test]
fn histories_of_different_owners_share_nothing() {
    let config = ModelConfig { positions: Positions::Relative, ..small_config() };
    let mut rng = rng(6);
    let (weights, space) = (random_weights(&config, &mut rng), config.check().unwrap());
    let options = CpuOptions { history_cache: 1 << 20, ..CpuOptions::fastest(Precision::Fp32, 1) };
    let forward = CpuForward::load(&config, &weights, options).unwrap();
    let items: Vec<Item> = (1..=8).map(item).collect();
    let excluded = HashSet::new();
    let reused = |owner: u64, length: usize| {
        let history = History::new(&items[..length], 12).unwrap().of_owner(owner);
        let selection = Selection { k: 5, excluded: &excluded, candidates: Candidates::All };
        let cache = forward.history_cache().unwrap();
        let expected = cache.reusable(space.full(), &history);
        let found = forward.rank_reusing(&[(space.full(), Query { history: &history, selection })]).unwrap().reused(0);
        assert_eq!(found, expected);
        found
    };
    assert_eq!([0, 1, 2].map(|owner| reused(owner, 6)), [0; 3]);
    assert!([0, 1, 2].map(|owner| reused(owner, 8)).iter().all(|saved| *saved > 0));
}

#[test]
fn sessions_that_end_do_not_keep_new_ones_out() {
    let config = ModelConfig { positions: Positions::Relative, ..small_config() };
    let mut rng = rng(5);
    let (weights, space) = (random_weights(&config, &mut rng), config.check().unwrap());
    // Room for a few histories, so that most sessions leave to make room.
    let options = CpuOptions { history_cache: 20_000, ..CpuOptions::fastest(Precision::Fp32, 1) };
    let forward = CpuForward::load(&config, &weights, options).unwrap();
    let excluded = HashSet::new();
    let selection = Selection { k: 5, excluded: &excluded, candidates: Candidates::All };
    for _ in 0..400 {
        let items: Vec<Item> = (0..6).map(|_| item(rng.gen_range(1..=config.items as u32))).collect();
        for length in [4, 5, 6] {
            let history = History::new(&items[..length], 12).unwrap();
            forward.rank_reusing(&[(space.full(), Query { history: &history, selection })]).unwrap();
        }
    }
    let stats = forward.history_cache().unwrap().stats();
    assert!(stats.evictions > 300, "{stats:?}");
    assert_eq!(stats.hits, 800);
}

#[test]
fn a_model_that_counts_positions_from_the_newest_item_keeps_nothing() {
    let config = small_config();
    let weights = random_weights(&config, &mut rng(1));
    let options = CpuOptions { history_cache: 1 << 20, ..CpuOptions::fastest(Precision::Fp32, 1) };
    assert!(CpuForward::load(&config, &weights, options).unwrap().history_cache().is_none());
}
