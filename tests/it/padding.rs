//! Lanes of a server: which rows share a batch, and that what it computed is counted, padding included.

use canet_domain::BatchBy;
use canet_serving::Policy;
use serde_json::{Value, json};

use super::metrics::slice_flops;
use super::server::{POLICY, ROOMY, Server};
use super::serving::{Keeper, Verdict, ask, gated_under, wait_until_queued};

/// Three rows of the width 8: their routes' sizes and the lengths of their histories.
const ROWS: [([u64; 3], u64); 3] = [([8, 2, 6], 3), ([8, 3, 10], 5), ([8, 1, 6], 12)];

fn name([hidden, layers, embedding]: [u64; 3]) -> String {
    format!("h{hidden}-l{layers}-e{embedding}")
}

fn request((sizes, length): ([u64; 3], u64)) -> Value {
    json!({"history": (101..101 + length).collect::<Vec<u64>>(), "route": name(sizes)})
}

/// Lets the three rows wait behind a busy device and then run; how many rows each batch had.
fn run_together(server: &Server, keeper: &Keeper) -> Vec<usize> {
    let busy = ask(server, json!({"history": [101], "route": "full"}));
    keeper.batch();
    let waiting: Vec<_> = ROWS.into_iter().map(|row| ask(server, request(row))).collect();
    wait_until_queued(server, ROWS.len());
    // A row that has its place may still be on its way to the executor; once the runtime's one thread answers
    // something else, it has been sent.
    server.client.get("/healthz");
    let mut sizes = Vec::new();
    while sizes.iter().sum::<usize>() < ROWS.len() {
        keeper.open(Verdict::Run);
        sizes.push(keeper.batch());
    }
    keeper.open(Verdict::Run);
    for answer in waiting.into_iter().chain([busy]) {
        assert_eq!(answer.join().unwrap().status, 200);
    }
    sizes
}

fn executed(server: &Server, sizes: [u64; 3]) -> f64 {
    server.client.metric(&format!("executed_flops_total{{route=\"{}\"}}", name(sizes)))
}

#[test]
fn rows_of_one_width_share_a_batch_and_its_padding_counts() {
    let (server, keeper) = gated_under(POLICY, ROOMY);
    assert_eq!(run_together(&server, &keeper), [3]);
    // The embeddings of all three are projected at the widest, 10; each row runs its own layers.
    let mut total = 0.0;
    let mut padding = 0.0;
    for (sizes @ [hidden, layers, embedding], length) in ROWS {
        let computed = slice_flops(hidden, layers, 10, length);
        assert_eq!(executed(&server, sizes), computed, "{}", name(sizes));
        total += computed;
        padding += computed - slice_flops(hidden, layers, embedding, length);
    }
    // 2 x 8 x 4 columns for 3 and for 12 items.
    assert_eq!(padding, 960.0);
    assert_eq!(server.client.metric("batch_padding_ratio_count"), 2.0);
    assert!((server.client.metric("batch_padding_ratio_sum") - padding / total).abs() < 1e-12);
    assert_eq!(server.client.metric("batch_size_sum{lane=\"h8\"}"), 3.0);
    assert_eq!(server.client.metric("batch_size_count{lane=\"h8\"}"), 1.0);
}

#[test]
fn rows_of_one_route_share_a_batch_where_that_is_asked_for_and_nothing_is_padded() {
    let (server, keeper) = gated_under(Policy { batch_by: BatchBy::Route, ..POLICY }, ROOMY);
    assert_eq!(run_together(&server, &keeper), [1, 1, 1]);
    for (sizes @ [hidden, layers, embedding], length) in ROWS {
        assert_eq!(executed(&server, sizes), slice_flops(hidden, layers, embedding, length), "{}", name(sizes));
        let lane = format!("batch_size_sum{{lane=\"{}\"}}", name(sizes));
        assert_eq!(server.client.metric(&lane), 1.0);
    }
    assert_eq!(server.client.metric("batch_padding_ratio_count"), 4.0);
    assert_eq!(server.client.metric("batch_padding_ratio_sum"), 0.0);
}
