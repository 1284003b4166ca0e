//! Who may ask: the Host, Origin and token of every request.
//!
//! A page of another site can make a browser send requests here, and a name of its own can be made to point here (DNS
//! rebinding). So each request, whatever its method, must name this API as its host, and must not come from elsewhere.

use std::net::{IpAddr, SocketAddr};
use std::str::FromStr as _;

use axum::extract::{Request, State};
use axum::http::header::{
    AUTHORIZATION, CACHE_CONTROL, CONTENT_SECURITY_POLICY, HOST, HeaderValue, ORIGIN, X_CONTENT_TYPE_OPTIONS,
    X_FRAME_OPTIONS,
};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use lockstep_replication::Hash;

use super::errors::ApiError;
use super::server::ServeError;
use super::shared::Shared;

/// What anybody who reaches the address may see: that the process lives, and a page and a description of the API without
/// content of their own.
const OPEN_PATHS: [&str; 3] = ["/", "/healthz", "/openapi.json"];

/// The names under which this API answers, and its token.
#[derive(Debug)]
pub(crate) struct Guard {
    hosts: Vec<Host>,
    /// The hash, so that comparing takes equally long wherever a wrong token differs.
    token: Option<Hash>,
}

/// A name or an address, and a port: any port if none (behind a proxy the port is the proxy's).
#[derive(Clone, Debug, PartialEq, Eq)]
struct Host {
    name: String,
    port: Option<u16>,
}

impl Host {
    fn parse(text: &str) -> Option<Host> {
        let authority = Authority::from_str(text).ok()?;
        let name = authority.host();
        let port_fits = name.len() == text.len() || authority.port_u16().is_some();
        (port_fits && !name.is_empty() && !text.contains('@'))
            .then(|| Host { name: name.to_ascii_lowercase(), port: authority.port_u16() })
    }

    fn of_address(address: IpAddr, port: u16) -> Host {
        let name = match address {
            IpAddr::V4(address) => address.to_string(),
            IpAddr::V6(address) => format!("[{address}]"),
        };
        Host { name, port: Some(port) }
    }

    /// Whether a request that names `asked` means this one. `http` has port 80 where none is named.
    fn is(&self, asked: &Host) -> bool {
        self.name == asked.name && self.port.is_none_or(|port| port == asked.port.unwrap_or(80))
    }
}

impl Guard {
    /// For an API bound to `address`, which is also known under `hosts` (`name` or `name:port`).
    ///
    /// # Errors
    /// A host that is none.
    pub(crate) fn new(address: SocketAddr, hosts: &[String], token: Option<&str>) -> Result<Guard, ServeError> {
        let port = address.port();
        let mut allowed = vec![Host::of_address(address.ip(), port)];
        for loopback in ["localhost", "127.0.0.1", "[::1]"] {
            allowed.push(Host { name: loopback.to_owned(), port: Some(port) });
        }
        for host in hosts {
            allowed.push(Host::parse(host).ok_or_else(|| ServeError::Host(host.clone()))?);
        }
        Ok(Guard { hosts: allowed, token: token.map(|token| Hash::of(token.as_bytes())) })
    }

    /// Checks one request.
    fn check(&self, uri: &Uri, headers: &HeaderMap) -> Result<(), ApiError> {
        let host = self.host(uri, headers)?;
        origin(&host, headers)?;
        self.token(uri.path(), headers)
    }

    fn host(&self, uri: &Uri, headers: &HeaderMap) -> Result<Host, ApiError> {
        let refused = |message: String| ApiError::forbidden("host_not_allowed", message);
        let mut named = headers.get_all(HOST).iter();
        let (Some(header), None) = (named.next(), named.next()) else {
            return Err(refused("The request must carry exactly one Host header.".into()));
        };
        let text = header.to_str().map_err(|_| refused("The Host header is no host name.".into()))?;
        let asked = [Some(text), uri.authority().map(Authority::as_str)];
        for text in asked.into_iter().flatten() {
            let allowed = Host::parse(text).is_some_and(|host| self.hosts.iter().any(|known| known.is(&host)));
            if !allowed {
                return Err(refused(format!(
                    "This API does not answer as {text:?}. Ask it by its address, or add the name to its configured hosts."
                )));
            }
        }
        Host::parse(text).ok_or_else(|| refused("The Host header is no host name.".into()))
    }

    fn token(&self, path: &str, headers: &HeaderMap) -> Result<(), ApiError> {
        let Some(wanted) = self.token.filter(|_| !OPEN_PATHS.contains(&path)) else { return Ok(()) };
        let given = headers.get(AUTHORIZATION).map(HeaderValue::as_bytes).and_then(bearer).map(Hash::of);
        if given.is_some_and(|given| equal(given, wanted)) {
            return Ok(());
        }
        let message = match given {
            Some(_) => "This is not the API's token.",
            None => "This API needs its token: send the header Authorization: Bearer TOKEN.",
        };
        Err(ApiError::new(StatusCode::UNAUTHORIZED, "unauthorized", message))
    }
}

/// A browser says where a request comes from; programs say nothing.
fn origin(host: &Host, headers: &HeaderMap) -> Result<(), ApiError> {
    for origin in headers.get_all(ORIGIN) {
        let same = origin.to_str().ok().and_then(|origin| {
            let (scheme, authority) = origin.split_once("://")?;
            let default_port = match scheme {
                "http" => 80,
                "https" => 443,
                _ => return None,
            };
            let from = Host::parse(authority)?;
            let port = |port: Option<u16>| port.unwrap_or(default_port);
            Some(from.name == host.name && port(from.port) == port(host.port))
        });
        if same != Some(true) {
            let message = "Pages of other sites may not use this API: the Origin is not its own.";
            return Err(ApiError::forbidden("origin_not_allowed", message));
        }
    }
    Ok(())
}

fn bearer(header: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = header.split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| token.trim_ascii())
}

/// Looks at every byte, whatever the first ones are.
fn equal(one: Hash, other: Hash) -> bool {
    one.0.iter().zip(other.0).fold(0, |different, (one, other)| different | (one ^ other)) == 0
}

/// The middleware around every route: checks the request, and hardens the response.
pub(crate) async fn guard(State(shared): State<Shared>, request: Request, next: Next) -> Response {
    let mut response = match shared.guard.check(request.uri(), request.headers()) {
        Ok(()) => next.run(request).await,
        Err(error) => error.into_response(),
    };
    let headers = response.headers_mut();
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.entry(CONTENT_SECURITY_POLICY).or_insert(HeaderValue::from_static("default-src 'none'"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guard(address: &str, hosts: &[&str], token: Option<&str>) -> Guard {
        let hosts: Vec<String> = hosts.iter().map(ToString::to_string).collect();
        Guard::new(address.parse().unwrap(), &hosts, token).unwrap()
    }

    fn asks(guard: &Guard, headers: &[(&'static str, &str)]) -> Result<(), StatusCode> {
        let headers = headers
            .iter()
            .map(|(name, value)| (axum::http::HeaderName::from_static(name), HeaderValue::from_str(value).unwrap()));
        let headers: HeaderMap = headers.collect();
        guard.check(&Uri::from_static("/v1/state"), &headers).map_err(|error| error.into_response().status())
    }

    const NO: Result<(), StatusCode> = Err(StatusCode::FORBIDDEN);

    #[test]
    fn a_loopback_api_answers_to_loopback_names_with_its_port_and_to_nothing_else() {
        let guard = guard("127.0.0.1:7070", &[], None);
        for good in ["localhost:7070", "LOCALHOST:7070", "127.0.0.1:7070", "[::1]:7070"] {
            assert_eq!(asks(&guard, &[("host", good)]), Ok(()), "{good}");
        }
        for bad in
            ["evil.example:7070", "localhost", "localhost:7071", "127.0.0.1.evil.example:7070", "a@localhost:7070", ""]
        {
            assert_eq!(asks(&guard, &[("host", bad)]), NO, "{bad}");
        }
        assert_eq!(asks(&guard, &[]), NO);
        assert_eq!(asks(&guard, &[("host", "localhost:99999")]), NO);
    }

    #[test]
    fn configured_names_and_the_bound_address_are_hosts_too() {
        let guard = guard("192.0.2.7:7070", &["node.example", "other.example:8080"], None);
        for good in ["192.0.2.7:7070", "node.example", "node.example:443", "other.example:8080"] {
            assert_eq!(asks(&guard, &[("host", good)]), Ok(()), "{good}");
        }
        assert_eq!(asks(&guard, &[("host", "other.example:8081")]), NO);
        assert!(Guard::new("127.0.0.1:1".parse().unwrap(), &["no host".into()], None).is_err());
    }

    #[test]
    fn an_origin_must_be_the_host_that_was_asked() {
        let guard = guard("127.0.0.1:7070", &["node.example"], None);
        let from = |host: &str, origin: &str| asks(&guard, &[("host", host), ("origin", origin)]);
        assert_eq!(from("localhost:7070", "http://localhost:7070"), Ok(()));
        assert_eq!(from("node.example", "https://node.example"), Ok(()));
        for bad in ["http://localhost:7071", "http://127.0.0.1:7070", "https://evil.example", "null", "localhost:7070"]
        {
            assert_eq!(from("localhost:7070", bad), NO, "{bad}");
        }
    }

    #[test]
    fn a_token_is_needed_where_one_is_set() {
        let guard = guard("127.0.0.1:7070", &[], Some("secret"));
        let with = |token: &str| asks(&guard, &[("host", "localhost:7070"), ("authorization", token)]);
        assert_eq!(with("Bearer secret"), Ok(()));
        assert_eq!(with("bearer secret"), Ok(()));
        for bad in ["Bearer secre", "Bearer secrets", "secret", "Basic secret", ""] {
            assert_eq!(with(bad), Err(StatusCode::UNAUTHORIZED), "{bad}");
        }
        assert_eq!(asks(&guard, &[("host", "localhost:7070")]), Err(StatusCode::UNAUTHORIZED));
    }
}
