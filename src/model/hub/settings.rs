//! Hub settings from environment variables, with the meaning that the hub's own client gives them.

use std::ffi::OsString;
use std::path::PathBuf;
#[cfg(feature = "hub")]
use std::time::Duration;

/// Look-up of an environment variable.
pub(super) type Variable<'a> = dyn Fn(&str) -> Option<OsString> + 'a;

/// Endpoint, token and timeout of the hub.
#[cfg(feature = "hub")]
#[derive(Clone, Debug)]
pub(super) struct Settings {
    /// URL without a trailing slash.
    pub endpoint: String,
    /// Access token.
    pub token: Option<String>,
    /// The file in which the client stores the token; `None` without a home folder.
    pub token_file: Option<PathBuf>,
    /// Whether network access is forbidden.
    pub offline: bool,
    /// The longest time without a byte received.
    pub timeout: Duration,
}

#[cfg(feature = "hub")]
impl Settings {
    /// The endpoint without a name and password in it.
    pub fn shown_endpoint(&self) -> String {
        match self.endpoint.split_once("://") {
            Some((scheme, rest)) => {
                let host = rest.find('/').unwrap_or(rest.len());
                let begin = rest[..host].rfind('@').map_or(0, |at| at + 1);
                format!("{scheme}://{}", &rest[begin..])
            }
            None => self.endpoint.clone(),
        }
    }

    pub fn read(variable: &Variable) -> Settings {
        let text = |name: &str| {
            let value = variable(name)?.into_string().ok()?.trim().to_owned();
            Some(value).filter(|value| !value.is_empty())
        };
        let is_on = |name: &str| {
            text(name)
                .is_some_and(|value| ["1", "ON", "YES", "TRUE"].contains(&value.to_uppercase().as_str()))
        };
        let token_file = set(variable, "HF_TOKEN_PATH").or_else(|| Some(home(variable)?.join("token")));
        let stored = || {
            let token = std::fs::read_to_string(token_file.as_ref()?).ok()?;
            Some(token.trim().to_owned()).filter(|token| !token.is_empty())
        };
        let token = text("HF_TOKEN").or_else(|| text("HUGGING_FACE_HUB_TOKEN")).or_else(stored);
        let timeout = text("HF_HUB_DOWNLOAD_TIMEOUT").and_then(|seconds| seconds.parse().ok());
        Settings {
            endpoint: text("HF_ENDPOINT")
                .unwrap_or_else(|| "https://huggingface.co".into())
                .trim_end_matches('/')
                .into(),
            // An HTTP header can't hold other tokens.
            token: token.filter(|token| {
                !is_on("HF_HUB_DISABLE_IMPLICIT_TOKEN") && token.bytes().all(|byte| byte.is_ascii_graphic())
            }),
            token_file,
            offline: is_on("HF_HUB_OFFLINE") || is_on("TRANSFORMERS_OFFLINE"),
            timeout: Duration::from_secs(timeout.unwrap_or(60)),
        }
    }
}

/// The cache of the hub's client.
pub(super) fn cache(variable: &Variable) -> Option<PathBuf> {
    let all = ["HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"].into_iter().find_map(|name| set(variable, name));
    all.or_else(|| Some(home(variable)?.join("hub")))
}

/// The folder of the hub's client.
fn home(variable: &Variable) -> Option<PathBuf> {
    let of_user = || set(variable, "XDG_CACHE_HOME").or_else(|| Some(set(variable, "HOME")?.join(".cache")));
    set(variable, "HF_HOME").or_else(|| Some(of_user()?.join("huggingface")))
}

/// The path in a variable, with `~` expanded.
fn set(variable: &Variable, name: &str) -> Option<PathBuf> {
    let given = |name: &str| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let path = given(name)?;
    match (path.strip_prefix("~"), given("HOME")) {
        (Ok(rest), Some(home)) => Some(home.join(rest)),
        _ => Some(path),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variables<'a>(set: &'a [(&'a str, &'a str)]) -> impl Fn(&str) -> Option<OsString> + 'a {
        |name| set.iter().find(|(key, _)| *key == name).map(|(_, value)| value.into())
    }

    #[test]
    fn the_cache_is_where_the_client_keeps_it() {
        let at = |set: &[(&str, &str)]| cache(&variables(set)).map(|path| path.display().to_string());
        let home = ("HOME", "/h");
        assert_eq!(at(&[home]).unwrap(), "/h/.cache/huggingface/hub");
        assert_eq!(at(&[home, ("XDG_CACHE_HOME", "/x")]).unwrap(), "/x/huggingface/hub");
        assert_eq!(at(&[home, ("XDG_CACHE_HOME", "/x"), ("HF_HOME", "~/f")]).unwrap(), "/h/f/hub");
        assert_eq!(at(&[home, ("HF_HOME", "/f"), ("HF_HUB_CACHE", "/c")]).unwrap(), "/c");
        assert_eq!(at(&[]), None);
    }

    #[cfg(feature = "hub")]
    #[test]
    fn the_token_is_where_the_client_keeps_it() {
        let folder = tempfile::tempdir().unwrap();
        let (home, other) = (folder.path().display().to_string(), folder.path().join("other"));
        let token = |set: &[(&str, &str)]| Settings::read(&variables(set)).token;
        let home = ("HF_HOME", home.as_str());
        assert_eq!(token(&[home]), None);
        std::fs::write(folder.path().join("token"), "of the file\n").unwrap();
        assert_eq!(token(&[home]), None);
        std::fs::write(folder.path().join("token"), "hf_file\n").unwrap();
        std::fs::write(&other, "hf_other").unwrap();
        assert_eq!(token(&[home]).unwrap(), "hf_file");
        assert_eq!(token(&[home, ("HF_TOKEN_PATH", &other.display().to_string())]).unwrap(), "hf_other");
        assert_eq!(token(&[home, ("HF_TOKEN", " hf_variable ")]).unwrap(), "hf_variable");
        assert_eq!(token(&[home, ("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")]), None);
    }

    #[cfg(feature = "hub")]
    #[test]
    fn the_network_can_be_forbidden_and_another_hub_be_named() {
        let settings = |set: &[(&str, &str)]| Settings::read(&variables(set));
        let plain = settings(&[]);
        assert_eq!((plain.offline, plain.endpoint.as_str()), (false, "https://huggingface.co"));
        assert!(settings(&[("HF_HUB_OFFLINE", "true")]).offline);
        assert!(!settings(&[("HF_HUB_OFFLINE", "0")]).offline);
        assert_eq!(settings(&[("HF_ENDPOINT", "http://mirror/")]).endpoint, "http://mirror");
        let secret = settings(&[("HF_ENDPOINT", "http://bob:pa@55@mirror:80/a@b")]);
        assert_eq!(secret.shown_endpoint(), "http://mirror:80/a@b");
    }
}
