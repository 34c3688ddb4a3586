//! HTTP client of a judging endpoint: a request's body in, the first choice's text out, with time-outs and retries.

use std::path::PathBuf;
use std::time::Duration;

use crate::error::{Error, Result};

/// First pause before another try; each further one is twice as long.
const PAUSE: Duration = Duration::from_millis(500);
/// Longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(16);
/// Bytes of an answer, at most.
#[cfg(feature = "hub")]
const MOST_BYTES: u64 = 1 << 20;

/// Where a judging model is, and how long it is waited for.
#[derive(Clone, Debug, PartialEq)]
pub struct Endpoint {
    /// The URL, up to `/chat/completions` or with it.
    pub url: String,
    /// The model's name there.
    pub model: String,
    /// Longest time for one answer.
    pub timeout: Duration,
    /// Further tries after a failure, each after a longer pause.
    pub retries: usize,
    /// Folder of verdicts; none keeps them for the run alone.
    pub cache: Option<PathBuf>,
    /// The bearer token, if the endpoint wants one.
    pub key: Option<String>,
}

impl Default for Endpoint {
    fn default() -> Endpoint {
        Endpoint {
            url: String::new(),
            model: "default".into(),
            timeout: Duration::from_secs(60),
            retries: 3,
            cache: None,
            key: None,
        }
    }
}

/// A client for one endpoint.
pub(super) struct Client {
    url: String,
    #[cfg(feature = "hub")]
    agent: ureq::Agent,
    timeout: Duration,
    retries: usize,
    #[cfg(feature = "hub")]
    key: Option<String>,
}

/// Why a try failed, and whether another may help.
struct Failure {
    found: String,
    may_pass: bool,
}

impl Client {
    /// A client; nothing is sent yet.
    pub fn new(endpoint: &Endpoint) -> Result<Client> {
        let url = endpoint.url.trim_end_matches('/');
        if !url.starts_with("http://") && !url.starts_with("https://") {
            return Err(Error::input("--judge-url", format!("{:?}", endpoint.url), "http://… or https://…"));
        }
        if endpoint.timeout.is_zero() {
            return Err(Error::input("--judge-timeout", 0, "a second or more"));
        }
        let whole = url.ends_with("/chat/completions");
        let url = if whole { url.to_owned() } else { format!("{url}/chat/completions") };
        #[cfg(feature = "hub")]
        {
            let config = ureq::Agent::config_builder()
                .http_status_as_error(false)
                // A redirect could take the key elsewhere.
                .max_redirects(0)
                .max_redirects_will_error(false)
                .timeout_global(Some(endpoint.timeout))
                .build();
            let (timeout, retries) = (endpoint.timeout, endpoint.retries);
            Ok(Client { url, agent: config.new_agent(), timeout, retries, key: endpoint.key.clone() })
        }
        #[cfg(not(feature = "hub"))]
        Err(Error::input("--judge-url", url, "a build with the feature hub, which has HTTP"))
    }

    /// The text of the endpoint's answer, after as many tries as it takes and may take.
    ///
    /// # Errors
    /// No usable answer after all tries; an answer that no further try would change (a wrong key, say).
    pub fn ask(&self, body: &str) -> Result<String> {
        let mut pause = PAUSE;
        let mut tries = 0;
        loop {
            tries += 1;
            let failure = match self.once(body) {
                Ok(content) => return Ok(content),
                Err(failure) => failure,
            };
            if !failure.may_pass || tries > self.retries {
                let times = if tries == 1 { "once".into() } else { format!("{tries} times") };
                let expected = "an OpenAI-compatible chat completion; verdicts so far are kept";
                return Err(Error::input(&self.url, format!("{} (tried {times})", failure.found), expected));
            }
            std::thread::sleep(pause);
            pause = (2 * pause).min(LONGEST_PAUSE);
        }
    }

    #[cfg(feature = "hub")]
    fn once(&self, body: &str) -> std::result::Result<String, Failure> {
        let passing = |found: String| Failure { found, may_pass: true };
        let mut request = self.agent.post(&self.url).header("content-type", "application/json");
        if let Some(key) = &self.key {
            request = request.header("authorization", format!("Bearer {key}"));
        }
        let seconds = self.timeout.as_secs_f64();
        let broken = |error: ureq::Error| match error {
            ureq::Error::Timeout(_) => passing(format!("no answer within {seconds} s")),
            other => passing(other.to_string()),
        };
        let mut response = request.send(body).map_err(broken)?;
        let status = response.status().as_u16();
        if status != 200 {
            let may_pass = matches!(status, 408 | 409 | 425 | 429 | 500..=599);
            return Err(Failure { found: format!("status {status}"), may_pass });
        }
        let text = response.body_mut().with_config().limit(MOST_BYTES).read_to_string().map_err(broken)?;
        content(&text).ok_or_else(|| {
            let start = crate::printable::one_line(&text, 80);
            passing(format!("{start:?}, in which there is no choices[0].message.content"))
        })
    }

    #[cfg(not(feature = "hub"))]
    fn once(&self, _: &str) -> std::result::Result<String, Failure> {
        let found = format!("no HTTP in this build, {:?}", self.timeout);
        Err(Failure { found, may_pass: false })
    }
}

/// The text of the first choice.
#[cfg(feature = "hub")]
fn content(text: &str) -> Option<String> {
    let value: serde_json::Value = serde_json::from_str(text).ok()?;
    Some(value.get("choices")?.get(0)?.get("message")?.get("content")?.as_str()?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_of_another_scheme_is_refused() {
        for url in ["", "localhost:80", "file:///x", "ftp://x"] {
            let error = Client::new(&Endpoint { url: url.into(), ..Endpoint::default() }).err().unwrap();
            assert!(error.to_string().starts_with("--judge-url"), "{error}");
        }
    }
}
