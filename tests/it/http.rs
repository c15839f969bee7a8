//! What a client sees over HTTP: answers field by field, and every way to be refused.

use std::collections::HashSet;
use std::sync::Arc;

use canet_domain::{Catalogue, History, Item, Route, RouteSpace};
use canet_model::Forward;
use canet_model::checkpoint::CheckpointDraft;
use proptest::prelude::{ProptestConfig, any, prop_assert, prop_assert_eq, prop_oneof, proptest};
use proptest::strategy::Just;
use serde_json::{Value, json};

use super::server::{ROOMY, Server};
use super::support::{draft, reference, small_config};

/// Ids in the tests' catalogue are dense ids + 100.
fn items(ids: &[u32]) -> Vec<Item> {
    ids.iter().map(|id| Item::new(id - 100).unwrap()).collect()
}

/// Ids of the best `k` allowed columns, by sorting the whole row.
fn expected(server: &Server, route: Route, history: &[u32], denied: &[u32], k: usize) -> Vec<(String, f32)> {
    let forward = reference(&server.checkpoint.config, &server.checkpoint.weights);
    let history = History::new(&items(history), server.checkpoint.config.max_len).unwrap();
    let rows = forward.scores(route, &[&history]).unwrap();
    let mut ranked: Vec<(u32, f32)> =
        (101..).zip(rows.row(0).unwrap()[1..].iter().copied()).filter(|(id, _)| !denied.contains(id)).collect();
    ranked.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    ranked.into_iter().take(k).map(|(id, score)| (id.to_string(), score)).collect()
}

fn assert_items(body: &Value, expected: &[(String, f32)]) {
    let found = body["items"].as_array().unwrap();
    assert_eq!(found.len(), expected.len(), "{body}");
    for (found, (id, score)) in found.iter().zip(expected) {
        assert_eq!(found["item"], json!(id));
        let difference = found["score"].as_f64().unwrap() - f64::from(*score);
        assert!(difference.abs() < 1e-4, "{id}: {difference}");
    }
}

fn space(server: &Server) -> &RouteSpace {
    &server.checkpoint.space
}

#[test]
fn a_routed_answer_has_every_field_of_the_contract() {
    let server = Server::start();
    let reply = server.client.recommend(&json!({"history": ["103", "131", "107"], "k": 5}));
    assert_eq!((reply.status, reply.header("content-type")), (200, "application/json"));
    let body = reply.json();
    let keys = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(keys(&body), ["compute", "history", "items", "model", "route"]);
    assert_eq!(keys(&body["route"]), ["confidence", "name", "reason"]);
    assert_eq!(keys(&body["compute"]), ["flops", "full_flops", "reused", "saved"]);
    assert_eq!(body["route"]["reason"], "router");
    assert_eq!(body["model"], json!({"name": "small", "version": 1}));
    assert_eq!(body["history"], json!({"used": 3, "unknown": []}));

    // The route is the argmax of the router's logits, its confidence their softmax.
    let forward = reference(&server.checkpoint.config, &server.checkpoint.weights);
    let history = History::new(&items(&[103, 131, 107]), 12).unwrap();
    let rows = forward.router_logits(&[&history]).unwrap();
    let logits: Vec<f64> = rows.row(0).unwrap().iter().map(|logit| f64::from(*logit)).collect();
    let best = (0..logits.len()).max_by(|a, b| logits[*a].total_cmp(&logits[*b])).unwrap();
    let route = space(&server).route(best).unwrap();
    assert_eq!(body["route"]["name"], space(&server).name(route));
    let confidence = 1.0 / logits.iter().map(|logit| (logit - logits[best]).exp()).sum::<f64>();
    assert!((body["route"]["confidence"].as_f64().unwrap() - confidence).abs() < 1e-5);
    assert_items(&body, &expected(&server, route, &[103, 131, 107], &[103, 131, 107], 5));

    let shape = server.checkpoint.config.shape();
    let flops = shape.route_flops(space(&server), route, 3) + shape.router_flops(24, 3);
    let full = shape.full_flops(space(&server), 3);
    assert_eq!((body["compute"]["flops"].as_u64(), body["compute"]["full_flops"].as_u64()), (Some(flops), Some(full)));
    assert!((body["compute"]["saved"].as_f64().unwrap() - (1.0 - flops as f64 / full as f64)).abs() < 1e-12);
}

#[test]
fn an_override_runs_the_named_route_without_the_router() {
    let server = Server::start();
    let space = space(&server);
    for (name, route) in [("full", space.full()), ("smallest", space.smallest())]
        .into_iter()
        .chain(space.routes().map(|route| (space.name(route), route)))
    {
        let body = server.client.recommend(&json!({"history": [140, 101], "route": name, "k": 40})).json();
        let route_taken = json!({"name": space.name(route), "reason": "override", "confidence": null});
        assert_eq!(body["route"], route_taken);
        assert_eq!(body["compute"]["flops"], server.checkpoint.config.shape().route_flops(space, route, 2));
        assert_items(&body, &expected(&server, route, &[140, 101], &[140, 101], 40));
    }
}

#[test]
fn integers_are_ids_digit_for_digit() {
    let server = Server::start();
    let ask = |history: Value| server.client.recommend(&json!({"history": history, "route": "full"})).json();
    assert_eq!(ask(json!([103, 131])), ask(json!(["103", "131"])));

    // A catalogue of ids beyond 64 bits, which differ in their last digits.
    let id = |item: u64| format!("184467440737095510{item}");
    let draft = draft(small_config(), 11);
    let ids = (101..=140).map(|item| id(item).into()).collect();
    let catalogue = Catalogue::new(ids, (1..=40).collect()).unwrap();
    let forward = Arc::new(reference(&draft.config, &draft.weights));
    let server = Server::with(CheckpointDraft { catalogue, ..draft }, forward, ROOMY);
    let post = |path: &str, body: &str| {
        let reply = server.client.send("POST", path, &[("content-type", "application/json")], body.as_bytes());
        assert_eq!(reply.status, 200, "{reply:?}");
        reply.json()
    };
    let unknown = "18446744073709551616";
    let (one, other) = (id(101), id(140));
    let numbers = format!("{{\"history\": [{one}, {unknown}, -0, {other}], \"exclude\": [{}], \"k\": 40}}", id(102));
    let strings = json!({"history": [one, unknown, "-0", other], "exclude": [id(102)], "k": 40}).to_string();
    let answer = post("/recommend", &numbers);
    assert_eq!(answer["history"], json!({"used": 2, "unknown": [unknown, "-0"]}));
    assert_eq!((answer["items"].as_array().unwrap().len(), &answer), (37, &post("/recommend", &strings)));
    let batch = post("/recommend/batch", &format!("{{\"requests\": [{strings}, {numbers}]}}"));
    assert_eq!(batch["results"][1]["history"], answer["history"], "{batch}");

    let infer = |list: &str| {
        let history = json!({"name": "history", "datatype": "BYTES", "shape": [1], "data": [list]});
        post("/v2/models/small/infer", &json!({"inputs": [history]}).to_string())["outputs"].clone()
    };
    assert_eq!(infer(&format!("[{one}, {other}]")), infer(&format!("[\"{one}\", \"{other}\"]")));
}

#[test]
fn null_means_not_given() {
    let server = Server::start();
    let nulls = json!({
        "history": [103, 131], "k": null, "exclude_seen": null, "exclude": null, "candidates": null, "route": null,
        "budget": null, "timeout_ms": null, "history_start": null, "user": null, "filter": null, "max_per": null,
    });
    let answer = server.client.recommend(&json!({"history": [103, 131]})).json();
    assert_eq!(answer["items"].as_array().map(Vec::len), Some(10));
    assert_eq!(server.client.recommend(&nulls).json(), answer);
    let batch = server.client.post("/recommend/batch", &json!({"requests": [nulls]})).json();
    assert_eq!(batch["results"][0]["items"].as_array().map(Vec::len), Some(10), "{batch}");
    // The document says so, and a required field stays required.
    let document = server.client.get("/openapi.json").json();
    let properties = document["components"]["schemas"]["RecommendRequest"]["properties"].as_object().unwrap();
    for (name, schema) in properties {
        let takes_null = |schema: &Value| schema["type"].as_array().is_some_and(|types| types.contains(&json!("null")));
        let is_nullable =
            takes_null(schema) || schema["anyOf"].as_array().is_some_and(|any| any.iter().any(takes_null));
        assert_eq!(is_nullable, name != "history", "{name}: {schema}");
        let reply = server.client.recommend(&json!({"history": [101], name: null}));
        assert_eq!(reply.status, if name == "history" { 422 } else { 200 }, "{name}");
    }
    assert_eq!(properties.len(), 12);
}

#[test]
fn unknown_items_go_first_and_the_last_max_len_are_kept() {
    let server = Server::start();
    let long: Vec<u32> = (101..=130).collect();
    let mut sent: Vec<Value> = long.iter().map(|id| json!(id)).collect();
    // Among the last twelve: they must not push known ones out.
    sent.insert(25, json!("no such film"));
    sent.push(json!("101x"));
    let body = server.client.recommend(&json!({"history": sent, "route": "full", "k": 40})).json();
    assert_eq!(body["history"], json!({"used": 12, "unknown": ["no such film", "101x"]}));
    // Seen and truncated items are masked too: ten of forty are left.
    assert_items(&body, &expected(&server, space(&server).full(), &long, &long, 40));
    assert_eq!(body["items"].as_array().unwrap().len(), 10);
}

#[test]
fn duplicates_stay_in_the_history() {
    let server = Server::start();
    let history = [105, 105, 109, 105];
    let body = server.client.recommend(&json!({"history": history, "route": "full"})).json();
    assert_eq!(body["history"]["used"], 4);
    assert_items(&body, &expected(&server, space(&server).full(), &history, &history, 10));
}

#[test]
fn seen_denied_and_candidates_decide_together() {
    let server = Server::start();
    let full = space(&server).full();
    let ask = |more: Value| {
        let mut body = json!({"history": [105, 120], "route": "full", "k": 40});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        server.client.recommend(&body).json()
    };
    assert_items(&ask(json!({"exclude_seen": false})), &expected(&server, full, &[105, 120], &[], 40));
    let denied = ask(json!({"exclude": ["101", 102, "never heard of"]}));
    assert_items(&denied, &expected(&server, full, &[105, 120], &[105, 120, 101, 102], 40));
    let all_but: Vec<u32> = (101..=140).filter(|id| ![110, 111, 112].contains(id)).collect();
    let candidates = json!({"candidates": [112, 105, 110, 111, "unheard", 110]});
    assert_items(&ask(candidates), &expected(&server, full, &[105, 120], &all_but, 40));
    assert_items(&ask(json!({"candidates": []})), &[]);
    assert_items(&ask(json!({"candidates": null})), &expected(&server, full, &[105, 120], &[105, 120], 40));
}

#[test]
fn titles_stand_where_they_are_known() {
    let server = Server::start();
    let body = server.client.recommend(&json!({"history": [101], "candidates": [103, 104]})).json();
    for item in body["items"].as_array().unwrap() {
        let title = if item["item"] == "103" { json!("Film 103") } else { Value::Null };
        assert_eq!(item["title"], title);
    }
}

#[test]
fn without_a_known_item_popularity_ranks() {
    let server = Server::start();
    for history in [json!([]), json!(["stranger"])] {
        let request = json!({"history": history, "k": 3, "exclude": [139], "route": "full"});
        let body = server.client.recommend(&request).json();
        let ranked: Vec<(Value, Value)> = body["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|item| (item["item"].clone(), item["score"].clone()))
            .collect();
        // Popularity rises with the id.
        let popular = [("140", 40), ("138", 38), ("137", 37)];
        assert_eq!(ranked, popular.map(|(item, count)| (json!(item), json!(count))));
        assert_eq!(body["route"], json!({"name": null, "reason": "cold_start", "confidence": null}));
        assert_eq!(body["compute"]["flops"], 0);
        assert_eq!(body["history"], json!({"used": 0, "unknown": history}));
    }
    let few = server.client.recommend(&json!({"history": [], "candidates": ["104", 102, 103], "exclude": [103]}));
    assert_eq!(few.items(), ["104", "102"]);
}

#[test]
fn headers_carry_the_request_id_and_the_times() {
    let server = Server::start();
    let json = ("content-type", "application/json; charset=utf-8");
    let named = server.client.send("POST", "/recommend", &[json, ("x-request-id", "mine-1")], br#"{"history":[101]}"#);
    assert_eq!((named.status, named.header("x-request-id")), (200, "mine-1"));
    let stages: Vec<(&str, f64)> = named
        .header("server-timing")
        .split(", ")
        .map(|stage| stage.split_once(";dur=").unwrap())
        .map(|(name, milliseconds)| (name, milliseconds.parse().unwrap()))
        .collect();
    assert_eq!(stages.iter().map(|stage| stage.0).collect::<Vec<_>>(), ["queue", "router", "forward", "total"]);
    let total: f64 = stages[..3].iter().map(|stage| stage.1).sum();
    assert!(stages.iter().all(|stage| stage.1 > 0.0) && total <= stages[3].1, "{stages:?}");

    let made: HashSet<String> =
        (0..3).map(|_| server.client.get("/routes").header("x-request-id").to_owned()).collect();
    assert_eq!(made.len(), 3);
    let refused = server.client.send("POST", "/recommend", &[("x-request-id", "mine-2")], b"{}");
    assert_eq!((refused.status, refused.header("x-request-id")), (415, "mine-2"));
}

#[test]
fn a_batch_answers_every_request_in_its_place() {
    let server = Server::start();
    let requests = json!([
        {"history": [101, 102]},
        {"history": [101], "k": 0},
        {"history": []},
        {"history": [105, 106, 107], "route": "smallest", "k": 2},
        {"history": "101"},
        {"history": [101], "colour": "red"},
        17,
    ]);
    let reply = server.client.post("/recommend/batch", &json!({"requests": requests}));
    assert_eq!(reply.status, 200);
    let results = reply.json()["results"].clone();
    for place in [0, 2, 3] {
        let mut alone = server.client.recommend(&requests[place]).json();
        let mut together = results[place].clone();
        for answer in [&mut alone, &mut together] {
            for item in answer["items"].as_array_mut().unwrap() {
                let rounded = (item["score"].as_f64().unwrap() * 1e4).round();
                item["score"] = json!(rounded);
            }
            if let Some(confidence) = answer["route"]["confidence"].as_f64() {
                answer["route"]["confidence"] = json!((confidence * 1e5).round());
            }
        }
        assert_eq!(together, alone);
    }
    for (place, field) in [(1, json!("k")), (4, json!("history")), (5, json!("colour")), (6, Value::Null)] {
        let problem = &results[place];
        assert_eq!((&problem["status"], &problem["code"]), (&json!(422), &json!("invalid_request")), "{problem}");
        assert_eq!(problem["field"], field);
    }
    assert_eq!(server.client.post("/recommend/batch", &json!({"requests": []})).json(), json!({"results": []}));
}

#[test]
fn the_model_its_routes_and_its_items_are_described() {
    let server = Server::start();
    let model = server.client.get("/model").json();
    assert_eq!((&model["name"], &model["version"]), (&json!("small"), &json!(1)));
    assert_eq!(model["digest"], json!(server.checkpoint.digest));
    assert_eq!(model["config"]["items"], 40);

    let routes = server.client.get("/routes").json();
    assert_eq!(routes["routes"].as_array().unwrap().len(), 24);
    assert_eq!(routes["routes"][0]["name"], "h4-l1-e6");
    assert_eq!(routes["routes"][23]["flops"], routes["full_flops"]);
    assert_eq!(routes["length"], 12);
    assert_eq!((&routes["routes"][0]["share"], &routes["routes"][0]["latency"]), (&json!(0.0), &Value::Null));

    let found = |q: &str| server.client.get(&format!("/items?q={q}")).items();
    assert_eq!(found("103")[0], "103");
    // Ids that begin so, the most popular first, then titles.
    assert_eq!(found("13"), ["139", "138", "137", "136", "135", "134", "133", "132", "131", "130", "113"]);
    assert_eq!(found("film%2012"), ["129", "127", "125", "123", "121"]);
    assert!(found("nothing%20like%20it").is_empty());
    assert_eq!(found("1").len(), 20);
}

#[test]
fn routes_tell_their_share_of_the_traffic_and_how_long_it_took() {
    let server = Server::start();
    for (route, count) in [("h4-l1-e6", 3), ("full", 1)] {
        for _ in 0..count {
            server.client.recommend(&json!({"history": [101, 102], "route": route}));
        }
    }
    server.client.recommend(&json!({"history": []}));
    let body = server.client.get("/routes").json();
    assert!(body["since"].as_str().unwrap().ends_with('Z'));
    let entry = |place: usize| &body["routes"][place];
    assert_eq!((&entry(0)["rows"], &entry(0)["share"]), (&json!(3), &json!(0.75)));
    assert_eq!((&entry(23)["rows"], &entry(23)["share"]), (&json!(1), &json!(0.25)));
    assert_eq!((&entry(1)["rows"], &entry(1)["share"], &entry(1)["latency"]), (&json!(0), &json!(0.0), &Value::Null));
    let seconds = server.client.metric("route_latency_seconds_sum{route=\"h4-l1-e6\",version=\"1\"}");
    let latency = |name: &str| entry(0)["latency"][name].as_f64().unwrap();
    assert!((latency("mean") - seconds / 3.0 * 1e3).abs() < 1e-9);
    assert!(latency("p50") > 0.0 && latency("p50") <= latency("p99"));
}

#[test]
fn parallel_requests_of_mixed_routes_answer_as_alone() {
    let server = Server::start();
    let space = space(&server);
    let routes =
        ["auto", "full", "smallest", space.name(space.route(7).unwrap()), space.name(space.route(16).unwrap())];
    let requests: Vec<Value> = (0..200_u32)
        .map(|n| {
            let history: Vec<u32> = (0..=n % 17).map(|i| 101 + (n * 7 + i * 5) % 40).collect();
            json!({"history": history, "route": routes[n as usize % 5], "k": 1 + n % 12})
        })
        .collect();
    let alone: Vec<Value> = requests.iter().map(|request| server.client.recommend(request).json()).collect();
    std::thread::scope(|scope| {
        for worker in 0..8 {
            let (client, requests, alone) = (server.client.clone(), &requests, &alone);
            scope.spawn(move || {
                for place in (0..requests.len()).map(|place| (place + worker * 25) % requests.len()) {
                    let together = client.recommend(&requests[place]).json();
                    assert_eq!(together["route"]["name"], alone[place]["route"]["name"]);
                    assert_eq!(together["compute"], alone[place]["compute"]);
                    let scores = |answer: &Value| -> Vec<(String, f32)> {
                        let items = answer["items"].as_array().unwrap().iter();
                        items
                            .map(|item| {
                                (item["item"].as_str().unwrap().to_owned(), item["score"].as_f64().unwrap() as f32)
                            })
                            .collect()
                    };
                    assert_items(&together, &scores(&alone[place]));
                }
            });
        }
    });
}

#[test]
fn no_seen_denied_or_padding_item_and_no_more_than_k() {
    let server = Server::start();
    let known = 101..=140_u32;
    let ids = proptest::collection::vec(prop_oneof![known.clone(), 0..=3_u32], 0..30);
    let routes: Vec<String> = space(&server).routes().map(|route| space(&server).name(route).to_owned()).collect();
    let route = prop_oneof![Just("auto".to_owned()), proptest::sample::select(routes)];
    let request = (ids.clone(), ids.clone(), proptest::option::of(ids), 1..=40_usize, route, any::<bool>());
    proptest!(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() }, |(
        (history, exclude, candidates, k, route, exclude_seen) in request
    )| {
        let reply = server.client.recommend(&json!({
            "history": history, "exclude": exclude, "candidates": candidates, "k": k, "route": route,
            "exclude_seen": exclude_seen,
        }));
        prop_assert_eq!(reply.status, 200);
        let answered: Vec<u32> = reply.items().iter().map(|id| id.parse().unwrap()).collect();
        let allowed: HashSet<u32> = known
            .clone()
            .filter(|id| !exclude.contains(id))
            .filter(|id| !exclude_seen || !history.contains(id))
            .filter(|id| candidates.as_ref().is_none_or(|candidates| candidates.contains(id)))
            .collect();
        prop_assert_eq!(answered.len(), k.min(allowed.len()));
        prop_assert!(answered.iter().all(|id| allowed.contains(id)));
        prop_assert_eq!(answered.iter().collect::<HashSet<_>>().len(), answered.len());
    });
}
