//! A steering plan, as TOML and as JSON.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pearlpoint::steer::Plan;

fuzz_target!(|bytes: &[u8]| {
    for name in ["case.toml", "case.json"] {
        let _ = Plan::load(&pearlpoint_fuzz::file(name, bytes));
    }
});
