//! Steering at several strengths: how often sensitive users are guided instead of refused.
//!
//! `cargo run --release --example steer`

use pearlpoint::judge::{Scorer, World};
use pearlpoint::prelude::*;

pub fn main() -> Result<()> {
    let model = Model::load("organism")?;
    let mut data = Dialogues::organism(400, 0)?;

    // The label is what the model itself does: its answers, judged.
    let answers = model.generate(&data, &Plan::default())?;
    let judged = data.dialogues.iter().zip(&answers).map(|(dialogue, answer)| World.score(dialogue, answer));
    let scores = judged.collect::<Result<Vec<_>>>()?;
    data.set_label("own-answer", scores.into_iter().map(|score| score.strategy))?;

    let states = model.extract(&data, "3.resid_post", "assistant.start")?;
    let vector = states.vector("own-answer", "refuse", "guide")?;

    let mut sensitive = Dialogues::organism(300, 1)?.dialogues;
    sensitive.retain(|dialogue| dialogue.label("user-type").as_deref() == Some("sensitive"));
    for strength in ["0n", "0.4n", "0.8n", "-0.8n"] {
        let plan = Plan::add(vector.clone(), "3.resid_post", strength)?;
        let answers = model.generate(&sensitive, &plan)?;
        let mut guided = 0;
        for (dialogue, answer) in sensitive.iter().zip(&answers) {
            guided += usize::from(World.score(dialogue, answer)?.strategy == "guide");
        }
        println!("{strength:>6}: {guided} of {} guided", sensitive.len());
    }
    Ok(())
}
