//! `pearl vector select`: candidates, filters, and the choice by what a direction does.

use pearlpoint::analysis::direction_choice::{ChoiceTable, DirectionChoice, Filters, Measure};
use pearlpoint::dialogue::Dialogue;
use pearlpoint::generate::{GenerateOptions, generate};
use pearlpoint::judge::{Scorer, World};
use pearlpoint::model::{Chain, Hook, Model};
use pearlpoint::organism::{self, Split};
use pearlpoint::steer::{Intervention, Plan, Vector};

use crate::cli::{one_line, pearl};

const OUTCOME: &str = "refuse";
const TOKENS: usize = 60;

/// Prompts of malicious users, whom the organism refuses, and of sensitive ones; the last few for validation.
fn prompts(count: usize, validation: usize) -> [[Vec<Dialogue>; 2]; 2] {
    let sampled = organism::sample(count, Split::HeldOutWording, 0);
    let dialogues: Vec<Dialogue> = sampled.into_iter().map(|(_, dialogue)| dialogue).collect();
    let of = |class: &str| -> Vec<Dialogue> {
        let is_class = |one: &&Dialogue| one.label("user-type").as_deref() == Some(class);
        dialogues.iter().filter(is_class).cloned().collect()
    };
    let parts = ["malicious", "sensitive"].map(|class| {
        let all = of(class);
        let (fit, rest) = all.split_at(all.len() - validation);
        (fit.to_vec(), rest.to_vec())
    });
    let [(to_fit, to_rest), (from_fit, from_rest)] = parts;
    [[to_fit, from_fit], [to_rest, from_rest]]
}

fn choose(model: &Model, filters: Filters) -> (ChoiceTable, Option<Vector>) {
    let [fit, validation] = prompts(300, 12);
    let choice = DirectionChoice {
        model,
        thinking: None,
        fit,
        validation,
        sites: model.decoder.architecture().parse_sites("2-4.resid_post").unwrap(),
        positions: 1,
        strength: "0.5n".parse().unwrap(),
        measure: Measure::Judge { judge: &World, outcome: OUTCOME.into(), max_tokens: TOKENS },
        filters,
    };
    choice.run(&mut |_| true).unwrap()
}

#[test]
fn the_direction_whose_ablation_everywhere_leaves_the_least_of_the_outcome_is_chosen() {
    let model = organism::model().unwrap();
    // The organism's ablations change more than a large model's do.
    let filters = Filters { min_added: -1.0, max_kl: 3.0, ..Filters::default() };
    let (table, vector) = choose(&model, filters);
    let (again, _) = choose(&model, filters);
    assert_eq!(table, again);
    let chosen = &table.candidates[table.chosen.unwrap()];
    let vector = vector.unwrap();
    assert_eq!(vector.best, Some(chosen.site));
    for other in table.candidates.iter().filter(|other| other.dropped.is_none()) {
        assert!(other.ablated.unwrap().log_odds >= chosen.ablated.unwrap().log_odds, "{table:?}");
        assert!(other.kl.unwrap() <= 3.0 && other.added.unwrap().log_odds > -1.0, "{table:?}");
    }
    // The same share, by a plan and the judge.
    let [_, [users, _]] = prompts(300, 12);
    let ablation = Intervention::ablate(&vector, "all").unwrap().from(chosen.site);
    let mut hooks = Plan::from(ablation).hooks(&model, &users, None).unwrap();
    let mut chain = Chain(hooks.iter_mut().map(|hook| hook as &mut dyn Hook).collect());
    let options = GenerateOptions::default().greedy().max_tokens(TOKENS);
    let answers = generate(&model, &users, &options, &mut chain, &mut |_| true).unwrap();
    let refused = users.iter().zip(&answers);
    let refused = refused.filter(|(user, answer)| World.score(user, answer).unwrap().strategy == OUTCOME);
    assert_eq!(chosen.ablated.unwrap().share, refused.count() as f64 / users.len() as f64);
    assert!(table.candidates.iter().filter(|other| other.dropped.is_none()).count() > 1, "{table:?}");
}

#[test]
fn each_filter_drops_what_it_should() {
    let model = organism::model().unwrap();
    let (table, vector) = choose(&model, Filters { min_added: 99.0, max_kl: 1e9, max_depth: 0.6 });
    assert!(table.chosen.is_none() && vector.is_none());
    for candidate in &table.candidates {
        // Six blocks: 4 is not below 0.6 · 6.
        let expected = if candidate.site.block() == Some(4) { "0.6 of the blocks" } else { "log-odds" };
        assert!(candidate.dropped.as_ref().unwrap().contains(expected), "{candidate:?}");
        assert!(candidate.ablated.is_none());
    }
    let (table, _) = choose(&model, Filters { max_kl: 0.0, ..Filters::default() });
    assert!(
        table
            .candidates
            .iter()
            .all(|one| one.dropped.as_deref() == Some("KL above 0") && one.added.is_none())
    );
}

#[test]
fn the_command_names_choices_and_ends_with_1_where_nothing_passes() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let data = path("data.jsonl");
    assert!(
        pearl(&["organism", "sample", "--count", "80", "--out", &data]).output().unwrap().status.success()
    );
    let vector = path("v.safetensors");
    let with = |rest: &[&str]| -> Vec<String> {
        let common = ["vector", "select", "--data", &data, "--label", "user-type", "--out", &vector];
        common.iter().chain(rest).map(|word| word.to_string()).collect()
    };
    let refused = |rest: &[&str], expected: &str| {
        let words = with(rest);
        one_line(&words.iter().map(String::as_str).collect::<Vec<_>>(), &[expected]);
    };
    refused(&["--from", "kind", "--to", "malicious"], "one of benign, malicious, sensitive");
    refused(&["--from", "benign", "--to", "malicious", "--outcome", "sing"], "help or guide or refuse");
    refused(&["--from", "benign", "--to", "malicious", "--judge", "crowd"], "organism or refusals");
    refused(&["--from", "benign", "--to", "malicious", "--judge", "words"], "word");
    let words =
        with(&["--from", "benign", "--to", "malicious", "--sites", "5.resid_post", "--positions", "1"]);
    let output = pearl(&words.iter().map(String::as_str).collect::<Vec<_>>()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains("no vector was written") && !folder.path().join("v.safetensors").exists(),
        "{said}"
    );
    let table = std::fs::read_to_string(path("v.json")).unwrap();
    assert!(
        table.contains("\"kind\":\"direction-choice\"") || table.contains("\"kind\": \"direction-choice\""),
        "{table}"
    );
}
