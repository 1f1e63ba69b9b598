//! The values in force, each checked against its row of the options table before it is used.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use super::configuration::{Copies, Serial, Warning};
use super::document::{Document, Entry, index_of, indexed_key};
use super::error::{Error, Malformed, quoted};
use super::options::{self, Kind, Known, Row, Wrong};

/// Greatest number of serials in one list.
const SERIALS_MAX: usize = 100;

/// A document with the faults taken out: asking for a value cannot fail any more.
pub(crate) struct Values<'a> {
    document: &'a Document,
    file: &'a Path,
    /// Values outside of their range whose default is used.
    passed_over: Vec<(String, String)>,
    pub(crate) warnings: Vec<Warning>,
}

impl<'a> Values<'a> {
    /// Checks every value in force. Errs at the first one that is refused; collects warnings for the others and for
    /// names that no table knows, each once.
    pub(crate) fn check(document: &'a Document, file: &'a Path) -> Result<Values<'a>, Error> {
        let mut values = Values { document, file, passed_over: Vec::new(), warnings: Vec::new() };
        let labels: Vec<&str> = document
            .entries()
            .filter(|e| e.section.eq_ignore_ascii_case(options::GROUP_LABEL.section))
            .filter(|e| index_of(options::GROUP_LABEL.key, &e.key).is_some())
            .map(|e| e.value.as_str())
            .collect();
        values.warn_of_sections();
        let name = |entry: &Entry| (entry.section.to_ascii_lowercase(), entry.key.to_ascii_lowercase());
        let last: HashMap<_, _> =
            document.entries().enumerate().map(|(at, entry)| (name(entry), at)).collect();
        for (at, entry) in document.entries().enumerate() {
            if last.get(&name(entry)) != Some(&at) {
                continue;
            }
            match options::find(&entry.section, &entry.key, &labels) {
                Known::Read(row) => values.check_entry(row, entry)?,
                Known::Unused(Some(action)) if !entry.value.is_empty() => {
                    let text =
                        format!("{} in section {} changes nothing here: {action}", entry.key, entry.section);
                    values.warn(entry.key_at.line, text);
                }
                Known::Unused(_) | Known::UnknownSection => {}
                Known::UnknownKey => {
                    let text = format!("unknown key {} in section {}, ignored", entry.key, entry.section);
                    values.warn(entry.key_at.line, text);
                }
            }
        }
        Ok(values)
    }

    fn warn_of_sections(&mut self) {
        let mut seen: Vec<String> = Vec::new();
        for (name, at) in self.document.sections() {
            let lower = name.to_ascii_lowercase();
            if !matches!(options::find(name, "", &[]), Known::UnknownSection) || seen.contains(&lower) {
                continue;
            }
            seen.push(lower);
            self.warn(at.line, format!("unknown section {name}, ignored"));
        }
    }

    fn check_entry(&mut self, row: &'static Row, entry: &Entry) -> Result<(), Error> {
        if entry.value.is_empty() || acceptable(row.kind, &entry.value) {
            return Ok(());
        }
        match row.wrong {
            Wrong::Refused | Wrong::OnUse => {
                Err(self.fault(entry, format!("{} for {}", row.range(), entry.key)))
            }
            Wrong::DefaultUsed => {
                let text = format!(
                    "wanted {} for {}, found {}; the default {} is used, correct the value",
                    row.range(),
                    entry.key,
                    quoted(&entry.value),
                    row.default
                );
                self.warn(entry.value_at.line, text);
                self.passed_over.push((entry.section.to_ascii_lowercase(), entry.key.to_ascii_lowercase()));
                Ok(())
            }
        }
    }

    pub(crate) fn warn(&mut self, line: u32, text: String) {
        self.warnings.push(Warning { file: self.file.to_path_buf(), line, text });
    }

    /// A value that is refused, at its place.
    pub(crate) fn fault(&self, entry: &Entry, wanted: impl Into<String>) -> Error {
        let found = if entry.value.is_empty() { "an empty value".to_owned() } else { quoted(&entry.value) };
        Error::Malformed(Box::new(Malformed {
            file: self.file.to_path_buf(),
            line: entry.value_at.line,
            column: entry.value_at.column,
            wanted: wanted.into(),
            found,
            action: format!("correct {} in section {}", entry.key, entry.section),
        }))
    }

    /// The entry in force of a key, when it has a usable value.
    pub(crate) fn given(&self, section: &str, key: &str) -> Option<&'a Entry> {
        let passed = (section.to_ascii_lowercase(), key.to_ascii_lowercase());
        self.document
            .entry(section, key)
            .filter(|e| !e.value.is_empty() && !self.passed_over.contains(&passed))
    }

    /// The entry of a numbered row.
    pub(crate) fn given_at(&self, row: &Row, index: u8) -> Option<&'a Entry> {
        self.given(row.section, &indexed_key(row.key, index))
    }

    /// Numbers of a numbered row that have a usable value, ascending.
    pub(crate) fn indices(&self, row: &Row) -> Vec<u8> {
        (0..100).filter(|index| self.given_at(row, *index).is_some()).collect()
    }

    /// The text in force of a row without a number or label, its default when there is none.
    pub(crate) fn text(&self, row: &'static Row) -> &'a str {
        self.given(row.section, row.key).map_or(row.default, |entry| entry.value.as_str())
    }

    pub(crate) fn flag(&self, row: &'static Row) -> bool {
        flag(self.text(row)) == Some(true)
    }

    /// A number in the type of its field; the range in the table fits the type.
    pub(crate) fn number<T: TryFrom<i64>>(&self, row: &'static Row) -> T {
        let number = integer(self.text(row)).and_then(|number| T::try_from(number).ok());
        number.expect("the table's default and every checked value are numbers within the field's type")
    }

    pub(crate) fn path(&self, row: &'static Row) -> Option<PathBuf> {
        match self.text(row) {
            "" => None,
            text => Some(self.folder().join(text)),
        }
    }

    /// Index of the word in force of a choice.
    pub(crate) fn choice(&self, row: &'static Row) -> usize {
        let Kind::Choice(words) = row.kind else {
            return 0;
        };
        let text = self.text(row);
        words.iter().position(|word| word.eq_ignore_ascii_case(text)).unwrap_or(0)
    }

    fn folder(&self) -> &'a Path {
        self.file.parent().unwrap_or(Path::new(""))
    }
}

fn acceptable(kind: Kind, text: &str) -> bool {
    match kind {
        Kind::Text { bytes_max } => text.len() <= bytes_max,
        Kind::Path | Kind::PathOrOff => true,
        Kind::Integer { min, max } => integer(text).is_some_and(|number| (min..=max).contains(&number)),
        Kind::Flag => flag(text).is_some(),
        Kind::Choice(words) => words.iter().any(|word| word.eq_ignore_ascii_case(text)),
        Kind::Copies => copies(text).is_some(),
        Kind::Serial => serial(text).is_some(),
        Kind::Serials => serials(text).is_some(),
    }
}

/// A flag; the words are those of other options of ours.
fn flag(text: &str) -> Option<bool> {
    let is = |word: &str| text.eq_ignore_ascii_case(word);
    if text == "1" || is("on") {
        Some(true)
    } else if text == "0" || is("off") {
        Some(false)
    } else {
        None
    }
}

fn integer(text: &str) -> Option<i64> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    text.parse().ok()
}

/// A serial number, or None for anything but decimal digits of at most 64 bits.
pub(crate) fn serial(text: &str) -> Option<Serial> {
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    text.parse().ok().map(Serial)
}

/// Serial numbers separated by commas with optional blanks; a comma at the end is let pass.
pub(crate) fn serials(text: &str) -> Option<Vec<Serial>> {
    let mut list = Vec::new();
    for part in text.strip_suffix(',').unwrap_or(text).split(',') {
        let serial = serial(part.trim())?;
        if list.contains(&serial) || list.len() == SERIALS_MAX {
            return None;
        }
        list.push(serial);
    }
    Some(list)
}

/// A value of `MinimumCopies`.
pub(crate) fn copies(text: &str) -> Option<Copies> {
    match text.to_ascii_lowercase().as_str() {
        "available" => Some(Copies::Available),
        "majority" => Some(Copies::Majority),
        "all" => Some(Copies::All),
        number => integer(number)
            .and_then(|n| u8::try_from(n).ok())
            .filter(|n| (1..=100).contains(n))
            .map(Copies::Number),
    }
}
