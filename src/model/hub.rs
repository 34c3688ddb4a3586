//! Models by the names that they have on the hub, from the cache that its own client keeps on this machine.
//! It knows nothing of what is in them, and asks no network.
//!
//! The layout is the client's: `models--org--name/refs/REVISION` holds a commit, `snapshots/COMMIT/` the files.

use std::ffi::OsString;
use std::path::{Component, Path, PathBuf};

use crate::error::{Error, Result};

/// A repository on the hub: `name`, `org/name`, either with `@revision`.
#[derive(Debug, PartialEq)]
pub(super) struct Repo<'a> {
    pub id: &'a str,
    pub revision: &'a str,
}

impl<'a> Repo<'a> {
    /// None for what can't be a repository's name.
    pub fn parse(name: &'a str) -> Option<Repo<'a>> {
        let (id, revision) = name.split_once('@').unwrap_or((name, "main"));
        let plain = |part: &str| {
            let known = |letter: char| letter.is_ascii_alphanumeric() || "-_.".contains(letter);
            !part.is_empty() && part.len() <= 96 && !part.starts_with(['.', '-']) && part.chars().all(known)
        };
        let inside = Path::new(revision).components().all(|part| matches!(part, Component::Normal(_)));
        let parts = id.split('/').count();
        (parts <= 2 && id.split('/').all(plain) && inside && !revision.is_empty())
            .then_some(Repo { id, revision })
    }

    fn folder(&self) -> String {
        format!("models--{}", self.id.replace('/', "--"))
    }
}

/// The folder of a model: the one that has this name, or else the snapshot of the repository that has it.
///
/// # Errors
/// [`Error::Input`] if there is neither, with where it was looked for and how it gets there.
pub(super) fn find(name: &Path) -> Result<PathBuf> {
    match name.to_str().and_then(Repo::parse) {
        Some(repo) if !name.is_dir() => find_in(&repo, cache(&|name| std::env::var_os(name)).as_deref()),
        _ if name.is_dir() => Ok(name.into()),
        _ => {
            let expected = "a checkpoint folder, `organism` for the embedded model, or ORG/NAME of the hub";
            Err(Error::input(name.display(), "no model there", expected))
        }
    }
}

/// Where the hub's client keeps what it fetched, from the environment.
pub(super) fn cache(variable: &dyn Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    let set = |name: &str| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let home = set("HOME");
    let expanded = |path: PathBuf| match (path.strip_prefix("~"), &home) {
        (Ok(rest), Some(home)) => home.join(rest),
        _ => path,
    };
    let all = ["HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"].into_iter().find_map(set);
    let of_hub = set("HF_HOME").map(|path| path.join("hub"));
    let of_user = || set("XDG_CACHE_HOME").or_else(|| Some(home.as_ref()?.join(".cache")));
    all.or(of_hub).or_else(|| Some(of_user()?.join("huggingface/hub"))).map(expanded)
}

fn find_in(repo: &Repo, cache: Option<&Path>) -> Result<PathBuf> {
    let Repo { id, revision } = *repo;
    let place = if revision == "main" { id.to_owned() } else { format!("{id}@{revision}") };
    let fetch = match revision {
        "main" => format!("hf download {id}"),
        _ => format!("hf download {id} --revision {revision}"),
    };
    let expected = format!(
        "a checkpoint folder, `organism` for the embedded model, or a model of the hub, fetched with `{fetch}`"
    );
    let Some(cache) = cache else {
        return Err(Error::input(place, "no folder, and no home with the hub's cache", expected));
    };
    let folder = cache.join(repo.folder());
    if !folder.is_dir() {
        let found = format!("no folder, and not in the hub's cache {}", cache.display());
        return Err(Error::input(place, found, expected));
    }
    let commit = std::fs::read_to_string(folder.join("refs").join(revision)).ok();
    let commit = commit.as_deref().map_or(revision, str::trim);
    let snapshot = folder.join("snapshots").join(commit);
    // A commit is a name in that folder, whatever a file says.
    if commit.is_empty() || Path::new(commit).components().count() != 1 || !snapshot.is_dir() {
        let mut held = names(&folder.join("snapshots"));
        held.truncate(3);
        let held = if held.is_empty() { "nothing".into() } else { held.join(", ") };
        let found = format!("the hub's cache {} holds {held}, not {revision}", folder.display());
        return Err(Error::input(place, found, format!("that revision, fetched with `{fetch}`")));
    }
    Ok(snapshot)
}

fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<String> =
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_repositories_are_told_from_paths() {
        let repo = |name| Repo::parse(name).map(|repo| (repo.id, repo.revision));
        assert_eq!(repo("org/name"), Some(("org/name", "main")));
        assert_eq!(repo("gpt2@607a30d"), Some(("gpt2", "607a30d")));
        assert_eq!(repo("org/na.me-1@refs/pr/3"), Some(("org/na.me-1", "refs/pr/3")));
        for path in ["a/b/c", "./a", "../a", "/a", "a/", "", "a b", "org/name@../../x", "a@", "~/a", "a/.."] {
            assert_eq!(repo(path), None, "{path}");
        }
    }

    #[test]
    fn the_cache_is_where_the_client_keeps_it() {
        let at = |set: &[(&str, &str)]| {
            let variable =
                |name: &str| set.iter().find(|(key, _)| *key == name).map(|(_, value)| value.into());
            cache(&variable).map(|path| path.display().to_string())
        };
        let home = ("HOME", "/h");
        assert_eq!(at(&[home]).unwrap(), "/h/.cache/huggingface/hub");
        assert_eq!(at(&[home, ("XDG_CACHE_HOME", "/x")]).unwrap(), "/x/huggingface/hub");
        assert_eq!(at(&[home, ("XDG_CACHE_HOME", "/x"), ("HF_HOME", "~/f")]).unwrap(), "/h/f/hub");
        assert_eq!(at(&[home, ("HF_HOME", "/f"), ("HF_HUB_CACHE", "/c")]).unwrap(), "/c");
        assert_eq!(at(&[]), None);
    }

    #[test]
    fn a_snapshot_is_found_by_branch_and_by_commit() {
        let cache = tempfile::tempdir().unwrap();
        let folder = cache.path().join("models--org--name");
        std::fs::create_dir_all(folder.join("refs")).unwrap();
        std::fs::create_dir_all(folder.join("snapshots/abc")).unwrap();
        std::fs::write(folder.join("refs/main"), "abc\n").unwrap();
        let find = |name| find_in(&Repo::parse(name).unwrap(), Some(cache.path()));
        assert_eq!(find("org/name").unwrap(), folder.join("snapshots/abc"));
        assert_eq!(find("org/name@abc").unwrap(), folder.join("snapshots/abc"));
        let error = find("org/name@v2").unwrap_err().to_string();
        assert!(error.contains("holds abc, not v2") && error.contains("--revision v2"), "{error}");
        let error = find("org/other").unwrap_err().to_string();
        let cached = cache.path().display().to_string();
        assert!(error.contains(&cached) && error.contains("`hf download org/other`"), "{error}");
        std::fs::write(folder.join("refs/main"), "../../..").unwrap();
        assert!(find("org/name").is_err());
    }
}
