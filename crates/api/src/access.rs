use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::{ConnectInfo, Request};
use axum::http::{HeaderMap, HeaderName, header};
use axum::response::Response;
use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};
use tower_http::validate_request::ValidateRequestHeaderLayer;

use super::hosts::{self, Hosts};
use super::{Code, Problem, browser};
use canet_serving::{Offer, Reloader};

/// Carries an API key. A bearer token is the alternative.
pub(crate) const API_KEY: HeaderName = HeaderName::from_static("x-api-key");

/// What operators may do, and who is one.
#[derive(Clone)]
pub struct Admin {
    /// The share of a candidate whose request names none.
    pub(crate) candidate_share: f64,
    pub(crate) reloader: Arc<Reloader>,
    pub(crate) operators: Operators,
}

impl Admin {
    /// With a token, its bearers are the operators. Without one, operators are the clients on loopback, except pages
    /// of other sites in a browser there.
    pub fn new(reloader: Arc<Reloader>, token: Option<&str>) -> Admin {
        Admin {
            candidate_share: Offer::SHARE,
            reloader,
            operators: Operators { token: token.map(Secret::new), hosts: Hosts::default() },
        }
    }

    /// The same with another share for candidates whose request names none.
    pub fn with_candidate_share(self, share: f64) -> Admin {
        Admin { candidate_share: share, ..self }
    }
}

/// Layers a check in front of a service. `refuse` writes the check's problem as a response.
pub(crate) fn guard(
    check: impl Fn(&Request) -> Result<(), Problem> + Clone,
    refuse: fn(Problem) -> Response,
) -> ValidateRequestHeaderLayer<impl FnMut(&mut Request) -> Result<(), Response> + Clone> {
    #[allow(clippy::result_large_err, reason = "`ValidateRequest` takes the response by value")]
    let validate = move |request: &mut Request| check(request).map_err(refuse);
    ValidateRequestHeaderLayer::custom(validate)
}

/// The keys that open the API. Without keys it is open to everybody.
#[derive(Clone, Default)]
pub struct ApiKeys(Arc<[Secret]>);

impl ApiKeys {
    /// Accepts any of `keys`, so that a new key can replace one that is still in use.
    pub fn new<'a>(keys: impl IntoIterator<Item = &'a str>) -> ApiKeys {
        ApiKeys(keys.into_iter().map(Secret::new).collect())
    }

    /// Whether the API is open to everybody.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// # Errors
    /// 401 if there are keys and the headers carry none of them.
    pub(crate) fn check(&self, headers: &HeaderMap) -> Result<(), Problem> {
        if self.is_empty() {
            return Ok(());
        }
        let given = match headers.get(API_KEY) {
            Some(key) => key.to_str().ok(),
            None => bearer(headers),
        };
        let Some(given) = given else {
            let detail = "send an API key as `x-api-key: KEY` or `authorization: Bearer KEY`";
            return Err(Problem::new(Code::Unauthorized, detail));
        };
        // Compares every key, so that the time does not tell which one matched.
        let known = self.0.iter().fold(Choice::from(0), |known, key| known | key.is(given));
        if known.into() { Ok(()) } else { Err(Problem::new(Code::Unauthorized, Code::Unauthorized.typical_detail())) }
    }
}

/// Tells operators from other clients.
#[derive(Clone)]
pub(crate) struct Operators {
    token: Option<Secret>,
    hosts: Hosts,
}

impl Operators {
    /// The same operators, who without a token may ask under the names of `hosts` too.
    pub(crate) fn at(self, hosts: Hosts) -> Operators {
        Operators { hosts, ..self }
    }

    /// Whether operators send a token of their own.
    pub(crate) fn has_token(&self) -> bool {
        self.token.is_some()
    }

    /// # Errors
    /// 401 or 403 if the request does not come from an operator.
    pub(crate) fn check(&self, request: &Request) -> Result<(), Problem> {
        let Some(token) = &self.token else { return check_local(request, &self.hosts) };
        let Some(given) = bearer(request.headers()) else {
            return Err(Problem::new(Code::Unauthorized, "send `authorization: Bearer TOKEN` with the server's token"));
        };
        if token.is(given).into() {
            Ok(())
        } else {
            Err(Problem::new(Code::Unauthorized, "this is not the server's token"))
        }
    }
}

/// # Errors
/// 403 if the request comes from another machine, or from a page of another site.
fn check_local(request: &Request, hosts: &Hosts) -> Result<(), Problem> {
    let peer = request.extensions().get::<ConnectInfo<SocketAddr>>();
    let detail = if !peer.is_some_and(|ConnectInfo(peer)| peer.ip().to_canonical().is_loopback()) {
        "without --admin-token this is for clients on the server's own machine, over loopback"
    } else if is_cross_site(request, hosts) {
        "without --admin-token this is not for pages of other sites: ask at localhost or 127.0.0.1"
    } else {
        return Ok(());
    };
    Err(Problem::new(Code::Forbidden, detail))
}

/// Whether a page of another site may have made a browser on this machine send `request`.
///
/// A browser names the page's site in `sec-fetch-site` and `origin`, and no page can forge them. Both agree with `host` if
/// the site pointed its own name at this machine, so `host` must be one of `hosts`. Clients other than browsers send
/// neither header, and may send no `host`.
fn is_cross_site(request: &Request, hosts: &Hosts) -> bool {
    let (headers, host) = (request.headers(), hosts::host(request));
    let foreign_host = host.is_some_and(|host| !hosts.is_local(host));
    let told = [browser::is_foreign_site(headers), browser::has_foreign_origin(headers, host)];
    foreign_host || told.contains(&Some(true))
}

/// A key or token. Only its digest is kept.
#[derive(Clone, Copy)]
struct Secret([u8; 32]);

impl Secret {
    fn new(secret: &str) -> Secret {
        Secret(Sha256::digest(secret).into())
    }

    /// Compares digests of equal length in constant time, so that the time tells nothing about the secret.
    fn is(&self, given: &str) -> Choice {
        self.0.ct_eq(&Secret::new(given).0)
    }
}

/// The token of `authorization: Bearer TOKEN`.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use axum::body::Body;
    use axum::extract::{ConnectInfo, Request};

    use super::{ApiKeys, Operators, Secret, is_cross_site};
    use crate::{Code, Hosts};

    fn request(headers: &[(&str, &str)]) -> Request {
        let request = Request::builder().uri("/admin/reload");
        headers
            .iter()
            .fold(request, |request, (name, value)| request.header(*name, *value))
            .body(Body::empty())
            .unwrap()
    }

    #[test]
    fn any_key_opens_the_api_in_either_header() {
        let keys = ApiKeys::new(["old", "new"]);
        let check = |headers: &[(&str, &str)]| keys.check(request(headers).headers()).is_ok();
        assert!(check(&[("x-api-key", "old")]) && check(&[("x-api-key", "new")]));
        assert!(check(&[("authorization", "Bearer new")]) && check(&[("authorization", "bearer  old ")]));
        assert!(!check(&[]) && !check(&[("x-api-key", "")]) && !check(&[("x-api-key", "older")]));
        assert!(!check(&[("authorization", "Basic old")]), "another scheme is no key");
        assert!(!check(&[("x-api-key", "no"), ("authorization", "Bearer old")]), "x-api-key goes first");
        assert!(ApiKeys::default().check(request(&[]).headers()).is_ok());
    }

    #[test]
    fn with_a_token_only_its_bearers_are_operators() {
        let operators = Operators { token: Some(Secret::new("token")), hosts: Hosts::Any };
        assert_eq!(operators.check(&request(&[("authorization", "Bearer token")])), Ok(()));
        for headers in [&[][..], &[("authorization", "Bearer tokens")], &[("x-api-key", "token")]] {
            assert_eq!(operators.check(&request(headers)).unwrap_err().code, Code::Unauthorized);
        }
    }

    #[test]
    fn without_a_token_operators_are_on_loopback() {
        let operators = Operators { token: None, hosts: Hosts::Any };
        let from = |peer: Option<&str>| {
            let mut request = request(&[("host", "localhost:8080")]);
            let peer = peer.map(|peer| ConnectInfo(peer.parse::<SocketAddr>().unwrap()));
            peer.map(|peer| request.extensions_mut().insert(peer));
            operators.check(&request).map_err(|problem| problem.code)
        };
        assert_eq!([from(Some("127.0.0.1:9")), from(Some("[::1]:9")), from(Some("[::ffff:127.0.0.1]:9"))], [Ok(()); 3]);
        assert_eq!([from(Some("10.0.0.1:9")), from(None)], [Err(Code::Forbidden); 2]);
    }

    #[test]
    fn pages_of_other_sites_are_told_by_site_host_and_origin() {
        let hosts = Hosts::local(&["canet.internal".to_owned()]).unwrap();
        let is_foreign = |headers: &[(&str, &str)]| is_cross_site(&request(headers), &hosts);
        let host = ("host", "localhost:8080");
        for headers in [
            &[][..],
            &[host],
            &[host, ("sec-fetch-site", "none")],
            &[host, ("origin", "http://LOCALHOST:8080")],
            &[("host", "canet.internal"), ("origin", "https://canet.internal")],
        ] {
            assert!(!is_foreign(headers), "{headers:?}");
        }
        for headers in [
            &[("host", "shop.example")][..],
            &[host, ("sec-fetch-site", "same-site")],
            &[host, ("origin", "http://localhost:9090")],
            &[host, ("origin", "null")],
            &[("origin", "http://localhost:8080")],
        ] {
            assert!(is_foreign(headers), "{headers:?}");
        }
    }
}
