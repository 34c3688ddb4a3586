//! A PyTorch archive as a steering vector.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pearlpoint::steer::formats::read_torch;

fuzz_target!(|bytes: &[u8]| {
    let path = pearlpoint_fuzz::file("case.pt", bytes);
    let _ = read_torch(&path, None, "resid_post", -1);
});
