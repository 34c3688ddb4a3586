//! HTTP client of the hub: GET requests whose redirects are followed here, so that the token never leaves the hub's own
//! origin (scheme, host and port).

use std::time::Duration;

use ureq::http::header::{ACCEPT_ENCODING, AUTHORIZATION, CONTENT_ENCODING, LOCATION, RANGE, USER_AGENT};
use ureq::http::{Response, StatusCode, Uri};
use ureq::{Agent, Body, Timeout};

use super::settings::Settings;

/// Redirects that one request may take.
const MAX_REDIRECTS: usize = 10;

/// Longest time to wait for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);

/// Why a request has no usable answer.
pub(super) enum Refusal {
    /// The hub's status code, 400 or above.
    Status(u16),
    /// A connection that brought nothing for as long as the settings allow.
    Silent,
    /// No connection, a broken one, or an answer that isn't HTTP; in words.
    Broken(String),
}

/// A client for one hub.
pub(super) struct Client {
    agent: Agent,
    endpoint: String,
    /// None if the endpoint is no URL; then no token is ever sent.
    origin: Option<Origin>,
    token: Option<String>,
}

/// What a credential belongs to.
#[derive(Debug, PartialEq)]
struct Origin {
    scheme: String,
    host: String,
    port: u16,
}

impl Origin {
    fn of(url: &Uri) -> Option<Origin> {
        let scheme = url.scheme_str()?.to_lowercase();
        let default = match scheme.as_str() {
            "https" => 443,
            "http" => 80,
            _ => return None,
        };
        let host = url.host()?.to_lowercase();
        Some(Origin { scheme, host, port: url.port_u16().unwrap_or(default) })
    }
}

impl Client {
    /// A client for the endpoint and token of `settings`; a read that brings no byte for `settings.timeout` is an error.
    pub fn new(settings: &Settings) -> Client {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .timeout_connect(Some(CONNECT_TIMEOUT))
            .timeout_per_read(Some(settings.timeout))
            .build();
        let origin = settings.endpoint.parse().ok().as_ref().and_then(Origin::of);
        let (endpoint, token) = (settings.endpoint.clone(), settings.token.clone());
        Client { agent: config.new_agent(), endpoint, origin, token }
    }

    /// The answer to GET `path` (with its leading slash) of the hub, from byte `from` on where that is above 0.
    pub fn get(&self, path: &str, from: u64) -> Result<Response<Body>, Refusal> {
        let broken = |found: String| Refusal::Broken(found);
        let url = format!("{}{path}", self.endpoint);
        let mut url: Uri = url.parse().map_err(|error| broken(format!("{url} is no URL: {error}")))?;
        for _ in 0..=MAX_REDIRECTS {
            let mut request = self
                .agent
                .get(&url)
                .header(USER_AGENT, concat!("pearlpoint/", env!("CARGO_PKG_VERSION")))
                .header(ACCEPT_ENCODING, "identity");
            if from > 0 {
                request = request.header(RANGE, format!("bytes={from}-"));
            }
            if let Some(token) = self.token_for(&url) {
                request = request.header(AUTHORIZATION, format!("Bearer {token}"));
            }
            let response = request.call().map_err(|error| match error {
                ureq::Error::Timeout(Timeout::PerRead) => Refusal::Silent,
                other => broken(other.to_string()),
            })?;
            let status = response.status();
            match status {
                StatusCode::OK | StatusCode::PARTIAL_CONTENT => return as_asked(response).map_err(broken),
                _ if status.is_redirection() => {
                    let location = response.headers().get(LOCATION).and_then(|value| value.to_str().ok());
                    let location = location
                        .ok_or_else(|| broken(format!("answer {} without a Location", status.as_u16())))?;
                    url = redirected(&url, location).map_err(broken)?;
                }
                _ if status.as_u16() >= 400 => return Err(Refusal::Status(status.as_u16())),
                _ => return Err(broken(format!("unexpected answer {}", status.as_u16()))),
            }
        }
        Err(broken(format!("more than {MAX_REDIRECTS} redirects")))
    }

    /// The token, for URLs of the hub's own origin only.
    fn token_for(&self, url: &Uri) -> Option<&str> {
        let own = self.origin.is_some() && Origin::of(url) == self.origin;
        self.token.as_deref().filter(|_| own)
    }
}

/// An answer whose body is not packed: nothing but `identity` was asked for.
fn as_asked(response: Response<Body>) -> Result<Response<Body>, String> {
    let packed = response.headers().get_all(CONTENT_ENCODING).iter().find(|value| *value != "identity");
    match packed {
        None => Ok(response),
        Some(packed) => Err(format!("an answer packed as {packed:?}, which was not asked for")),
    }
}

/// Where a redirect from `url` leads. Leaving https for http is refused.
fn redirected(url: &Uri, location: &str) -> Result<Uri, String> {
    let scheme = url.scheme_str().unwrap_or_default();
    let root = || format!("{scheme}://{}", url.authority().map_or("", |authority| authority.as_str()));
    let target = match location {
        absolute if absolute.contains("://") => absolute.to_owned(),
        same_scheme if same_scheme.starts_with("//") => format!("{scheme}:{same_scheme}"),
        path if path.starts_with('/') => root() + path,
        relative => {
            let folder = url.path().rsplit_once('/').map_or("", |(folder, _)| folder);
            format!("{}{folder}/{relative}", root())
        }
    };
    let target: Uri = target.parse().map_err(|_| format!("a redirect to {location:?}, which is no URL"))?;
    match (scheme, Origin::of(&target)) {
        (_, None) => Err(format!("a redirect to {location:?}, which is neither http nor https")),
        ("https", Some(origin)) if origin.scheme == "http" => {
            Err(format!("a redirect from https to {location:?}"))
        }
        _ => Ok(target),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(endpoint: &str) -> Client {
        let (endpoint, token) = (endpoint.to_owned(), Some("hf_secret".to_owned()));
        let timeout = Duration::from_secs(1);
        Client::new(&Settings { endpoint, token, token_file: None, offline: false, timeout })
    }

    #[test]
    fn the_token_is_for_the_hubs_own_origin() {
        let sends = |endpoint: &str, url: &str| client(endpoint).token_for(&url.parse().unwrap()).is_some();
        assert!(sends("https://hub.co", "https://HUB.co:443/a"));
        assert!(sends("http://127.0.0.1:80/mirror", "http://127.0.0.1/b"));
        for other in
            ["https://cdn.hub.co/a", "http://hub.co/a", "https://hub.co:444/a", "https://hub.co.evil.net/a"]
        {
            assert!(!sends("https://hub.co", other), "{other}");
        }
        assert!(!sends("https://hub.co", "https://hub.co@evil.net/a"));
        assert!(!sends("no url", "https://hub.co/a"));
    }

    #[test]
    fn redirects_are_resolved_against_their_url() {
        let to = |location| redirected(&"https://hub.co/a/b?c=d".parse().unwrap(), location);
        for (location, target) in [
            ("https://cdn.co/x?y=z", "https://cdn.co/x?y=z"),
            ("//cdn.co/x", "https://cdn.co/x"),
            ("/x", "https://hub.co/x"),
            ("x", "https://hub.co/a/x"),
        ] {
            assert_eq!(to(location).unwrap().to_string(), target);
        }
        for refused in ["http://hub.co/x", "file:///etc/passwd", "https://", "ftp://hub.co/x"] {
            assert!(to(refused).is_err(), "{refused}");
        }
    }
}
