//! The files of an experiment, a steering grid and a probe card.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pearlpoint::config::{Experiment, ProbeFile, SteeringGrid};

fuzz_target!(|text: &str| {
    let _ = Experiment::parse("case.toml", text);
    let _ = SteeringGrid::parse("case.toml", text);
    let _ = ProbeFile::parse("case.toml", text);
});
