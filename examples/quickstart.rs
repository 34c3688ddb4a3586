//! The whole pipeline in a dozen lines: dialogues, activations, probes, the risk map, a steered answer.
//!
//! `cargo run --release --example quickstart` runs on the embedded model in seconds. For a model of the hub, change the
//! name in `Model::load`, the dialogues and the labels.

use pearlpoint::prelude::*;

pub fn main() -> Result<()> {
    let out = std::env::temp_dir().join("pearlpoint-quickstart");
    let model = Model::load("organism")?;
    let data = Dialogues::organism(600, 0)?;

    // Every row of `states` knows its dialogue, and with it its labels.
    let states = model.extract(&data, "*.resid_post", "assistant.start")?;
    println!("{} rows at {} sites", states.rows(), states.sites().len());

    // A probe at every site, tested on topics that neither the fit nor the choice of the penalty saw.
    let sweep = states.probe("user-type").group("topic").hold_out(["travel", "music", "healthcare"]).fit()?;
    let probe = sweep.best();
    for metric in sweep.metrics().iter().chain(sweep.controls()).filter(|m| m.name.ends_with("auroc")) {
        println!("{:<16} {:.3}", metric.name, metric.value);
    }
    probe.risk_map(&states, "benign", "malicious")?.save_svg(out.join("map.svg"))?;
    println!("{} is drawn in {}", probe.source.site, out.join("map.svg").display());

    // From refusing to guiding, where the probe reads a sensitive user.
    let vector = states.vector("answer", "refuse", "guide")?;
    let plan = Plan::add(vector, "3.resid_post", "0.8n")?.when(probe, "sensitive", 0.5);
    for answer in model.generate(&Dialogues::organism(3, 1)?, &plan)? {
        println!("{}", answer.text);
    }
    Ok(())
}
