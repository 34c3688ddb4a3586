//! Dialogues in each format. The first byte picks the name's ending.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pearlpoint::dialogue::Dialogues;

const NAMES: [&str; 8] =
    ["case.jsonl", "case.json", "case.csv", "case.tsv", "case.jsonl.gz", "case.csv.gz", "case.jsonl.zst", "case.txt"];

fuzz_target!(|bytes: &[u8]| {
    let Some((first, rest)) = bytes.split_first() else { return };
    let name = NAMES[usize::from(*first) % NAMES.len()];
    let _ = Dialogues::read(pearlpoint_fuzz::file(name, rest));
});
