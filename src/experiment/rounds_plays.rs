//! Plays on disk: a cell's dialogues as JSON Lines. A cell that is there is not played again, so that a run that was stopped goes on.

use std::path::Path;

use crate::artifact;
use crate::error::{Error, Result};
use crate::rounds::Played;

/// The plays of a cell, from the folder where they are.
pub(super) fn kept(
    out: &Path,
    name: &str,
    make: &mut dyn FnMut() -> Result<Vec<Played>>,
) -> Result<Vec<Played>> {
    let file = artifact::foreign_name(&name.replace(", ", "-").replace(' ', "-"));
    let path = out.join("plays").join(format!("{file}.jsonl"));
    if path.exists() {
        return read(&path);
    }
    let played = make()?;
    let mut text = String::new();
    for one in &played {
        text.push_str(&serde_json::to_string(one).map_err(|error| Error::input("plays", error, "JSON"))?);
        text.push('\n');
    }
    std::fs::create_dir_all(out.join("plays")).map_err(Error::file(&path))?;
    artifact::write_text(&path, &text)?;
    Ok(played)
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
