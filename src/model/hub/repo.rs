//! Names of hub repositories.

use std::path::{Component, Path};

/// A repository on the hub: `NAME` or `ORG/NAME`, with `@REVISION` or without.
#[derive(Debug, PartialEq)]
pub(super) struct Repo<'a> {
    pub id: &'a str,
    pub revision: &'a str,
}

impl<'a> Repo<'a> {
    /// Parses a name; `None` if it can't be a repository's.
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

    /// Name in errors.
    pub fn place(&self) -> String {
        match self.revision {
            "main" => self.id.to_owned(),
            revision => format!("{}@{revision}", self.id),
        }
    }

    /// Folder of the repository in a cache.
    pub fn folder(&self) -> String {
        format!("models--{}", self.id.replace('/', "--"))
    }
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
}
