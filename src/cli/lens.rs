//! `pearl lens`: the next tokens that each block's states would give.

use std::path::PathBuf;

use clap::Args;

use super::console::Console;
use super::dialogues::{Prompts, by_id};
use super::model::ModelChoice;
use super::output::{Outcome, draw_and_print, header, print, print_exact, save_chart};
use pearlpoint::analysis::logit_lens::{LensOptions, LogitLens, logit_lens};
use pearlpoint::artifact::{self, FolderLock};
use pearlpoint::error::Error;
use pearlpoint::model::{Selector, Site};
use pearlpoint::plots;
use pearlpoint::printable::one_line;
use pearlpoint::report::table::{Column, Table};

#[derive(Args)]
#[command(after_help = "Example:
  pearl lens --prompt \"my topic is music .\" --out lens
  pearl lens --prompt \"my topic is music .\" --tokens last --top 3")]
pub struct Arguments {
    #[command(flatten)]
    model: ModelChoice,
    #[command(flatten)]
    prompts: Prompts,
    /// The dialogue's id [default: the file's first]
    #[arg(long)]
    id: Option<String>,
    /// Sites in the residual stream
    #[arg(long, default_value = "*.resid_post")]
    sites: String,
    /// Tokens at which the states are read
    #[arg(long, default_value = "all", value_name = "SELECTOR")]
    tokens: Selector,
    /// Likeliest tokens in each place
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..))]
    top: u16,
    /// A text whose first token's probability and rank are shown
    #[arg(long, value_name = "TEXT")]
    target: Option<String>,
    /// Folder for lens.json and the heat map
    #[arg(long)]
    out: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub fn run(arguments: Arguments, console: &Console) -> anyhow::Result<Outcome> {
    let _lock = arguments.out.as_ref().map(|out| FolderLock::take(out)).transpose()?;
    let dialogues = arguments.prompts.read(console)?;
    let dialogue = match &arguments.id {
        Some(id) => by_id(&dialogues, "--id", id)?,
        None => dialogues.first().ok_or_else(|| Error::input("--data", "no dialogue", "one or more"))?,
    };
    let model = arguments.model.load(console)?;
    let options = LensOptions {
        sites: Site::parse_set(&arguments.sites, model.decoder.architecture().blocks.len())?,
        tokens: arguments.tokens,
        top: arguments.top.into(),
        target: arguments.target,
        thinking: arguments.model.thinking(),
    };
    let lens = logit_lens(&model, dialogue, &options)?;
    if let Some(out) = &arguments.out {
        artifact::write_json(&out.join("lens.json"), &header("logit-lens", &model), &lens)?;
        save_chart(out, "lens", &plots::logit_lens::chart(&lens))?;
    }
    match (arguments.json, &arguments.out) {
        (true, _) => print_exact(serde_json::to_string(&lens)?)?,
        (false, None) => print(table(&lens)?.trim_end())?,
        (false, Some(_)) => {}
    }
    match &arguments.out {
        Some(out) => draw_and_print(out),
        None => Ok(Outcome::Done),
    }
}

/// The likeliest tokens at the last of the picked tokens, a line a site.
fn table(lens: &LogitLens) -> pearlpoint::error::Result<String> {
    let last = lens.tokens.len() - 1;
    let text = format!("{:?}", lens.tokens[last].text);
    let target = lens.target.as_ref();
    let mut columns = vec![Column::text("site"), Column::numbers("KL")];
    columns.extend(target.into_iter().flat_map(|_| [Column::numbers("P(target)"), Column::numbers("rank")]));
    columns.push(Column::text("likeliest next tokens"));
    let row = |(site, name): (usize, &Site)| {
        let likely = lens.likeliest[site][last].iter();
        let likely: Vec<String> =
            likely.map(|one| format!("{:?} {:.3}", one.text, one.probability)).collect();
        let mut cells = vec![name.to_string(), format!("{:.3}", lens.kl[site][last])];
        cells.extend(target.into_iter().flat_map(|target| {
            [format!("{:.3}", target.probability[site][last]), target.rank[site][last].to_string()]
        }));
        cells.push(likely.join("  "));
        cells
    };
    let caption = format!("after {}, position {}", one_line(&text, 200), lens.positions[last]);
    Table { caption, columns, rows: lens.sites.iter().enumerate().map(row).collect() }.to_text()
}
