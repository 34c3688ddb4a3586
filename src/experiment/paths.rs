//! Paths of a run's files: the run's folder and names from its file in, paths inside the folder out.
//!
//! Labels and names are foreign strings: each becomes one file name by [`foreign_name`], and two that would become the same
//! file are refused before any work begins.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::analysis::steering_grid::{UNSTEERED, arm_slug};
use crate::artifact::foreign_name;
use crate::config::{Experiment, SteeringGrid};
use crate::error::{Error, Result};
use crate::model::Site;

/// A probe of an experiment.
pub(super) fn probe(out: &Path, label: &str) -> PathBuf {
    out.join("probes").join(format!("{}.safetensors", foreign_name(label)))
}

/// A probe of a steering grid.
pub(super) fn probe_at(out: &Path, name: &str, site: Site) -> PathBuf {
    probe(out, &format!("{name}-{site}"))
}

/// A steering vector.
pub(super) fn vector(out: &Path, name: &str) -> PathBuf {
    out.join("vectors").join(format!("{}.safetensors", foreign_name(name)))
}

/// Answers under one condition.
pub(super) fn transcript(out: &Path, condition: &str) -> PathBuf {
    out.join("transcripts").join(format!("{}.jsonl", foreign_name(condition)))
}

/// Folds of a cross-validation.
pub(super) fn folds(out: &Path, label: &str, name: &str) -> PathBuf {
    out.join("folds").join(format!("{}.json", foreign_name(&format!("{label}-{name}"))))
}

/// Flips of an interpolation.
pub(super) fn interpolation(out: &Path, name: &str) -> PathBuf {
    out.join(format!("{}.json", foreign_name(&format!("crossing-{name}"))))
}

/// A chart's table.
pub(super) fn chart(out: &Path, name: &str) -> PathBuf {
    out.join(format!("{}.chart.json", foreign_name(name)))
}

/// Refuses an experiment in which two stages would write one file.
///
/// # Errors
/// The two names.
pub(super) fn check_experiment(experiment: &Experiment) -> Result<()> {
    let out = Path::new("");
    let mut files = Vec::new();
    for file in &experiment.probes {
        files.push((format!("probe {}", file.label), probe(out, &file.label)));
    }
    for file in &experiment.cross_validations {
        let name = format!("cross_validation {} of {}", file.name, file.label);
        files.push((name, folds(out, &file.label, &file.name)));
    }
    for file in &experiment.interpolations {
        for path in [interpolation(out, &file.name), interpolation(out, &format!("shares-{}", file.name))] {
            files.push((format!("interpolation {}", file.name), path));
        }
    }
    check_distinct(files)
}

/// Refuses a grid in which two probes or two arms would write one file.
///
/// # Errors
/// The two names.
pub(super) fn check_grid(grid: &SteeringGrid) -> Result<()> {
    let out = Path::new("");
    let mut files = vec![("the unsteered answers".to_owned(), transcript(out, UNSTEERED))];
    files.extend(grid.probes.iter().map(|file| (format!("probe {}", file.name), probe(out, &file.name))));
    let arm = |name: &String| (format!("arm {name}"), transcript(out, &arm_slug(name)));
    files.extend(grid.arms.iter().map(|file| arm(&file.name)));
    check_distinct(files)
}

fn check_distinct(files: Vec<(String, PathBuf)>) -> Result<()> {
    let mut seen: BTreeMap<String, String> = BTreeMap::new();
    for (name, path) in files {
        let mut key = path.to_string_lossy().into_owned();
        if cfg!(any(windows, target_os = "macos")) {
            // File names that differ in case alone are one file there.
            key.make_ascii_lowercase();
        }
        if let Some(other) = seen.insert(key, name.clone()) {
            let found = format!("the same file as {other}");
            return Err(Error::input(name, found, "names that give a file each"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOSTILE: [&str; 12] =
        ["../../x", "/etc/x", "..", ".", "", "a/b", "a\\b", "C:x", "nul", "a\0b", "a\nb", "\u{1b}[2J"];

    #[test]
    fn every_file_stays_in_the_folder_that_it_belongs_to() {
        let out = Path::new("out");
        let long = "x".repeat(10_000);
        let site = Site::Embed;
        for name in HOSTILE.into_iter().chain([long.as_str()]) {
            for (path, folder) in [
                (probe(out, name), "out/probes"),
                (probe_at(out, name, site), "out/probes"),
                (vector(out, name), "out/vectors"),
                (transcript(out, name), "out/transcripts"),
                (folds(out, name, name), "out/folds"),
                (interpolation(out, name), "out"),
                (chart(out, name), "out"),
            ] {
                assert_eq!(path.parent().unwrap(), Path::new(folder), "{name:?}");
                let file = path.file_name().unwrap().to_str().unwrap();
                assert!(file.len() < 150 && !file.starts_with('.'), "{file}");
                assert!(
                    !file.chars().any(|letter| letter.is_control() || "\\:".contains(letter)),
                    "{file:?}"
                );
            }
        }
        assert_eq!(probe(out, "user-type+risk-level"), out.join("probes/user-type+risk-level.safetensors"));
    }

    #[test]
    fn names_that_would_share_a_file_are_refused() {
        let experiment = |path: &str| Experiment::load(Path::new(path)).unwrap();
        let mut twice = Experiment::parse("demo", super::super::DEMO).unwrap();
        check_experiment(&twice).unwrap();
        twice.probes.push(twice.probes[0].clone());
        let error = check_experiment(&twice).unwrap_err().to_string();
        assert!(error.contains("the same file as probe"), "{error}");
        let mut folds = experiment("experiments/xstest-minilm.toml");
        check_experiment(&folds).unwrap();
        let mut file = folds.cross_validations[0].clone();
        let names = [("a-b", "c"), ("a", "b-c")];
        folds.cross_validations.clear();
        for (label, name) in names {
            (file.label, file.name) = (label.into(), name.into());
            folds.cross_validations.push(file.clone());
        }
        assert!(check_experiment(&folds).is_err());
        let mut crossing = experiment("experiments/boundary.toml");
        check_experiment(&crossing).unwrap();
        let mut file = crossing.interpolations[0].clone();
        crossing.interpolations.clear();
        for name in ["x", "shares-x"] {
            file.name = name.into();
            crossing.interpolations.push(file.clone());
        }
        assert!(check_experiment(&crossing).is_err());

        let grid = SteeringGrid::load(Path::new("experiments/steering.toml")).unwrap();
        check_grid(&grid).unwrap();
        for names in [["a b", "a-b"], ["a", "unsteered"]] {
            let mut other = grid.clone();
            other.arms.truncate(2);
            for (arm, name) in other.arms.iter_mut().zip(names) {
                arm.name = name.into();
            }
            assert!(check_grid(&other).is_err(), "{names:?}");
        }
    }
}
