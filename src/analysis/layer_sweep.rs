//! The probing stage: each probe at every site, on groups held out, beside what it has to beat.

use ndarray::{Array2, Axis};

use crate::artifact::Header;
use crate::dialogue::Dialogue;
use crate::error::{Error, Result};
use crate::model::{Selector, Site};
use crate::probe;
use crate::probe::{
    Examples, Fit, Logistic, ValidationPlan, Probe, Provenance, Split, StrengthScore, TargetKind, Targets, Validated, controls, ngram_baseline,
};
use crate::stats::Metric;

/// A probe's sweep over sites, with its controls.
pub struct Sweep {
    pub label: String,
    /// One a site, in the order of the forward pass.
    pub sites: Vec<(Site, Fitted)>,
    /// Index of the best site, by the folds inside the fit part.
    pub best: usize,
    /// Word-and-bigram baseline on the same split.
    pub ngram: Metric,
    /// The best site's pipeline on shuffled labels.
    pub shuffled: Metric,
    /// The best site's pipeline on random features of as many columns.
    pub random: Metric,
    /// The pipeline on the texts' lengths.
    pub length: Metric,
    /// What the part is that scores are on, and its name in them.
    pub split: String,
    pub on: &'static str,
    /// Sites that no probe can be fitted at, and why.
    pub left_out: Vec<String>,
}

/// What is kept of a site: not what was read there, of which there is as much as there are rows.
pub struct Fitted {
    pub probe: Probe,
    pub trials: Vec<StrengthScore>,
}

/// Shuffles of the labels that the control takes the mean of.
const SHUFFLES: usize = 24;

impl Sweep {
    /// What a probe has to beat.
    pub fn controls(&self) -> [&Metric; 4] {
        [&self.ngram, &self.length, &self.shuffled, &self.random]
    }

    /// All figures of the best site.
    pub fn best_figures(&self) -> Vec<Metric> {
        self.best().1.probe.scores.iter().filter(|score| score.split == self.on).cloned().collect()
    }

    /// One line for each control that comes within the interval of the best site's AUROC, or above it.
    pub fn doubts(&self) -> Result<Vec<String>> {
        let own = figure(self.best().1, "auroc", self.on)?;
        let low = own.low.unwrap_or(own.value);
        let near = self.controls().into_iter().filter(|control| control.value >= low);
        let line = |control: &Metric| {
            let high = own.high.unwrap_or(own.value);
            format!(
                "{} is {:.3}, within the probe's own interval [{low:.3}, {high:.3}] or above it: this probe of {} need not have found more than that",
                control.name, control.value, self.label
            )
        };
        Ok(near.map(line).collect())
    }

    pub fn best(&self) -> (Site, &Fitted) {
        let (site, fitted) = &self.sites[self.best];
        (*site, fitted)
    }

    /// The fit at one site.
    pub fn at(&self, site: Site) -> Result<&Fitted> {
        let found = self.sites.iter().find(|(other, _)| *other == site);
        found.map(|(_, fitted)| fitted).ok_or_else(|| {
            Error::input(
                format!("probe of {} at {site}", self.label),
                "not fitted there",
                "a site that is read",
            )
        })
    }
}

/// A figure of a fitted probe.
pub fn figure<'a>(fitted: &'a Fitted, name: &str, split: &str) -> Result<&'a Metric> {
    let mut scores = fitted.probe.scores.iter();
    scores.find(|score| score.name == name && score.split == split).ok_or_else(|| {
        Error::input(
            format!("probe of {}", fitted.probe.source.label),
            format!("no {name} on {split}"),
            "two classes there",
        )
    })
}

/// What is asked of a sweep.
pub struct Question<'a> {
    pub label: &'a str,
    pub kind: TargetKind,
    /// The classes in order; sorted by name where none are given.
    pub order: &'a [String],
    /// The label to group by; without one each dialogue is a group of its own.
    pub group: Option<&'a str>,
    /// The groups to test on; where there are none, scores are of the folds.
    pub held_out: &'a [String],
    pub method: &'a dyn Fit,
    pub plan: ValidationPlan,
}

/// Rows of activations: how they were read, and which of them are used.
#[derive(Clone, Copy)]
pub struct Read<'a> {
    pub header: &'a Header,
    pub tokens: &'a Selector,
    pub sites: &'a [Site],
    /// The rows to use.
    pub chosen: &'a [usize],
}

/// The dialogues that rows were read from.
pub struct Rows<'a> {
    pub read: Read<'a>,
    /// Number of the dialogue of every row.
    pub example: &'a [usize],
    pub dialogues: &'a [Dialogue],
}

/// What a sweep has to know of the chosen rows' dialogues, which can then be let go.
pub struct Known {
    pub targets: Targets,
    /// What the users said, and how many messages there are.
    texts: Vec<String>,
    messages: Vec<usize>,
}

impl<'a> Rows<'a> {
    fn dialogues(&self) -> impl Iterator<Item = &'a Dialogue> + Clone + use<'a> {
        let (example, dialogues) = (self.example, self.dialogues);
        self.read.chosen.iter().map(move |&row| &dialogues[example[row]])
    }

    /// What is true of the chosen rows.
    pub fn targets(&self, question: &Question) -> Result<Targets> {
        let values = |name: &str| labels(self.dialogues(), name);
        let order: Vec<&str> = question.order.iter().map(String::as_str).collect();
        let groups = match question.group {
            Some(group) => values(group)?,
            None => self.read.chosen.iter().map(|&row| self.example[row].to_string()).collect(),
        };
        match question.kind {
            TargetKind::Multiclass => Targets::new(&values(question.label)?, &groups, &order),
            TargetKind::Ordinal => Targets::ordinal(&values(question.label)?, &groups, &order),
            TargetKind::Multilabel => Targets::multilabel(&lists(self.dialogues(), question.label)?, &groups, &order),
        }
    }

    /// What is true of the chosen rows, and what was said in them.
    pub fn known(&self, question: &Question) -> Result<Known> {
        Ok(Known {
            targets: self.targets(question)?,
            texts: self.dialogues().map(Dialogue::user_text).collect(),
            messages: self.dialogues().map(|dialogue| dialogue.messages.len()).collect(),
        })
    }
}

impl Read<'_> {
    /// The chosen rows' examples at a site, of all rows' activations there.
    pub fn examples(
        &self,
        site: Site,
        label: &str,
        values: Array2<f32>,
        targets: &Targets,
    ) -> Result<Examples> {
        let source = Provenance {
            site,
            tokens: self.tokens.clone(),
            label: label.into(),
            model: self.header.model.clone(),
            model_hash: self.header.model_hash.clone(),
            data_hash: self.header.data_hash.clone(),
        };
        let all = self.chosen.len() == values.nrows() && self.chosen.iter().copied().eq(0..values.nrows());
        let values = if all { values } else { values.select(Axis(0), self.chosen) };
        Examples::new(source, values, targets.clone())
    }
}

/// Fits a probe at every site of `rows`, each given by `read` (all rows, `[rows, width]`) and let go before the next.
/// `tell` hears how many sites are done, and stops by giving false.
pub fn sweep(
    question: &Question,
    rows: Read,
    known: &Known,
    read: &mut dyn FnMut(Site) -> Result<Array2<f32>>,
    on_progress: &mut dyn FnMut(usize) -> bool,
) -> Result<Sweep> {
    let Known { targets, texts, messages } = known;
    let held_out: Vec<&str> = question.held_out.iter().map(String::as_str).collect();
    let split = match held_out.as_slice() {
        [] => Split::whole(targets),
        names => Split::hold_out(targets, names)?,
    };
    let on = split.scored_on();
    let (method, plan) = (question.method, &question.plan);
    let mut sites = Vec::new();
    let mut left_out = Vec::new();
    for (done, &site) in rows.sites.iter().enumerate() {
        if !on_progress(done) {
            return Err(Error::Stopped);
        }
        let examples = rows.examples(site, question.label, read(site)?, targets)?;
        // Where only the template speaks (an embedding at its last token, say), nothing can be read.
        if rows.sites.len() > 1
            && let Err(still) = examples.check_spread(&split.fit)
        {
            left_out.push(still.to_string());
            continue;
        }
        let Validated { probe, trials, .. } = probe::validate(method, examples, &split, plan)?;
        sites.push((site, Fitted { probe, trials }));
    }
    on_progress(rows.sites.len());
    let scores = sites.iter().map(|(_, fitted)| figure(fitted, "auroc", "validation").map(|f| f.value));
    let scores = scores.collect::<Result<Vec<f64>>>()?;
    let Some(best) = (0..scores.len()).rev().max_by(|&a, &b| scores[a].total_cmp(&scores[b])) else {
        let found = left_out.first().cloned().unwrap_or_else(|| "no site".into());
        return Err(Error::input(
            format!("probe of {}", question.label),
            found,
            "a site that tells rows apart",
        ));
    };
    let plain = targets.unordered();
    let baseline = ngram_baseline::ngram(texts, &plain, &split, plan, &ngram_baseline::NgramOptions::default())?;
    let baseline = baseline.scores.into_iter().find(|score| score.name == "auroc" && score.split == on);
    let baseline = baseline
        .ok_or_else(|| Error::input("n-gram baseline", format!("no AUROC on {on}"), "two classes there"))?;
    let (site, Fitted { probe, .. }) = &sites[best];
    let (site, source, width) = (*site, probe.source.clone(), probe.weight.ncols());
    let length = controls::lengths(&Logistic::default(), (&source, &plain), (texts, messages), &split, plan)?;
    let random = controls::random(method, (&source, targets), width, &split, plan)?;
    let mut again = || rows.examples(site, question.label, read(site)?, targets);
    let shuffled = controls::shuffled(method, &mut again, &split, plan, SHUFFLES)?;
    Ok(Sweep {
        label: question.label.into(),
        sites,
        best,
        ngram: Metric { name: "ngram/auroc".into(), ..baseline },
        shuffled,
        random,
        length,
        split: match (question.group, on) {
            (Some(group), "test") => format!("{group} held out"),
            (Some(group), _) => format!("folds by {group}"),
            (None, _) => "folds".into(),
        },
        on,
        left_out,
    })
}

/// The values of a label, one a dialogue.
///
/// # Errors
/// If some dialogues lack it: how many, and the first.
pub fn labels<'a>(dialogues: impl Iterator<Item = &'a Dialogue>, name: &str) -> Result<Vec<String>> {
    let (mut values, mut lacking, mut first) = (Vec::new(), 0, None);
    for dialogue in dialogues {
        match dialogue.label(name) {
            Some(value) => values.push(value),
            None => {
                lacking += 1;
                first = first.or(Some(&dialogue.id));
            }
        }
    }
    match first {
        None => Ok(values),
        Some(first) => {
            let found = format!(
                "missing on {lacking} of {} dialogues ({first} is the first)",
                values.len() + lacking
            );
            Err(Error::input(
                format!("label {name}"),
                found,
                "one on every dialogue; leave out those without",
            ))
        }
    }
}

/// The values of a label that may be a list, a list a dialogue.
///
/// # Errors
/// As [`labels`].
pub fn lists<'a>(
    dialogues: impl Iterator<Item = &'a Dialogue> + Clone,
    name: &str,
) -> Result<Vec<Vec<String>>> {
    labels(dialogues.clone(), name)?;
    Ok(dialogues.map(|dialogue| dialogue.values(name).unwrap_or_default()).collect())
}

/// A label's value.
pub fn label(dialogue: &Dialogue, name: &str) -> Result<String> {
    let missing = || {
        Error::input(format!("dialogue {}", dialogue.id), format!("no label {name}"), "one on every dialogue")
    };
    dialogue.label(name).ok_or_else(missing)
}
