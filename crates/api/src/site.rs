use std::net::IpAddr;

use axum::extract::Request;
use axum::http::uri::Authority;
use axum::http::{HeaderName, HeaderValue, header};

const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Whether a page of another site may have made a browser on this machine send `request`.
///
/// A browser names the page's site in `sec-fetch-site` and `origin`, and neither can be made up by the page. Where the
/// page's own name is made to point to this machine both call it the server's own, so that the name in `host` must be
/// one that nobody else can have. Other clients send neither header, and none at all sends no `host`.
pub(crate) fn is_foreign(request: &Request) -> bool {
    let headers = request.headers();
    let foreign_site = headers.get(FETCH_SITE).is_some_and(|site| !matches!(site.as_bytes(), b"same-origin" | b"none"));
    // Over HTTP/2 the host is part of the address.
    let host = headers.get(header::HOST).map(HeaderValue::as_bytes);
    let host = host.or_else(|| request.uri().authority().map(|host| host.as_str().as_bytes()));
    let foreign_host = host.is_some_and(|host| !is_loopback(host));
    let foreign_origin = headers.get(header::ORIGIN).is_some_and(|origin| {
        let [plain, secure] = [b"http://".as_slice(), b"https://"].map(|scheme| origin.as_bytes().strip_prefix(scheme));
        !plain.or(secure).zip(host).is_some_and(|(origin, host)| origin.eq_ignore_ascii_case(host))
    });
    foreign_site || foreign_host || foreign_origin
}

/// Whether a host, with or without a port, is this machine whoever resolves it.
fn is_loopback(host: &[u8]) -> bool {
    let Ok(authority) = Authority::try_from(host) else { return false };
    let name = authority.host();
    let address = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    name.eq_ignore_ascii_case("localhost")
        || address.parse().is_ok_and(|address: IpAddr| address.to_canonical().is_loopback())
}
