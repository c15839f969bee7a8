use std::sync::Arc;

use axum::extract::Request;
use axum::handler::Handler;
use axum::http::{Method, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Router, middleware};
use tower::ServiceBuilder;
use utoipa_axum::routes;

use super::access::{Admin, ApiKeys, Operators, guard};
use super::browser::{self, Origins};
use super::candidate::{self, Offers};
use super::endpoint::{Credential, Endpoint, Kind, Required};
use super::gzip::Gzip;
use super::hosts::Hosts;
use super::observe::{CallSeries, Observer};
use super::openapi::{self, Description};
use super::transport::Transport;
use super::{Heartbeat, Problem, describe, inference, items, observe, ops, pages, problem, recommend, reload};
use canet_serving::Recommender;

/// Who may do what.
#[derive(Clone, Default)]
pub struct Access {
    /// Operators. `None` removes their endpoints.
    pub admin: Option<Admin>,
    /// Keys for everything but probes and pages. Operators' endpoints ask for the token instead, if there is one.
    pub keys: ApiKeys,
    /// Sites whose pages may call this server from a browser.
    pub origins: Origins,
    /// Names under which it may be asked.
    pub hosts: Hosts,
}

/// Every HTTP endpoint over one recommender. [`serve`](super::serve) tells it each client's address.
pub fn app(recommender: &Arc<Recommender>, access: Access) -> Router {
    let Access { admin, keys, origins, hosts } = access;
    let operators = admin.as_ref().map(|admin| admin.operators.clone().at(hosts.clone()));
    let checks_host = !matches!(hosts, Hosts::Any);
    let required = Required {
        key: !keys.is_empty(),
        token: operators.as_ref().is_some_and(Operators::has_token),
        host: checks_host,
    };
    let cors = origins.layer();
    // The layers of one endpoint, outermost first. They are composed into one service: axum allocates for every layer
    // that it is given apart. A layer that would check nothing is left out.
    let layers = |path: &str, kind: Kind, refuse: fn(Problem) -> Response| {
        let keys = keys.clone();
        let check_key = move |request: &Request| keys.check(request.headers());
        let needs_key = kind.credential(required) == Some(Credential::Key);
        let operators = operators.clone().filter(|_| kind == Kind::Operator);
        let hosts = hosts.clone();
        let count = kind.is_counted().then(|| {
            let calls = CallSeries::one(recommender.metrics(), Transport::Http, path);
            let observer = Observer { recommender: Arc::clone(recommender), calls, refuse };
            middleware::from_fn_with_state(observer, observe::http)
        });
        ServiceBuilder::new()
            // Before the key: a browser asks without one whether it may send one.
            .option_layer(cors.clone())
            .layer(Gzip)
            .map_response(browser::secure)
            // Before the guards: refused calls are counted too.
            .option_layer(count)
            .option_layer(checks_host.then(|| guard(move |request| hosts.check(request), refuse)))
            .option_layer(needs_key.then(|| guard(check_key, refuse)))
            .option_layer(operators.map(|operators| guard(move |request| operators.check(request), refuse)))
    };
    let mut app = Router::new();
    for endpoint in endpoints(recommender, admin.as_ref(), required) {
        let Endpoint { path, handlers, kind, refuse, .. } = endpoint;
        let other_methods =
            async move |method: Method, uri: Uri| refuse(problem::method_not_allowed(method, uri).await);
        let endpoint = Router::new().route(&path, handlers).method_not_allowed_fallback(other_methods);
        app = app.merge(endpoint.layer(layers(&path, kind, refuse)));
    }
    app.fallback(problem::not_found.layer(layers(observe::UNKNOWN, Kind::Api, Problem::into_response)))
}

/// The table of endpoints. Routing, guards, counting and the OpenAPI document all follow from it.
fn endpoints(recommender: &Arc<Recommender>, admin: Option<&Admin>, required: Required) -> Vec<Endpoint> {
    use super::Code::{
        CheckpointRejected, Conflict, DeadlineExceeded, Forbidden, InvalidRequest, NotFound, Overloaded,
        ReloadInProgress, Unavailable,
    };
    use Kind::{Api, Metrics, Operator, Public};
    let model = || Arc::clone(recommender);
    let search = items::Search::new(recommender);
    let scrapes = ops::Scrapes::new(recommender);
    let mut endpoints = vec![
        Endpoint::documented(Api, routes!(recommend::one), &[Unavailable, DeadlineExceeded]).with_state(model()),
        Endpoint::documented(Api, routes!(recommend::many), &[Unavailable]).with_state(model()),
        Endpoint::documented(Api, routes!(describe::model), &[Overloaded, Unavailable]).with_state(model()),
        Endpoint::documented(Api, routes!(describe::routes), &[Overloaded, Unavailable]).with_state(model()),
        Endpoint::documented(Api, routes!(items::search), &[InvalidRequest, Overloaded, Unavailable])
            .with_state(search),
        Endpoint::documented(Metrics, routes!(ops::metrics), &[Overloaded]).with_state(scrapes),
        Endpoint::documented(Public, routes!(ops::healthz), &[Unavailable]).with_state(model()),
        Endpoint::documented(Public, routes!(ops::readyz), &[Unavailable]).with_state(model()),
    ];
    if let Some(admin) = admin {
        let loading = &[Forbidden, NotFound, ReloadInProgress, Conflict, CheckpointRejected, Unavailable];
        let reloader = || Arc::clone(&admin.reloader);
        let offers = Offers { reloader: reloader(), share: admin.candidate_share };
        let promoting = &[Forbidden, ReloadInProgress, Conflict, Unavailable];
        let withdrawing = &[Forbidden, Conflict, Unavailable];
        endpoints.extend([
            Endpoint::documented(Operator, routes!(reload::reload), loading).with_state(reloader()),
            Endpoint::documented(Operator, routes!(candidate::offer), loading).with_state(offers),
            Endpoint::documented(Operator, routes!(candidate::promote), promoting).with_state(reloader()),
            Endpoint::documented(Operator, routes!(candidate::withdraw), withdrawing).with_state(reloader()),
        ]);
    }
    endpoints.extend(inference::endpoints().into_iter().map(|endpoint| endpoint.with_state(model())));
    endpoints.extend(pages::endpoints());
    // The document lists its own endpoint too.
    let document = Endpoint::documented(Api, routes!(openapi::document), &[Unavailable]);
    let documented = endpoints.iter().filter_map(|endpoint| endpoint.documentation.as_ref());
    let description = Description::new(documented.chain(&document.documentation), required, model());
    endpoints.push(document.with_state(description));
    endpoints
}

/// The probes alone, for a listener with a runtime of its own.
///
/// They report on the server, not on their own runtime. `/healthz` asks for a restart if nothing else helps: the executors
/// are dead, or the runtime of `heartbeat` is stuck. A server that is only busy is alive. `/readyz` fails in those
/// cases too.
pub fn probes(recommender: &Arc<Recommender>, heartbeat: Heartbeat) -> Router {
    let check_heartbeat = move |_: &Request| heartbeat.check();
    Router::new()
        .route("/healthz", get(ops::healthz))
        .route("/readyz", get(ops::readyz))
        .layer(guard(check_heartbeat, Problem::into_response))
        .method_not_allowed_fallback(problem::method_not_allowed)
        .fallback(problem::not_found)
        .layer(ServiceBuilder::new().map_response(browser::secure))
        .with_state(Arc::clone(recommender))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::Arc;

    use axum::body::{Body, to_bytes};
    use axum::extract::Request;
    use axum::http::{Method, StatusCode, header};
    use axum::response::Response;
    use serde_json::{Value, json};
    use tower::ServiceExt;

    use super::{
        Access, Admin, ApiKeys, Credential, Description, Endpoint, Hosts, Kind, Required, Router, app, endpoints,
    };
    use crate::testing::Fixture;
    use crate::{Origins, observe};

    const REQUIRED: Required = Required { key: true, token: true, host: false };
    const KEY: (&str, &str) = ("x-api-key", "key");
    const TOKEN: (&str, &str) = ("authorization", "Bearer token");
    const JSON: (&str, &str) = ("content-type", "application/json");

    fn admin(fixture: &Fixture) -> Admin {
        Admin::new(Arc::clone(&fixture.reloader), Some("token"))
    }

    fn table(fixture: &Fixture) -> Vec<Endpoint> {
        endpoints(&fixture.recommender, Some(&admin(fixture)), REQUIRED)
    }

    fn guarded_app(fixture: &Fixture) -> Router {
        let access = Access {
            admin: Some(admin(fixture)),
            keys: ApiKeys::new(["key"]),
            origins: Origins::Any,
            hosts: Hosts::Any,
        };
        app(&fixture.recommender, access)
    }

    async fn send(app: &Router, request: (Method, &str), headers: &[(&str, &str)], body: &Value) -> Response {
        let (method, path) = request;
        let request = Request::builder().method(method).uri(path);
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        let body = if body.is_null() { Body::empty() } else { Body::from(body.to_string()) };
        app.clone().oneshot(request.body(body).unwrap()).await.unwrap()
    }

    async fn read(response: Response) -> Value {
        serde_json::from_slice(&to_bytes(response.into_body(), usize::MAX).await.unwrap()).unwrap()
    }

    /// A path that the template matches.
    fn example(path: &str) -> String {
        path.replace(['{', '}', '*'], "")
    }

    #[tokio::test]
    async fn every_documented_endpoint_is_in_the_document() {
        let fixture = Fixture::new();
        let table = table(&fixture);
        let documented = table.iter().filter_map(|endpoint| endpoint.documentation.as_ref());
        let description = Description::new(documented, REQUIRED, Arc::clone(&fixture.recommender));
        let document = json!(*description.document);
        let paths = document["paths"].as_object().unwrap();
        let in_document: BTreeSet<&str> = paths.keys().map(String::as_str).collect();
        let in_table = table.iter().filter(|endpoint| endpoint.documentation.is_some());
        let in_table: BTreeSet<&str> = in_table.map(|endpoint| endpoint.path.as_str()).collect();
        assert_eq!(in_document, in_table);
        assert!(in_table.is_superset(&BTreeSet::from(["/recommend", "/admin/reload", "/openapi.json"])));
        for (path, item) in paths {
            let is_operation = |(_, value): &(&String, &Value)| value["responses"].is_object();
            for (method, operation) in item.as_object().unwrap().iter().filter(is_operation) {
                assert!(operation["responses"]["500"].is_object(), "{method} {path} lacks the endpoint's problems");
            }
        }
        // A second schema of the same name would replace the first, so one of the two differs from the document's.
        let schemas = table.iter().filter_map(|endpoint| endpoint.documentation.as_ref());
        for (name, schema) in schemas.flat_map(|documentation| &documentation.schemas) {
            assert_eq!(document["components"]["schemas"][name], json!(schema), "two schemas have the name `{name}`");
        }
    }

    #[tokio::test]
    async fn only_pages_and_the_inference_protocol_stay_out_of_the_document() {
        for Endpoint { path, kind, documentation, .. } in table(&Fixture::new()) {
            let is_protocol = path == "/v2" || path.starts_with("/v2/");
            let is_page = path == "/" || path.starts_with("/console/") || path == "/docs" || path.starts_with("/docs/");
            assert_eq!(documentation.is_none(), is_protocol || is_page, "{path}");
            assert!(!is_page || kind == Kind::Public, "{path}");
        }
    }

    #[tokio::test]
    async fn the_app_serves_every_endpoint_behind_its_layers() {
        let fixture = Fixture::new();
        let app = guarded_app(&fixture);
        for Endpoint { path, kind, .. } in table(&fixture) {
            let response = send(&app, (Method::GET, &example(&path)), &[], &Value::Null).await;
            let is_guarded = kind.credential(REQUIRED).is_some();
            assert_eq!(response.status() == StatusCode::UNAUTHORIZED, is_guarded, "{path}");
            assert_eq!(response.headers().contains_key(observe::REQUEST_ID), kind.is_counted(), "{path}");
            assert_eq!(response.headers()[header::X_CONTENT_TYPE_OPTIONS], "nosniff", "{path}");
            // No endpoint takes this method. The answer tells a path of the table from an unknown one.
            let credential = if kind.credential(REQUIRED) == Some(Credential::Token) { TOKEN } else { KEY };
            let unknown = Method::from_bytes(b"UNKNOWN").unwrap();
            let response = send(&app, (unknown, &example(&path)), &[credential], &Value::Null).await;
            let is_catch_all = path == "/v2/{*rest}";
            let expected = if is_catch_all { StatusCode::NOT_FOUND } else { StatusCode::METHOD_NOT_ALLOWED };
            assert_eq!(response.status(), expected, "{path}");
            assert_eq!(response.headers().contains_key(header::ALLOW), !is_catch_all, "{path}");
        }
    }

    #[tokio::test]
    async fn operators_load_the_model_that_clients_then_use() {
        let fixture = Fixture::new();
        let app = guarded_app(&fixture);
        let history = json!({"history": [], "k": 2});
        let unready = send(&app, (Method::POST, "/recommend"), &[KEY, JSON], &history).await;
        assert_eq!(unready.status(), StatusCode::SERVICE_UNAVAILABLE);
        let by_key = send(&app, (Method::POST, "/admin/reload"), &[KEY], &Value::Null).await;
        assert_eq!(by_key.status(), StatusCode::UNAUTHORIZED);
        let reloaded = send(&app, (Method::POST, "/admin/reload"), &[TOKEN], &Value::Null).await;
        assert_eq!((reloaded.status(), &read(reloaded).await["version"]), (StatusCode::OK, &json!(1)));
        let cold = send(&app, (Method::POST, "/recommend"), &[KEY, JSON], &history).await;
        assert_eq!(cold.status(), StatusCode::OK);
        let first = read(cold).await["items"][0]["item"].clone();
        let ranked = send(&app, (Method::POST, "/recommend"), &[KEY, JSON], &json!({"history": [first], "k": 2})).await;
        assert_eq!(read(ranked).await["items"].as_array().map(Vec::len), Some(2));
        let document = read(send(&app, (Method::GET, "/openapi.json"), &[KEY], &Value::Null).await).await;
        let request = &document["components"]["schemas"]["RecommendRequest"]["properties"];
        assert_eq!(request["route"]["enum"][0], "auto");
        assert_eq!(request["k"]["minimum"], 1);
    }

    #[tokio::test]
    async fn every_endpoint_asks_for_the_host_if_the_server_does() {
        let fixture = Fixture::new();
        let access = Access { hosts: Hosts::local(&[]).unwrap(), ..Access::default() };
        let app = app(&fixture.recommender, access);
        let table = endpoints(&fixture.recommender, None, Required { key: false, token: false, host: true });
        for path in table.iter().map(|endpoint| example(&endpoint.path)).chain(["/nowhere".to_owned()]) {
            let rebound = send(&app, (Method::GET, &path), &[("host", "shop.example")], &Value::Null).await;
            assert_eq!(rebound.status(), StatusCode::FORBIDDEN, "{path}");
            let local = send(&app, (Method::GET, &path), &[("host", "localhost:8080")], &Value::Null).await;
            assert_ne!(local.status(), StatusCode::FORBIDDEN, "{path}");
        }
        let refused = send(&app, (Method::GET, "/v2"), &[("host", "shop.example")], &Value::Null).await;
        assert!(read(refused).await["error"].as_str().is_some_and(|error| error.contains("--allow-host")));
    }

    #[tokio::test]
    async fn unknown_paths_are_counted_and_need_a_key() {
        let app = guarded_app(&Fixture::new());
        let response = send(&app, (Method::GET, "/nowhere"), &[], &Value::Null).await;
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
        let response = send(&app, (Method::GET, "/nowhere"), &[KEY], &Value::Null).await;
        assert_eq!(response.status(), StatusCode::NOT_FOUND);
        assert!(response.headers().contains_key(observe::REQUEST_ID));
        assert_eq!(response.headers()[header::CONTENT_TYPE], "application/problem+json");
    }

    #[tokio::test]
    async fn errors_of_the_inference_protocol_have_its_form() {
        let app = guarded_app(&Fixture::new());
        for (headers, status) in [(&[][..], 401), (&[KEY], 405)] {
            let response = send(&app, (Method::PUT, "/v2/models/m/infer"), headers, &Value::Null).await;
            assert_eq!(response.status().as_u16(), status);
            assert!(read(response).await["error"].is_string());
        }
    }

    #[tokio::test]
    async fn browsers_may_ask_without_a_key_whether_they_may_send_one() {
        let app = guarded_app(&Fixture::new());
        let headers = [("origin", "https://shop.example"), ("access-control-request-method", "POST")];
        for path in ["/recommend", "/readyz", "/nowhere"] {
            let response = send(&app, (Method::OPTIONS, path), &headers, &Value::Null).await;
            assert_eq!(response.status(), StatusCode::OK, "{path}");
            assert_eq!(response.headers()[header::ACCESS_CONTROL_ALLOW_ORIGIN], "*", "{path}");
        }
    }
}
