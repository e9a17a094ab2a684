//! What is wrong with a configuration, where, and what to do about it.

use std::collections::BTreeSet;
use std::fmt;

use super::de::At;

/// A place in the file; both counted from 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// The line.
    pub line: u32,
    /// The column, in characters.
    pub column: u32,
}

/// One fault of a configuration.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fault {
    /// Where it is.
    pub position: Position,
    /// The path of the key, like `peers[1].public_key`; empty for the file as a whole.
    pub key: String,
    /// What is wrong and what to do.
    pub message: String,
}

/// Why a configuration is refused: every fault that was found, in the order of the file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct ConfigError {
    /// The file, as the operator named it.
    pub file: String,
    /// At least one.
    pub faults: Vec<Fault>,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, fault) in self.faults.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            f.write_str(&self.file)?;
            if fault.position.line > 0 {
                write!(f, ":{}:{}", fault.position.line, fault.position.column)?;
            }
            f.write_str(": ")?;
            if !fault.key.is_empty() {
                write!(f, "{}: ", fault.key)?;
            }
            f.write_str(&fault.message)?;
        }
        Ok(())
    }
}

/// Collects faults, so that all of them can be shown at once.
#[derive(Debug, Default)]
pub(super) struct Faults {
    list: Vec<Fault>,
    /// Keys that are absent only because of a fault that is already listed.
    excused: BTreeSet<String>,
}

impl Faults {
    pub(super) fn push(&mut self, position: Position, key: &str, message: impl Into<String>) {
        self.list.push(Fault { position, key: key.to_owned(), message: message.into() });
    }

    /// A fault of the value `at`.
    pub(super) fn at<T>(&mut self, at: &At<T>, message: impl Into<String>) {
        self.push(at.position, &at.key, message);
    }

    /// `key` will be found missing for a reason that is already listed.
    pub(super) fn excuse(&mut self, key: String) {
        self.excused.insert(key);
    }

    /// The section at `position` lacks `key`, whose whole path is given.
    pub(super) fn missing(&mut self, position: Position, key: &str, what: &str) {
        let listed = self.excused.contains(key) || self.list.iter().any(|fault| fault.key == key);
        if !listed {
            self.push(position, key, format!("is missing: {what}"));
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// In the order of the file.
    pub(super) fn into_error(mut self, file: &str) -> ConfigError {
        self.list.sort();
        self.list.dedup();
        ConfigError { file: file.to_owned(), faults: self.list }
    }
}

/// The word of `words` that was probably meant by `word`, as a hint to put behind a message.
pub(super) fn did_you_mean<'w>(
    word: &str,
    words: impl IntoIterator<Item = &'w str>,
) -> Option<&'w str> {
    let lower = word.to_ascii_lowercase().replace('-', "_");
    words
        .into_iter()
        .map(|known| (strsim::damerau_levenshtein(&lower, &known.replace('-', "_")), known))
        .filter(|(distance, known)| *distance <= 1.max(known.len() / 3))
        .min()
        .map(|(_, known)| known)
}

/// Words in backquotes with commas between them.
pub(super) fn quoted_list<'w>(words: impl IntoIterator<Item = &'w str>) -> String {
    words.into_iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suggestions_are_near_or_absent() {
        let keys = ["name", "private_key_file", "state_dir"];
        assert_eq!(did_you_mean("nmae", keys), Some("name"));
        assert_eq!(did_you_mean("private-key", keys), Some("private_key_file"));
        assert_eq!(did_you_mean("mode", keys), None);
        assert_eq!(did_you_mean("x", keys), None);
    }

    #[test]
    fn a_missing_key_is_not_reported_twice() {
        let mut faults = Faults::default();
        faults.push(Position::default(), "node.name", "a list is not allowed here");
        faults.missing(Position::default(), "node.name", "a name");
        faults.excuse("node.state_dir".into());
        faults.missing(Position::default(), "node.state_dir", "a directory");
        assert_eq!(faults.into_error("f").faults.len(), 1);
    }
}
