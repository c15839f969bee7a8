//! Whether the server's hit rates are those of an offline evaluation, when simulated users reveal their next items by their
//! next requests.

use std::collections::BTreeMap;

use canet_api::proto::canet::v1 as proto;
use canet_domain::{History, Item, Proportion, Route};
use canet_evaluation::{SeenItems, target_rank};
use canet_model::{Forward, Model};
use canet_serving::{Exploration, Generation, RecommenderOptions};
use serde_json::{Value, json};

use super::grpc_client::{Ended, Grpc};
use super::server::{POLICY, Server, metric, numbered};
use super::support::{Reference, draft, random_history, reference, rng, small_config};

const STEPS: usize = 15;

/// A recommender that judges, with room for all users of a test.
fn judging() -> RecommenderOptions {
    RecommenderOptions { judge_memory: Some(1 << 20), ..RecommenderOptions::default() }
}

/// Items of simulated users, oldest first. Some occur twice.
fn population(users: usize, seed: u64) -> Vec<Vec<Item>> {
    let mut rng = rng(seed);
    (0..users).map(|_| random_history(40, STEPS, &mut rng).items().to_vec()).collect()
}

/// The model that [`Server::start`] serves.
fn offline() -> Reference {
    let draft = numbered(draft(small_config(), 11));
    reference(&draft.config, &draft.weights)
}

/// The first item is 101.
fn ids(items: &[Item]) -> Vec<u32> {
    items.iter().map(|item| item.id() + 100).collect()
}

/// Replays the users in the order of time. Each request has one more item than the user's request before.
fn replay(server: &Server, users: &[Vec<Item>], rest: &Value) -> Vec<Value> {
    let mut answers = Vec::new();
    for step in 1..=STEPS {
        for (user, items) in users.iter().enumerate() {
            let mut request = json!({"history": ids(&items[..step]), "user": format!("user {user}")});
            request.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
            let reply = server.client.recommend(&request);
            assert_eq!(reply.status, 200, "{reply:?}");
            answers.push(reply.json());
        }
    }
    answers
}

/// The rank of each user's item after each step but the last, on a route or on the router's.
fn ranks(model: &Model, users: &[Vec<Item>], route: Option<Route>, seen: SeenItems) -> Vec<(Route, Option<u32>)> {
    let forward = offline();
    let mut ranks = Vec::new();
    for items in users {
        for step in 1..STEPS {
            let history = History::new(&items[..step], small_config().max_len).unwrap();
            let route = route.unwrap_or_else(|| model.route(&[&history], POLICY.budget).unwrap()[0].route);
            let scores = forward.scores(route, &[&history]).unwrap();
            let rank = target_rank(scores.iter().next().unwrap(), seen.masked(&items[..step]), items[step]);
            ranks.push((route, rank.filter(|rank| *rank <= 10)));
        }
    }
    ranks
}

/// The value of a series with these labels, which stand in the order of their names.
fn of(scrape: &str, family: &str, labels: &[(&str, &str)]) -> f64 {
    let labels: Vec<String> = labels.iter().map(|(name, value)| format!("{name}=\"{value}\"")).collect();
    metric(scrape, &format!("{family}{{{}}}", labels.join(",")))
}

/// Judged answers, and hits, over all series.
fn judged(server: &Server) -> (f64, f64) {
    let scrape = server.recommender.metrics().render().unwrap();
    let sum = |family: &str| -> f64 {
        let series = scrape.lines().filter(|line| line.starts_with(&format!("canet_{family}{{")));
        series.map(|line| line.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap()).sum()
    };
    (sum("judged_total"), sum("hits_total"))
}

#[test]
fn hits_by_route_equal_an_offline_computation() {
    for exclude_seen in [true, false] {
        let server = Server::start_with(judging());
        let users = population(40, 3);
        replay(&server, &users, &json!({"exclude_seen": exclude_seen}));
        let generation = server.recommender.generation().unwrap();
        let mut expected = BTreeMap::<Route, (f64, f64, f64)>::new();
        for (route, rank) in ranks(&generation.model, &users, None, SeenItems::excluded_if(exclude_seen)) {
            let (judged, hits, reciprocal) = expected.entry(route).or_default();
            *judged += 1.0;
            *hits += f64::from(u8::from(rank.is_some()));
            *reciprocal += rank.map_or(0.0, |rank| 1.0 / f64::from(rank));
        }
        assert!(expected.len() > 1, "the router must choose several routes: {expected:?}");
        let scrape = server.client.get("/metrics").text;
        let routes = server.client.get("/routes").json();
        for (route, entry) in generation.model.space().routes().zip(routes["routes"].as_array().unwrap()) {
            let name = generation.model.space().name(route);
            let (judged, hits, reciprocal) = expected.get(&route).copied().unwrap_or_default();
            let labels = [("reason", "router"), ("route", name), ("version", "1")];
            assert_eq!(of(&scrape, "judged_total", &labels), judged, "{name}");
            assert_eq!(of(&scrape, "hits_total", &labels), hits, "{name}");
            let ranks = of(&scrape, "reciprocal_rank_sum", &labels[1..]);
            assert!((ranks - reciprocal).abs() < 1e-9, "{name}: {ranks} {reciprocal}");
            let accuracy = json!({"judged": judged as u64, "hits": hits as u64});
            assert_eq!(
                [&entry["accuracy"]["judged"], &entry["accuracy"]["hits"]],
                [&accuracy["judged"], &accuracy["hits"]]
            );
            assert_eq!(entry["explored"], json!({"judged": 0, "hits": 0, "rate": null, "interval": null}));
        }
    }
}

#[test]
fn exploring_estimates_the_accuracy_of_every_route() {
    // A seed makes the draw the same each time: at 95 % one interval in twenty misses by chance.
    let server = Server::start_with(RecommenderOptions { exploration: Some(Exploration::new(1.0, 5)), ..judging() });
    let users = population(80, 4);
    let answers = replay(&server, &users, &json!({"exclude_seen": true}));
    assert!(answers.iter().all(|answer| answer["route"]["reason"] == "explored"));
    assert!(answers.iter().all(|answer| answer["route"]["confidence"].is_number()), "the router's probability");
    let generation = server.recommender.generation().unwrap();
    let space = generation.model.space();
    let routes = server.client.get("/routes").json();
    let mut covered = 0;
    for (route, entry) in space.routes().zip(routes["routes"].as_array().unwrap()) {
        let ranks = ranks(&generation.model, &users, Some(route), SeenItems::Excluded);
        let hits = ranks.iter().filter(|(_, rank)| rank.is_some()).count();
        let truth = hits as f64 / ranks.len() as f64;
        let explored = &entry["explored"];
        let [low, high] = [0, 1].map(|bound| explored["interval"][bound].as_f64().unwrap());
        covered += usize::from(low <= truth && truth <= high);
        let counted =
            Proportion { successes: explored["hits"].as_u64().unwrap(), trials: explored["judged"].as_u64().unwrap() };
        assert!(counted.trials > 20, "{entry}");
        // Reading JSON may round the last digit.
        let [expected_low, expected_high] = counted.interval().unwrap();
        assert!((expected_low - low).abs() < 1e-12 && (expected_high - high).abs() < 1e-12, "{entry}");
    }
    // Of 24 intervals, four or fewer miss but once in 400 draws.
    assert!(covered >= space.len() - 4, "{covered} of {}", space.len());
}

#[test]
fn requests_that_name_a_route_do_not_explore() {
    let exploration = Some(Exploration::new(1.0, 1));
    let server = Server::start_with(RecommenderOptions { exploration, ..RecommenderOptions::default() });
    let reason = |body: Value| server.client.recommend(&body).json()["route"]["reason"].clone();
    assert_eq!(reason(json!({"history": [101]})), "explored");
    assert_eq!(reason(json!({"history": [101], "route": "full"})), "override");
    assert_eq!(reason(json!({"history": []})), "cold_start");
    let scrape = server.client.get("/metrics").text;
    let explored = scrape.lines().filter(|line| line.contains("route_requests_total{reason=\"explored\""));
    let explored: f64 = explored.map(|line| line.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap()).sum();
    assert_eq!(explored, 1.0);
}

#[test]
fn users_are_judged_over_every_transport() {
    let server = Server::start_with(judging());
    let before = [vec![101], vec![102, 103]];
    let after = [vec![101, 140], vec![102, 103, 139]];
    let mut expected = 0.0;
    let mut asked = |ask: &dyn Fn(&[Vec<u32>; 2])| {
        ask(&before);
        assert_eq!(judged(&server).0, expected, "nothing new yet");
        ask(&after);
        expected += 2.0;
        assert_eq!(judged(&server).0, expected);
    };
    asked(&|histories| {
        let request = |(user, history): (usize, &Vec<u32>)| json!({"history": history, "user": user});
        let requests: Vec<Value> = histories.iter().enumerate().map(request).collect();
        assert_eq!(server.client.post("/recommend/batch", &json!({"requests": requests})).status, 200);
    });
    asked(&|histories| {
        let lists: Vec<String> = histories.iter().map(|history| json!(history).to_string()).collect();
        let bytes = |name: &str, data: Value| json!({"name": name, "datatype": "BYTES", "shape": [2], "data": data});
        let inputs = [bytes("history", json!(lists)), bytes("user", json!(["tensor a", "tensor b"]))];
        assert_eq!(server.client.post("/v2/models/small/infer", &json!({"inputs": inputs})).status, 200);
    });
    let grpc = Grpc::new(&server.recommender);
    let messages = |histories: &[Vec<u32>; 2], name: &str| -> Vec<proto::RecommendRequest> {
        let message = |(user, history): (usize, &Vec<u32>)| proto::RecommendRequest {
            history: history.iter().map(u32::to_string).collect(),
            user: Some(format!("{name} {user}")),
            ..proto::RecommendRequest::default()
        };
        histories.iter().enumerate().map(message).collect()
    };
    asked(&|histories| {
        for message in messages(histories, "grpc") {
            let ended: Ended<proto::RecommendResponse> = grpc.call("canet.v1.Recommender/Recommend", &[], &message);
            assert_eq!(ended.status.code(), tonic::Code::Ok);
        }
    });
    asked(&|histories| {
        let stream = proto::RecommendStreamRequest { requests: messages(histories, "stream") };
        let ended: Ended<proto::RecommendStreamResponse> =
            grpc.call("canet.v1.Recommender/RecommendStream", &[], &stream);
        assert_eq!((ended.status.code(), ended.answers.len()), (tonic::Code::Ok, 2));
    });
}

#[test]
fn a_wrong_user_is_refused_over_every_transport() {
    let server = Server::start();
    let long = "x".repeat(257);
    let reply = server.client.recommend(&json!({"history": [101], "user": long}));
    assert_eq!((reply.status, &reply.json()["field"]), (422, &json!("user")));
    let input = |name: &str, shape: &[u32], data: Value| json!({"name": name, "datatype": "BYTES", "shape": shape, "data": data});
    let infer = |user: Value| {
        let inputs = [input("history", &[2], json!(["[101]", "[]"])), user];
        let reply = server.client.post("/v2/models/small/infer", &json!({"inputs": inputs}));
        (reply.status, reply.json()["error"].as_str().unwrap_or_default().to_owned())
    };
    assert_eq!(infer(input("user", &[2], json!(["a", ""]))).0, 200);
    for user in [
        input("user", &[1], json!(["a"])),
        input("user", &[2, 1], json!(["a", "b"])),
        input("user", &[2], json!(["a", long])),
    ] {
        let (status, error) = infer(user);
        assert!(status == 422 && error.contains("user"), "{status} {error}");
    }
    let message = proto::RecommendRequest { user: Some(long), ..proto::RecommendRequest::default() };
    let ended: Ended<proto::RecommendResponse> =
        Grpc::new(&server.recommender).call("canet.v1.Recommender/Recommend", &[], &message);
    assert_eq!(ended.status.code(), tonic::Code::InvalidArgument);
}

#[test]
fn only_answers_of_ten_items_from_the_whole_catalogue_are_judged_and_each_once() {
    let server = Server::start_with(judging());
    let ask = |history: &[&str], rest: Value| {
        let mut request = json!({"history": history, "user": "ann"});
        request.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
        let reply = server.client.recommend(&request);
        assert_eq!(reply.status, 200, "{reply:?}");
        reply.items()
    };
    let all = json!({});
    let few = json!({"k": 9});
    let some = json!({"candidates": (101..130).collect::<Vec<u32>>()});
    ask(&["101"], few.clone());
    ask(&["101", "102"], some);
    ask(&["101", "102", "103"], all.clone());
    assert_eq!(judged(&server), (0.0, 0.0));
    // A page asks twice for the same history. The smaller list takes no answer's place.
    let best = ask(&["101", "102", "103"], all.clone());
    ask(&["101", "102", "103"], few.clone());
    ask(&["101", "102", "103", &best[9]], few.clone());
    assert_eq!(judged(&server), (1.0, 1.0));
    // Judged once. This request is answered with nine items, so nothing is remembered of it.
    ask(&["101", "102", "103", &best[9], "104"], few);
    assert_eq!(judged(&server), (1.0, 1.0));
    // An unknown item decides nothing. The next known one does.
    let best = ask(&["105"], all.clone());
    ask(&["105", "stranger", &best[0]], all.clone());
    assert_eq!(judged(&server), (2.0, 2.0));
    // Another history is no continuation.
    ask(&["106", &best[0]], all.clone());
    assert_eq!(judged(&server), (2.0, 2.0));
    // A window of the newest items moves on.
    let window: Vec<String> = (110..120).map(|id| id.to_string()).collect();
    let mut window: Vec<&str> = window.iter().map(String::as_str).collect();
    let best = ask(&window, all.clone());
    window.remove(0);
    let next = best[4].clone();
    window.push(&next);
    ask(&window, all);
    assert_eq!(judged(&server), (3.0, 3.0));
}

#[test]
fn an_answer_of_the_version_before_is_judged_under_that_version() {
    let server = Server::start_with(judging());
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("small");
    numbered(draft(small_config(), 11)).write(&root).unwrap();
    let second = numbered(draft(small_config(), 12)).write(&root).unwrap();
    let ask = |history: &[&str]| server.client.recommend(&json!({"history": history, "user": "ann"}));
    let first = ask(&["101"]);
    let forward = reference(&second.config, &second.weights);
    let metrics = server.recommender.metrics();
    let generation = Generation::new(Model::with_forward(second, std::sync::Arc::new(forward)), POLICY, metrics);
    drop(server.recommender.serve(generation));
    let reply = ask(&["101", &first.items()[2]]);
    assert_eq!(reply.json()["model"]["version"], 2);
    let route = first.json()["route"]["name"].as_str().unwrap().to_owned();
    let scrape = server.client.get("/metrics").text;
    for family in ["judged_total", "hits_total"] {
        assert_eq!(of(&scrape, family, &[("reason", "router"), ("route", &route), ("version", "1")]), 1.0);
    }
    assert_eq!(judged(&server), (1.0, 1.0));
}

#[test]
fn memory_is_bounded_and_the_users_answered_longest_ago_are_forgotten() {
    // One user in each of the shards.
    let server = Server::start_with(RecommenderOptions { judge_memory: Some(1), ..RecommenderOptions::default() });
    let ask = |user: usize, history: &[u32]| {
        assert_eq!(server.client.recommend(&json!({"history": history, "user": user})).status, 200);
    };
    for user in 0..200 {
        ask(user, &[101]);
    }
    let evicted = server.metric("judge_evictions_total");
    assert!((184.0..200.0).contains(&evicted), "{evicted}");
    for user in (0..200).rev() {
        ask(user, &[101, 102]);
    }
    let (judged, _) = judged(&server);
    assert_eq!(judged, 200.0 - evicted);
}

#[test]
fn nothing_is_remembered_of_a_server_that_does_not_judge() {
    let server = Server::start();
    for history in [vec![101], vec![101, 102]] {
        server.client.recommend(&json!({"history": history, "user": "ann"}));
    }
    assert_eq!(judged(&server), (0.0, 0.0));
}
