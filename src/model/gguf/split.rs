//! A model in several GGUF files, as llama.cpp's `gguf-split` writes it: the path of any of them in, all of them out.

use std::path::Path;

use crate::artifact::{GgufFile, GgufTensor};
use crate::error::{Error, Result};

/// What the name of a part says: `STEM-00002-of-00003.gguf`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::model) struct PartName<'a> {
    stem: &'a str,
    /// From 1.
    number: usize,
    /// Number of parts.
    count: usize,
    /// `gguf`, in whatever letters.
    end: &'a str,
}

impl<'a> PartName<'a> {
    /// The name of a part; none for another name.
    pub fn parse(name: &'a str) -> Option<PartName<'a>> {
        let (rest, end) = name.rsplit_once('.')?;
        let (rest, count) = rest.rsplit_once("-of-")?;
        let (stem, number) = rest.rsplit_once('-')?;
        let read = |digits: &str| {
            let plain = digits.len() == 5 && digits.bytes().all(|byte| byte.is_ascii_digit());
            digits.parse::<usize>().ok().filter(|_| plain)
        };
        let (number, count) = (read(number)?, read(count)?);
        let valid = end.eq_ignore_ascii_case("gguf") && (1..=count).contains(&number);
        valid.then_some(PartName { stem, number, count, end })
    }

    /// The names of all parts of the same model, the first part first.
    pub fn all(self) -> impl Iterator<Item = String> {
        let PartName { stem, count, end, .. } = self;
        (1..=count).map(move |number| format!("{stem}-{number:05}-of-{count:05}.{end}"))
    }
}

/// The first of some names, if they are all parts of one model.
pub(in crate::model) fn first_of_one<'a>(names: &[&'a str]) -> Option<PartName<'a>> {
    let parts: Vec<PartName> = names.iter().map(|name| PartName::parse(name)).collect::<Option<_>>()?;
    let first = *parts.first()?;
    parts
        .iter()
        .all(|part| (part.stem, part.count, part.end) == (first.stem, first.count, first.end))
        .then_some(first)
}

/// The files of one model: one, or the parts of a split one.
pub(super) struct Files {
    /// The file with the metadata.
    pub first: GgufFile,
    rest: Vec<GgufFile>,
}

impl Files {
    /// Opens the file of a path and, if it is a part, the others beside it.
    ///
    /// # Errors
    /// A file that isn't a complete GGUF file; a part that is missing, or that contradicts its name or the other parts.
    pub fn open(path: &Path) -> Result<Files> {
        let file = GgufFile::open(path)?;
        let Some(count) = file.count("split.count")?.filter(|count| *count > 1) else {
            return Ok(Files { first: file, rest: Vec::new() });
        };
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let Some(part) = PartName::parse(&name) else {
            let expected = format!(
                "NAME-00001-of-{count:05}.gguf, beside the other parts (or llama-gguf-split --merge)"
            );
            return Err(file.wrong(format!("one of {count} parts, whose name does not say which"), expected));
        };
        drop(file);
        let paths: Vec<_> = part.all().map(|name| path.with_file_name(name)).collect();
        let missing: Vec<_> = paths.iter().filter(|path| !path.is_file()).collect();
        if let [first, ..] = missing.as_slice() {
            let found = format!("no such file ({} of {} parts are missing)", missing.len(), paths.len());
            return Err(Error::input(first.display(), found, format!("all parts of {}", part.stem)));
        }
        let mut files = Vec::new();
        for (number, path) in paths.iter().enumerate() {
            let file = GgufFile::open(path)?;
            for (key, expected) in [("split.count", paths.len()), ("split.no", number)] {
                let found = file.count(key)?;
                if found != Some(expected) {
                    let found = found.map_or_else(|| "missing".into(), |found| found.to_string());
                    return Err(
                        file.wrong(format!("{key} is {found}"), format!("{expected}, as its name says"))
                    );
                }
            }
            files.push(file);
        }
        let tensors: usize = files.iter().map(|file| file.tensors().len()).sum();
        let mut files = files.into_iter();
        let Some(first) = files.next() else {
            return Err(Error::input(path.display(), "no parts", "one at least"));
        };
        if let Some(claimed) = first.count("split.tensors.count")?.filter(|claimed| *claimed != tensors) {
            let found = format!("split.tensors.count is {claimed}, and the parts have {tensors} tensors");
            return Err(first.wrong(found, "all parts of one model"));
        }
        Ok(Files { first, rest: files.collect() })
    }

    fn all(&self) -> impl Iterator<Item = &GgufFile> {
        std::iter::once(&self.first).chain(&self.rest)
    }

    /// A tensor and its file.
    pub fn tensor(&self, name: &str) -> Option<(&GgufFile, &GgufTensor)> {
        self.all().find_map(|file| file.tensors().get(name).map(|tensor| (file, tensor)))
    }

    /// The tensors of all parts.
    pub fn tensors(&self) -> impl Iterator<Item = &GgufTensor> {
        self.all().flat_map(|file| file.tensors().values())
    }

    /// The names of the tensors of all parts.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.all().flat_map(|file| file.tensors().keys().map(String::as_str))
    }

    /// The files, for their tensors alone.
    pub fn without_metadata(self) -> Vec<GgufFile> {
        std::iter::once(self.first).chain(self.rest).map(GgufFile::without_metadata).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_parts_are_those_of_gguf_split() {
        let part = PartName::parse("a-of-b-Q4_K_M-00002-of-00003.gguf").unwrap();
        assert_eq!((part.stem, part.number, part.count), ("a-of-b-Q4_K_M", 2, 3));
        let all: Vec<String> = part.all().collect();
        assert_eq!(all[0], "a-of-b-Q4_K_M-00001-of-00003.gguf");
        assert_eq!(all.len(), 3);
        for name in [
            "a.gguf",
            "a-2-of-3.gguf",
            "a-00004-of-00003.gguf",
            "a-00000-of-00003.gguf",
            "a-00001-of-00003.safetensors",
        ] {
            assert_eq!(PartName::parse(name), None, "{name}");
        }
        let one = ["a-00001-of-00002.gguf", "a-00002-of-00002.gguf"];
        assert!(first_of_one(&one).is_some());
        assert!(first_of_one(&[one[0], "b-00001-of-00002.gguf"]).is_none());
        assert!(first_of_one(&[one[0], "b.gguf"]).is_none());
        assert!(first_of_one(&[]).is_none());
    }
}
