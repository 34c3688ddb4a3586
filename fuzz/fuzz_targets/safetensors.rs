//! A safetensors file: its table, and every tensor read as floats or integers; and the same bytes as a steering vector.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pearlpoint::artifact::TensorFile;
use pearlpoint::steer::Vector;

fuzz_target!(|bytes: &[u8]| {
    let path = pearlpoint_fuzz::file("case.safetensors", bytes);
    if let Ok(tensors) = TensorFile::open(&path) {
        for name in tensors.names() {
            let _ = (tensors.stored(&name).is_ok(), tensors.floats(&name).is_ok(), tensors.integers(&name).is_ok());
        }
    }
    let _ = Vector::load(&path);
});
