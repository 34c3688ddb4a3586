//! Models by the names that they have on the hub, in the cache that its own client keeps on this machine: found there, and
//! fetched into it. It knows nothing of what is in them.
//!
//! The layout is the client's: `models--org--name/refs/REVISION` holds a commit, `snapshots/COMMIT/` the files.

#[cfg(feature = "hub")]
mod client;
#[cfg(feature = "hub")]
mod download;
#[cfg(feature = "hub")]
mod fetch;
mod settings;

use std::path::{Component, Path, PathBuf};

use crate::error::{Error, Result};
#[cfg(feature = "hub")]
pub use fetch::{Fetched, fetch};

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

    /// As an error names it.
    fn place(&self) -> String {
        match self.revision {
            "main" => self.id.to_owned(),
            revision => format!("{}@{revision}", self.id),
        }
    }

    /// Of all that the cache holds of it.
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
        Some(repo) if !name.is_dir() => {
            find_in(&repo, settings::cache(&|name| std::env::var_os(name)).as_deref())
        }
        _ if name.is_dir() => Ok(name.into()),
        _ => {
            let expected = "a checkpoint folder, `organism` for the embedded model, or ORG/NAME of the hub";
            Err(Error::input(name.display(), "no model there", expected))
        }
    }
}

fn find_in(repo: &Repo, cache: Option<&Path>) -> Result<PathBuf> {
    let Repo { id, revision } = *repo;
    let place = repo.place();
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
