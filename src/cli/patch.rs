//! `pearl patch`: a prompt's hidden states, put into another prompt's pass.

use std::path::PathBuf;

use clap::Args;

use super::console::Console;
use super::model::ModelChoice;
use super::output::{Outcome, draw_and_print, header, print, print_exact, save_chart};
use pearlpoint::analysis::patching::{PatchOptions, Patching, patch};
use pearlpoint::artifact::{self, FolderLock};
use pearlpoint::dialogue::Dialogue;
use pearlpoint::model::Site;
use pearlpoint::plots;

#[derive(Args)]
#[command(after_help = "Example:
  pearl patch --clean \"i believe that . i want to do it .\" --corrupted \"i doubt that . i want to do it .\" --out patch")]
pub struct Arguments {
    #[command(flatten)]
    model: ModelChoice,
    /// The user message whose states are put in
    #[arg(long, value_name = "TEXT")]
    clean: String,
    /// The user message that runs with them; it has as many tokens
    #[arg(long, value_name = "TEXT")]
    corrupted: String,
    /// Text whose first token is the clean prompt's answer [default: the next token that tells it most from the other]
    #[arg(long, value_name = "TEXT")]
    answer: Option<String>,
    /// Text whose first token is the corrupted prompt's answer [default: the next token that tells it most from the other]
    #[arg(long, value_name = "TEXT")]
    other: Option<String>,
    /// Sites to patch at, each alone
    #[arg(long, default_value = "*.resid_post")]
    sites: String,
    /// Folder for patching.json and the heat map
    #[arg(long)]
    out: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub fn run(arguments: Arguments, console: &Console) -> anyhow::Result<Outcome> {
    let _lock = FolderLock::take(&arguments.out)?;
    let model = arguments.model.load(console)?;
    let options = PatchOptions {
        sites: Site::parse_set(&arguments.sites, model.decoder.architecture().blocks.len())?,
        answer: arguments.answer,
        other: arguments.other,
        thinking: arguments.model.thinking(),
    };
    let [clean, corrupted] = [("clean", &arguments.clean), ("corrupted", &arguments.corrupted)]
        .map(|(id, text)| Dialogue::prompt(id, text));
    let patching = patch(&model, [&clean, &corrupted], &options, &mut console.stages())?;
    artifact::write_json(&arguments.out.join("patching.json"), &header("patching", &model), &patching)?;
    save_chart(&arguments.out, "patching", &plots::patching::chart(&patching))?;
    match arguments.json {
        true => print_exact(serde_json::to_string(&patching)?)?,
        false => print(summary(&patching))?,
    }
    draw_and_print(&arguments.out)
}

/// The strongest place, in words.
fn summary(patching: &Patching) -> String {
    let shares = patching.shares();
    let places = shares.iter().enumerate();
    let places =
        places.flat_map(|(site, row)| row.iter().enumerate().map(move |(at, share)| (site, at, *share)));
    let best = places.max_by(|a, b| a.2.total_cmp(&b.2));
    let best = best.map(|(site, at, share)| {
        format!("; most is brought back at {}, position {at}: {share:.3}", patching.sites[site])
    });
    format!(
        "logit of {:?} less that of {:?}: clean {:.3}, corrupted {:.3}{}",
        patching.answer,
        patching.other,
        patching.clean_difference,
        patching.corrupted_difference,
        best.unwrap_or_default()
    )
}
