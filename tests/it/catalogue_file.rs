//! The catalogue file of a running server: what answers may have, what clients are told, and how a new file is taken over.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use canet_api::proto::canet::v1 as proto;
use canet_model::ModelConfig;
use canet_serving::{CatalogueFile, RecommenderOptions};
use serde_json::{Value, json};

use super::grpc_client::Grpc;
use super::server::{Process, Server, ServerOptions, canet, numbered, run};
use super::support::{draft, small_config};

/// Of the items 101 to 140, those from 131 on have no line, and 999 is unknown.
fn file() -> String {
    let mut text = "id,title,hidden,category,brand\n999,Nobody's,,shoes,\n".to_owned();
    for id in 101..=130 {
        let title = if id % 10 == 1 { format!("Shoe {id}") } else { String::new() };
        let category = match id % 3 {
            0 => "shoes",
            1 => "shirts|sale",
            _ => "shirts",
        };
        text += &format!("{id},{title},{},{category},b{}\n", id == 129 || id == 105, id % 7);
    }
    text
}

fn categories(id: u32) -> &'static [&'static str] {
    match (id, id % 3) {
        (131.., _) => &[],
        (_, 0) => &["shoes"],
        (_, 1) => &["shirts", "sale"],
        _ => &["shirts"],
    }
}

fn serve(directory: &Path, flags: &[&str]) -> Process {
    let root = directory.join("small");
    if !root.exists() {
        numbered(draft(small_config(), 31)).write(&root).unwrap();
    }
    let path = directory.join("catalogue.csv");
    Process::serve(&root, &[&["--catalogue", path.to_str().unwrap()], flags].concat())
}

fn ids(answer: &Value) -> Vec<u32> {
    let items = answer["items"].as_array().unwrap_or_else(|| panic!("{answer}"));
    items.iter().map(|item| item["item"].as_str().unwrap().parse().unwrap()).collect()
}

#[test]
fn the_command_line_asks_with_filters_quotas_and_a_start() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("catalogue.csv"), file()).unwrap();
    let server = serve(directory.path(), &[]);
    let url = format!("http://{}", server.client.address);
    let filter = r#"{"category": ["shoes", "sale"], "not": {"brand": "b1"}}"#;
    let flags = ["--filter", filter, "--max-per", "brand=1,category=4", "--history-start", "7", "--k", "20"];
    let output = canet(&["recommend", "--url", &url, "--history", "101", "--json"]).args(flags).output().unwrap();
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"));
    let request = json!({
        "history": [101], "filter": serde_json::from_str::<Value>(filter).unwrap(), "max_per": {"brand": 1, "category": 4},
        "history_start": 7, "k": 20,
    });
    let expected = ids(&server.client.recommend(&request).json());
    assert_eq!(ids(&answer), expected);
    assert!(!expected.is_empty() && expected.len() <= 6, "{expected:?}");
    for flags in [["--filter", "shoes"], ["--max-per", "brand"], ["--max-per", "brand=many"]] {
        let output = canet(&["recommend", "--url", &url, "--history", "101"]).args(flags).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(64) && stderr.contains(flags[0]), "{stderr}");
    }
}

fn replace(path: &Path, text: &str) {
    let next = path.with_extension("next");
    fs::write(&next, text).unwrap();
    fs::rename(next, path).unwrap();
}

#[test]
fn a_file_that_is_gone_is_reported_until_it_is_back() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("catalogue.csv");
    fs::write(&path, file()).unwrap();
    let server = serve(directory.path(), &[]);
    let failed = || server.client.metric("catalogue_reload_total{outcome=\"failed\"}");
    assert_eq!(failed(), 0.0);
    fs::remove_file(&path).unwrap();
    server.log_line("the catalogue file cannot be read");
    assert!(failed() >= 1.0);
    replace(&path, &file());
    server.log_line("the catalogue file can be read again");
}

#[test]
fn answers_follow_the_catalogue_file() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("catalogue.csv"), file()).unwrap();
    let server = serve(directory.path(), &[]);
    let ask = |body: Value| {
        let reply = server.client.recommend(&body);
        assert_eq!(reply.status, 200, "{body}: {reply:?}");
        reply.json()
    };
    // Histories that the model reads, and cold starts.
    for history in [json!([103, 105, 129]), json!([])] {
        let all = ids(&ask(json!({"history": history, "k": 40, "exclude_seen": false})));
        assert_eq!(all.len(), 38, "two are hidden");
        assert!(!all.contains(&105) && !all.contains(&129));
        let shoes =
            ids(&ask(json!({"history": history, "k": 40, "exclude_seen": false, "filter": {"category": ["shoes"]}})));
        let expected: Vec<u32> = all.iter().copied().filter(|id| categories(*id).contains(&"shoes")).collect();
        assert_eq!(shoes, expected);
        let rest = json!({"category": ["shirts", "shoes"], "not": {"category": "sale"}});
        let rest = ids(&ask(json!({"history": history, "k": 4, "exclude_seen": false, "filter": rest})));
        let kept = |id: &u32| !categories(*id).is_empty() && !categories(*id).contains(&"sale");
        assert_eq!(rest, all.iter().copied().filter(kept).take(4).collect::<Vec<_>>());
        let most = ids(&ask(json!({"history": history, "k": 7, "exclude_seen": false, "max_per": {"category": 2}})));
        let mut counts = std::collections::HashMap::new();
        let taken = all.iter().copied().filter(|id| {
            let fits = categories(*id).iter().all(|value| counts.get(value).copied().unwrap_or(0) < 2);
            categories(*id).iter().filter(|_| fits).for_each(|value| *counts.entry(value).or_insert(0) += 1);
            fits
        });
        assert_eq!(most, taken.take(7).collect::<Vec<_>>());
        let named = json!({"history": history, "candidates": [105, 106, 107, 129, 140], "exclude_seen": false});
        let mut candidates = ids(&ask(named));
        candidates.sort_unstable();
        assert_eq!(candidates, [106, 107, 140]);
    }
    // Hidden items are read, and titles of the file win.
    let answer = ask(json!({"history": [105, 129], "k": 40}));
    assert_eq!(answer["history"], json!({"used": 2, "unknown": []}));
    for item in answer["items"].as_array().unwrap() {
        let id: u32 = item["item"].as_str().unwrap().parse().unwrap();
        let expected = match id {
            ..=130 if id % 10 == 1 => json!(format!("Shoe {id}")),
            _ if id % 2 == 1 => json!(format!("Film {id}")),
            _ => Value::Null,
        };
        assert_eq!(item["title"], expected, "{item}");
    }
    assert_eq!(server.client.get("/items?q=shoe%20111").json()["items"], json!([{"item": "111", "title": "Shoe 111"}]));
}

#[test]
fn clients_are_told_what_exists() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("catalogue.csv"), file()).unwrap();
    let server = serve(directory.path(), &[]);
    for (body, field, words) in [
        (json!({"filter": {"categori": "shoes"}}), "filter.categori", r#"its keys are "category", "brand""#),
        (
            json!({"filter": {"not": {"category": ["shoe"]}}}),
            "filter.not.category",
            r#"no item has "shoe" as "category": the values are "shoes""#,
        ),
        (json!({"max_per": {"Brand": 1}}), "max_per.Brand", r#"no key "Brand": its keys are "brand""#),
        (json!({"max_per": {"brand": 0}}), "max_per.brand", "a whole number from 1 up"),
        (json!({"filter": {"brand": [["b1"]]}}), "filter.brand[0]", "a string, an integer or a boolean"),
    ] {
        let mut request = json!({"history": [101]});
        request.as_object_mut().unwrap().extend(body.as_object().unwrap().clone());
        let reply = server.client.recommend(&request);
        let problem = reply.json();
        assert_eq!((reply.status, &problem["code"]), (422, &json!("invalid_request")), "{problem}");
        assert!(problem["detail"].as_str().unwrap().contains(words), "{problem}");
        assert_eq!(problem["field"].as_str().unwrap_or_default(), field, "{problem}");
        // In a batch only that row is refused.
        let rows = json!({"requests": [request, {"history": [101], "filter": {"category": "shoes"}}]});
        let results = server.client.post("/recommend/batch", &rows).json()["results"].clone();
        assert_eq!((&results[0]["code"], ids(&results[1]).len()), (&json!("invalid_request"), 8));
    }
    let model = server.client.get("/model").json();
    let catalogue = &model["catalogue"];
    assert_eq!(
        [&catalogue["items"], &catalogue["hidden"], &catalogue["unknown"], &catalogue["missing"]],
        [31, 2, 1, 10].map(|count| json!(count)).each_ref()
    );
    assert_eq!(catalogue["keys"], json!([{"name": "category", "values": 3}, {"name": "brand", "values": 7}]));
    let digest = catalogue["digest"].as_str().unwrap();
    assert_eq!(server.client.metric(&format!("catalogue_info{{digest=\"{digest}\"}}")), 1.0);
    for (name, value) in [("items", 31.0), ("hidden_items", 2.0), ("unknown_ids", 1.0), ("missing_items", 10.0)] {
        assert_eq!(server.client.metric(&format!("catalogue_{name}")), value, "{name}");
    }
    // What the document allows is accepted.
    let document = server.client.get("/openapi.json").json();
    let filter = document.pointer("/components/schemas/RecommendRequest/properties/filter/properties").unwrap();
    let values = filter["category"]["anyOf"][0]["enum"].as_array().unwrap();
    assert_eq!(values, &["sale", "shirts", "shoes"].map(Value::from));
    for value in values {
        let reply = server.client.recommend(&json!({"history": [], "filter": {"category": value}}));
        assert_eq!(reply.status, 200, "{value}");
    }
}

#[test]
fn every_transport_takes_filters() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("catalogue.csv");
    fs::write(&path, file()).unwrap();
    let options = ServerOptions::default();
    let catalogue = CatalogueFile::open(&path, 0.1, Arc::clone(&options.metrics)).unwrap();
    let recommender = RecommenderOptions { catalogue: Some(catalogue), ..RecommenderOptions::default() };
    let server = Server::small(ServerOptions { recommender, ..options });
    let (filter, max_per) = (json!({"category": ["shoes", "sale"]}), json!({"brand": 1}));
    let body = json!({"history": ["101", "102"], "k": 5, "filter": filter, "max_per": max_per});
    let expected = ids(&server.client.recommend(&body).json());
    assert!(!expected.is_empty() && expected.iter().all(|id| categories(*id).iter().any(|of| *of != "shirts")));

    let history = json!({"name": "history", "datatype": "BYTES", "shape": [1], "data": ["[101, 102]"]});
    let k = json!({"name": "k", "datatype": "INT64", "shape": [1], "data": [5]});
    let parameters = json!({"filter": filter.to_string(), "max_per": max_per.to_string()});
    let call = json!({"inputs": [history, k], "parameters": parameters});
    let inferred = server.client.post("/v2/models/small/infer", &call).json();
    let found: Vec<u32> = inferred["outputs"][0]["data"]
        .as_array()
        .unwrap_or_else(|| panic!("{inferred}"))
        .iter()
        .filter_map(|id| id.as_str().unwrap().parse().ok())
        .collect();
    assert_eq!(found, expected);
    let wrong = json!({"inputs": call["inputs"], "parameters": {"filter": "{"}});
    let problem = server.client.post("/v2/models/small/infer", &wrong).json();
    assert!(problem["error"].as_str().unwrap().contains("`filter` is not a filter in JSON"), "{problem}");

    let grpc = Grpc::new(&server.recommender);
    let request = proto::RecommendRequest {
        history: vec!["101".to_owned(), "102".to_owned()],
        k: Some(5),
        filter: Some(filter.to_string()),
        max_per: [("brand".to_owned(), 1)].into(),
        ..Default::default()
    };
    let recommend = "canet.v1.Recommender/Recommend";
    let answer = grpc.call::<proto::RecommendResponse>(recommend, &[], &request).answers;
    let found: Vec<u32> = answer[0].items.iter().map(|item| item.item.parse().unwrap()).collect();
    assert_eq!(found, expected);
    let none = [("brand".to_owned(), 0)].into();
    for (wrong, words) in [
        (
            proto::RecommendRequest { filter: Some("[]".to_owned()), ..request.clone() },
            "`filter` is not a filter in JSON",
        ),
        (proto::RecommendRequest { max_per: none, ..request.clone() }, "it must be at least 1"),
        (proto::RecommendRequest { filter: Some(r#"{"a": 1}"#.to_owned()), ..request }, "its keys are"),
    ] {
        let status = grpc.call::<proto::RecommendResponse>(recommend, &[], &wrong).status;
        assert_eq!(status.code(), tonic::Code::InvalidArgument);
        assert!(status.message().contains(words), "{status:?}");
    }
    let model = grpc.call::<proto::GetModelResponse>("canet.v1.Recommender/GetModel", &[], &proto::GetModelRequest {});
    let catalogue = model.answers[0].catalogue.as_ref().unwrap();
    assert_eq!((catalogue.items, catalogue.keys[0].name.as_str(), catalogue.keys[0].values), (31, "category", 3));
}

#[test]
fn a_second_run_that_fills_quotas_costs_the_slice_again() {
    let directory = tempfile::tempdir().unwrap();
    let (root, path) = (directory.path().join("wide"), directory.path().join("catalogue.csv"));
    numbered(draft(ModelConfig { items: 300, ..small_config() }, 31)).write(&root).unwrap();
    // Three brands, two of which one item alone has.
    let brand = |place: u32| if place < 2 { place } else { 2 };
    let lines: String = (0..300).map(|place| format!("{},b{}\n", 101 + place, brand(place))).collect();
    fs::write(&path, format!("id,brand\n{lines}")).unwrap();
    let server = Process::serve(&root, &["--catalogue", path.to_str().unwrap()]);
    let route = server.client.get("/routes").json()["routes"][0]["name"].as_str().unwrap().to_owned();
    let executed = || server.client.metric(&format!("executed_flops_total{{route=\"{route}\"}}"));
    let flops = |answer: &Value| answer["compute"]["flops"].as_u64().unwrap();

    let request = json!({"history": [200, 250], "k": 3, "route": route});
    let once = server.client.recommend(&request).json();
    assert_eq!(executed(), flops(&once) as f64);

    let mut request = request;
    request["max_per"] = json!({"brand": 1});
    let twice = server.client.recommend(&request).json();
    assert_eq!((ids(&twice).len(), server.client.metric("ranked_twice_total")), (3, 1.0));
    assert_eq!(flops(&twice), 2 * flops(&once));
    assert_eq!(executed(), (flops(&once) + flops(&twice)) as f64);
}

#[test]
fn a_new_file_is_taken_over_and_a_wrong_one_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("catalogue.csv");
    fs::write(&path, "id,hidden,category\n101,,new\n").unwrap();
    let mut server = serve(directory.path(), &["--drain-delay", "0"]);
    let filtered =
        |value: &str| server.client.recommend(&json!({"history": [], "k": 40, "filter": {"category": value}}));
    assert_eq!(ids(&filtered("new").json()), [101]);
    let total = |outcome: &str| server.client.metric(&format!("catalogue_reload_total{{outcome=\"{outcome}\"}}"));
    assert_eq!([total("served"), total("rejected"), total("failed")], [1.0, 0.0, 0.0]);

    replace(&path, "id,hidden,category\n101,true,new\n102,,new\n103,,old\n");
    server.log_line("the catalogue file serves");
    assert_eq!((ids(&filtered("new").json()), ids(&filtered("old").json())), (vec![102], vec![103]));
    assert_eq!(server.client.metric("catalogue_hidden_items"), 1.0);

    replace(&path, "id,hidden,category\n101,perhaps,new\n");
    let line = server.log_line("the catalogue file is refused");
    assert!(line.contains("line 2: `hidden` is") && line.contains("perhaps"), "{line}");
    assert_eq!(ids(&filtered("old").json()), [103]);
    assert_eq!([total("served"), total("rejected"), total("failed")], [2.0, 1.0, 0.0]);

    // An export that broke off would show item 101 again.
    replace(&path, "id,hidden,category\n102,,new\n103,,old\n");
    let line = server.log_line("it lacks too many items");
    assert!(line.contains("lost=1 items=3 max_loss=0.1"), "{line}");
    assert_eq!((total("rejected"), server.client.metric("catalogue_hidden_items")), (2.0, 1.0));

    // A new version serves with the same file.
    numbered(draft(small_config(), 32)).write(&directory.path().join("small")).unwrap();
    assert_eq!(server.client.post("/admin/reload", &json!({})).status, 200);
    let answer = server.client.recommend(&json!({"history": [], "filter": {"category": "old"}})).json();
    assert_eq!((ids(&answer), &answer["model"]["version"]), (vec![103], &json!(2)));
    server.signal("TERM");
    assert_eq!(server.wait().code(), Some(0));
}

#[test]
fn a_server_without_a_file_says_so_and_a_wrong_file_starts_none() {
    let directory = tempfile::tempdir().unwrap();
    let (root, path) = (directory.path().join("small"), directory.path().join("catalogue.csv"));
    numbered(draft(small_config(), 31)).write(&root).unwrap();
    let server = Process::serve(&root, &[]);
    for body in [json!({"history": [], "filter": {"a": 1}}), json!({"history": [], "max_per": {"a": 1}})] {
        let reply = server.client.recommend(&body);
        assert_eq!(reply.status, 422);
        assert!(reply.json()["detail"].as_str().unwrap().ends_with("start it with --catalogue"), "{reply:?}");
    }
    let empty = json!({"history": [], "filter": {}, "max_per": {}});
    assert_eq!(
        (server.client.recommend(&empty).status, server.client.get("/model").json()["catalogue"].clone()),
        (200, Value::Null)
    );
    drop(server);
    fs::write(&path, "id,a\n1\n").unwrap();
    let flags = ["--listen", "127.0.0.1:0", "--model", root.to_str().unwrap(), "--catalogue", path.to_str().unwrap()];
    let (code, error) = run(&mut canet(&[&["serve"], &flags[..]].concat()));
    assert_eq!(code, Some(65), "{error}");
    assert!(error.contains("catalogue.csv: line 2: 1 columns instead of 2"), "{error}");
}
