//! Look-up of a model's folder: a path, or a snapshot in the hub's cache.

use std::path::{Path, PathBuf};

use super::repo::Repo;
use super::settings;
use crate::error::{Error, Result};

/// The folder of a model: the folder of this name, or the snapshot of the repository of this name.
///
/// # Errors
/// [`Error::Input`] if there is neither; it says where the model was looked for and how to fetch it.
pub(in crate::model) fn find(name: &Path) -> Result<PathBuf> {
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

/// The snapshot of a repository in a cache.
pub(super) fn find_in(repo: &Repo, cache: Option<&Path>) -> Result<PathBuf> {
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
    // The commit must be one path component, whatever the file in refs/ holds.
    if commit.is_empty() || Path::new(commit).components().count() != 1 || !snapshot.is_dir() {
        let mut held = entry_names(&folder.join("snapshots"));
        held.truncate(3);
        let held = if held.is_empty() { "nothing".into() } else { held.join(", ") };
        let found = format!("the hub's cache {} holds {held}, not {revision}", folder.display());
        return Err(Error::input(place, found, format!("that revision, fetched with `{fetch}`")));
    }
    Ok(snapshot)
}

fn entry_names(folder: &Path) -> Vec<String> {
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
