//! The layer sweep: a probe fitted at every site and tested on held-out groups, beside its controls.

use ndarray::{Array2, Axis};

use super::control_text::control_text;
use super::dataset::{labels, lists};
use super::held_out::{HeldOut, on_held_out};
use crate::artifact::Header;
use crate::config::defaults::SHUFFLES;
use crate::dialogue::Dialogue;
use crate::error::{Error, Result};
use crate::model::{Selector, Site};
use serde::{Deserialize, Serialize};

use crate::probe::{
    self, Examples, Fit, Logistic, Probe, Provenance, Split, StrengthScore, TargetKind, Targets,
    TextBaseline, Validated, ValidationPlan, controls, ngram_baseline, ngram_baseline::NgramOptions, tfidf,
    word_pairs,
};
use crate::stats::{Linearised, Metric, Units};

/// A probe's sweep over sites, with its controls.
pub struct Sweep {
    /// The label that the probes read.
    pub label: String,
    /// One a site, in the order of the forward pass.
    pub sites: Vec<(Site, Fitted)>,
    /// Index of the best site, by the AUROC of the folds inside the fit part.
    pub best: usize,
    /// Word-and-bigram baseline on the same split.
    pub ngram: Metric,
    /// Words, word bigrams and characters, weighted by inverse document frequency.
    pub tfidf: Metric,
    /// Words and pairs of words of one text: what an exclusive-or of words gives away.
    pub pairs: Metric,
    /// The best site's pipeline on shuffled labels.
    pub shuffled: Metric,
    /// The best site's pipeline on random features of as many columns.
    pub random: Metric,
    /// The pipeline on the texts' lengths.
    pub length: Metric,
    /// The best site's AUROC less that of each control on texts, paired by row: `difference/ngram` and so on.
    pub differences: Vec<Metric>,
    /// What is to be doubted of the choices: a strength at the edge of its grid, a site chosen on the part that scores are on.
    pub choices: Vec<String>,
    /// The part that scores are on, for readers: "topic held out".
    pub split: String,
    /// The label that rows are grouped by.
    pub group: Option<String>,
    /// The same part's name in the scores.
    pub on: &'static str,
    /// Sites that no probe can be fitted at, and why.
    pub left_out: Vec<String>,
    /// The best site's probe on the rows that were held out, for pictures; none where scores are out of fold.
    pub held_out: Option<HeldOut>,
}

/// What is kept of a site; its activations are dropped.
pub struct Fitted {
    /// The probe, with its scores.
    pub probe: Probe,
    /// The strengths that were tried.
    pub trials: Vec<StrengthScore>,
    /// AUROC on the part that scores are on, for paired differences.
    area: Option<Linearised>,
}

/// AUROC by site, beside the controls: the table of a plot.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SweepTable {
    /// The label that the probes read.
    pub label: String,
    /// The part that scores are on.
    pub split: String,
    /// AUROC at each site, in the order of the forward pass.
    pub sites: Vec<(Site, Metric)>,
    /// AUROC of words and bigrams.
    pub ngram: f64,
    /// AUROC of words and characters by TF-IDF.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tfidf: Option<f64>,
    /// AUROC on shuffled labels.
    pub shuffled: f64,
    /// AUROC of every control, with its interval: `ngram/auroc` and so on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub controls: Vec<Metric>,
}

impl Sweep {
    /// The controls that a probe has to beat.
    pub fn controls(&self) -> [&Metric; 6] {
        [&self.ngram, &self.tfidf, &self.pairs, &self.length, &self.shuffled, &self.random]
    }

    /// All scores of the best site.
    pub fn best_figures(&self) -> Vec<Metric> {
        self.best().1.probe.scores.iter().filter(|score| score.split == self.on).cloned().collect()
    }

    /// One line for each control that the best site does not clearly beat (the interval of the paired difference reaches 0; for
    /// shuffled labels and random features, the control reaches the probe's own interval), and for each choice to doubt.
    ///
    /// # Errors
    /// If the best site has no AUROC.
    pub fn doubts(&self) -> Result<Vec<String>> {
        let own = figure(self.best().1, "auroc", self.on)?;
        let low = own.low.unwrap_or(own.value);
        let paired =
            self.differences.iter().filter(|difference| difference.low.is_some_and(|low| low <= 0.0));
        let paired = paired.map(|difference| {
            let control = difference.name.trim_start_matches("difference/");
            format!(
                "the probe's AUROC of {:.3} less that of {control} is {:.3} [{:.3}, {:.3}] on the same rows: this probe of {} need not \
                 have found more than that",
                own.value,
                difference.value,
                difference.low.unwrap_or(difference.value),
                difference.high.unwrap_or(difference.value),
                self.label
            )
        });
        let is_paired = |control: &Metric| {
            let name = control.name.trim_end_matches("/auroc");
            self.differences.iter().any(|difference| difference.name.ends_with(name))
        };
        let near = self.controls().into_iter().filter(|control| !is_paired(control) && control.value >= low);
        let near = near.map(|control| {
            let high = own.high.unwrap_or(own.value);
            format!(
                "{} is {:.3}, within the probe's own interval [{low:.3}, {high:.3}] or above it: this probe of {} need not have found more than that",
                control.name, control.value, self.label
            )
        });
        Ok(paired.chain(near).chain(self.choices.iter().cloned()).collect())
    }

    /// AUROC by site, beside the controls.
    ///
    /// # Errors
    /// If a site has no AUROC.
    pub fn table(&self) -> Result<SweepTable> {
        let row = |(site, fitted): &(Site, Fitted)| Ok((*site, figure(fitted, "auroc", self.on)?.clone()));
        Ok(SweepTable {
            label: self.label.clone(),
            split: self.split.clone(),
            sites: self.sites.iter().map(row).collect::<Result<_>>()?,
            ngram: self.ngram.value,
            tfidf: Some(self.tfidf.value),
            shuffled: self.shuffled.value,
            controls: self.controls().into_iter().cloned().collect(),
        })
    }

    /// The sweep's metrics under their names in a run's results: `probe/LABEL/…`, the best site's scores and controls
    /// first, then the AUROC at each site.
    ///
    /// # Errors
    /// If a site has no AUROC.
    pub fn metrics(&self) -> Result<Vec<Metric>> {
        let named = |figure: &Metric, what: &str| Metric {
            name: format!("probe/{}/{what}", self.label),
            split: self.split.clone(),
            ..figure.clone()
        };
        let mut metrics: Vec<Metric> =
            self.best_figures().iter().map(|score| named(score, &score.name)).collect();
        let beside = self.controls().into_iter().chain(&self.differences);
        metrics.extend(beside.map(|control| named(control, &control.name)));
        for (site, fitted) in &self.sites {
            metrics.push(named(figure(fitted, "auroc", self.on)?, &format!("{site}/auroc")));
        }
        Ok(metrics)
    }

    /// Those of the dialogues with these numbers whose group the probes held out.
    pub fn unseen(&self, numbers: &[usize], dialogues: &[Dialogue]) -> Vec<usize> {
        let held_out = &self.best().1.probe.held_out;
        let group = |number: usize| dialogues[number].label(self.group.as_ref()?);
        let is_unseen = |number: &usize| group(*number).is_some_and(|group| held_out.contains(&group));
        numbers.iter().copied().filter(is_unseen).collect()
    }

    /// The best site and its fit.
    pub fn best(&self) -> (Site, &Fitted) {
        let (site, fitted) = &self.sites[self.best];
        (*site, fitted)
    }

    /// The fit at one site.
    ///
    /// # Errors
    /// If none was fitted there.
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

/// A line for each choice that makes the scores less certain than their intervals say.
fn doubtful_choices(sites: &[(Site, Fitted)], best: usize, on: &str, units: &Units) -> Vec<String> {
    let mut lines = Vec::new();
    let (site, Fitted { probe, trials, .. }) = &sites[best];
    let ends = [trials.first(), trials.last()].map(|end| end.map(|end| end.strength));
    if trials.len() > 1 && ends.contains(&Some(probe.strength)) {
        let end = if ends[0] == Some(probe.strength) { "least" } else { "greatest" };
        lines.push(format!(
            "the strength {} at {site} is the {end} of {} tried: a better one may lie beyond",
            probe.strength,
            trials.len()
        ));
    }
    if on == "validation" && sites.len() > 1 {
        lines.push(format!(
            "{site} is the best of {} sites by the score that is shown, which is too high by the choice: hold groups out to test it",
            sites.len()
        ));
    }
    if on == "test" && units.is_one_group() {
        lines.push(
            "one group is held out: the intervals are about its rows, and say nothing of other groups".into(),
        );
    }
    lines
}

/// A score of a fitted probe.
///
/// # Errors
/// If it has none of that name on that split.
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

/// What a sweep fits and how it is tested.
pub struct Question<'a> {
    /// The label that the probes read.
    pub label: &'a str,
    /// Target type.
    pub kind: TargetKind,
    /// The classes in order; sorted by name where none are given.
    pub order: &'a [String],
    /// The label to group by; without one each dialogue is a group of its own.
    pub group: Option<&'a str>,
    /// The groups to test on; where there are none, scores are of the folds.
    pub held_out: &'a [String],
    /// The probe's method.
    pub method: &'a dyn Fit,
    /// Folds, resamples and seed.
    pub plan: ValidationPlan,
}

/// Rows of activations: how they were read, and which of them are used.
#[derive(Clone, Copy)]
pub struct Read<'a> {
    /// The activations' provenance.
    pub header: &'a Header,
    /// Tokens that were read.
    pub tokens: &'a Selector,
    /// Sites to fit at.
    pub sites: &'a [Site],
    /// The rows to use.
    pub chosen: &'a [usize],
}

/// Rows of activations with the dialogues that they were read from.
pub struct Rows<'a> {
    /// The rows.
    pub read: Read<'a>,
    /// Number of the dialogue of every row.
    pub example: &'a [usize],
    /// The dialogues.
    pub dialogues: &'a [Dialogue],
}

/// What a sweep needs of the chosen rows' dialogues, which can then be dropped.
pub struct Known {
    /// Labels and groups.
    pub targets: Targets,
    /// The texts that the picked tokens belong to, for the baselines on texts.
    pub(super) texts: Vec<String>,
    /// Numbers of messages, for the length control.
    pub(super) messages: Vec<usize>,
}

impl<'a> Rows<'a> {
    fn dialogues(&self) -> impl Iterator<Item = &'a Dialogue> + Clone + use<'a> {
        let (example, dialogues) = (self.example, self.dialogues);
        self.read.chosen.iter().map(move |&row| &dialogues[example[row]])
    }

    /// Labels and groups of the chosen rows.
    ///
    /// # Errors
    /// A dialogue without one of the labels, or a class that is not in the order given.
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
            TargetKind::Multilabel => {
                Targets::multilabel(&lists(self.dialogues(), question.label)?, &groups, &order)
            }
        }
    }

    /// What the controls on texts read of each chosen row; whole dialogues where the tokens belong to no text.
    fn texts(&self) -> Vec<String> {
        let mut places = Vec::with_capacity(self.example.len());
        for of_one in self.example.chunk_by(|a, b| a == b) {
            places.extend(0..of_one.len());
        }
        let text = |selector: &Selector| -> Vec<String> {
            let rows = self.read.chosen.iter().zip(self.dialogues());
            rows.map(|(&row, dialogue)| control_text(dialogue, selector, places[row])).collect()
        };
        let texts = text(self.read.tokens);
        match texts.iter().all(String::is_empty) {
            true => text(&Selector::All),
            false => texts,
        }
    }

    /// Labels, groups and texts of the chosen rows.
    ///
    /// # Errors
    /// As [`Rows::targets`].
    pub fn known(&self, question: &Question) -> Result<Known> {
        Ok(Known {
            targets: self.targets(question)?,
            texts: self.texts(),
            messages: self.dialogues().map(|dialogue| dialogue.messages.len()).collect(),
        })
    }
}

impl Read<'_> {
    /// The chosen rows' examples at a site; `values` are all rows' activations there, `[rows, width]`.
    ///
    /// # Errors
    /// If `values` and `targets` do not fit together.
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
            model_form: self.header.model_form.clone(),
            data_hash: self.header.data_hash.clone(),
        };
        let all = self.chosen.len() == values.nrows() && self.chosen.iter().copied().eq(0..values.nrows());
        let values = if all { values } else { values.select(Axis(0), self.chosen) };
        Examples::new(source, values, targets.clone())
    }
}

/// Fits a probe at every site of `rows`. `read` gives a site's activations, `[rows, width]`, which are dropped before the
/// next site's. `on_progress` gets the number of sites done, and stops the sweep by giving false.
///
/// # Errors
/// If no site has activations that differ, a part lacks a class, or a stop.
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
        // Activations of a template token do not differ at some sites, such as the embedding: nothing can be fitted there.
        if rows.sites.len() > 1
            && let Err(still) = examples.check_spread(&split.fit)
        {
            left_out.push(still.to_string());
            continue;
        }
        let validated = probe::validate(method, examples, &split, plan)?;
        let area = validated.area(targets);
        let Validated { probe, trials, .. } = validated;
        sites.push((site, Fitted { probe, trials, area }));
    }
    on_progress(rows.sites.len());
    let scores = sites.iter().map(|(_, fitted)| figure(fitted, "auroc", "validation").map(|f| f.value));
    let scores = scores.collect::<Result<Vec<f64>>>()?;
    let Some(best) = (0..scores.len()).rev().max_by(|&a, &b| scores[a].total_cmp(&scores[b])) else {
        let found = left_out.first().cloned().unwrap_or_else(|| "no site".into());
        return Err(Error::input(
            format!("probe of {}", question.label),
            found,
            "a site at which rows differ",
        ));
    };
    let plain = targets.unordered();
    let ngram = ngram_baseline::ngram(texts, &plain, &split, plan, &NgramOptions::default())?;
    let texts_only = [
        ("ngram", ngram),
        ("tfidf", tfidf(texts, &plain, &split, plan)?),
        ("pairs", word_pairs(texts, &plain, &split, plan)?),
    ];
    let mut areas = Vec::new();
    let mut control = |(name, baseline): (&'static str, TextBaseline)| {
        areas.push((name, baseline.area));
        let area = baseline.scores.into_iter().find(|score| score.name == "auroc" && score.split == on);
        let area = area.map(|area| Metric { name: format!("{name}/auroc"), ..area });
        area.ok_or_else(|| {
            Error::input(format!("{name} baseline"), format!("no AUROC on {on}"), "two classes there")
        })
    };
    let [ngram, tfidf, pairs] = texts_only.map(&mut control);
    let (site, Fitted { probe, .. }) = &sites[best];
    let (site, source, width) = (*site, probe.source.clone(), probe.weight.ncols());
    let (length, length_area) =
        controls::lengths(&Logistic::default(), (&source, &plain), (texts, messages), &split, plan)?;
    areas.push(("length", length_area));
    let scored = targets.select(if on == "test" { &split.test } else { &split.fit });
    let units = probe::units(&scored, plan);
    let differences = areas.iter().filter_map(|(name, area)| {
        let difference = sites[best].1.area.as_ref()?.minus(area.as_ref()?, &units);
        Some(Metric::new(format!("difference/{name}"), difference, scored.rows(), on))
    });
    let differences = differences.collect();
    let choices = doubtful_choices(&sites, best, on, &units);
    let random = controls::random(method, (&source, targets), width, &split, plan)?;
    let mut reread = || rows.examples(site, question.label, read(site)?, targets);
    let shuffled = controls::shuffled(method, &mut reread, &split, plan, SHUFFLES)?;
    let split_name = match (question.group, on) {
        (Some(group), "test") => format!("{group} held out"),
        (Some(group), _) => format!("folds by {group}"),
        (None, _) => "folds".into(),
    };
    let held_out = match on {
        "test" => on_held_out(&sites[best].1.probe, &reread()?, &split, &split_name)?,
        _ => None,
    };
    Ok(Sweep {
        label: question.label.into(),
        sites,
        best,
        ngram: ngram?,
        tfidf: tfidf?,
        pairs: pairs?,
        differences,
        choices,
        shuffled,
        random,
        length,
        group: question.group.map(str::to_owned),
        split: split_name,
        on,
        left_out,
        held_out,
    })
}
