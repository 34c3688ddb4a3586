//! Plays on disk: a cell's dialogues as JSON Lines. A cell that is there is not played again, so that a run that was stopped goes on.
//!
//! Cells are also what a run is divided into over several machines: an agent learns from one wave of its cell for the next.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::artifact::{self, Assignment, Header, Part};
use crate::error::{Error, Result};
use crate::rounds::Played;

/// Kind and file name of what a part says of itself.
const KIND: &str = "rounds-part";
const PART: &str = "part.json";

/// The cells of a run in a folder, all of them or those of a part.
pub(super) struct Cells<'a> {
    out: &'a Path,
    part: Option<(Part, Assignment)>,
    /// File names of the cells up to now, those of other parts among them.
    names: Vec<String>,
}

/// What a part says of itself (`part.json`).
#[derive(Serialize, Deserialize)]
struct PartOfRounds {
    part: Part,
    /// File names of the cells of the whole run.
    cells: Vec<String>,
}

impl Cells<'_> {
    pub fn new(out: &Path, part: Option<Part>) -> Cells<'_> {
        let part = part.map(|part| (part, Assignment::new(part, Vec::new())));
        Cells { out, part, names: Vec::new() }
    }

    /// The plays of a cell, from the folder where they are; none where the cell is another part's. A part has cells of about as many
    /// rounds in all as another, `rounds` for this one: how many tokens they will have isn't known before.
    pub fn kept(
        &mut self,
        name: &str,
        rounds: usize,
        make: &mut dyn FnMut() -> Result<Vec<Played>>,
    ) -> Result<Vec<Played>> {
        self.names.push(file_name(name));
        match self.part.as_mut().is_none_or(|(_, assignment)| assignment.takes(rounds)) {
            true => kept(self.out, name, make),
            false => Ok(Vec::new()),
        }
    }

    /// As [`Cells::kept`], of an attacker that may fail: each of `count` dialogues is on disk before the next begins. One that the attacker
    /// fails is kept as it is, and the next is played; where two fail in a row the run ends, and the same run plays them again.
    ///
    /// # Errors
    /// Two failures in a row; any error of `play`.
    pub fn kept_each(
        &mut self,
        name: &str,
        (rounds, count): (usize, usize),
        play: &mut dyn FnMut(usize) -> Result<Played>,
    ) -> Result<Vec<Played>> {
        let partial = self.out.join("plays").join(format!("{}.partial", file_name(name)));
        let found = self.kept(name, rounds * count, &mut || {
            let mut played = if partial.exists() { read(&partial)? } else { Vec::new() };
            std::fs::create_dir_all(partial.with_file_name("")).map_err(Error::file(&partial))?;
            for number in played.len()..count {
                played.push(play(number)?);
                let failed = played.iter().rev().take_while(|one| one.failure.is_some()).count();
                if failed < 2 {
                    write(&partial, &played)?;
                    continue;
                }
                let why = played.pop().and_then(|one| one.failure).unwrap_or_default();
                let why = why.split("; expected ").next().unwrap_or_default();
                played.truncate(number + 1 - failed);
                write(&partial, &played)?;
                let found = format!("two dialogues without a message, the last for: {why}");
                let expected = format!("one that answers; {} of {count} dialogues are kept", played.len());
                return Err(Error::input("the attacker", found, expected));
            }
            Ok(played)
        })?;
        match std::fs::remove_file(&partial) {
            Err(error) if partial.exists() => Err(Error::file(&partial)(error)),
            _ => Ok(found),
        }
    }

    /// Saves which cells there are, where this is a part. True if so.
    pub fn save_part(self) -> Result<bool> {
        let Some((part, _)) = self.part else { return Ok(false) };
        let whole = PartOfRounds { part, cells: self.names };
        artifact::write_json(&self.out.join(PART), &Header::new(KIND, 1), &whole)?;
        Ok(true)
    }
}

/// Copies the plays of all parts of a run into one folder, which the command of the run without `--shard` then finishes, and gives the
/// number of cells.
///
/// # Errors
/// Folders that are no parts, or of different runs; missing cells, with the parts that are not there; a folder that holds plays.
pub fn merge_rounds(parts: &[PathBuf], out: &Path) -> Result<usize> {
    if out.join("plays").exists() {
        return Err(Error::input(out.display(), "plays are there already", "another folder"));
    }
    let mut read: Vec<(&Path, PartOfRounds, String)> = Vec::new();
    for folder in parts {
        let (_, own): (Header, PartOfRounds) = artifact::read_json(&folder.join(PART), KIND, 1)?;
        let experiment = artifact::read_text(&folder.join(EXPERIMENT))?;
        if let Some((first, other, text)) = read.first()
            && (other.part.of != own.part.of || other.cells != own.cells || *text != experiment)
        {
            let found = format!("part {} of another run than {} is of", own.part, first.display());
            return Err(Error::input(folder.display(), found, "parts of one run"));
        }
        read.push((folder, own, experiment));
    }
    let Some((first, PartOfRounds { part, cells }, experiment)) = read.first() else {
        return Err(Error::input("parts", "none", "the folders of all parts"));
    };
    let mut found = Vec::new();
    let mut missing = Vec::new();
    for cell in cells {
        artifact::foreign_path(cell).filter(|path| path.components().count() == 1).ok_or_else(|| {
            Error::input(first.join(PART).display(), format!("the cell {cell:?}"), "a file name")
        })?;
        match read.iter().map(|(folder, ..)| folder.join("plays").join(cell)).find(|path| path.exists()) {
            Some(path) => found.push((path, cell)),
            None => missing.push(cell.trim_end_matches(".jsonl")),
        }
    }
    if !missing.is_empty() {
        let absent =
            (1..=part.of).filter(|number| !read.iter().any(|(_, own, _)| own.part.number == *number));
        let absent: Vec<String> = absent.map(|number| format!("{number}/{}", part.of)).collect();
        let parts =
            if absent.is_empty() { String::new() } else { format!("part {} and ", absent.join(", ")) };
        let found = format!("{parts}the cells {} are missing", missing.join(", "));
        return Err(Error::input("parts", found, format!("all {} parts", part.of)));
    }
    let copy = |from: &Path, to: &Path| -> Result<()> {
        let bytes = artifact::read_file(from)?;
        artifact::write_atomic(to, |file| file.write_all(&bytes))
    };
    // What every part fitted for itself is alike in all of them.
    for shared in ["plays/fit.jsonl", "plays/calibration.jsonl"] {
        if first.join(shared).exists() {
            copy(&first.join(shared), &out.join(shared))?;
        }
    }
    for (path, cell) in &found {
        copy(path, &out.join("plays").join(cell))?;
    }
    artifact::write_text(&out.join(EXPERIMENT), experiment)?;
    Ok(found.len())
}

/// File name of the experiment in its folder.
pub(super) const EXPERIMENT: &str = "experiment.toml";

/// Makes the folder this experiment's, or checks that it is.
pub(super) fn claim(out: &Path, text: &str, model_hash: &str) -> Result<()> {
    let path = out.join(EXPERIMENT);
    let own = format!("# model {model_hash}\n{text}");
    match path.exists() {
        true if artifact::read_text(&path)? != own => {
            Err(Error::input(path.display(), "another experiment or model", "the same one, or a new folder"))
        }
        true => Ok(()),
        false => artifact::write_text(&path, &own),
    }
}

fn file_name(cell: &str) -> String {
    format!("{}.jsonl", artifact::foreign_name(&cell.replace(", ", "-").replace(' ', "-")))
}

/// The plays of a cell, from the folder where they are.
pub(super) fn kept(
    out: &Path,
    name: &str,
    make: &mut dyn FnMut() -> Result<Vec<Played>>,
) -> Result<Vec<Played>> {
    let path = out.join("plays").join(file_name(name));
    if path.exists() {
        return read(&path);
    }
    let played = make()?;
    std::fs::create_dir_all(out.join("plays")).map_err(Error::file(&path))?;
    write(&path, &played)?;
    Ok(played)
}

fn write(path: &Path, played: &[Played]) -> Result<()> {
    let mut text = String::new();
    for one in played {
        text.push_str(&serde_json::to_string(one).map_err(|error| Error::input("plays", error, "JSON"))?);
        text.push('\n');
    }
    artifact::write_text(path, &text)
}

fn read(path: &Path) -> Result<Vec<Played>> {
    let text = artifact::read_text(path)?;
    let line = |(number, line): (usize, &str)| {
        serde_json::from_str(line).map_err(|error| {
            let place = format!("{}:{}", path.display(), number + 1);
            Error::input(place, error, "a play, as this program writes it")
        })
    };
    text.lines().enumerate().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialogue::Dialogue;
    use crate::rounds::Ended;

    #[test]
    fn a_cell_is_played_once_and_a_damaged_one_is_named_by_line() {
        let folder = tempfile::tempdir().unwrap();
        let one = Played {
            id: "one".into(),
            dialogue: Dialogue::prompt("one", "hi"),
            turns: Vec::new(),
            ended: Ended::GaveUp,
            failure: None,
        };
        let mut times = 0;
        for _ in 0..2 {
            let played = kept(folder.path(), "agent against none, in 5", &mut || {
                times += 1;
                Ok(vec![one.clone(), one.clone()])
            });
            assert_eq!(played.unwrap(), [one.clone(), one.clone()]);
        }
        assert_eq!(times, 1);
        let path = folder.path().join("plays/agent-against-none-in-5.jsonl");
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, format!("{text}rubbish\n")).unwrap();
        let error = kept(folder.path(), "agent against none, in 5", &mut || Ok(Vec::new())).unwrap_err();
        assert!(error.to_string().contains(".jsonl:3: "), "{error}");
    }
}
