//! Activations together with the dialogues that they were read from: states, labels, groups and provenance of every row.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use ndarray::{Array2, Axis};

use super::activations::Activations;
use super::store::{Store, check_dialogues};
use crate::artifact::{Header, Origin};
use crate::dialogue::{self, Dialogue, Dialogues};
use crate::error::{Error, Result};
use crate::model::{OtherWeights, Selector, Site};

/// Activations `[rows, width]` at several sites, with the dialogue of every row.
///
/// They are in memory ([`Labelled::new`]) or in a store on disk ([`Labelled::open`]), of which one site is read at a time.
pub struct Labelled {
    header: Header,
    /// What an error names: the store's folder or the dialogues' file.
    place: String,
    tokens: Selector,
    sites: Vec<Site>,
    dialogues: Vec<Dialogue>,
    example: Vec<usize>,
    position: Vec<Option<usize>>,
    states: States,
    /// Whether probes of other weights of the same model are taken.
    other_weights: OtherWeights,
}

enum States {
    Memory(Vec<(Site, Array2<f32>)>),
    /// With the rows of the store that are used; all of them where there is no list.
    Store(Box<Store>, Option<Vec<usize>>),
}

impl Labelled {
    /// Joins activations in memory with their dialogues. `header` holds the model's name and hash; the dialogues' hash
    /// is taken from `data`.
    ///
    /// # Errors
    /// No row at all; a row of a dialogue that `data` does not have.
    pub fn new(
        header: Header,
        tokens: Selector,
        activations: Activations,
        data: Dialogues,
    ) -> Result<Labelled> {
        let Activations { sites: states, example, position, .. } = activations;
        let place = data.path.display().to_string();
        let last = example.iter().max().ok_or_else(|| {
            Error::input(&place, format!("no token that {tokens} selects"), "one or more in some dialogue")
        })?;
        if *last >= data.dialogues.len() {
            let found = format!("a row of dialogue {last}");
            return Err(Error::input(
                place,
                found,
                format!("numbers below {}, as there are dialogues", data.dialogues.len()),
            ));
        }
        Ok(Labelled {
            header: Header { data_hash: Some(data.hash), ..header },
            place,
            tokens,
            sites: states.iter().map(|(site, _)| *site).collect(),
            dialogues: data.dialogues,
            example,
            position,
            states: States::Memory(states),
            other_weights: OtherWeights::default(),
        })
    }

    /// Opens a store and joins it with the dialogues that it was read from: by their index in the same file, or by their
    /// messages in another file, whose labels may differ. Rows of dialogues that `data` leaves out (by a filter or a limit)
    /// are left out too.
    ///
    /// # Errors
    /// A folder that is no whole store; dialogues that the store was not read from; no row of any of them.
    pub fn open(folder: impl AsRef<Path>, data: Dialogues) -> Result<Labelled> {
        let folder = folder.as_ref();
        let store = Store::open(folder)?;
        let example = store.example()?;
        let is_same_file = store.header.data_hash.as_ref().is_none_or(|hash| *hash == data.hash);
        let fingerprints = if is_same_file { None } else { store.fingerprints()? };
        let numbers: Vec<Option<usize>> = match fingerprints {
            Some(fingerprints) => by_messages(folder, &example, &fingerprints, &data)?,
            None => {
                check_dialogues(folder, &store.header, &data.hash)?;
                // The store numbers dialogues by their place in the file, whatever a filter left out.
                example.iter().map(|line| data.indices.binary_search(line).ok()).collect()
            }
        };
        let rows: Vec<usize> = (0..numbers.len()).filter(|&row| numbers[row].is_some()).collect();
        if rows.is_empty() {
            let expected = "dialogues that the store was read from (the same --where and --limit?)";
            return Err(Error::input(folder.display(), "no row of any of these dialogues", expected));
        }
        let all = store.position()?;
        let position = rows.iter().map(|&row| all[row]).collect();
        let rows = (rows.len() < numbers.len()).then_some(rows);
        Ok(Labelled {
            header: store.header.clone(),
            place: folder.display().to_string(),
            tokens: store.manifest.tokens.clone(),
            sites: store.manifest.sites.clone(),
            dialogues: data.dialogues,
            example: numbers.into_iter().flatten().collect(),
            position,
            states: States::Store(Box::new(store), rows),
            other_weights: OtherWeights::default(),
        })
    }

    /// Sets whether probes of other weights of the same model are taken.
    pub fn with_other_weights(mut self, other_weights: OtherWeights) -> Labelled {
        self.other_weights = other_weights;
        self
    }

    /// Checks an artefact that was made from the model of `made`. `place` begins the error, and `what` names the artefact.
    ///
    /// # Errors
    /// As [`OtherWeights::check`].
    pub fn check_origin(&self, place: &str, what: &str, made: Origin) -> Result<()> {
        self.other_weights.check(place, what, made, self.header.origin())
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.example.len()
    }

    /// The sites that were read, in the order of the forward pass.
    pub fn sites(&self) -> &[Site] {
        &self.sites
    }

    /// Which tokens the rows were read at.
    pub fn tokens(&self) -> &Selector {
        &self.tokens
    }

    /// Provenance: the model's name and hash, and the dialogues' hash.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The dialogues; several rows may belong to one, and some may have none.
    pub fn dialogues(&self) -> &[Dialogue] {
        &self.dialogues
    }

    /// For each row, the index of its dialogue in [`Labelled::dialogues`].
    pub fn example(&self) -> &[usize] {
        &self.example
    }

    /// `[rows]`: position of the row's token in its dialogue; none when pooled.
    pub fn position(&self) -> &[Option<usize>] {
        &self.position
    }

    /// The dialogue of a row.
    pub fn dialogue(&self, row: usize) -> &Dialogue {
        &self.dialogues[self.example[row]]
    }

    /// The activations at a site, `[rows, width]`: borrowed from memory, or read from the store.
    ///
    /// # Errors
    /// A site that was not read; a store that is damaged.
    pub fn at(&self, site: Site) -> Result<Cow<'_, Array2<f32>>> {
        let found = match &self.states {
            _ if !self.sites.contains(&site) => None,
            States::Memory(states) => {
                states.iter().find(|(other, _)| *other == site).map(|(_, values)| Cow::Borrowed(values))
            }
            States::Store(store, None) => Some(Cow::Owned(store.at(site)?)),
            States::Store(store, Some(rows)) => Some(Cow::Owned(store.at(site)?.select(Axis(0), rows))),
        };
        found.ok_or_else(|| {
            let sites = self.sites.iter().map(Site::to_string).collect::<Vec<_>>();
            Error::input(
                &self.place,
                format!("no activations at {site}"),
                format!("one of {}", sites.join(", ")),
            )
        })
    }

    /// The sites that a text names (`*.resid_post`, `3,5.mlp_out`, …), of a model of as many blocks as were read.
    ///
    /// # Errors
    /// A text that names no site.
    pub fn parse_sites(&self, text: &str) -> Result<Vec<Site>> {
        let blocks = self.sites.iter().filter_map(|site| site.block()).max().map_or(0, |last| last + 1);
        Site::parse_set(text, blocks)
    }

    /// The value of a label, one a row.
    ///
    /// # Errors
    /// A label that no dialogue has (the message names those that there are), or that some rows' dialogues lack.
    pub fn labels(&self, name: &str) -> Result<Vec<String>> {
        self.complete(name, Dialogue::label)
    }

    /// All values of a label that may be a list, a list a row.
    ///
    /// # Errors
    /// As [`Labelled::labels`].
    pub fn label_lists(&self, name: &str) -> Result<Vec<Vec<String>>> {
        self.complete(name, Dialogue::values)
    }

    /// The rows whose label has this value.
    ///
    /// # Errors
    /// A label that no dialogue has, or a value that no row has; the message names those that there are.
    pub fn rows_with(&self, name: &str, value: &str) -> Result<Vec<usize>> {
        let all = (0..self.rows()).map(|row| self.dialogue(row));
        dialogue::check_value(&self.place, all, name, value)?;
        let has = |&row: &usize| self.dialogue(row).label(name).as_deref() == Some(value);
        Ok((0..self.rows()).filter(has).collect())
    }

    /// Refuses a label that no row's dialogue has.
    ///
    /// # Errors
    /// If so; the message names the labels that there are.
    pub fn check_label(&self, name: &str) -> Result<()> {
        dialogue::check_label((0..self.rows()).map(|row| self.dialogue(row)), name)
    }

    /// Drops the dialogues' texts and labels, where only the states are needed from here on.
    pub(crate) fn take_dialogues(&mut self) -> Vec<Dialogue> {
        std::mem::take(&mut self.dialogues)
    }

    fn complete<T: Clone>(&self, name: &str, value: impl Fn(&Dialogue, &str) -> Option<T>) -> Result<Vec<T>> {
        self.check_label(name)?;
        // Many rows may share a dialogue.
        let mut known: BTreeMap<usize, Option<T>> = BTreeMap::new();
        let mut lacking: Vec<usize> = Vec::new();
        let mut values = Vec::with_capacity(self.rows());
        for (row, &number) in self.example.iter().enumerate() {
            match known.entry(number).or_insert_with(|| value(&self.dialogues[number], name)) {
                Some(value) => values.push(value.clone()),
                None => lacking.push(row),
            }
        }
        match lacking.first() {
            None => Ok(values),
            Some(&first) => {
                let (count, id) = (lacking.len(), &self.dialogue(first).id);
                let found = format!("missing on {count} of {} rows ({id} is the first)", self.rows());
                let expected = "one on every dialogue; leave out those without";
                Err(Error::input(format!("label {name}"), found, expected))
            }
        }
    }
}

/// For each row of a store, the index in `data` of the dialogue with the same messages. Of several dialogues with the same
/// messages the first goes with the first, and so on.
///
/// # Errors
/// No dialogue with the messages of any row; messages that stand more often in one of the two than in the other.
fn by_messages(
    folder: &Path,
    example: &[usize],
    fingerprints: &[i64],
    data: &Dialogues,
) -> Result<Vec<Option<usize>>> {
    let mut ours: BTreeMap<i64, Vec<usize>> = BTreeMap::new();
    for (index, dialogue) in data.dialogues.iter().enumerate() {
        ours.entry(dialogue.fingerprint()).or_default().push(index);
    }
    let mut theirs: BTreeMap<i64, BTreeSet<usize>> = BTreeMap::new();
    for (&line, fingerprint) in example.iter().zip(fingerprints) {
        theirs.entry(*fingerprint).or_default().insert(line);
    }
    let mut index_of: BTreeMap<usize, usize> = BTreeMap::new();
    for (fingerprint, lines) in &theirs {
        let Some(indices) = ours.get(fingerprint) else { continue };
        if indices.len() != lines.len() {
            let id = &data.dialogues[indices[0]].id;
            let times = |count: usize| if count == 1 { "once".into() } else { format!("{count} times") };
            let found = format!("the messages of dialogue {id} {}", times(lines.len()));
            let expected =
                format!("{}, as in these dialogues, or the file it was extracted from", times(indices.len()));
            return Err(Error::input(folder.display(), found, expected));
        }
        index_of.extend(lines.iter().copied().zip(indices.iter().copied()));
    }
    if index_of.is_empty() {
        let expected = "dialogues with the messages that the store was extracted from; labels may differ";
        return Err(Error::input(folder.display(), "extracted from other dialogues than these", expected));
    }
    Ok(example.iter().map(|line| index_of.get(line).copied()).collect())
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use ndarray::array;

    use super::*;
    use crate::dialogue::Label;

    fn labelled() -> Labelled {
        let dialogue = |(id, kind): (&str, Option<&str>)| {
            let mut dialogue = Dialogue::prompt(id, "hello");
            if let Some(kind) = kind {
                dialogue.labels.insert("kind".into(), Label::Text(kind.into()));
            }
            dialogue
        };
        let dialogues = [("a", Some("x")), ("b", Some("y")), ("c", None)].map(dialogue).into();
        let data = Dialogues {
            path: PathBuf::from("data"),
            hash: "1".into(),
            dialogues,
            indices: vec![0, 1, 2],
            skipped: Default::default(),
        };
        let activations = Activations {
            sites: vec![("1.resid_post".parse().unwrap(), array![[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])],
            example: vec![0, 1, 1],
            position: vec![None; 3],
            tokens: 9,
        };
        Labelled::new(Header::new("activations", 1), Selector::Last, activations, data).unwrap()
    }

    #[test]
    fn a_row_knows_its_label() {
        let states = labelled();
        assert_eq!(states.labels("kind").unwrap(), ["x", "y", "y"]);
        assert_eq!(states.rows_with("kind", "y").unwrap(), [1, 2]);
        assert_eq!(states.dialogue(2).id, "b");
        assert_eq!(states.header().data_hash.as_deref(), Some("1"));
        assert_eq!(states.at("1.resid_post".parse().unwrap()).unwrap()[[2, 1]], 6.0);
    }

    #[test]
    fn a_wrong_name_lists_the_choices() {
        let states = labelled();
        let error = |error: Error| error.to_string();
        assert_eq!(
            error(states.labels("risk").unwrap_err()),
            "label risk: on no dialogue; expected one of kind"
        );
        assert!(error(states.rows_with("kind", "z").unwrap_err()).ends_with("expected one of x, y"));
        let site = "0.resid_post".parse().unwrap();
        assert!(error(states.at(site).unwrap_err()).ends_with("expected one of 1.resid_post"));
    }
}
