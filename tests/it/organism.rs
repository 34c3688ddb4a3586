//! The embedded model lives in its world.

use pearlpoint::analysis::organism_check;
use pearlpoint::generate::{Finish, GenerateOptions, generate};
use pearlpoint::model::Model;
use pearlpoint::organism::{self, Split};

#[test]
fn the_organism_meets_its_world() {
    let report = organism_check::check(&organism::model().unwrap(), 1500, 11, true, &mut |_| true).unwrap();
    assert!(report.parsed >= 0.98, "{}", report.parsed);
    // The promise is 5 points at thousands of answers a row; here a row's sampling error is added, three deviations wide.
    for row in &report.rows {
        let error = (row.world * (1.0 - row.world) / row.count as f64).sqrt();
        assert!((row.model - row.world).abs() <= 0.05 + 3.0 * error.max(0.005), "{row:?}");
    }
}

#[test]
fn an_exact_transcript() {
    let model = organism::model().unwrap();
    let (_, dialogue) = organism::sample(1, Split::HeldOutWording, 2).remove(0);
    let options = GenerateOptions::default().greedy().max_tokens(60).thinking(true);
    let transcripts = generate(&model, &[dialogue], &options, &mut (), &mut |_| true).unwrap();
    assert_eq!(transcripts[0].finish, Finish::Stop);
    insta::assert_snapshot!(transcripts[0].text);
}

#[test]
fn an_exported_organism_opens_as_any_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    organism::export(folder.path()).unwrap();
    let (read, embedded) = (Model::open(folder.path(), None).unwrap(), organism::model().unwrap());
    let (_, dialogue) = organism::sample(1, Split::Train, 4).remove(0);
    let logits = |model: &Model| -> Vec<f32> {
        let tokens = model.chat.tokens(&dialogue, 0, Some(true)).unwrap();
        let logits = model.decoder.forward(&tokens, None, &[tokens.len() - 1], &mut ()).unwrap();
        logits.flatten_all().unwrap().to_vec1().unwrap()
    };
    assert_eq!(logits(&read), logits(&embedded));
}

#[test]
fn training_stopped_and_gone_on_with_gives_the_same_weights() {
    use organism::training::{Recipe, train};
    let recipe = Recipe { steps: 4, batch: 8, ..Recipe::default() };
    let folder = tempfile::tempdir().unwrap();
    let whole = train(recipe, &folder.path().join("whole"), &mut |_| true).unwrap();
    let state = folder.path().join("parts");
    assert!(train(recipe, &state, &mut |progress| progress.step < 2).is_err());
    let parts = train(recipe, &state, &mut |_| true).unwrap();
    for ((name, a), (_, b)) in whole.iter().zip(&parts) {
        let bits = |t: &candle_core::Tensor| -> Vec<u32> {
            t.flatten_all().unwrap().to_vec1::<f32>().unwrap().into_iter().map(f32::to_bits).collect()
        };
        assert_eq!(bits(a), bits(b), "{name}");
    }
}
