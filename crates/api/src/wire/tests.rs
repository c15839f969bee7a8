use serde::Deserialize;

use super::{BatchRequest, Compute, ExternalId, RecommendRequest, UserId, default_k, optional_integer};
use crate::limits::MAX_ROWS;

#[derive(Deserialize)]
struct Version {
    #[serde(default, deserialize_with = "optional_integer")]
    version: Option<u64>,
}

#[test]
fn null_means_not_given() {
    let request = r#"{"history": [], "k": null, "exclude_seen": null, "exclude": null, "candidates": null,
                      "route": null, "filter": null, "max_per": null, "budget": null, "timeout_ms": null, "user": null,
                      "history_start": null}"#;
    let request: RecommendRequest = serde_json::from_str(request).unwrap();
    assert_eq!(format!("{request:?}"), format!("{:?}", RecommendRequest::new(Vec::new())));
    for required in ["{\"history\": null}", "{\"history\": [null]}"] {
        assert!(serde_json::from_str::<RecommendRequest>(required).is_err(), "{required}");
    }
}

#[test]
fn an_empty_user_is_not_given() {
    let user = |json: &str| {
        let request = format!("{{\"history\": [], \"user\": {json}}}");
        serde_json::from_str::<RecommendRequest>(&request).map(|request| request.user)
    };
    for (json, id) in [("\"a\"", "a"), ("17", "17"), ("-5", "-5"), ("\" \"", " ")] {
        assert_eq!(user(json).unwrap(), UserId::given(id), "{json}");
    }
    assert_eq!([user("null").unwrap(), user("\"\"").unwrap(), UserId::given("")], [None, None, None]);
    for wrong in ["0.5", "true", "[\"a\"]"] {
        let error = user(wrong).unwrap_err().to_string();
        assert!(error.contains("expected an id (a string or an integer)"), "{wrong}: {error}");
    }
}

#[test]
fn candidates_a_filter_and_quotas_narrow_unless_they_are_empty() {
    let narrows = |fields: &str| {
        let request = format!("{{\"history\": [\"a\"]{fields}}}");
        serde_json::from_str::<RecommendRequest>(&request).unwrap().narrows()
    };
    for fields in [", \"candidates\": []", ", \"filter\": {\"a\": \"x\"}", ", \"max_per\": {\"a\": 1}"] {
        assert!(narrows(fields), "{fields}");
    }
    for fields in ["", ", \"filter\": {}, \"max_per\": {}", ", \"exclude\": [\"b\"], \"k\": 1, \"user\": \"u\""] {
        assert!(!narrows(fields), "{fields}");
    }
}

#[test]
fn whole_numbers_have_many_spellings() {
    let k = |k: &str| {
        let request = serde_json::from_str::<RecommendRequest>(&format!("{{\"history\": [], \"k\": {k}}}"));
        request.ok().and_then(|request| request.k)
    };
    for spelling in ["10", "10.0", "1e1", "1.0E+1"] {
        assert_eq!(k(spelling), Some(10), "{spelling}");
    }
    assert_eq!((k("18446744073709551615"), k("9007199254740992.0")), (Some(u64::MAX), Some(1 << 53)));
    for other in ["-1", "0.5", "18446744073709551616", "1e300", "\"1\"", "true", "[1]"] {
        assert_eq!(k(other), None, "{other}");
    }
    let version = |text: &str| serde_json::from_str::<Version>(text).ok().map(|version| version.version);
    assert_eq!([version("{}"), version("{\"version\": null}")], [Some(None); 2]);
    assert_eq!([version("{\"version\": 2.0}"), version("{\"version\": 2.5}")], [Some(Some(2)), None]);
}

#[test]
fn item_ids_are_strings_or_integers() {
    let ids: Vec<ExternalId> = serde_json::from_str("[\"a\", 5, -5, 18446744073709551615]").unwrap();
    let ids: Vec<&str> = ids.iter().map(|id| &*id.0).collect();
    assert_eq!(ids, ["a", "5", "-5", "18446744073709551615"]);
    for other in ["null", "[1]", "0.5", "1.0", "1e3"] {
        assert!(serde_json::from_str::<ExternalId>(other).is_err(), "{other}");
    }
}

#[test]
fn rows_beyond_the_limit_are_counted_but_not_kept() {
    let body = format!("{{\"requests\": [{}0]}}", "0, ".repeat(MAX_ROWS));
    let BatchRequest { requests } = serde_json::from_str(&body).unwrap();
    assert_eq!((requests.count, requests.kept.len()), (MAX_ROWS + 1, MAX_ROWS));
}

#[test]
fn savings_compare_with_the_full_model() {
    let saved = |flops, full_flops| (Compute::new(flops, full_flops).saved * 100.0).round();
    assert_eq!([saved(25, 100), saved(110, 100), saved(0, 0)], [75.0, -10.0, 0.0]);
    assert_eq!((default_k(3), default_k(300)), (3, 10));
}
