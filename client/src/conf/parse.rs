//! From bytes to a [`Document`], or to the place where the text stops being a `Chrystoki.conf`.
//!
//! ```text
//! file    = { trivia | section }
//! section = name "=" "{" { trivia | entry } "}"
//! entry   = key "=" value ";"            key and value each on one line, the value may be empty
//! trivia  = blank | "#" to the end of line | "//" to the end of line | ";"
//! ```
//! Names may hold spaces. A value runs to `;`, so paths with spaces need no quotes, and `#`, `//` and `=` inside a
//! value belong to it. Sections do not nest. A lone `;` (as in `};`) is let pass.

use std::path::Path;

use super::document::{Document, Entry, Piece, Position};
use super::error::{Error, Malformed, quoted};

/// Greatest size of a file.
pub const FILE_BYTES_MAX: usize = 1 << 20;
/// Greatest number of section blocks in a file.
pub const SECTIONS_MAX: usize = 1024;
/// Greatest number of entries in a file.
pub const ENTRIES_MAX: usize = 16_384;
/// Greatest length of a section name or a key.
pub const NAME_BYTES_MAX: usize = 256;
/// Greatest length of a value.
pub const VALUE_BYTES_MAX: usize = 16_384;

/// Parses the bytes of a file; `file` is used in error texts only. Errs with [`Error::Malformed`] at the first fault.
pub fn parse(bytes: &[u8], file: &Path) -> Result<Document, Error> {
    let mut parser =
        Parser { text: "", offset: 0, at: START, file, pieces: Vec::new(), sections: 0, entries: 0 };
    if bytes.len() > FILE_BYTES_MAX {
        let found = format!("{} bytes", bytes.len());
        return Err(parser.fault(
            START,
            "a file of at most 1048576 bytes",
            found,
            "remove what is no configuration",
        ));
    }
    match std::str::from_utf8(bytes) {
        Ok(text) => parser.text = text,
        Err(error) => {
            let good = std::str::from_utf8(&bytes[..error.valid_up_to()]).unwrap_or_default();
            let found = format!("byte 0x{:02X}", bytes.get(error.valid_up_to()).copied().unwrap_or_default());
            let at = good.chars().fold(START, advanced);
            return Err(parser.fault(at, "UTF-8 text", found, "save the file as UTF-8"));
        }
    }
    parser.file()?;
    Ok(Document { pieces: parser.pieces })
}

const START: Position = Position { line: 1, column: 1 };

fn advanced(at: Position, c: char) -> Position {
    match c {
        '\n' => Position { line: at.line.saturating_add(1), column: 1 },
        _ => Position { line: at.line, column: at.column.saturating_add(1) },
    }
}

struct Parser<'a> {
    text: &'a str,
    offset: usize,
    at: Position,
    file: &'a Path,
    pieces: Vec<Piece>,
    sections: usize,
    entries: usize,
}

impl<'a> Parser<'a> {
    fn file(&mut self) -> Result<(), Error> {
        if self.text.starts_with('\u{feff}') {
            self.take();
            self.pieces.push(Piece::Trivia('\u{feff}'.to_string()));
        }
        loop {
            self.trivia();
            match self.peek() {
                None => return Ok(()),
                Some('}') => {
                    return Err(self.fault_here("a section", "`}` outside of a section", "remove it"));
                }
                Some('[') => {
                    let action =
                        "this is the form of crystoki.ini; write the section as `Name = { key = value; }`";
                    return Err(self.fault_here("a section `Name = {`", "`[`", action));
                }
                Some(_) => self.section()?,
            }
        }
    }

    fn section(&mut self) -> Result<(), Error> {
        let (at, start) = (self.at, self.offset);
        let name = self.name("section name", "begin the section with `Name = {`")?;
        while self.peek().is_some_and(char::is_whitespace) {
            self.take();
        }
        if self.peek() != Some('{') {
            let found = self.found();
            let action = format!("write entries inside a section: `Section = {{ {name} = …; }}`");
            return Err(self.fault(self.at, "`{` to open the section", found, action));
        }
        self.take();
        self.sections += 1;
        if self.sections > SECTIONS_MAX {
            let action = "merge repeated sections";
            return Err(self.fault(at, "at most 1024 sections in a file", "one more".to_owned(), action));
        }
        let text = without_tabs(&self.text[start..self.offset], " ");
        self.pieces.push(Piece::Open { name: name.clone(), text, at });
        loop {
            self.trivia();
            match self.peek() {
                None => {
                    let wanted = format!("`}}` to close the section `{name}` opened in line {}", at.line);
                    return Err(self.fault(self.at, wanted, "the end of the file".to_owned(), "add the `}`"));
                }
                Some('}') => {
                    self.take();
                    self.pieces.push(Piece::Close);
                    return Ok(());
                }
                Some(_) => self.entry(&name)?,
            }
        }
    }

    fn entry(&mut self, section: &str) -> Result<(), Error> {
        let (key_at, start) = (self.at, self.offset);
        let key = self.name("key", "write the entry as `key = value;`")?;
        while self.peek().is_some_and(is_blank) {
            self.take();
        }
        let lead = without_tabs(&self.text[start..self.offset], " ");
        let (value_at, value_start) = (self.at, self.offset);
        if self.peek() == Some('{') {
            let action = format!("close `{section}` with `}}` first; sections do not nest");
            return Err(self.fault(value_at, format!("a value for `{key}`"), "`{`".to_owned(), action));
        }
        while let Some(c) = self.peek().filter(|c| !matches!(c, ';' | '\n')) {
            if c.is_control() && !matches!(c, '\t' | '\r') {
                return Err(self.control(c));
            }
            self.take();
        }
        if self.peek() != Some(';') {
            let action = format!("end the value of `{key}` with `;` on its own line");
            return Err(self.fault(self.at, "`;`", self.found(), action));
        }
        let raw = &self.text[value_start..self.offset];
        let value = raw.trim_end_matches(is_blank);
        if value.len() > VALUE_BYTES_MAX || value.contains('\r') {
            let found = if value.contains('\r') {
                "a carriage return inside the value".to_owned()
            } else {
                format!("{} bytes", value.len())
            };
            let wanted = format!("at most 16384 bytes on one line for `{key}`");
            return Err(self.fault(value_at, wanted, found, "correct the value"));
        }
        self.take();
        self.entries += 1;
        if self.entries > ENTRIES_MAX {
            let action = "remove repeated entries";
            return Err(self.fault(key_at, "at most 16384 entries in a file", "one more".to_owned(), action));
        }
        let tail = without_tabs(&raw[value.len()..], " ") + ";";
        let value = without_tabs(value, " ");
        let entry = Entry { section: section.to_owned(), key, value, key_at, value_at };
        self.pieces.push(Piece::Entry { entry, lead, tail });
        Ok(())
    }

    /// A section name or key up to and with its `=`.
    fn name(&mut self, what: &str, action: &str) -> Result<String, Error> {
        let (at, start) = (self.at, self.offset);
        while let Some(c) = self.peek() {
            match c {
                '=' => break,
                ';' | '{' | '}' | '\n' | '\r' => {
                    return Err(self.fault(self.at, format!("`=` after the {what}"), self.found(), action));
                }
                _ if c != '\t' && (c.is_control() || c == '\u{feff}') => {
                    return Err(self.control(c));
                }
                _ => self.take(),
            }
        }
        if self.peek().is_none() {
            return Err(self.fault(self.at, format!("`=` after the {what}"), self.found(), action));
        }
        let name = self.text[start..self.offset].trim();
        if name.is_empty() || name.len() > NAME_BYTES_MAX {
            let found = if name.is_empty() { "`=`".to_owned() } else { format!("{} bytes", name.len()) };
            return Err(self.fault(at, format!("a {what} of 1 to 256 bytes"), found, action));
        }
        let name = without_tabs(name, " ");
        self.take();
        Ok(name)
    }

    fn trivia(&mut self) {
        let start = self.offset;
        loop {
            match self.peek() {
                Some('#') => self.comment(),
                Some('/') if self.text[self.offset..].starts_with("//") => self.comment(),
                Some(c) if c.is_whitespace() || c == ';' => self.take(),
                Some(_) | None => break,
            }
        }
        if self.offset > start {
            self.pieces.push(Piece::Trivia(without_tabs(&self.text[start..self.offset], "   ")));
        }
    }

    fn comment(&mut self) {
        while self.peek().is_some_and(|c| c != '\n') {
            self.take();
        }
    }

    fn peek(&self) -> Option<char> {
        self.text[self.offset..].chars().next()
    }

    fn take(&mut self) {
        if let Some(c) = self.peek() {
            self.offset += c.len_utf8();
            self.at = advanced(self.at, c);
        }
    }

    /// What stands at the current place, for an error text.
    fn found(&self) -> String {
        match self.peek() {
            None => "the end of the file".to_owned(),
            Some('\n' | '\r') => "the end of the line".to_owned(),
            Some(c) => quoted(&c.to_string()),
        }
    }

    fn control(&self, c: char) -> Error {
        let found = format!("the character U+{:04X}", u32::from(c));
        self.fault(self.at, "printable text", found, "remove it")
    }

    fn fault_here(&self, wanted: &str, found: &str, action: &str) -> Error {
        self.fault(self.at, wanted, found.to_owned(), action)
    }

    fn fault(
        &self,
        at: Position,
        wanted: impl Into<String>,
        found: String,
        action: impl Into<String>,
    ) -> Error {
        Error::Malformed(Box::new(Malformed {
            file: self.file.to_path_buf(),
            line: at.line,
            column: at.column,
            wanted: wanted.into(),
            found,
            action: action.into(),
        }))
    }
}

fn is_blank(c: char) -> bool {
    c.is_whitespace() && c != '\n'
}

fn without_tabs(text: &str, instead: &str) -> String {
    text.replace('\t', instead)
}
