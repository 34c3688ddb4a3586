//! HTTP client of an OpenAI-compatible endpoint: a request's body in, the first choice's text out, with time-outs and retries. Answers are
//! kept by a hash of all that was asked, so that a run that broke off goes on.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::artifact::{self, Header};
use crate::error::{Error, Result};

/// First pause before another try; each further one is twice as long.
const PAUSE: Duration = Duration::from_millis(500);
/// Longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(16);
/// Bytes of an answer, at most.
#[cfg(feature = "hub")]
const MOST_BYTES: u64 = 1 << 20;

/// What an endpoint is asked for: it names the options in errors, and what is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Purpose {
    /// Verdicts.
    #[default]
    Judge,
    /// Edits of chains.
    Engine,
    /// Messages of an attacker.
    Attacker,
}

impl Purpose {
    /// The beginning of its options, the kind of a kept answer, and what is kept where no answer comes.
    fn names(self) -> [&'static str; 3] {
        match self {
            Purpose::Judge => ["judge", "judge-verdict", "verdicts so far are kept"],
            Purpose::Engine => ["engine", "engine-proposal", "proposals so far are kept"],
            Purpose::Attacker => {
                ["attacker", "attacker-message", "the plays so far are kept, and the same command goes on"]
            }
        }
    }
}

/// Where a model is, and how long it is waited for.
#[derive(Clone, Debug, PartialEq)]
pub struct Endpoint {
    /// What it is asked for.
    pub purpose: Purpose,
    /// The URL, up to `/chat/completions` or with it.
    pub url: String,
    /// The model's name there.
    pub model: String,
    /// Longest time for one answer.
    pub timeout: Duration,
    /// Further tries after a failure, each after a longer pause.
    pub retries: usize,
    /// Folder of answers; none keeps them for the run alone.
    pub cache: Option<PathBuf>,
    /// The bearer token, if the endpoint wants one.
    pub key: Option<String>,
}

impl Default for Endpoint {
    fn default() -> Endpoint {
        Endpoint {
            purpose: Purpose::default(),
            url: String::new(),
            model: "default".into(),
            timeout: Duration::from_secs(60),
            retries: 3,
            cache: None,
            key: None,
        }
    }
}

const VERSION: u32 = 1;

/// A client for one endpoint.
pub struct EndpointClient {
    purpose: Purpose,
    /// The URL as it was given: a part of what an answer is kept by.
    given: String,
    cache: Option<PathBuf>,
    /// What the endpoint said, by the hash of what it was asked.
    said: Mutex<BTreeMap<String, String>>,
    url: String,
    #[cfg(feature = "hub")]
    agent: ureq::Agent,
    timeout: Duration,
    retries: usize,
    #[cfg(feature = "hub")]
    key: Option<String>,
}

/// An answer as it is kept.
#[derive(Serialize, Deserialize)]
struct Kept {
    content: String,
}

/// Why a try failed, and whether another may help.
struct Failure {
    found: String,
    may_pass: bool,
}

impl EndpointClient {
    /// A client; nothing is sent yet.
    ///
    /// # Errors
    /// A URL of another scheme than http or https; a build without HTTP.
    pub fn new(endpoint: &Endpoint) -> Result<EndpointClient> {
        let url = endpoint.url.trim_end_matches('/');
        let option = |name: &str| format!("--{}-{name}", endpoint.purpose.names()[0]);
        if !url.starts_with("http://") && !url.starts_with("https://") {
            return Err(Error::input(option("url"), format!("{:?}", endpoint.url), "http://… or https://…"));
        }
        if endpoint.timeout.is_zero() {
            return Err(Error::input(option("timeout"), 0, "a second or more"));
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
            Ok(EndpointClient {
                purpose: endpoint.purpose,
                given: endpoint.url.clone(),
                cache: endpoint.cache.clone(),
                said: Mutex::default(),
                url,
                agent: config.new_agent(),
                timeout: endpoint.timeout,
                retries: endpoint.retries,
                key: endpoint.key.clone(),
            })
        }
        #[cfg(not(feature = "hub"))]
        Err(Error::input(option("url"), url, "a build with the feature hub, which has HTTP"))
    }

    /// The text of the endpoint's answer: a kept one, or the first after as many tries as it takes and may take. One that `is_whole` is kept
    /// in the folder.
    ///
    /// # Errors
    /// No usable answer after all tries; an answer that no further try would change (a wrong key, say).
    pub fn ask(&self, body: &str, is_whole: impl Fn(&str) -> bool) -> Result<String> {
        let hash = artifact::sha256(format!("{}\n{body}", self.given).as_bytes());
        let kind = self.purpose.names()[1];
        // A poisoned lock has whole answers in it all the same.
        let known = self.said.lock().unwrap_or_else(|broken| broken.into_inner()).get(&hash).cloned();
        let path = self.cache.as_ref().map(|folder| folder.join(format!("{hash}.json")));
        let stored = || {
            let path = path.as_ref().filter(|path| path.is_file())?;
            // A file that can't be read is asked for again.
            artifact::read_json::<Kept>(path, kind, VERSION).ok().map(|(_, kept)| kept.content)
        };
        let (content, is_new) = match known.or_else(stored) {
            Some(content) => (content, false),
            None => (self.ask_anew(body)?, true),
        };
        if let (Some(path), true, true) = (&path, is_new, is_whole(&content)) {
            artifact::write_json(path, &Header::new(kind, VERSION), &Kept { content: content.clone() })?;
        }
        self.said.lock().unwrap_or_else(|broken| broken.into_inner()).insert(hash, content.clone());
        Ok(content)
    }

    fn ask_anew(&self, body: &str) -> Result<String> {
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
                let expected = format!("an OpenAI-compatible chat completion; {}", self.purpose.names()[2]);
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

/// The body of a chat completion by a strict schema, without sampling: a system message and a user message.
pub fn chat_request(model: &str, [system, user]: [&str; 2], name: &str, schema: Value) -> Value {
    json!({
        "model": model,
        "temperature": 0,
        "messages": [{ "role": "system", "content": system }, { "role": "user", "content": user }],
        "response_format": {
            "type": "json_schema",
            "json_schema": { "name": name, "strict": true, "schema": schema }
        }
    })
}

/// The text of the first choice.
#[cfg(feature = "hub")]
fn content(text: &str) -> Option<String> {
    let value: Value = serde_json::from_str(text).ok()?;
    Some(value.get("choices")?.get(0)?.get("message")?.get("content")?.as_str()?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_of_another_scheme_is_refused() {
        for url in ["", "localhost:80", "file:///x", "ftp://x"] {
            for (purpose, option) in [(Purpose::Judge, "--judge-url"), (Purpose::Engine, "--engine-url")] {
                let endpoint = Endpoint { purpose, url: url.into(), ..Endpoint::default() };
                let error = EndpointClient::new(&endpoint).err().unwrap();
                assert!(error.to_string().starts_with(option), "{error}");
            }
        }
    }
}
