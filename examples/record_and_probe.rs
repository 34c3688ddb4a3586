//! Activations recorded on disk, then probed: for more dialogues than memory holds.
//!
//! `cargo run --release --example record_and_probe`

use pearlpoint::dialogue::{self, ReadOptions};
use pearlpoint::prelude::*;

pub fn main() -> Result<()> {
    let folder = std::env::temp_dir().join(format!("pearlpoint-{}", std::process::id()));
    let (file, store) = (folder.join("data.jsonl"), folder.join("store"));
    dialogue::write_jsonl(&file, &Dialogues::organism(600, 0)?.dialogues)?;

    // Shards are written as they come. A run that was stopped goes on from what the folder holds.
    let model = Model::load("organism")?;
    let extraction = model.extraction("2-4.resid_post", "assistant.start")?.store_dtype(Dtype::F16);
    let recorded = extraction.record(&file, &ReadOptions::default(), None, &store, &mut |_| true)?;
    println!("{} rows in {}", recorded.manifest.rows, store.display());

    // One site at a time is read from the store. The levels stand in order: R0 < R1 < R2.
    let states = Labelled::open(&store, Dialogues::read(&file)?)?;
    let sweep = states
        .probe("risk-level")
        .kind(TargetKind::Ordinal)
        .order(["R0", "R1", "R2"])
        .group("topic")
        .hold_out(["travel", "music", "healthcare"])
        .fit()?;
    for (site, fitted) in sweep.sites() {
        let auroc = fitted.probe.scores.iter().find(|score| score.name == "auroc");
        println!("{site:<16} {:.3}", auroc.map_or(f64::NAN, |score| score.value));
    }
    for doubt in sweep.doubts()? {
        println!("doubt: {doubt}");
    }

    // The probe is a file that `pearl probe score` and steering plans read.
    sweep.best().save(&folder.join("risk-level.safetensors"))
}
