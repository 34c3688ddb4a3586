//! Files that are part of the program, read by paths in a folder that no disk has.

use std::path::Path;

/// The folder of the embedded model's constructive policy, as `pearl constructive evaluate experiments/constructive.toml` fits it.
pub const ORGANISM_POLICY: &str = "<organism>/policy";

macro_rules! policy_files {
    ($($name:literal),*) => {
        [$(($name, include_bytes!(concat!("../constructive/organism/", $name)).as_slice())),*]
    };
}

const FILES: [(&str, &[u8]); 9] = policy_files!(
    "belief.safetensors",
    "card.md",
    "constructive.json",
    "direction-guide.safetensors",
    "direction-refuse.safetensors",
    "face-guide.safetensors",
    "face-refuse.safetensors",
    "game.toml",
    "risk.safetensors"
);

/// The bytes of an embedded file; none for paths on disk.
pub(super) fn embedded(path: &Path) -> Option<&'static [u8]> {
    let name = path.strip_prefix(ORGANISM_POLICY).ok()?.to_str()?;
    FILES.iter().find(|(own, _)| *own == name).map(|(_, bytes)| *bytes)
}

/// Whether there is a file of this path, on disk or embedded.
pub fn exists(path: &Path) -> bool {
    embedded(path).is_some() || path.exists()
}
