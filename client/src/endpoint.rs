//! Where a peer listens.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// A door of a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// A Unix socket: whoever may open it is the administrator.
    Socket(PathBuf),
    /// A TCP address, which asks for a token.
    Tcp {
        /// A name or an address; an IPv6 address without its brackets.
        host: String,
        port: u16,
    },
}

/// A text that names no endpoint.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{text}' is no address of a peer: {why}")]
pub struct BadEndpoint {
    pub text: String,
    pub why: &'static str,
}

impl Endpoint {
    /// What the `Host` header says.
    pub(crate) fn authority(&self) -> String {
        match self {
            Endpoint::Socket(_) => "localhost".into(),
            Endpoint::Tcp { host, port } if host.contains(':') => format!("[{host}]:{port}"),
            Endpoint::Tcp { host, port } => format!("{host}:{port}"),
        }
    }
}

/// Reads `http://HOST:PORT`, `unix:PATH` and a path that begins with `/` or `.`.
impl FromStr for Endpoint {
    type Err = BadEndpoint;

    fn from_str(text: &str) -> Result<Self, BadEndpoint> {
        let bad = |why| BadEndpoint { text: text.to_string(), why };
        if let Some(path) = text.strip_prefix("unix:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            return if path.is_empty() { Err(bad("the path is missing")) } else { Ok(Self::Socket(path.into())) };
        }
        if text.starts_with(['/', '.']) {
            return Ok(Self::Socket(text.into()));
        }
        if text.starts_with("https://") {
            return Err(bad(
                "peers speak plain HTTP; write http://HOST:PORT, through a tunnel where the way is not safe",
            ));
        }
        let rest = text.strip_prefix("http://").ok_or_else(|| bad("write http://HOST:PORT or unix:PATH"))?;
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (host, port) = rest.rsplit_once(':').ok_or_else(|| bad("the port is missing"))?;
        let port = port.parse().ok().filter(|port| *port > 0).ok_or_else(|| bad("the port is no number"))?;
        let host = match host.strip_prefix('[') {
            Some(inner) => inner.strip_suffix(']').ok_or_else(|| bad("the bracket is not closed"))?,
            None if host.contains(':') => return Err(bad("write an IPv6 address in brackets")),
            None => host,
        };
        if host.is_empty() || host.contains(|c: char| c.is_whitespace() || c.is_control() || "/?#@[]".contains(c)) {
            return Err(bad("the host is no name or address"));
        }
        Ok(Self::Tcp { host: host.to_string(), port })
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Endpoint::Socket(path) => write!(f, "{}", path.display()),
            Endpoint::Tcp { .. } => write!(f, "http://{}", self.authority()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read() {
        let tcp = |host: &str, port| Ok(Endpoint::Tcp { host: host.into(), port });
        for (text, endpoint) in [
            ("/run/r.sock", Ok(Endpoint::Socket("/run/r.sock".into()))),
            ("./r.sock", Ok(Endpoint::Socket("./r.sock".into()))),
            ("unix:///run/r.sock", Ok(Endpoint::Socket("/run/r.sock".into()))),
            ("unix:r.sock", Ok(Endpoint::Socket("r.sock".into()))),
            ("http://m1:7401", tcp("m1", 7401)),
            ("http://10.0.0.1:80/", tcp("10.0.0.1", 80)),
            ("http://[::1]:80", tcp("::1", 80)),
        ] {
            assert_eq!(text.parse::<Endpoint>(), endpoint, "{text}");
        }
        for text in [
            "",
            "m1",
            "m1:80",
            "https://m1:80",
            "http://",
            "http://:1",
            "http://m1",
            "http://m1:0",
            "http://m1:x",
            "http://::1:80",
            "http://[::1:80",
            "http://a b:1",
            "http://a@b:1",
            "http://a/b:1",
            "unix:",
        ] {
            assert!(text.parse::<Endpoint>().is_err(), "{text}");
        }
    }

    #[test]
    fn an_endpoint_is_shown_as_it_is_written() {
        for text in ["/run/r.sock", "http://m1:7401", "http://[::1]:80"] {
            assert_eq!(text.parse::<Endpoint>().unwrap().to_string(), text);
        }
    }
}
