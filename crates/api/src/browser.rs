use std::time::Duration;

use axum::http::{HeaderValue, Method, Uri, header};
use axum::response::Response;
use tower_http::cors::{AllowOrigin, Any, CorsLayer};

use super::{access, observe, traceparent};

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
    Listed(Vec<HeaderValue>),
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

    /// Answers the browsers of other sites' pages. `None` if no other site is allowed.
    pub(crate) fn layer(self) -> Option<CorsLayer> {
        let allowed = match self {
            Origins::Own => return None,
            Origins::Any => AllowOrigin::from(Any),
            Origins::Listed(origins) => AllowOrigin::list(origins),
        };
        let sent = [
            header::CONTENT_TYPE,
            header::CONTENT_ENCODING,
            header::AUTHORIZATION,
            access::API_KEY,
            observe::REQUEST_ID,
            traceparent::HEADER,
        ];
        Some(
            CorsLayer::new()
                .allow_origin(allowed)
                // The methods of all endpoints.
                .allow_methods([Method::GET, Method::POST])
                .allow_headers(sent)
                .expose_headers([observe::REQUEST_ID, observe::SERVER_TIMING, header::RETRY_AFTER])
                .max_age(Duration::from_secs(3600)),
        )
    }
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
    use super::{Origins, parse};

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
        let origins =
            |given: &[&str]| Origins::parse(&given.iter().map(|origin| (*origin).to_owned()).collect::<Vec<_>>());
        assert!(matches!(origins(&["https://shop.example", "*"]), Ok(Origins::Any)));
        assert!(matches!(origins(&[]), Ok(Origins::Own)));
        assert!(origins(&["https://shop.example", "shop"]).is_err());
    }
}
