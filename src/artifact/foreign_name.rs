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

/// One file name for any string: letters, digits, `-`, `_` and inner dots stand for themselves, every other byte for `%XX`;
/// a name of more than 100 bytes is cut and ends in a hash of the whole. Different strings give different names.
pub fn foreign_name(foreign: &str) -> String {
    let mut name = String::new();
    for (index, byte) in foreign.bytes().enumerate() {
        match byte {
            b'.' if index > 0 => name.push('.'),
            b'-' | b'_' => name.push(byte.into()),
            _ if byte.is_ascii_alphanumeric() => name.push(byte.into()),
            _ => name.push_str(&format!("%{byte:02X}")),
        }
    }
    match name.len() {
        0 => "%".into(),
        1..=100 => name,
        _ => format!("{}-{}", &name[..80], super::short(&super::sha256(foreign.as_bytes()))),
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
        let long: Vec<String> = ["a", "b"].map(|end| foreign_name(&("x".repeat(5000) + end))).into();
        assert!(long[0] != long[1] && long[0].len() <= 100);
        for foreign in ["", ".", "..", "a/b", "a\0b", "%"] {
            let name = foreign_name(foreign);
            assert!(foreign_path(&name).is_some(), "{foreign:?} gives {name:?}");
        }
    }
}
