//! Card of a policy: what it reads, believes, plays and steers, with scores and doubts, as Markdown.

use std::fmt::Write;

use super::policy::Policy;
use crate::config::StrategySpec;
use crate::error::Result;
use crate::game::changes;
use crate::printable::one_line;
use crate::probe::Probe;
use crate::stats::Metric;

/// Longest name on the card.
const LONGEST: usize = 120;

/// The card.
pub(super) fn card(policy: &Policy) -> Result<String> {
    let settings = &policy.settings;
    let clean = |text: &str| one_line(text, LONGEST).into_owned();
    let mut text = String::from("# Constructive policy\n\n");
    let held_out: Vec<String> =
        settings.held_out.iter().map(|(label, value)| clean(&format!("{label} = {value}"))).collect();
    let model = policy.header.model.as_deref().unwrap_or("unknown");
    // Writing to a string can't fail.
    let _ = writeln!(
        text,
        "Model: {}. Judge: {}. Never fitted on: {}.\n",
        clean(model),
        clean(&settings.judge),
        match held_out.is_empty() {
            true => "– (no label was held out)".into(),
            false => held_out.join(", "),
        }
    );
    let _ = writeln!(text, "## Belief\n\n{}", probe_line(&settings.label, &policy.belief));
    if let Some(risk) = &policy.risk {
        let _ = writeln!(text, "{}", probe_line(&risk.source.label, risk));
    }
    match &settings.attack_threshold {
        Some(threshold) => {
            let _ = writeln!(
                text,
                "An attack is taken as likely from a probability of {:.3} on: at most {:.0} % of {} users are missed with confidence 0.9 \
                 ({} of them on the validation part, {:.1} % missed there).",
                threshold.value,
                100.0 * threshold.risk_bound.alpha,
                clean(&settings.attack),
                threshold.n,
                100.0 * threshold.rate
            );
        }
        None => {
            text += "Doubt: too few attacks on the validation part to bound how many are missed; 0.5 is taken, without a guarantee.\n"
        }
    }
    text += "\n## Game\n\n";
    let weights = policy.game.weights;
    let _ = writeln!(
        text,
        "Payoff {} · retention − {} · risk − {} · cost; `game.toml`.",
        weights.alpha, weights.beta, weights.gamma
    );
    for change in changes(&policy.game)? {
        let name = |index: usize| clean(&policy.game.types[index].name);
        let _ = writeln!(
            text,
            "- {} → {}: {} until p({}) = {:.2}, then {}",
            name(change.from),
            name(change.to),
            clean(&policy.game.actions[change.before]),
            name(change.to),
            change.at,
            clean(&policy.game.actions[change.after])
        );
    }
    text += "\n## Strategies\n\n| action | found on | from → to (rows) | site | strength | satisfaction there (0 to 1) | risk there |\n|---|---|---|---|---|---|---|\n";
    for dose in &settings.strategies {
        let pearl = dose.pearl.map_or(("–".into(), "–".into()), |pearl| {
            (
                format!("{:.2}, at least {:.2}", pearl.satisfaction, pearl.satisfaction_low),
                format!("{:.2}, at most {:.2}", pearl.risk, pearl.risk_high),
            )
        });
        let spec = &dose.spec;
        let _ = writeln!(
            text,
            "| {} | {} | {} → {} ({}, {}) | {} | {:.2}n | {} | {} |",
            clean(&spec.action),
            clean(&found_on(spec)),
            clean(&spec.from),
            clean(&spec.to),
            dose.rows[1],
            dose.rows[0],
            dose.site,
            dose.strength,
            pearl.0,
            pearl.1
        );
        if dose.pearl.is_none() {
            let _ = writeln!(
                text,
                "\nDoubt: no strength toward {} was safe within the tolerance.\n",
                clean(&spec.to)
            );
        }
        if !dose.has_face {
            let _ = writeln!(text, "\nDoubt: too few answers for a risk face toward {}.\n", clean(&spec.to));
        }
    }
    let others: Vec<String> = policy
        .game
        .actions
        .iter()
        .filter(|action| settings.strategies.iter().all(|dose| dose.spec.action != **action))
        .map(|action| clean(action))
        .collect();
    let _ = writeln!(text, "\nLeft as it is: {}.", others.join(", "));
    Ok(text)
}

/// The users, or the prompts, that a direction was found on.
fn found_on(spec: &StrategySpec) -> String {
    match &spec.contrast {
        None => spec.class.clone(),
        Some(contrast) => format!("prompts, {}: {} → {}", contrast.label, contrast.from, contrast.to),
    }
}

fn probe_line(label: &str, probe: &Probe) -> String {
    let score = |metric: &&Metric| metric.name == "auroc" && metric.split == "test";
    let score = probe.scores.iter().find(score).map_or(String::new(), |metric| {
        let bounds = metric
            .low
            .zip(metric.high)
            .map_or(String::new(), |(low, high)| format!(" [{low:.3}, {high:.3}]"));
        format!(", AUROC {:.3}{bounds} on groups held out of its fit (n = {})", metric.value, metric.n)
    });
    format!("- {} read at {} ({}){score}", one_line(label, LONGEST), probe.source.site, probe.source.tokens)
}
