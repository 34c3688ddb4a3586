//! A GGUF file: as a checkpoint (metadata, tokenizer, configuration, weights) and as a control vector.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pearlpoint::model::Checkpoint;
use pearlpoint::steer::formats::read_gguf;

fuzz_target!(|bytes: &[u8]| {
    pearlpoint_fuzz::allow_caught_panics();
    let path = pearlpoint_fuzz::file("case.gguf", bytes);
    if let Ok(checkpoint) = Checkpoint::open(&path, None) {
        let _ = checkpoint.load(None);
    }
    let _ = read_gguf(&path, 0);
});
