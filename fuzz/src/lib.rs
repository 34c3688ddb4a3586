//! What the targets share: input as a file, and panics that a guard of the library catches.

use std::path::{Path, PathBuf};
use std::sync::{Once, OnceLock};

/// A folder of this process, in memory where the system has such a place.
pub fn folder() -> &'static Path {
    static FOLDER: OnceLock<tempfile::TempDir> = OnceLock::new();
    let create = || {
        let memory = Path::new("/dev/shm");
        if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.expect("a temporary folder")
    };
    FOLDER.get_or_init(create).path()
}

/// The input as a file of this name.
pub fn file(name: &str, bytes: &[u8]) -> PathBuf {
    let path = folder().join(name);
    std::fs::write(&path, bytes).expect("room for the input");
    path
}

/// Removes libFuzzer's panic hook, which aborts before the library's guard can catch a panic of a foreign library. A panic that
/// leaves the target still ends the run.
pub fn allow_caught_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| drop(std::panic::take_hook()));
}
