//! The library as a program uses it: the examples run, and the short form of the pipeline gives what it says.

use pearlpoint::prelude::*;

#[path = "../../examples/custom_hook.rs"]
mod custom_hook;
#[path = "../../examples/quickstart.rs"]
mod quickstart;
#[path = "../../examples/record_and_probe.rs"]
mod record_and_probe;
#[path = "../../examples/steer.rs"]
mod steer;

#[test]
fn the_examples_run() {
    quickstart::main().unwrap();
    record_and_probe::main().unwrap();
    steer::main().unwrap();
    custom_hook::main().unwrap();
}

const TOPICS: [&str; 3] = ["travel", "music", "healthcare"];

#[test]
fn a_probe_beats_its_controls_and_steers_those_it_reads() {
    let model = Model::load("organism").unwrap();
    let data = Dialogues::organism(500, 3).unwrap();
    let states = model.extract(&data, "3.resid_post", "assistant.start").unwrap();
    let mut stages = Vec::new();
    let builder = states.probe("user-type").group("topic").hold_out(TOPICS);
    let sweep = builder
        .on_progress(|progress| {
            stages.push((progress.stage, progress.done, progress.total));
            true
        })
        .fit()
        .unwrap();
    assert_eq!(stages, [("fitting", 0, 1), ("fitting", 1, 1)]);
    let metrics = sweep.metrics();
    let auroc = metrics.iter().find(|metric| metric.name == "auroc").unwrap();
    assert!(sweep.controls().iter().all(|control| control.value + 0.1 < auroc.value), "{auroc:?}");

    let mut asking = Dialogues::organism(60, 4).unwrap();
    let vector = states.vector("answer", "refuse", "guide").unwrap();
    let plan = Plan::add(vector, "3.resid_post", "0.8n").unwrap().when(sweep.best(), "sensitive", 0.5);
    let options = GenerateOptions::default().greedy();
    let texts = |plan: &Plan| {
        let answers = model.generate_with(&asking, plan, &options).unwrap();
        answers.into_iter().map(|answer| answer.text).collect::<Vec<_>>()
    };
    let (plain, steered) = (texts(&Plan::default()), texts(&plan));
    // Only rows that the probe reads as sensitive may change, and some of them do.
    let prompts = model.extract(&asking, "3.resid_post", "assistant.start").unwrap();
    let rows: Vec<usize> = (0..prompts.rows()).collect();
    let read = prompts.probabilities(sweep.best(), &rows).unwrap();
    let sensitive = sweep.best().class("sensitive").unwrap();
    let changed: Vec<usize> = (0..plain.len()).filter(|&row| plain[row] != steered[row]).collect();
    assert!(!changed.is_empty() && changed.iter().all(|&row| read[[row, sensitive]] > 0.5));
    assert!(asking.set_label("own", ["one"]).is_err());
}

#[test]
fn states_in_memory_and_in_a_store_are_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let (file, store) = (folder.path().join("data.jsonl"), folder.path().join("store"));
    pearlpoint::dialogue::write_jsonl(&file, &Dialogues::organism(30, 5).unwrap().dialogues).unwrap();
    let model = Model::load("organism").unwrap();
    let data = Dialogues::read(&file).unwrap();
    let memory = model.extract(&data, "1,3.resid_post", "last").unwrap();
    let options = pearlpoint::dialogue::ReadOptions::default();
    let extraction = model.extraction("1,3.resid_post", "last").unwrap();
    extraction.record(&file, &options, None, &store, &mut |_| true).unwrap();
    let mut some = data.clone();
    let stored = Labelled::open(&store, data).unwrap();
    assert_eq!((memory.rows(), memory.sites()), (stored.rows(), stored.sites()));
    assert_eq!(memory.labels("topic").unwrap(), stored.labels("topic").unwrap());
    assert_eq!(
        (&memory.header().model_hash, &memory.header().data_hash),
        (&stored.header().model_hash, &stored.header().data_hash)
    );
    let site = memory.sites()[1];
    let difference = &*memory.at(site).unwrap() - &*stored.at(site).unwrap();
    assert!(difference.iter().all(|value| value.abs() < 1e-4));
    // Rows of dialogues that are left out are left out too.
    (some.dialogues, some.indices) = (some.dialogues.split_off(20), some.indices.split_off(20));
    let part = Labelled::open(&store, some).unwrap();
    assert_eq!(part.labels("topic").unwrap(), stored.labels("topic").unwrap()[20..]);
    assert_eq!(part.at(site).unwrap().row(0), stored.at(site).unwrap().row(20));
}

#[test]
fn wrong_names_list_the_choices() {
    let model = Model::load("organism").unwrap();
    let states = model.extract(&Dialogues::organism(40, 6).unwrap(), "3.resid_post", "last").unwrap();
    let error = |result: Result<Vector>| result.unwrap_err().to_string();
    assert!(error(states.vector("risk", "low", "high")).contains("risk-level"));
    assert!(error(states.vector("user-type", "benign", "high")).contains("benign, malicious, sensitive"));
    let fit = states.probe("user-type").group("topics").fit();
    assert!(fit.err().unwrap().to_string().contains("topic, user-type"));
    assert!(Model::load("no/such/folder").err().unwrap().to_string().contains("no model there"));
}
