use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::Request;
use axum::http::{HeaderValue, header};

use super::{Code, Problem};

/// The host names under which a server may be asked.
///
/// A site can point its own host name at this machine. A browser here then takes the server for a part of that site and
/// lets the site's pages read the answers (DNS rebinding). Such requests name the site's host. So a server that is open to
/// everybody on its machine, and to nobody else, takes only names that no site can have.
#[derive(Clone, Debug, Default)]
pub enum Hosts {
    /// Any name: keys, TLS or other machines' clients make names useless as a check.
    #[default]
    Any,
    /// `localhost`, loopback addresses, and these names.
    Local(Arc<[String]>),
}

impl Hosts {
    /// `localhost`, loopback addresses and `names`, which are written without a port. `*` among them allows any name.
    ///
    /// # Errors
    /// Says which name is none.
    pub fn local(names: &[String]) -> Result<Hosts, String> {
        if names.iter().any(|name| name == "*") {
            return Ok(Hosts::Any);
        }
        let is_name = |name: &str| {
            !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte))
        };
        match names.iter().find(|name| !is_name(name)) {
            Some(other) => Err(format!(
                "{other:?} is no host name: write it as canet.internal, without scheme, port and path, or `*` for any"
            )),
            None => Ok(Hosts::Local(names.into())),
        }
    }

    /// # Errors
    /// 403 if the request names another host. Only browsers are known to name one always, so it may name none.
    pub(crate) fn check(&self, request: &Request) -> Result<(), Problem> {
        let Some(host) = host(request).filter(|host| !self.allows(host)) else { return Ok(()) };
        let host = String::from_utf8_lossy(host);
        let detail = format!(
            "this server is open to its own machine alone and does not answer for the host {host:?}: ask at localhost or \
             127.0.0.1, or start it with --allow-host NAME"
        );
        Err(Problem::new(Code::Forbidden, detail))
    }

    /// Whether a host, with or without a port, is one of the names. [`Hosts::Any`] has no names.
    pub(crate) fn is_local(&self, host: &[u8]) -> bool {
        let Some(name) = without_port(host) else { return false };
        let address = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
        let names: &[String] = match self {
            Hosts::Any => &[],
            Hosts::Local(names) => names,
        };
        name.eq_ignore_ascii_case("localhost")
            || address.parse().is_ok_and(|address: IpAddr| address.to_canonical().is_loopback())
            || names.iter().any(|known| known.eq_ignore_ascii_case(name))
    }

    fn allows(&self, host: &[u8]) -> bool {
        matches!(self, Hosts::Any) || self.is_local(host)
    }
}

/// The host that a request names, with its port. HTTP/2 puts it into the URI.
pub(crate) fn host(request: &Request) -> Option<&[u8]> {
    let host = request.headers().get(header::HOST).map(HeaderValue::as_bytes);
    host.or_else(|| request.uri().authority().map(|host| host.as_str().as_bytes()))
}

/// The name without the port. `None` if it is not UTF-8 or the port is no number.
fn without_port(host: &[u8]) -> Option<&str> {
    let host = std::str::from_utf8(host).ok()?;
    // An IPv6 address has colons too, but ends with a bracket.
    match host.rsplit_once(':') {
        Some((name, port)) if !host.ends_with(']') => port.bytes().all(|digit| digit.is_ascii_digit()).then_some(name),
        _ => Some(host),
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::extract::Request;

    use super::Hosts;
    use crate::Code;

    fn local(names: &[&str]) -> Result<Hosts, String> {
        Hosts::local(&names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn loopback_names_are_those_that_no_resolver_decides() {
        let hosts = local(&[]).unwrap();
        for host in ["localhost", "LocalHost:80", "127.0.0.1", "127.9.9.9:8080", "[::1]:80", "[::ffff:127.0.0.1]"] {
            assert!(hosts.is_local(host.as_bytes()), "{host}");
        }
        for host in [
            "localhost.example",
            "10.0.0.1",
            "[::2]:80",
            "",
            ":80",
            "a b",
            "localhost:80:80",
            "localhost:port",
            "user@localhost",
            "localhost@shop.example",
            "[::1",
            "\u{ff}",
        ] {
            assert!(!hosts.is_local(host.as_bytes()), "{host}");
        }
    }

    #[test]
    fn names_are_given_without_a_port_and_match_in_any_case() {
        let hosts = local(&["canet.internal", "box_1"]).unwrap();
        for host in ["canet.internal", "CANET.internal:8080", "box_1:80", "localhost"] {
            assert!(hosts.is_local(host.as_bytes()), "{host}");
        }
        assert!(!hosts.is_local(b"other.internal") && !hosts.is_local(b"canet.internal.evil.example"));
        for other in ["", "canet.internal:8080", "https://canet.internal", "a b", "[::1]"] {
            assert!(local(&["good", other]).is_err_and(|error| error.contains(other)), "{other}");
        }
        assert!(matches!(local(&["canet.internal", "*"]), Ok(Hosts::Any)));
    }

    #[test]
    fn another_host_is_refused_and_none_is_not() {
        let request = |uri: &str, host: Option<&str>| {
            let request = host.into_iter().fold(Request::get(uri), |request, host| request.header("host", host));
            request.body(Body::empty()).unwrap()
        };
        let hosts = local(&[]).unwrap();
        for (uri, host) in [("/", None), ("/", Some("localhost:8080")), ("http://127.0.0.1:8080/", None)] {
            assert_eq!(hosts.check(&request(uri, host)), Ok(()), "{uri} {host:?}");
        }
        for (uri, host) in [("/", Some("shop.example")), ("http://shop.example/", None), ("/", Some(""))] {
            let problem = hosts.check(&request(uri, host)).unwrap_err();
            assert!(problem.code == Code::Forbidden && problem.detail.contains("--allow-host"), "{problem:?}");
            assert_eq!(Hosts::Any.check(&request(uri, host)), Ok(()));
        }
    }
}
