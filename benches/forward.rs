//! The time of one batch by LibTorch: the router, the smallest and the full route over full histories. Also the top ten
//! alone.

mod model;

use std::collections::HashSet;
use std::time::Duration;

use canet_domain::{Candidates, History, Selection, top_k};
use canet_model::Forward;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

use self::model::{ITEMS, MAX_LEN, history, model, rng};

fn forward(criterion: &mut Criterion) {
    let (forward, space) = model();
    let mut rng = rng(2);
    let histories: Vec<History> = (0..64).map(|_| history(MAX_LEN, &mut rng)).collect();
    let batch: Vec<&History> = histories.iter().collect();
    for (name, route) in [("router", None), ("smallest", Some(space.smallest())), ("full", Some(space.full()))] {
        let mut group = criterion.benchmark_group(name);
        for rows in [1, 8, 32, 64] {
            group.throughput(Throughput::Elements(rows as u64));
            group.bench_function(BenchmarkId::from_parameter(rows), |bencher| {
                bencher.iter(|| match route {
                    None => forward.router_logits(&batch[..rows]).map(drop),
                    Some(route) => forward.scores(route, &batch[..rows]).map(drop),
                });
            });
        }
        group.finish();
    }
    let scores = forward.scores(space.full(), &batch[..1]);
    let excluded: HashSet<_> = histories[0].items().iter().copied().collect();
    let selection = Selection { k: 10, excluded: &excluded, candidates: Candidates::All };
    let row = scores.as_ref().ok().and_then(|scores| scores.row(0)).unwrap_or_default();
    assert_eq!(row.len(), ITEMS + 1);
    criterion.bench_function("top 10", |bencher| bencher.iter(|| top_k(row, &selection)));
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2));
    targets = forward
}
criterion_main!(benches);
