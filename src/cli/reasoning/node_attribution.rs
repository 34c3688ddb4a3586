//! `pearl reasoning attribute`: what each node of a thinking part moved.

use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use super::super::console::Console;
use super::super::model::ModelChoice;
use super::super::output::{Outcome, print, print_exact};
use super::chain_records::{Format, expected_chain, with_records};
use pearlpoint::analysis::node_attribution::{
    AttributionOptions, AttributionTable, ChainCase, Decision, PartAttribution, attribute,
};
use pearlpoint::model::Site;
use pearlpoint::probe::Probe;
use pearlpoint::reasoning::places;
use pearlpoint::steer::ProbeQuery;

#[derive(Args)]
#[command(after_help = "Examples:
  pearl reasoning attribute answers.jsonl --format organism
  pearl reasoning attribute answers.jsonl --format text --probe risk.safetensors:high --json")]
pub struct Attribute {
    /// Dialogues with a thinking part each: answers of `pearl generate --json`, or records with a column of chains
    file: PathBuf,
    #[command(flatten)]
    model: ModelChoice,
    /// How chains are written
    #[arg(long, value_enum)]
    format: Format,
    /// The column of chains [default: Safety_chain, Initial_think, thinking, think, completion, response or text]
    #[arg(long)]
    column: Option<String>,
    /// Take at most this many dialogues
    #[arg(long)]
    limit: Option<usize>,
    /// The decision is the log-odds of this class at the end of the thinking part; nodes are read with the same probe
    #[arg(long, value_name = "FILE[:CLASS[/OTHER]]")]
    probe: Option<ProbeQuery>,
    /// The decision is the logit of this text's first token [default: the likeliest token behind the thinking part]
    #[arg(long, value_name = "TEXT", conflicts_with = "probe")]
    answer: Option<String>,
    /// Less the logit of this text's first token [default: the next likeliest token]
    #[arg(long, value_name = "TEXT", conflicts_with = "probe")]
    other: Option<String>,
    /// Sites to patch at, each alone [default: embed and *.resid_post, up to the probe's]
    #[arg(long)]
    sites: Option<String>,
    /// Print JSON: every node of every chain
    #[arg(long)]
    json: bool,
}

pub fn run(arguments: Attribute, console: &Console) -> anyhow::Result<Outcome> {
    let mut cases = Vec::new();
    for (dialogue, place, record) in with_records(&arguments.file, arguments.limit)? {
        let text = expected_chain(&place, &record, arguments.column.as_deref())?;
        let (thinking, places) = places(&place, &text, arguments.format.into())?;
        cases.push(ChainCase { dialogue, thinking, places });
    }
    let model = arguments.model.load(console)?;
    let architecture = model.decoder.architecture();
    let sites: Vec<Site> = match (&arguments.sites, &arguments.probe) {
        (Some(sites), _) => architecture.parse_sites(sites)?,
        (None, probe) => {
            let last = probe.as_ref().map(|query| Probe::load(&query.probe)).transpose()?;
            let mut sites = architecture.parse_sites("embed,*.resid_post")?;
            sites.retain(|site| last.as_ref().is_none_or(|probe| *site <= probe.source.site));
            sites
        }
    };
    let decision = match arguments.probe {
        Some(query) => Decision::Probe(query),
        None => Decision::Logits([arguments.answer, arguments.other]),
    };
    let options = AttributionOptions { decision, sites, thinking: arguments.model.thinking() };
    let table = attribute(&model, &cases, &options, &mut console.stages())?;
    if arguments.json {
        let mut body = serde_json::to_value(&table)?;
        (body["kind"], body["version"]) = (json!("node-attribution"), json!(1));
        print_exact(body)?;
        return Ok(Outcome::Done);
    }
    show(&table)?;
    console.say("mean over nodes of what patching takes away, and the gradient's estimate of it; 95 % intervals over chains");
    Ok(Outcome::Done)
}

/// Sites that the table shows, at most.
const SHOWN: usize = 7;

/// Some of the sites, evenly, the first and the last among them.
fn shown(count: usize) -> Vec<usize> {
    match count {
        0..=SHOWN => (0..count).collect(),
        _ => (0..SHOWN).map(|at| at * (count - 1) / (SHOWN - 1)).collect(),
    }
}

fn show(table: &AttributionTable) -> anyhow::Result<()> {
    print(format_args!("{} chains; decision: {}", table.chains.len(), table.decision))?;
    if let [chain] = table.chains.as_slice() {
        print(format_args!(
            "{}: {:.3} for {:?} against {:?}",
            chain.id, chain.decision, chain.between[0], chain.between[1]
        ))?;
        for node in &chain.nodes {
            print(format_args!("  {:<19} {}", node.part, node.text))?;
        }
    }
    let sites = shown(table.sites.len());
    let line = |name: &str, nodes: &str, reading: &str, cells: Vec<String>| {
        let cells: Vec<String> = cells.iter().map(|cell| format!("{cell:>14}")).collect();
        format!("{name:<19} {nodes:>5} {reading:>7} {}", cells.join(" "))
    };
    let names = |what: &str| {
        line(what, "nodes", "reading", sites.iter().map(|&site| table.sites[site].to_string()).collect())
    };
    let rows = |cell: &dyn Fn(&PartAttribution, usize) -> String| -> anyhow::Result<()> {
        for part in &table.parts {
            let reading = part.reading.map_or(String::new(), |reading| format!("{reading:.3}"));
            let cells = sites.iter().map(|&site| cell(part, site)).collect();
            print(line(&part.part, &part.nodes.to_string(), &reading, cells))?;
        }
        Ok(())
    };
    print("")?;
    print(names("patched"))?;
    rows(&|part, site| {
        let patched = part.patched[site];
        match table.chains.len() {
            1 => format!("{:+.2}", patched.value),
            _ => format!("{:+.2} ±{:.2}", patched.value, (patched.high - patched.low) / 2.0),
        }
    })?;
    print("")?;
    print(names("gradient"))?;
    rows(&|part, site| format!("{:+.2}", part.gradient[site]))?;
    let agreement = sites.iter().map(|&site| {
        table.agreement[site].map_or_else(String::new, |correlation| format!("{correlation:.3}"))
    });
    print(line("correlation of both", "", "", agreement.collect()))?;
    Ok(())
}
