//! The metrics pages of running processes ([`spec::stats`]): found and read, turned into rows, shown.

mod gather;
mod prometheus;
mod rows;

#[cfg(test)]
pub(crate) use gather::tests;
pub(crate) use gather::{Gathered, Read, folders, gather};
pub(crate) use prometheus::render as prometheus;
pub(crate) use rows::{HEADS, Row, rows};

/// A text from a page without what a terminal would obey: whoever writes a page chooses it.
pub(crate) fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}
