use axum::response::{IntoResponse, Response};
use axum::routing::MethodRouter;
use utoipa::openapi::RefOr;
use utoipa::openapi::path::Paths;
use utoipa::openapi::schema::Schema;
use utoipa_axum::router::UtoipaMethodRouter;

use super::{Code, Problem};

/// What the server must know about one HTTP endpoint: its path and handlers, who may call it, whether it is counted,
/// how its errors look, and its documentation. `S` is the state that its handlers still lack.
pub(crate) struct Endpoint<S = ()> {
    pub(crate) path: String,
    pub(crate) handlers: MethodRouter<S>,
    pub(crate) kind: Kind,
    /// Writes a problem that is found outside of the handlers, such as a missing key or a wrong method.
    pub(crate) refuse: fn(Problem) -> Response,
    /// `None` keeps the endpoint out of the OpenAPI document.
    pub(crate) documentation: Option<Documentation>,
}

/// An endpoint's part of the OpenAPI document.
pub(crate) struct Documentation {
    pub(crate) kind: Kind,
    pub(crate) paths: Paths,
    pub(crate) schemas: Vec<(String, RefOr<Schema>)>,
    /// The problems that the handler itself returns. The document adds those that follow from `kind` and from the
    /// request's body.
    pub(crate) problems: &'static [Code],
}

/// Decides who may call an endpoint and whether metrics count its calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// For clients with a key. Counted.
    Api,
    /// For operators. Counted.
    Operator,
    /// For clients with a key. Not counted, because a scrape must not change the metrics that it reads.
    Metrics,
    /// For everybody: probes and pages. Not counted.
    Public,
}

impl Kind {
    pub(crate) fn is_counted(self) -> bool {
        matches!(self, Kind::Api | Kind::Operator)
    }

    /// What a client must send to call an endpoint of this kind.
    pub(crate) fn credential(self, required: Required) -> Option<Credential> {
        match self {
            Kind::Public => None,
            // Operators with a token need no key.
            Kind::Operator if required.token => Some(Credential::Token),
            Kind::Api | Kind::Operator | Kind::Metrics => required.key.then_some(Credential::Key),
        }
    }
}

/// Proves who sends a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Credential {
    /// An API key.
    Key,
    /// The operators' token.
    Token,
}

/// What this server asks of a request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Required {
    /// An API key.
    pub(crate) key: bool,
    /// The operators' token, for their endpoints.
    pub(crate) token: bool,
    /// A host name of its own machine.
    pub(crate) host: bool,
}

impl<S: Clone + Send + Sync + 'static> Endpoint<S> {
    /// An endpoint that describes itself: `routes!(handler)` brings path, handlers and documentation. Handlers of other
    /// methods on the same path go into the same `routes!`.
    pub(crate) fn documented(
        kind: Kind,
        (schemas, paths, handlers): UtoipaMethodRouter<S>,
        problems: &'static [Code],
    ) -> Endpoint<S> {
        let path = paths.paths.keys().next().cloned().unwrap_or_default();
        let documentation = Some(Documentation { kind, paths, schemas, problems });
        Endpoint { path, handlers, kind, refuse: Problem::into_response, documentation }
    }

    /// Gives the handlers their state.
    pub(crate) fn with_state(self, state: S) -> Endpoint {
        let Endpoint { path, handlers, kind, refuse, documentation } = self;
        Endpoint { path, handlers: handlers.with_state(state), kind, refuse, documentation }
    }
}
