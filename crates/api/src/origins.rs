use std::time::Duration;

use axum::http::{HeaderName, HeaderValue, Method, Uri, header};
use tower_http::cors::{AllowOrigin, Any, CorsLayer};

use super::{keys, request_id, traceparent};

/// Pages of which other sites may ask this server from a browser. None, unless told.
#[derive(Clone, Debug, Default)]
pub enum Origins {
    /// Of this server alone.
    #[default]
    Own,
    /// Of these sites, each as `https://shop.example`.
    Listed(Vec<HeaderValue>),
    /// Of every site.
    Any,
}

impl Origins {
    /// Reads origins as browsers send them; `*` among them is every site.
    ///
    /// # Errors
    /// What is wrong with one of them.
    pub fn parse(origins: &[String]) -> Result<Origins, String> {
        if origins.is_empty() {
            return Ok(Origins::Own);
        }
        if origins.iter().any(|origin| origin == "*") {
            return Ok(Origins::Any);
        }
        Ok(Origins::Listed(origins.iter().map(|origin| parse(origin)).collect::<Result<_, _>>()?))
    }

    /// What answers browsers that ask for a page of another site; `None` where nobody may.
    pub(crate) fn layer(self) -> Option<CorsLayer> {
        let allowed = match self {
            Origins::Own => return None,
            Origins::Any => AllowOrigin::from(Any),
            Origins::Listed(origins) => AllowOrigin::list(origins),
        };
        let sent = [header::CONTENT_TYPE, header::AUTHORIZATION, keys::HEADER, request_id::HEADER, traceparent::HEADER];
        let read = [request_id::HEADER, HeaderName::from_static("server-timing"), header::RETRY_AFTER];
        Some(
            CorsLayer::new()
                .allow_origin(allowed)
                .allow_methods([Method::GET, Method::POST])
                .allow_headers(sent)
                .expose_headers(read)
                .max_age(Duration::from_secs(3600)),
        )
    }
}

/// An origin that browsers send: they are compared with it letter by letter.
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

/// The origin of a page at `uri` as its browser sends it.
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
