//! `pearl inspect`: what a model is.

use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use super::progress::Talk;
use super::{Kept, Outcome, open_model, print};

#[derive(Args)]
pub struct Arguments {
    /// `organism`, or a checkpoint folder
    model: PathBuf,
    #[command(flatten)]
    kept: Kept,
    /// As JSON
    #[arg(long)]
    json: bool,
}

pub fn run(arguments: Arguments, _: &Talk) -> anyhow::Result<Outcome> {
    let model = open_model(&arguments.model, arguments.kept)?;
    let a = model.decoder.architecture();
    let sites = a.sites();
    if arguments.json {
        let widths: serde_json::Map<_, _> =
            sites.iter().map(|site| (site.to_string(), json!(a.site_width(*site)))).collect();
        let facts = json!({
            "model": model.name, "hash": model.hash, "family": a.family, "blocks": a.blocks.len(), "width": a.width,
            "heads": a.heads, "kv_heads": a.kv_heads, "head_width": a.head_width, "hidden": a.hidden,
            "vocabulary": a.vocabulary, "context": a.context, "parameters": a.parameters()?, "dtype": model.dtype,
            "backend": "candle", "template": model.chat.has_template(), "sites": widths,
        });
        print(serde_json::to_string_pretty(&facts)?)?;
        return Ok(Outcome::Done);
    }
    let template = if model.chat.has_template() { "yes" } else { "none" };
    let facts = [
        ("model", model.name.clone()),
        ("family", a.family.clone()),
        ("parameters", a.parameters()?.to_string()),
        ("blocks", a.blocks.len().to_string()),
        ("width", a.width.to_string()),
        ("heads", format!("{} of width {}, {} for keys and values", a.heads, a.head_width, a.kv_heads)),
        ("MLP width", a.hidden.to_string()),
        ("vocabulary", a.vocabulary.to_string()),
        ("context", a.context.to_string()),
        ("chat template", template.into()),
        ("weights kept in", model.dtype.clone()),
        ("sites", format!("{}: embed, BLOCK.POINT, final_norm, logits", sites.len())),
        ("weights' hash", model.hash.clone()),
    ];
    facts.into_iter().try_for_each(|(name, value)| print(format!("{name:<14} {value}")))?;
    Ok(Outcome::Done)
}
