//! The authors' checkpoint, imported and served: over HTTP every route gives the scores of their own program.

use std::path::Path;

use serde_json::{Value, json};

use super::import::{golden, vectors};
use super::server::{Process, canet, run};
use super::support::BACKENDS;

fn import(into: &Path) {
    let mut command = canet(&["import"]);
    let (state_dict, args) = (golden("state_dict.pt"), golden("args.json"));
    command.arg("--state-dict").arg(state_dict).arg("--args").arg(args).arg("--out").arg(into);
    let (code, stderr) = run(&mut command);
    assert_eq!(code, Some(0), "{stderr}");
}

/// The best ten unseen columns of a row, best first, with their scores, and the score that comes next.
fn top_ten(scores: &[f64], seen: &[u64]) -> (Vec<(u64, f64)>, f64) {
    let unseen = (1..).zip(&scores[1..]).filter(|(item, _)| !seen.contains(item));
    let mut ranked: Vec<(u64, f64)> = unseen.map(|(item, score)| (item, *score)).collect();
    ranked.sort_by(|a, b| b.1.total_cmp(&a.1));
    let next = ranked[10].1;
    ranked.truncate(10);
    (ranked, next)
}

fn assert_answer(answer: &Value, scores: &[f64], seen: &[u64], case: &str) {
    let (expected, next) = top_ten(scores, seen);
    let found = answer["items"].as_array().unwrap_or_else(|| panic!("{case}: {answer}"));
    assert_eq!(found.len(), 10, "{case}");
    for (place, (found, (item, score))) in found.iter().zip(&expected).enumerate() {
        let difference = (found["score"].as_f64().unwrap() - score).abs();
        assert!(difference <= 1e-4, "{case} place {place}: {difference}");
        // Which item stands there is settled only where no neighbour is as good.
        let above = place.checked_sub(1).map_or(f64::INFINITY, |place| expected[place].1);
        let below = expected.get(place + 1).map_or(next, |after| after.1);
        if above - score > 1e-4 && score - below > 1e-4 {
            assert_eq!(found["item"], json!(item.to_string()), "{case} place {place}");
        }
    }
}

#[test]
fn every_route_over_http_gives_the_authors_scores() {
    for backend in BACKENDS {
        gives_the_authors_scores(backend);
    }
}

fn gives_the_authors_scores(backend: &str) {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("golden");
    import(&root);
    let server = Process::serve(&root, &["--backend", backend]);
    let (shape, histories) = vectors("histories");
    let histories: Vec<Vec<u64>> =
        histories.chunks(shape[1]).map(|row| row.iter().map(|id| *id as u64).filter(|id| *id != 0).collect()).collect();
    let (shape, scores) = vectors("scores_full_full");
    let (_, sizes) = vectors("routes");
    for (sizes, scores) in sizes.chunks(3).zip(scores.chunks(shape[1] * shape[2])) {
        let route = format!("h{}-l{}-e{}", sizes[0], sizes[1], sizes[2]);
        let request = |history: &Vec<u64>| json!({"history": history, "route": route});
        let requests: Vec<Value> = histories.iter().map(request).collect();
        let reply = server.client.post("/recommend/batch", &json!({"requests": requests}));
        assert_eq!(reply.status, 200, "{reply:?}");
        let together = reply.json()["results"].clone();
        for (row, (history, scores)) in histories.iter().zip(scores.chunks(shape[2])).enumerate() {
            let case = format!("{backend}, {route} row {row}");
            assert_answer(&together[row], scores, history, &case);
            assert_eq!(together[row]["route"]["name"], json!(route), "{case}");
            assert_answer(&server.client.recommend(&requests[row]).json(), scores, history, &case);
        }
    }
}
