//! A vector of another tool: a PyTorch archive, a NumPy array, a pickle, a `.svec` file, by its content.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pearlpoint::steer::formats::{Placement, read};

fuzz_target!(|bytes: &[u8]| {
    let path = pearlpoint_fuzz::file("case.bin", bytes);
    let _ = read(&path, &Placement::default());
});
