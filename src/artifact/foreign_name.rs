//! File names made of foreign strings: names that a server, a data set or an experiment file gives never lead out of the
//! folder that they are joined to.

use std::path::PathBuf;

/// Bytes that common file systems allow in one name.
const LONGEST: usize = 255;

/// A relative path of plain names inside one folder, as it stands; None where `foreign` is anything else (absolute,
/// `..`, an empty or hidden name, a control character, a backslash, a colon, a name that is too long).
pub fn foreign_path(foreign: &str) -> Option<PathBuf> {
    let plain = |name: &str| {
        !name.is_empty()
            && !name.starts_with('.')
            && name.len() <= LONGEST
            && !name.chars().any(|letter| letter.is_control() || "\\:".contains(letter))
    };
    foreign.split('/').all(plain).then(|| foreign.split('/').collect())
}

/// Names that Windows keeps for devices, whatever ending follows them.
const DEVICES: [&str; 6] = ["con", "prn", "aux", "nul", "com", "lpt"];

/// Longest name that stands for itself, in bytes: with a prefix, an ending and the suffix of a file that is being written
/// it stays below [`LONGEST`].
const LONG: usize = 100;

/// One file name for any string: letters, digits, `-`, `_`, `+` and inner dots stand for themselves, every other byte for
/// `%XX`, and so does the first letter of a device's name (`con`). A longer name than 100 bytes is cut and ends in `%-` and
/// half a SHA-256 of the whole. Different strings give different names, on a system where case counts.
pub fn foreign_name(foreign: &str) -> String {
    let stem = foreign.split('.').next().unwrap_or_default().to_ascii_lowercase();
    let device = DEVICES.iter().any(|device| {
        let rest = stem.strip_prefix(device);
        rest.is_some_and(|rest| match *device {
            "com" | "lpt" => matches!(rest.as_bytes(), [b'0'..=b'9']),
            _ => rest.is_empty(),
        })
    });
    let last = foreign.len().wrapping_sub(1);
    let mut name = String::new();
    for (index, byte) in foreign.bytes().enumerate() {
        match byte {
            b'.' if index > 0 && index < last => name.push('.'),
            b'-' | b'_' | b'+' => name.push(byte.into()),
            _ if byte.is_ascii_alphanumeric() && !(device && index == 0) => name.push(byte.into()),
            _ => name.push_str(&format!("%{byte:02X}")),
        }
    }
    match name.len() {
        0 => "%".into(),
        1..=LONG => name,
        _ => format!("{}%-{}", &name[..60], &super::sha256(foreign.as_bytes())[..32]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_foreign_path_stays_inside() {
        assert_eq!(foreign_path("onnx/model.bin"), Some("onnx/model.bin".into()));
        for bad in ["", "/etc/x", "../x", "a/../b", "a//b", "a/", ".hidden", "a\\b", "c:x", "a\nb", "a\0"] {
            assert_eq!(foreign_path(bad), None, "{bad:?}");
        }
        assert_eq!(foreign_path(&"x".repeat(256)), None);
    }

    #[test]
    fn every_string_has_a_file_name_of_its_own() {
        assert_eq!(foreign_name("risk-level_2.b"), "risk-level_2.b");
        assert_eq!(foreign_name("../../x"), "%2E.%2F..%2Fx");
        assert_eq!(foreign_name("größe"), "gr%C3%B6%C3%9Fe");
        assert_eq!(foreign_name("user-type+risk-level"), "user-type+risk-level");
        // What Windows would drop, or take for a device.
        assert_eq!(foreign_name("a."), "a%2E");
        assert_eq!(
            ["CON", "nul.txt", "com7", "com77", "lpt"].map(foreign_name),
            ["%43ON", "%6Eul.txt", "%63om7", "com77", "lpt"]
        );
        let long: Vec<String> = ["a", "b"].map(|end| foreign_name(&("x".repeat(5000) + end))).into();
        assert!(long[0] != long[1] && long[0].len() <= 100);
        let mut names = std::collections::BTreeSet::new();
        let cut = long[0].as_str();
        let hostile =
            ["", ".", "..", "a/b", "a\0b", "%", "a\\b", "a:b", "a b", "a.", "a", "\u{202e}a", "\n", "~", cut];
        for foreign in hostile {
            let name = foreign_name(foreign);
            assert!(foreign_path(&name).is_some(), "{foreign:?} gives {name:?}");
            assert!(names.insert(name), "{foreign:?} shares its name with another");
        }
        assert!(!names.contains(cut), "no string gives the name that another is cut to");
    }
}
