use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, header};
use axum::response::Response;
use tower::layer::util::Stack;
use tower_http::cors::{AllowOrigin, Any, CorsLayer};

use super::{Code, Problem, access, hosts, inference, observe, traceparent};

/// How the page that sent a request relates to this server. Browsers set it, and no page can forge it.
const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// The policy of every answer that sets none itself: it is data, and nothing in it may run.
const POLICY: &str = "default-src 'none'; frame-ancestors 'none'";

/// Tells browsers to trust the content type of an answer and to keep other sites out of it. Headers that the handler
/// set stay.
pub(crate) fn secure(mut response: Response) -> Response {
    let headers = response.headers_mut();
    for (name, value) in [
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CONTENT_SECURITY_POLICY, POLICY),
    ] {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
    response
}

/// The sites whose pages may call this server from a browser. The default is none but the server's own.
#[derive(Clone, Debug, Default)]
pub enum Origins {
    /// Only this server's own pages.
    #[default]
    Own,
    /// These sites too, each as `https://shop.example`.
    Listed(Arc<[HeaderValue]>),
    /// Every site.
    Any,
}

impl Origins {
    /// Reads origins as browsers send them. `*` among them allows every site.
    ///
    /// # Errors
    /// Says what is wrong with an origin.
    pub fn parse(origins: &[String]) -> Result<Origins, String> {
        if origins.is_empty() {
            return Ok(Origins::Own);
        }
        if origins.iter().any(|origin| origin == "*") {
            return Ok(Origins::Any);
        }
        Ok(Origins::Listed(origins.iter().map(|origin| parse(origin)).collect::<Result<_, _>>()?))
    }

    /// Answers the browsers of other sites' pages, and tells [`check_page`] which pages are allowed. `None` if no other site
    /// is allowed.
    pub(crate) fn layer(self) -> Option<Stack<Extension<Origins>, CorsLayer>> {
        let allowed = match &self {
            Origins::Own => return None,
            Origins::Any => AllowOrigin::from(Any),
            Origins::Listed(origins) => AllowOrigin::list(origins.iter().cloned()),
        };
        let sent = [
            header::CONTENT_TYPE,
            header::CONTENT_ENCODING,
            header::AUTHORIZATION,
            access::API_KEY,
            observe::REQUEST_ID,
            traceparent::HEADER,
            inference::BINARY_HEADER,
        ];
        let answered = [
            observe::REQUEST_ID,
            observe::SERVER_TIMING,
            header::RETRY_AFTER,
            traceparent::HEADER,
            inference::BINARY_HEADER,
        ];
        let cors = CorsLayer::new()
            .allow_origin(allowed)
            // The methods of all endpoints.
            .allow_methods([Method::GET, Method::POST])
            .allow_headers(sent)
            .expose_headers(answered)
            .max_age(Duration::from_secs(3600));
        Some(Stack::new(Extension(self), cors))
    }

    fn allows(&self, origin: Option<&HeaderValue>) -> bool {
        match self {
            Origins::Own => false,
            Origins::Listed(origins) => origin.is_some_and(|origin| origins.contains(origin)),
            Origins::Any => true,
        }
    }
}

/// Checks the page that made a browser send a request.
///
/// Only endpoints that change something and take any content type need this check. Browsers send JSON to another site only
/// after a preflight, which [`Origins::layer`] answers.
///
/// # Errors
/// 403 if it is a page of another site, unless `--cors-origin` allows that site. Clients other than browsers name no page.
pub(crate) fn check_page(request: &Request) -> Result<(), Problem> {
    let headers = request.headers();
    // `sec-fetch-site` goes first: behind a proxy that changes `host`, the server's own pages have another origin. Browsers
    // leave it out over plain HTTP to another machine.
    let is_foreign =
        is_foreign_site(headers).unwrap_or_else(|| has_foreign_origin(headers, hosts::host(request)).unwrap_or(false));
    let origins = request.extensions().get::<Origins>();
    if !is_foreign || origins.is_some_and(|origins| origins.allows(headers.get(header::ORIGIN))) {
        return Ok(());
    }
    let detail = "this is not for pages of other sites: start the server with --cors-origin to allow a site";
    Err(Problem::new(Code::Forbidden, detail))
}

/// Whether `sec-fetch-site` names another site. `None` if there is no such header.
pub(crate) fn is_foreign_site(headers: &HeaderMap) -> Option<bool> {
    headers.get(FETCH_SITE).map(|site| !matches!(site.as_bytes(), b"same-origin" | b"none"))
}

/// Whether `origin` is another than that of `host`, over HTTP or HTTPS. `None` if there is no such header.
pub(crate) fn has_foreign_origin(headers: &HeaderMap, host: Option<&[u8]>) -> Option<bool> {
    headers.get(header::ORIGIN).map(|origin| {
        let [plain, secure] = [b"http://".as_slice(), b"https://"].map(|scheme| origin.as_bytes().strip_prefix(scheme));
        !plain.or(secure).zip(host).is_some_and(|(origin, host)| origin.eq_ignore_ascii_case(host))
    })
}

/// Accepts an origin only as browsers write it, because the comparison is byte by byte.
fn parse(origin: &str) -> Result<HeaderValue, String> {
    let uri: Option<Uri> = origin.parse().ok();
    let sent = uri.as_ref().and_then(as_sent).ok_or_else(|| {
        format!("{origin:?} is no origin: write it as https://shop.example, without a path, or `*` for all")
    })?;
    if sent != origin {
        return Err(format!("{origin:?} is not how browsers write an origin: write {sent:?}"));
    }
    HeaderValue::try_from(sent).map_err(|error| error.to_string())
}

/// The origin that a browser sends for a page at `uri`.
fn as_sent(uri: &Uri) -> Option<String> {
    let (scheme, authority) = (uri.scheme_str()?, uri.authority()?);
    let host = authority.host().to_ascii_lowercase();
    let address = authority.as_str().rsplit('@').next()?;
    let port = match address.get(host.len()..)? {
        "" => None,
        port => Some(port.strip_prefix(':')?.parse::<u16>().ok()?),
    };
    Some(match port {
        Some(port) if ![("http", 80), ("https", 443)].contains(&(scheme, port)) => format!("{scheme}://{host}:{port}"),
        _ => format!("{scheme}://{host}"),
    })
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::extract::Request;

    use super::{Origins, check_page, parse};
    use crate::Code;

    fn parsed(origins: &[&str]) -> Result<Origins, String> {
        Origins::parse(&origins.iter().map(|origin| (*origin).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn pages_of_other_sites_may_call_only_where_they_are_allowed() {
        let host = ("host", "canet.example:8080");
        let own = ("origin", "http://canet.example:8080");
        let shop = ("origin", "https://shop.example");
        let cross_site = ("sec-fetch-site", "cross-site");
        let same_origin = ("sec-fetch-site", "same-origin");
        // The headers, and who may call: always, where shop.example is listed, where every site is allowed.
        for (headers, always, listed, any) in [
            (&[][..], true, true, true),
            (&[host], true, true, true),
            (&[host, own], true, true, true),
            (&[host, own, same_origin], true, true, true),
            // A proxy changed the host.
            (&[("host", "127.0.0.1:8080"), shop, same_origin], true, true, true),
            (&[host, ("sec-fetch-site", "none")], true, true, true),
            (&[host, shop], false, true, true),
            (&[host, shop, cross_site], false, true, true),
            (&[host, shop, ("sec-fetch-site", "same-site")], false, true, true),
            (&[host, cross_site], false, false, true),
            (&[host, own, cross_site], false, false, true),
            (&[host, ("origin", "null")], false, false, true),
            (&[host, ("origin", "https://shop.example.evil")], false, false, true),
            (&[host, ("origin", "http://canet.example:8081")], false, false, true),
        ] {
            let expected = [(&[][..], always), (&["https://shop.example"], listed), (&["*"], any)];
            for (origins, is_allowed) in expected {
                let request = Request::post("/v2/models/m/infer").extension(parsed(origins).unwrap());
                let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
                let checked = check_page(&request.body(Body::empty()).unwrap()).map_err(|problem| problem.code);
                let expected = if is_allowed { Ok(()) } else { Err(Code::Forbidden) };
                assert_eq!(checked, expected, "{headers:?} {origins:?}");
            }
        }
    }

    #[test]
    fn origins_are_taken_as_browsers_write_them() {
        for origin in ["https://shop.example", "http://localhost:3000", "https://[::1]:8443"] {
            assert_eq!(parse(origin).unwrap(), origin);
        }
    }

    #[test]
    fn other_spellings_name_the_one_to_write() {
        for (origin, sent) in [
            ("https://shop.example/", "https://shop.example"),
            ("https://shop.example/cart", "https://shop.example"),
            ("https://Shop.Example", "https://shop.example"),
            ("https://shop.example:443", "https://shop.example"),
            ("http://shop.example:80", "http://shop.example"),
            ("https://user@shop.example", "https://shop.example"),
        ] {
            assert!(parse(origin).unwrap_err().ends_with(&format!("write {sent:?}")), "{origin}");
        }
    }

    #[test]
    fn what_is_no_origin_is_refused() {
        for origin in ["shop.example", "", "null", "https://", "https://shop.example:70000"] {
            assert!(parse(origin).unwrap_err().contains("is no origin"), "{origin}");
        }
    }

    #[test]
    fn a_star_allows_every_site() {
        assert!(matches!(parsed(&["https://shop.example", "*"]), Ok(Origins::Any)));
        assert!(matches!(parsed(&[]), Ok(Origins::Own)));
        assert!(parsed(&["https://shop.example", "shop"]).is_err());
    }
}
