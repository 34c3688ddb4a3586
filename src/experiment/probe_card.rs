//! The runner of a probe folder: `probe.toml` says what is fitted; weights, scores, a card and the model's answers are
//! written beside it.

use std::path::Path;

use crate::analysis::layer_sweep::{self, Sweep};
use crate::analysis::probe_card::{self, Fitted};
use crate::artifact::{self, FolderLock};
use crate::config::ProbeFile;
use crate::error::Result;
use crate::judge;
use crate::model::Model;
use crate::progress::Progress;
use crate::report::Table;
use crate::stats::Metric;

/// The probe's weights.
pub const WEIGHTS: &str = "probe.safetensors";
/// Its scores.
pub const SCORES: &str = "scores.json";
/// Its card.
pub const CARD: &str = "card.md";
/// The model's answers with their scores, where the label is their outcome.
pub const ANSWERS: &str = "answers.jsonl";

/// Fits the folder's probe, and writes its files. `on_progress` stops the work by giving false.
///
/// # Errors
/// As [`probe_card::fit`]; the folder's files are then as they were.
pub fn fit(
    file: &ProbeFile,
    folder: &Path,
    model: &Model,
    on_progress: &mut dyn FnMut(Progress) -> bool,
) -> Result<Sweep> {
    let _lock = FolderLock::take(folder)?;
    let judge = judge::of_file(file.judge.as_deref(), &file.judge_options(), &model.name)?;
    judge.check_model(Some(model))?;
    let fitted = probe_card::fit(file, model, judge.as_ref(), on_progress)?;
    let card = card(file, &fitted)?;
    if let Some(answers) = &fitted.answers {
        artifact::write_text(&folder.join(ANSWERS), &answers.to_jsonl()?)?;
    }
    fitted.sweep.best().1.probe.save(&folder.join(WEIGHTS))?;
    artifact::write_json(&folder.join(SCORES), &fitted.header, &fitted.scores)?;
    artifact::write_text(&folder.join(CARD), &card)?;
    Ok(fitted.sweep)
}

/// The card, in Markdown.
fn card(file: &ProbeFile, fitted: &Fitted) -> Result<String> {
    let Fitted { sweep, scores, source, header, .. } = fitted;
    let (site, best) = sweep.best();
    let probe = &best.probe;
    let own = layer_sweep::figure(best, "auroc", sweep.on)?;
    let main: Vec<Metric> =
        scores.figures.iter().filter(|figure| !figure.name.contains("resid")).cloned().collect();
    let sites: Vec<Metric> =
        scores.figures.iter().filter(|figure| figure.name.contains("resid")).cloned().collect();
    let rows: Vec<String> = scores.rows.iter().map(|(class, count)| format!("{class} {count}")).collect();
    let model = header.model_hash.as_deref().map_or("", artifact::short);
    let truth = match &file.answers {
        Some(answers) => {
            let how = match answers.temperature {
                Some(temperature) => format!("drawn at temperature {temperature}"),
                None => "decoded greedily".into(),
            };
            format!("how the model itself answers, {how}; {} broken answers are left out", scores.broken)
        }
        None => "the dialogues' own".into(),
    };
    let mut text = format!(
        "# {}\n\n{}\n\n- read: {site}, at `{}`, of {} (weights {model})\n- label: {truth}; rows: {}\n- data: {source}\n- split: {}: {}\n- \
         method: {}, strength {} of {} chosen by {} folds inside the fit part; {}, link {}\n\nAUROC {:.3} [{:.3}, {:.3}] on {} rows that \
         neither fit nor choice saw.\n\n```\n{}```\n\nEvery site:\n\n```\n{}```\n",
        file.label,
        file.about,
        file.tokens,
        header.model.as_deref().unwrap_or("a model"),
        rows.join(", "),
        sweep.split,
        probe.held_out.join(", "),
        probe.method,
        probe.strength,
        best.trials.iter().map(|trial| trial.strength.to_string()).collect::<Vec<_>>().join(", "),
        file.folds,
        format_args!("calibrated by {}", probe.calibration.name()),
        probe.link.name(),
        own.value,
        own.low.unwrap_or(own.value),
        own.high.unwrap_or(own.value),
        own.n,
        Table::of_figures("", &main).to_text()?,
        Table::of_figures("", &sites).to_text()?,
    );
    for doubt in &scores.doubts {
        text += &format!("\n**Doubt:** {doubt}.\n");
    }
    Ok(text)
}
