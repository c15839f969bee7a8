use std::fmt;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::str::FromStr;

/// An address to listen on: a host name or an IP address, and a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Address {
    host: String,
    port: u16,
}

impl Address {
    /// Looks the host up. A name with several addresses gives its first IPv4 address, because clients try that one in any
    /// case.
    ///
    /// # Errors
    /// [`io::Error`] if the system knows no address of the host.
    pub(crate) fn resolve(&self) -> io::Result<SocketAddr> {
        let found: Vec<SocketAddr> = (self.host.as_str(), self.port).to_socket_addrs()?.collect();
        let first = found.iter().find(|address| address.is_ipv4()).or(found.first());
        first.copied().ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "the name has no address"))
    }
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Address, String> {
        const FORM: &str = "give a host and a port, as 127.0.0.1:8080 for this machine alone, 0.0.0.0:8080 for other \
                            machines too, localhost:8080 or [::1]:8080";
        if let Ok(address) = text.parse::<SocketAddr>() {
            return Ok(Address { host: address.ip().to_string(), port: address.port() });
        }
        let fault = |what: &str| format!("{what}: {FORM}");
        if text.contains("://") {
            return Err(fault("it is a URL"));
        }
        let Some((host, port)) = text.rsplit_once(':') else {
            let is_port = text.parse::<u16>().is_ok();
            return Err(fault(if is_port { "it has no host" } else { "it has no port" }));
        };
        if host.is_empty() {
            return Err(fault("it has no host"));
        }
        if host.contains([':', '[', ']']) {
            return Err(fault("an IPv6 address needs square brackets and a port"));
        }
        match port.parse() {
            Ok(port) => Ok(Address { host: host.to_owned(), port }),
            Err(_) => Err(fault("the port must be a number from 0 to 65535")),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Address { host, port } = self;
        if host.contains(':') { write!(formatter, "[{host}]:{port}") } else { write!(formatter, "{host}:{port}") }
    }
}

#[cfg(test)]
mod tests {
    use super::Address;

    #[test]
    fn hosts_with_a_port_are_addresses() {
        for text in ["127.0.0.1:8080", "0.0.0.0:0", "[::1]:8080", "localhost:8080", "canet.example:65535"] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
        let resolved = |text: &str| text.parse::<Address>().unwrap().resolve().unwrap().to_string();
        assert_eq!(resolved("[::1]:8080"), "[::1]:8080");
        assert_eq!(resolved("localhost:8080"), "127.0.0.1:8080");
    }

    #[test]
    fn everything_else_is_told_what_it_lacks() {
        for (text, what) in [
            (":8080", "no host"),
            ("8080", "no host"),
            ("0.0.0.0", "no port"),
            ("localhost", "no port"),
            ("::1:8080", "square brackets"),
            ("[::1]", "square brackets"),
            ("localhost:http", "must be a number"),
            ("localhost:65536", "must be a number"),
            ("http://localhost:8080", "a URL"),
        ] {
            let error = text.parse::<Address>().unwrap_err();
            assert!(error.contains(what) && error.contains("127.0.0.1:8080"), "{text}: {error}");
        }
    }
}
