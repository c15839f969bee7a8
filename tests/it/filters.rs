//! Filters, quotas, exclusions and candidates against a definition by hand, over every forward, with a small catalogue and
//! with a large one, whose scores are streamed.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use canet_catalogue::{FilterExpression, ItemIndex, MaxPer, Restriction, SetPool};
use canet_cpu::{CpuForward, CpuOptions};
use canet_data::ItemTableBuilder;
use canet_domain::{Item, Ranked, Route};
use canet_model::{Forward, ModelConfig, Precision, RouterConfig};
use canet_serving::{Due, Request, rank_requests};
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};

use super::support::{catalogue, forwards, full_size_config, random_history, random_weights, rng, small_config};

/// What the file says about an item.
#[derive(Clone, Debug, Default)]
struct Known {
    hidden: bool,
    values: BTreeMap<&'static str, Vec<String>>,
}

/// A shop: of the categories, one has most of the items and one has a few. There are many brands.
fn shop(items: usize, rng: &mut ChaCha8Rng) -> HashMap<Item, Known> {
    let mut shop = HashMap::new();
    for item in (1..=items as u32).filter_map(Item::new) {
        if rng.gen_bool(0.05) {
            continue;
        }
        let category = |rng: &mut ChaCha8Rng| match rng.gen_range(0..100) {
            0..60 => "most",
            60..90 => "many",
            90..99 => "some",
            _ => "few",
        };
        let categories = (0..rng.gen_range(0..3)).map(|_| category(rng).to_owned()).collect();
        let brand = vec![format!("b{}", rng.gen_range(0..200))];
        let values = BTreeMap::from([("category", categories), ("brand", brand)]);
        shop.insert(item, Known { hidden: rng.gen_bool(0.05), values });
    }
    shop
}

/// The same as the server reads it.
fn index(shop: &HashMap<Item, Known>, items: usize) -> Arc<ItemIndex> {
    let catalogue = catalogue(items);
    let mut builder = ItemTableBuilder::new();
    for (item, known) in shop {
        for (key, values) in &known.values {
            let key = builder.key(key).unwrap();
            values.iter().for_each(|value| builder.value(key, value).unwrap());
        }
        builder.item(catalogue.id(*item), "", known.hidden).unwrap();
    }
    let brands: Vec<String> = (0..200).map(|brand| format!("b{brand}")).collect();
    // Every value of a filter exists, if only in an item that the model does not know.
    for (key, values) in
        [("category", vec!["most", "many", "some", "few"]), ("brand", brands.iter().map(String::as_str).collect())]
    {
        let key = builder.key(key).unwrap();
        values.iter().for_each(|value| builder.value(key, value).unwrap());
    }
    builder.item("unknown", "", false).unwrap();
    Arc::new(ItemIndex::new(Arc::new(builder.finish(String::new())), &catalogue))
}

/// A filter by a category, by brands, by both, or by what an item must not be.
fn filter(rng: &mut ChaCha8Rng) -> Value {
    let category = ["most", "many", "some", "few"][rng.gen_range(0..4)];
    let brands: Vec<String> = (0..rng.gen_range(1..30)).map(|_| format!("b{}", rng.gen_range(0..150))).collect();
    match rng.gen_range(0..6) {
        0 => json!({}),
        1 => json!({ "category": category }),
        2 => json!({ "brand": brands }),
        3 => json!({ "category": [category, "few"], "not": { "brand": brands } }),
        4 => json!({ "not": [{ "category": category }, { "brand": brands, "category": "many" }] }),
        _ => json!({ "brand": brands, "category": category }),
    }
}

/// Whether an item may be in an answer, by the definition of a filter.
fn keeps(filter: &Value, known: &Known) -> bool {
    let listed = |value: &Value| match value {
        Value::Array(values) => values.clone(),
        value => vec![value.clone()],
    };
    filter.as_object().unwrap().iter().all(|(key, value)| match key.as_str() {
        "not" => !listed(value).iter().any(|filter| keeps(filter, known)),
        key => {
            let wanted = listed(value);
            known.values.get(key).is_some_and(|values| values.iter().any(|value| wanted.contains(&json!(value))))
        }
    })
}

/// What a client asks for.
struct Asked {
    route: Route,
    filter: Value,
    max_per: BTreeMap<&'static str, u64>,
    /// The candidates as they are sent.
    candidates: Option<Vec<Item>>,
    request: Request,
}

fn ask(config: &ModelConfig, index: &Arc<ItemIndex>, rng: &mut ChaCha8Rng) -> Asked {
    let space = config.check().unwrap();
    let filter = filter(rng);
    let max_per = match rng.gen_range(0..4) {
        0 => BTreeMap::from([("category", rng.gen_range(1..4))]),
        1 => BTreeMap::from([("category", rng.gen_range(1..6)), ("brand", 1)]),
        _ => BTreeMap::new(),
    };
    let limits = MaxPer::new(max_per.iter().map(|(key, most)| ((*key).into(), *most)));
    let expression: FilterExpression = serde_json::from_value(filter.clone()).unwrap();
    let restriction = Restriction::new(index, Some(&expression), Some(&limits)).unwrap();
    let item = |rng: &mut ChaCha8Rng| Item::new(rng.gen_range(1..=config.items as u32)).unwrap();
    let candidates: Option<Vec<Item>> =
        rng.gen_bool(0.2).then(|| (0..rng.gen_range(0..100)).map(|_| item(rng)).collect());
    let allows = |item: &Item| restriction.as_ref().is_none_or(|restriction| restriction.allows(*item));
    let arrived = Instant::now();
    let request = Request {
        history: random_history(config.items, config.max_len.min(3), rng),
        k: [1, 5, 10, 40, 300][rng.gen_range(0..5)].min(config.items),
        excluded: (0..rng.gen_range(0..50)).map(|_| item(rng)).collect(),
        candidates: candidates.as_ref().map(|listed| listed.iter().copied().filter(allows).collect()),
        restriction,
        route: None,
        budget: None,
        due: Due { arrived, deadline: arrived + Duration::from_secs(3600) },
    };
    Asked { route: space.route(rng.gen_range(0..space.len())).unwrap(), filter, max_per, candidates, request }
}

/// The answer by its definition: from the best score down, an item is taken if everything allows it.
fn by_hand(asked: &Asked, shop: &HashMap<Item, Known>, scores: &[f32]) -> Vec<Ranked> {
    let nothing = Known::default();
    let known = |item: Item| shop.get(&item).unwrap_or(&nothing);
    let mut ranked: Vec<Ranked> = (1..scores.len())
        .map(|column| Ranked { item: Item::new(column as u32).unwrap(), score: scores[column] })
        .collect();
    ranked.sort_by(|a, b| b.score.total_cmp(&a.score).then(a.item.cmp(&b.item)));
    let candidates: Option<HashSet<Item>> = asked.candidates.as_ref().map(|listed| listed.iter().copied().collect());
    let (mut taken, mut counts): (Vec<Ranked>, HashMap<(&str, &str), u64>) = (Vec::new(), HashMap::new());
    for ranked in ranked {
        let known = known(ranked.item);
        let allowed = !known.hidden
            && keeps(&asked.filter, known)
            && !asked.request.excluded.contains(&ranked.item)
            && candidates.as_ref().is_none_or(|candidates| candidates.contains(&ranked.item));
        let mut values: HashSet<(&str, &str)> = HashSet::new();
        for key in asked.max_per.keys() {
            values.extend(known.values.get(key).into_iter().flatten().map(|value| (*key, value.as_str())));
        }
        if taken.len() == asked.request.k || !allowed {
            continue;
        }
        if values.iter().all(|value| counts.get(value).copied().unwrap_or_default() < asked.max_per[value.0]) {
            values.into_iter().for_each(|value| *counts.entry(value).or_default() += 1);
            taken.push(ranked);
        }
    }
    taken
}

/// Asks forwards and compares. Returns how many rows ran twice.
fn compare(config: &ModelConfig, forwards: &[(String, Box<dyn Forward>)], rows: usize, seed: u64) -> usize {
    let mut rng = rng(seed);
    let shop = shop(config.items, &mut rng);
    let index = index(&shop, config.items);
    let asked: Vec<Asked> = (0..rows).map(|_| ask(config, &index, &mut rng)).collect();
    let mut twice = 0;
    for (name, forward) in forwards {
        let mut pool = SetPool::default();
        for batch in asked.chunks(7) {
            let rows = batch.iter().map(|asked| (asked.route, &asked.request));
            let found = rank_requests(&**forward, config.items, rows, &mut pool).unwrap();
            twice += found.iter().filter(|row| row.ran_twice).count();
            for (asked, found) in batch.iter().zip(found) {
                let scores = forward.scores(asked.route, &[&asked.request.history]).unwrap();
                let expected = by_hand(asked, &shop, scores.row(0).unwrap());
                let found = found.ranked.unwrap();
                let told = format!("{name}: {} {:?} k {}", asked.filter, asked.max_per, asked.request.k);
                assert_eq!(found.len(), expected.len(), "{told}");
                for (found, expected) in found.iter().zip(&expected) {
                    // LibTorch rounds the scores of a mixed batch otherwise.
                    let is_near = name == "libtorch" && (found.score - expected.score).abs() < 1e-4;
                    assert!(found == expected || is_near, "{told}: {found:?} is not {expected:?}");
                }
            }
        }
    }
    twice
}

#[test]
fn every_forward_answers_within_filters_and_quotas() {
    let config = ModelConfig { items: 700, ..small_config() };
    let weights = random_weights(&config, &mut rng(21));
    let twice = compare(&config, &forwards(&config, &weights), 60, 22);
    assert!(twice > 0, "some quotas are only filled by items far down");
}

#[test]
fn a_large_catalogue_is_answered_within_filters_and_quotas_with_and_without_the_byte_scan() {
    // An output layer that no cache holds.
    let config = ModelConfig {
        max_len: 2,
        hidden: vec![64, 128],
        layers: vec![1],
        embedding: vec![8],
        router: RouterConfig { dim: 4, heads: 1, ffn: 4 },
        ..full_size_config(34_000)
    };
    let weights = random_weights(&config, &mut rng(23));
    let native = |byte_scan| -> Box<dyn Forward> {
        let options = CpuOptions { byte_scan, ..CpuOptions::fastest(Precision::Fp32, 2) };
        Box::new(CpuForward::load(&config, &weights, options).unwrap())
    };
    let forwards = [("scanned".to_owned(), native(true)), ("all scores".to_owned(), native(false))];
    assert!(forwards[0].1.weight_bytes() > forwards[1].1.weight_bytes(), "the layer has a second copy");
    // Without optimisation a row takes seconds.
    let rows = if cfg!(debug_assertions) { 14 } else { 105 };
    compare(&config, &forwards, rows, 24);
}
