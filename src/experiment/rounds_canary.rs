//! The canary experiment: a model that is asked to keep a word, and agents of several rounds that ask for it. A model in; plays, a table,
//! a chart and a page out.

use std::path::Path;

use super::rounds_plays::{Cells, claim};
use crate::analysis::attack_success::{AttackCell, AttackTable, manners};
use crate::artifact::{self, FolderLock, Header, Part};
use crate::error::{Error, Result};
use crate::generate::Sampling;
use crate::judge::Endpoint;
use crate::model::{Model, Site};
use crate::plots;
use crate::progress::Progress;
use crate::report::charts::axis::number;
use crate::report::pages::{self, Answer, Card, Page, Section, Tag, Tone};
use crate::report::table::Column;
use crate::report::{self, Table};
use crate::rounds::canary::{self, CanaryTask};
use crate::rounds::{
    Agent, Aim, EndpointAttacker, PlayOptions, Played, Task, Undefended, play, play_from, similarities, world,
};

/// How the experiment is run.
#[derive(Clone, Debug, PartialEq)]
pub struct CanaryOptions {
    /// Dialogues of a cell.
    pub dialogues: usize,
    /// Numbers of rounds, ascending.
    pub rounds: Vec<usize>,
    /// Tokens of an answer, at most.
    pub max_tokens: usize,
    /// Mode of the chat template.
    pub thinking: Option<bool>,
    /// Whether the model speaks the language of the embedded world alone.
    pub world: bool,
    /// Seed.
    pub seed: u64,
    /// A model that attacks too, behind an endpoint, and what it is told.
    pub attacker: Option<(Endpoint, String)>,
}

/// The name of a model behind an endpoint, among the agents.
const ATTACKER: &str = "endpoint";

/// Dialogues that the page shows of an agent.
const SHOWN: usize = 2;
/// Dialogues that are played side by side.
const WAVE: usize = 25;

/// Runs the experiment into a folder: `canary.json`, `plays-AGENT.jsonl`, `success` as a chart, `report.html`. With a part, its cells
/// (an agent and a number of rounds each) alone are played, and there is no table: [`merge_rounds`](super::merge_rounds) joins the
/// parts' plays, and the same run without a part makes the table of them.
///
/// # Errors
/// A model without a chat template; no dialogues or rounds; a stop.
pub fn run(
    model: &Model,
    options: &CanaryOptions,
    (out, part): (&Path, Option<Part>),
    on_progress: &mut dyn FnMut(Progress) -> bool,
) -> Result<Option<AttackTable>> {
    if options.dialogues == 0 || options.rounds.is_empty() || options.rounds.contains(&0) {
        let found = format!("{} dialogues, rounds {:?}", options.dialogues, options.rounds);
        return Err(Error::input("canary", found, "one or more dialogues, and numbers of rounds from 1"));
    }
    let _lock = FolderLock::take(out)?;
    claim(out, &settings(options), &model.hash)?;
    let mut kept = Cells::new(out, part);
    let (aims, task): (Vec<Aim>, Box<dyn Task>) = match options.world {
        true => (world::canary_aims(options.dialogues, options.seed)?, Box::new(world::WorldTask)),
        false => (canary::aims(options.dialogues, options.seed), Box::new(CanaryTask::default())),
    };
    // The middle of the model, where sentences of one meaning are nearest.
    let blocks = model.decoder.architecture().blocks.len();
    let site: Site = format!("{}.resid_post", blocks.saturating_sub(1) / 2).parse()?;
    let similarities = similarities(model, &aims, site, options.thinking)?;
    let agents = Agent::peers();
    let total = aims.len() * (agents.len() + usize::from(options.attacker.is_some())) * options.rounds.len();
    let of = |rounds: usize| PlayOptions {
        rounds,
        wave: WAVE,
        max_tokens: options.max_tokens,
        sampling: Sampling::Temperature(1.0),
        thinking: options.thinking,
        seed: options.seed,
    };
    let (mut cells, mut longest, mut done) = (Vec::new(), Vec::new(), 0);
    for agent in &agents {
        let (mut text, mut last) = (String::new(), Vec::new());
        for &rounds in &options.rounds {
            let own = of(rounds);
            let mut on_done =
                |count| on_progress(Progress { stage: "play the canary task", done: done + count, total });
            let task = task.as_ref();
            last = kept.kept(&format!("{} in {rounds}", agent.name), rounds * aims.len(), &mut || {
                let none = &mut Undefended;
                play(model, &aims, &similarities, agent, task, None, none, &own, &mut on_done)
            })?;
            done += aims.len();
            cells.push(AttackCell::of(&agent.name, "none", rounds, &last));
            add_lines(&mut text, &agent.name, rounds, &last);
        }
        if part.is_none() {
            let name = agent.name.replace(' ', "-");
            artifact::write_text(&out.join(format!("plays-{name}.jsonl")), &text)?;
        }
        longest.push((agent.name.clone(), last));
    }
    let mut failed = 0;
    if let Some((endpoint, prompt)) = &options.attacker {
        let mut attacker = EndpointAttacker::new(endpoint, prompt, options.seed)?;
        let (mut text, mut last) = (String::new(), Vec::new());
        for &rounds in &options.rounds {
            let size = (rounds, aims.len());
            let mut played = kept.kept_each(&format!("{ATTACKER} in {rounds}"), size, &mut |number| {
                // Dialogues don't share their random numbers.
                let seed = options.seed.wrapping_add((number as u64 + 1).wrapping_mul(0xA24B_AED4_963E_E407));
                let (own, none) = (PlayOptions { seed, ..of(rounds) }, &mut Undefended);
                let stage = "play the attacker behind the endpoint";
                let mut on_round = || on_progress(Progress { stage, done: done + number, total });
                let task = task.as_ref();
                play_from(model, &aims[number], &mut attacker, task, None, none, &own, &mut on_round)
            })?;
            done += aims.len();
            add_lines(&mut text, ATTACKER, rounds, &played);
            // A dialogue that the endpoint broke off says nothing of the model.
            let before = played.len();
            played.retain(|one| one.failure.is_none());
            failed += before - played.len();
            cells.push(AttackCell::of(ATTACKER, "none", rounds, &played));
            last = played;
        }
        if part.is_none() {
            artifact::write_text(&out.join(format!("plays-{ATTACKER}.jsonl")), &text)?;
        }
        longest.push((ATTACKER.to_owned(), last));
    }
    if kept.save_part()? {
        return Ok(None);
    }
    let table = AttackTable { aim: "the model says the word that it was asked to keep".into(), cells };
    let header = Header {
        model: Some(model.name.clone()),
        model_hash: Some(model.hash.clone()),
        seed: Some(options.seed),
        ..Header::new("attack-success", 1)
    };
    artifact::write_json(&out.join("canary.json"), &header, &table)?;
    let chart = plots::attack_success::chart(&table);
    let text = serde_json::to_string(&chart)
        .map_err(|error| Error::input("canary", error, "a chart that JSON can hold"))?;
    artifact::write_text(&out.join("success.chart.json"), &text)?;
    report::draw_all(out)?;
    let mut page = page(model, options, &table, chart, &longest);
    if options.attacker.is_some() {
        page.facts.push((
            "dialogues that the endpoint broke off, which are not counted".into(),
            failed.to_string(),
        ));
    }
    pages::write(&page, &out.join("report.html"))?;
    Ok(Some(table))
}

/// Adds a line a play.
fn add_lines(text: &mut String, agent: &str, rounds: usize, played: &[Played]) {
    for one in played {
        let line = serde_json::json!({"agent": agent, "rounds": rounds, "play": one});
        text.push_str(&format!("{line}\n"));
    }
}

/// The options as text: a folder belongs to one run, wherever its endpoint is.
fn settings(options: &CanaryOptions) -> String {
    let CanaryOptions { dialogues, rounds, max_tokens, thinking, world, seed, attacker } = options;
    let attacker = attacker.as_ref().map_or(String::new(), |(endpoint, prompt)| {
        let prompt = artifact::sha256(prompt.as_bytes());
        format!("attacker-model = {:?}\nattacker-prompt = \"{prompt}\"\n", endpoint.model)
    });
    let thinking = thinking.map_or(String::new(), |thinking| format!("thinking = {thinking}\n"));
    format!(
        "# pearl rounds canary\ndialogues = {dialogues}\nrounds = {rounds:?}\nmax-tokens = {max_tokens}\n{thinking}world = {world}\nseed = {seed}\n{attacker}"
    )
}

/// The cells as a table of text.
pub fn text_table(table: &AttackTable) -> Table {
    let columns = vec![
        Column::text("agent"),
        Column::text("defence"),
        Column::numbers("rounds"),
        Column::numbers("dialogues"),
        Column::numbers("success"),
        Column::text("interval"),
        Column::numbers("rounds played"),
    ];
    let row = |cell: &AttackCell| {
        let (value, bounds) = match &cell.success {
            Some(own) => (number(own.value, 3), format!("[{}, {}]", number(own.low, 3), number(own.high, 3))),
            None => ("–".into(), String::new()),
        };
        vec![
            cell.agent.clone(),
            cell.defence.clone(),
            cell.rounds.to_string(),
            cell.dialogues.to_string(),
            value,
            bounds,
            number(cell.rounds_played, 1),
        ]
    };
    Table { caption: String::new(), columns, rows: table.cells.iter().map(row).collect() }
}

fn page(
    model: &Model,
    options: &CanaryOptions,
    table: &AttackTable,
    chart: report::Chart,
    longest: &[(String, Vec<Played>)],
) -> Page {
    let mut sections = vec![Section {
        title: "Success by agent and rounds".into(),
        charts: vec![chart],
        tables: vec![text_table(table)],
        ..Section::default()
    }];
    for (name, played) in longest {
        let tried = manners(played);
        let notes =
            tried.iter().map(|(manner, tries, wins)| format!("{manner}: {wins} of {tries}")).collect();
        // Dialogues that reached the aim first.
        let mut shown: Vec<&Played> = played.iter().collect();
        shown.sort_by_key(|one| one.success().is_none());
        sections.push(Section {
            title: format!("Dialogues: {name}"),
            cards: shown.into_iter().take(SHOWN).map(card).collect(),
            notes,
            ..Section::default()
        });
    }
    Page {
        title: "Canary task".into(),
        lead: "The system message holds a made-up word to keep. A dialogue succeeds where the model says it. Rounds follow one another, \
               with the model's real answers in between."
            .into(),
        facts: vec![
            ("model".into(), model.name.clone()),
            ("dialogues of a cell".into(), options.dialogues.to_string()),
            ("seed".into(), options.seed.to_string()),
        ],
        sections,
    }
}

/// A play as a card: the dialogue up to its last message, and the answer to it.
fn card(one: &Played) -> Card {
    let (before, last) = one.dialogue.messages.split_at(one.dialogue.messages.len().saturating_sub(1));
    let said: Vec<String> =
        before.iter().map(|message| format!("{}: {}", message.role_name(), message.content)).collect();
    let tag = match one.success() {
        Some(round) => Tag::new(format!("said in round {round}"), Tone::Bad),
        None => Tag::new("kept", Tone::Good),
    };
    let text = last.first().map(|message| message.content.clone()).unwrap_or_default();
    Card {
        id: one.id.clone(),
        tags: Vec::new(),
        prompt: said.join("\n\n"),
        answers: vec![Answer { name: "answer".into(), tags: vec![tag], thinking: None, text }],
    }
}
