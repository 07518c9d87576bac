//! The door: through which door a request came decides what it must show.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Request, State as Shared};
use axum::http::{HeaderMap, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use rialto_protocol::api::ErrorCode;
use rialto_protocol::ids::PeerId;

use super::identity::Identity;
use super::problem::Problem;
use super::token::Token;

/// Through which door a request came; put into its extensions by whoever accepted the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    Socket,
    Tcp,
    Mesh(PeerId),
}

/// What the TCP door asks of a request.
#[derive(Debug)]
pub struct Guard {
    /// The machine's name: the only name, besides `localhost`, that `Host` may carry.
    pub machine: String,
    pub token: Option<Token>,
}

/// Lets a request pass with its [`Identity`], or refuses it.
pub async fn pass(Shared(guard): Shared<Arc<Guard>>, mut request: Request, next: Next) -> Response {
    let door = request.extensions().get::<Door>().copied();
    match guard.identify(door, request.uri(), request.headers()) {
        Ok(identity) => {
            if let Some(identity) = identity {
                request.extensions_mut().insert(identity);
            }
            next.run(request).await
        }
        Err(problem) => problem.into_response(),
    }
}

impl Guard {
    fn identify(&self, door: Option<Door>, uri: &Uri, headers: &HeaderMap) -> Result<Option<Identity>, Problem> {
        match door {
            None => Err(Problem::new(ErrorCode::Unauthorized, "nobody vouches for this request")),
            Some(Door::Socket) => Ok(Some(Identity::Administrator)),
            Some(Door::Mesh(peer)) => Ok(Some(Identity::Peer(peer))),
            Some(Door::Tcp) => {
                self.check_host(uri, headers)?;
                if uri.path() == "/v1/healthz" {
                    return Ok(None);
                }
                self.check_token(headers).map(|()| Some(Identity::Token))
            }
        }
    }

    /// A page from elsewhere must not reach this API by a name that it made resolve here (DNS rebinding), nor by
    /// the browser of somebody who holds the token.
    fn check_host(&self, uri: &Uri, headers: &HeaderMap) -> Result<(), Problem> {
        let one = |name| {
            let mut values = headers.get_all(name).iter();
            match (values.next(), values.next()) {
                (None, _) => Ok(None),
                (Some(value), None) => value.to_str().map(Some).map_err(|_| ()),
                (Some(_), Some(_)) => Err(()),
            }
        };
        let denied = |what: &str, text: &str| {
            let hint = format!("use an IP address, localhost or {}", self.machine);
            Err(Problem::new(ErrorCode::Denied, format!("{what} `{text}` is not this machine")).at(what).hint(hint))
        };
        let host = match (uri.authority(), one(header::HOST)) {
            (Some(authority), Ok(_)) => authority.as_str(),
            (None, Ok(Some(host))) => host,
            _ => return denied("Host", ""),
        };
        if !self.is_this_machine(host) {
            return denied("Host", host);
        }
        match one(header::ORIGIN) {
            Ok(None) => Ok(()),
            Ok(Some(origin)) if origin.strip_prefix("http://").is_some_and(|from| from.eq_ignore_ascii_case(host)) => {
                Ok(())
            }
            Ok(Some(origin)) if origin.strip_prefix("https://").is_some_and(|from| from.eq_ignore_ascii_case(host)) => {
                Ok(())
            }
            Ok(Some(origin)) => denied("Origin", origin),
            Err(()) => denied("Origin", ""),
        }
    }

    fn is_this_machine(&self, host: &str) -> bool {
        let name = match host.strip_prefix('[') {
            Some(rest) => match rest.split_once(']') {
                Some((address, port)) if port.is_empty() || is_port(port.strip_prefix(':')) => address,
                _ => return false,
            },
            None => match host.split_once(':') {
                Some((name, port)) if is_port(Some(port)) => name,
                Some(_) => return false,
                None => host,
            },
        };
        let in_dns = format!("{}.machine.rialto.internal", self.machine);
        name.parse::<IpAddr>().is_ok()
            || [self.machine.as_str(), "localhost", &in_dns].iter().any(|known| name.eq_ignore_ascii_case(known))
    }

    fn check_token(&self, headers: &HeaderMap) -> Result<(), Problem> {
        let shown = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let shown = shown.and_then(|value| value.split_once(' '));
        let shown = shown.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer")).map(|(_, token)| token.trim());
        match (shown, &self.token) {
            (Some(shown), Some(token)) if token.is(shown) => Ok(()),
            (Some(_), _) => Err(Problem::new(ErrorCode::Unauthorized, "the token is not this peer's")),
            (None, _) => Err(Problem::new(ErrorCode::Unauthorized, "a token is needed over TCP")
                .hint("send `Authorization: Bearer` with what is in the peer's DATA/api-token")),
        }
    }
}

fn is_port(text: Option<&str>) -> bool {
    text.is_some_and(|text| text.bytes().all(|b| b.is_ascii_digit()) && text.parse::<u16>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guard() -> Guard {
        Guard { machine: "m1".into(), token: Some(Token::of("secret").unwrap()) }
    }

    fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
        let pair = |(name, value): &(&str, &str)| {
            (header::HeaderName::from_bytes(name.as_bytes()).unwrap(), value.parse().unwrap())
        };
        pairs.iter().map(pair).collect()
    }

    #[test]
    fn the_socket_and_the_mesh_need_no_token() {
        let peer = PeerId([7; 32]);
        let cases =
            [(Some(Door::Socket), Some(Identity::Administrator)), (Some(Door::Mesh(peer)), Some(Identity::Peer(peer)))];
        for (door, identity) in cases {
            assert_eq!(guard().identify(door, &"/v1/status".parse().unwrap(), &HeaderMap::new()), Ok(identity));
        }
        assert!(guard().identify(None, &"/v1/status".parse().unwrap(), &HeaderMap::new()).is_err());
    }

    #[test]
    fn tcp_needs_a_token_a_host_of_its_own_and_no_foreign_origin() {
        let ok = ("authorization", "Bearer secret");
        let host = ("host", "127.0.0.1:7480");
        type Headers<'a> = &'a [(&'a str, &'a str)];
        let cases: &[(&str, Headers, u16)] = &[
            ("/v1/status", &[host, ok], 200),
            ("/v1/status", &[host, ("authorization", "bearer secret")], 200),
            ("/v1/status", &[host], 401),
            ("/v1/status", &[host, ("authorization", "Bearer other")], 401),
            ("/v1/status", &[host, ("authorization", "Bearer ")], 401),
            ("/v1/status", &[host, ("authorization", "Basic secret")], 401),
            ("/v1/healthz", &[host], 200),
            ("/v1/healthzz", &[host], 401),
            ("/v1/healthz", &[("host", "evil.example")], 403),
            ("/v1/status", &[ok], 403),
            ("/v1/status", &[("host", "localhost"), ok], 200),
            ("/v1/status", &[("host", "[::1]:80"), ok], 200),
            ("/v1/status", &[("host", "M1:7480"), ok], 200),
            ("/v1/status", &[("host", "m1.machine.rialto.internal"), ok], 200),
            ("/v1/status", &[("host", "m1.evil.example"), ok], 403),
            ("/v1/status", &[("host", "127.0.0.1:evil"), ok], 403),
            ("/v1/status", &[("host", "127.0.0.1:99999"), ok], 403),
            ("/v1/status", &[("host", "[::1]evil"), ok], 403),
            ("/v1/status", &[host, ok, ("origin", "http://127.0.0.1:7480")], 200),
            ("/v1/status", &[host, ok, ("origin", "http://127.0.0.1:8080")], 403),
            ("/v1/status", &[host, ok, ("origin", "http://evil.example")], 403),
            ("/v1/status", &[host, ok, ("origin", "null")], 403),
            ("http://evil.example/v1/status", &[host, ok], 403),
        ];
        for (uri, pairs, status) in cases {
            let got = guard().identify(Some(Door::Tcp), &uri.parse().unwrap(), &headers(pairs));
            assert_eq!(got.map_or_else(|problem| problem.status().as_u16(), |_| 200), *status, "{uri} {pairs:?}");
        }
    }

    #[test]
    fn without_a_token_nothing_passes() {
        let guard = Guard { machine: "m1".into(), token: None };
        let headers = headers(&[("host", "localhost"), ("authorization", "Bearer ")]);
        assert!(guard.identify(Some(Door::Tcp), &"/v1/status".parse().unwrap(), &headers).is_err());
    }
}
