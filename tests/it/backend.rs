//! The forward pass on candle's operations, the code path of devices. Tests of other modules run again in a process of their
//! own, because a process selects its backend once.

use std::process::Command;

/// Parity with transformers for every family in f32, bf16 and f16; batches, caches and hooks; steering; GGUF quantisation.
const AGAIN: [&str; 15] = [
    "model::every_site_and_token_agrees_with_transformers",
    "model::weights_in_bf16_cost_less_than_they_cost_transformers",
    "model::weights_in_half_the_bits_give_the_same_where_nothing_is_rounded",
    "model::greedy_decoding_agrees_with_transformers_with_the_cache_and_without",
    "model::a_row_alone_gives_what_it_gives_in_any_batch",
    "model::a_cached_prefix_changes_no_activation",
    "model::reading_changes_no_logit",
    "gguf::every_family_computes_what_its_checkpoint_computes",
    "gguf::blocks_compute_what_the_numbers_they_stand_for_compute",
    "gguf::types_may_be_mixed_in_one_model",
    "invariants::strength_0_is_the_unsteered_model_bit_for_bit",
    "invariants::a_row_in_any_batch_is_steered_as_it_is_alone",
    "invariants::a_steered_token_is_steered_with_the_cache_and_without",
    "activations::rows_may_begin_with_one_prefix",
    "generate::the_likeliest_of_one_is_the_likeliest",
];

fn holds_on(backend: &str) {
    let output = Command::new(std::env::current_exe().unwrap())
        .arg("--exact")
        .args(AGAIN)
        .env("PEARL_BACKEND", backend)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains(&format!("{} passed; 0 failed", AGAIN.len())), "{backend}: {said}");
}

#[test]
fn the_forward_pass_holds_on_candles_operations() {
    holds_on("candle");
}

#[cfg(feature = "cuda")]
#[test]
fn the_forward_pass_holds_on_a_device() {
    if !pearlpoint::model::compute::backend::Backend::Cuda.is_available() {
        eprintln!("skipped: no NVIDIA device is here");
        return;
    }
    holds_on("cuda");
}

#[test]
fn a_backend_that_cannot_run_here_is_one_line() {
    let said = |name: &str, arguments: &[&str]| {
        let output = crate::cli::pearl(arguments).env("PEARL_BACKEND", name).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), said.trim_end().lines().count()), (Some(2), 1), "{name}: {said}");
        said
    };
    for arguments in [&["inspect", "organism"][..], &["generate", "--prompt", "hello"]] {
        let said = said("abacus", arguments);
        assert!(said.contains("abacus, an unknown backend; expected one of candle, plain"), "{said}");
    }
    if !cfg!(feature = "cuda") {
        let said = said("cuda", &["generate", "--prompt", "hello"]);
        assert!(
            said.contains("cuda, but this program was built without it (cargo build --features cuda)"),
            "{said}"
        );
    }
}

#[test]
fn candles_operations_generate_the_same_text() {
    let text = |backend: &str| {
        let mut command = crate::cli::pearl(&["generate", "--prompt", "hello", "--greedy", "--json"]);
        let output = command.env("PEARL_BACKEND", backend).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!(text("candle"), text("plain"));
}
