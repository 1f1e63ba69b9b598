//! A parsed `Chrystoki.conf` that keeps comments, order and spacing, so that editing changes only what was meant.
//!
//! A document is a flat run of pieces. Written one after another they give the file again, except that a tab comes
//! out as spaces: the vendor warns never to put tabs in, yet files in the field have them, so they are read, never
//! written.

use super::error::{Error, Unwritable, quoted};

/// A place in the file it was parsed from; both numbers count from 1 and are 0 for what was added later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Position {
    /// Line.
    pub line: u32,
    /// Column in characters.
    pub column: u32,
}

/// One piece of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Piece {
    /// Blanks, line ends, comments and stray `;`.
    Trivia(String),
    /// `Name = {`.
    Open { name: String, text: String, at: Position },
    /// `key = value;` inside a section.
    Entry { entry: Entry, lead: String, tail: String },
    /// `}`.
    Close,
}

/// One `key = value;`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Name of the section it stands in, spelled as in the file.
    pub section: String,
    /// Key, spelled as in the file.
    pub key: String,
    /// Value without surrounding blanks; a tab inside was read as one space.
    pub value: String,
    /// Where the key begins.
    pub key_at: Position,
    /// Where the value begins.
    pub value_at: Position,
}

/// A parsed file.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Document {
    pub(crate) pieces: Vec<Piece>,
}

const INDENT: &str = "   ";

impl Document {
    /// The text of the file: what was parsed with the edits applied, and no tab.
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        for piece in &self.pieces {
            match piece {
                Piece::Trivia(trivia) => text.push_str(trivia),
                Piece::Open { text: head, .. } => text.push_str(head),
                Piece::Entry { entry, lead, tail } => {
                    text.push_str(lead);
                    text.push_str(&entry.value);
                    text.push_str(tail);
                }
                Piece::Close => text.push('}'),
            }
        }
        text
    }

    /// Every entry in file order, repeated keys included.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.pieces.iter().filter_map(|piece| match piece {
            Piece::Entry { entry, .. } => Some(entry),
            Piece::Trivia(_) | Piece::Open { .. } | Piece::Close => None,
        })
    }

    /// Name and place of every section block in file order, repeated sections included.
    pub fn sections(&self) -> impl Iterator<Item = (&str, Position)> {
        self.pieces.iter().filter_map(|piece| match piece {
            Piece::Open { name, at, .. } => Some((name.as_str(), *at)),
            Piece::Trivia(_) | Piece::Entry { .. } | Piece::Close => None,
        })
    }

    /// The entry in force: repeated sections are one section and the last key wins. Names compare without case.
    pub fn entry(&self, section: &str, key: &str) -> Option<&Entry> {
        self.entries().filter(|entry| entry.is(section, key)).last()
    }

    /// The value in force, an empty one included.
    pub fn value(&self, section: &str, key: &str) -> Option<&str> {
        self.entry(section, key).map(|entry| entry.value.as_str())
    }

    /// Sets the value in force of one key; a new key goes to the end of its section, a new section to the end of the
    /// file. Errs when a name or the value cannot stand in the file.
    pub fn set(&mut self, section: &str, key: &str, value: &str) -> Result<(), Error> {
        check_name("section name", section)?;
        check_name("key", key)?;
        check_value(key, value)?;
        let last = self.pieces.iter().rposition(|piece| piece.is_entry(section, key));
        match last {
            Some(at) => {
                if let Piece::Entry { entry, lead, .. } = &mut self.pieces[at] {
                    if entry.value.is_empty() && !lead.ends_with([' ', '\n']) {
                        lead.push(' ');
                    }
                    entry.value = value.to_owned();
                }
            }
            None => self.add(section, key, value),
        }
        Ok(())
    }

    /// Removes every occurrence of a key, leaving comments where they are. Says whether there was one.
    pub fn remove(&mut self, section: &str, key: &str) -> bool {
        let mut removed = false;
        while let Some(at) = self.pieces.iter().position(|piece| piece.is_entry(section, key)) {
            self.remove_piece(at);
            removed = true;
        }
        removed
    }

    /// The next free number of a list such as `ServerNameNN`: one more than the greatest in use by any of the
    /// patterns, else the least free one; None when all hundred are taken.
    pub fn next_index(&self, section: &str, patterns: &[&str]) -> Option<u8> {
        let used: Vec<u8> = self
            .entries()
            .filter(|entry| entry.section.eq_ignore_ascii_case(section))
            .filter_map(|entry| patterns.iter().find_map(|pattern| index_of(pattern, &entry.key)))
            .collect();
        let next = used.iter().max().map_or(0, |greatest| greatest + 1);
        if next < INDEX_COUNT { Some(next) } else { (0..INDEX_COUNT).find(|index| !used.contains(index)) }
    }

    fn add(&mut self, section: &str, key: &str, value: &str) {
        let entry = Entry {
            section: section.to_owned(),
            key: key.to_owned(),
            value: value.to_owned(),
            key_at: Position::default(),
            value_at: Position::default(),
        };
        let piece = Piece::Entry { entry, lead: format!("{key} = "), tail: ";".to_owned() };
        match self.close_of_last(section) {
            Some(close) => self.add_before_close(close, piece),
            None => self.add_section(section, piece),
        }
    }

    /// Index of the `}` of the last block of a section.
    fn close_of_last(&self, section: &str) -> Option<usize> {
        let open = self.pieces.iter().rposition(
            |piece| matches!(piece, Piece::Open { name, .. } if name.eq_ignore_ascii_case(section)),
        )?;
        let close = self.pieces[open..].iter().position(|piece| matches!(piece, Piece::Close))?;
        Some(open + close)
    }

    fn add_before_close(&mut self, close: usize, piece: Piece) {
        let newline = self.newline();
        let indent = self.indent_before(close);
        let before = match self.pieces.get(close - 1) {
            Some(Piece::Trivia(trivia)) => trivia.clone(),
            _ => String::new(),
        };
        let has_trivia = matches!(self.pieces.get(close - 1), Some(Piece::Trivia(_)));
        let start = if has_trivia { close - 1 } else { close };
        let (head, tail) = match before.rfind('\n') {
            Some(end) => (before[..=end].to_owned(), format!("{newline}{}", &before[end + 1..])),
            None => (format!("{}{newline}", before.trim_end()), newline.to_owned()),
        };
        let added = [Piece::Trivia(head + &indent), piece, Piece::Trivia(tail)];
        self.pieces.splice(start..close, added);
    }

    fn add_section(&mut self, section: &str, piece: Piece) {
        let newline = self.newline();
        let text = self.to_text();
        let gap = if text.is_empty() || text.ends_with('\n') { "" } else { newline };
        self.pieces.extend([
            Piece::Trivia(gap.to_owned()),
            Piece::Open {
                name: section.to_owned(),
                text: format!("{section} = {{"),
                at: Position::default(),
            },
            Piece::Trivia(format!("{newline}{INDENT}")),
            piece,
            Piece::Trivia(newline.to_owned()),
            Piece::Close,
            Piece::Trivia(newline.to_owned()),
        ]);
    }

    /// The indentation of the last entry in the block that ends at `close`.
    fn indent_before(&self, close: usize) -> String {
        let mut later_is_entry = false;
        for piece in self.pieces[..close].iter().rev() {
            match piece {
                Piece::Entry { .. } => later_is_entry = true,
                Piece::Trivia(trivia) if later_is_entry => {
                    return trivia.rfind('\n').map_or(INDENT.to_owned(), |end| trivia[end + 1..].to_owned());
                }
                Piece::Trivia(_) => {}
                Piece::Open { .. } | Piece::Close => break,
            }
        }
        INDENT.to_owned()
    }

    fn newline(&self) -> &'static str {
        let crlf = self.pieces.iter().find_map(|piece| match piece {
            Piece::Trivia(trivia) => trivia.find('\n').map(|end| trivia[..end].ends_with('\r')),
            Piece::Open { .. } | Piece::Entry { .. } | Piece::Close => None,
        });
        if crlf == Some(true) { "\r\n" } else { "\n" }
    }

    /// Takes out one entry, and its line when nothing else stands there.
    fn remove_piece(&mut self, at: usize) {
        self.pieces.remove(at);
        let Some(Piece::Trivia(after)) = self.pieces.get(at) else {
            return;
        };
        let Some(Piece::Trivia(before)) = at.checked_sub(1).and_then(|index| self.pieces.get(index)) else {
            return;
        };
        let rest = after.trim_start_matches([' ', '\r']);
        let joined = match (before.rfind('\n'), rest.strip_prefix('\n')) {
            (Some(end), Some(next)) => format!("{}{next}", &before[..=end]),
            (_, None) | (None, _) => format!("{before}{rest}"),
        };
        self.pieces.splice(at - 1..=at, [Piece::Trivia(joined)]);
    }
}

impl Entry {
    /// Whether this is that key of that section; names compare without case.
    pub fn is(&self, section: &str, key: &str) -> bool {
        self.section.eq_ignore_ascii_case(section) && self.key.eq_ignore_ascii_case(key)
    }
}

impl Piece {
    fn is_entry(&self, section: &str, key: &str) -> bool {
        matches!(self, Piece::Entry { entry, .. } if entry.is(section, key))
    }
}

/// List keys are numbered with two digits from 00.
const INDEX_COUNT: u8 = 100;

/// The key of a numbered list: `NN` in the pattern becomes the number with two digits.
pub fn indexed_key(pattern: &str, index: u8) -> String {
    pattern.replacen("NN", &format!("{index:02}"), 1)
}

/// The number in a key that follows a pattern with `NN`; letters compare without case.
pub fn index_of(pattern: &str, key: &str) -> Option<u8> {
    let (prefix, suffix) = pattern.split_once("NN")?;
    let (start, rest) = key.split_at_checked(prefix.len())?;
    let (digits, end) = rest.split_at_checked(2)?;
    let fits = start.eq_ignore_ascii_case(prefix)
        && end.eq_ignore_ascii_case(suffix)
        && digits.bytes().all(|byte| byte.is_ascii_digit());
    if fits { digits.parse().ok() } else { None }
}

fn check_name(what: &str, name: &str) -> Result<(), Error> {
    let fits = !name.is_empty()
        && name.len() <= super::parse::NAME_BYTES_MAX
        && name.trim() == name
        && !name.starts_with('#')
        && !name.starts_with("//")
        && !name.chars().any(|c| c.is_control() || matches!(c, '=' | ';' | '{' | '}' | '\u{feff}'));
    let wanted =
        "a name of 1 to 256 bytes without = ; { } control characters, outer blanks or a leading # or //";
    if fits { Ok(()) } else { Err(unwritable(what.to_owned(), wanted, name)) }
}

fn check_value(key: &str, value: &str) -> Result<(), Error> {
    let fits = value.len() <= super::parse::VALUE_BYTES_MAX
        && value.trim() == value
        && !value.starts_with('{')
        && !value.chars().any(|c| c.is_control() || c == ';');
    let wanted = "at most 16384 bytes without ; control characters, outer blanks or a leading {";
    if fits { Ok(()) } else { Err(unwritable(format!("value of {key}"), wanted, value)) }
}

fn unwritable(what: String, wanted: &'static str, found: &str) -> Error {
    Error::Unwritable(Box::new(Unwritable { what, wanted, found: quoted(found) }))
}
