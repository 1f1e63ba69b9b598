//! `Chrystoki.conf`: found, parsed without loss, checked against one table of options, edited and replaced atomically.
//!
//! The grammar is the vendor's: flat sections `Name = { key = value; }`. Our own options stand in one extra section
//! `Hatoki` (RULES 2.18), so that the vendor's client can still read the file. Nothing here looks at a clock or a
//! network; the environment and the file itself are read in [`location`] and [`write`] only.

pub mod configuration;
pub mod document;
pub mod error;
pub mod example;
pub mod location;
pub mod options;
pub mod parse;
mod values;
pub mod write;

pub use configuration::{
    Attempts, Configuration, Copies, Group, HaLog, Hatoki, LogLevel, Policy, Recovery, RecoveryMode, Serial,
    Server, Stats, Warning,
};
pub use document::{Document, Entry, Position};
pub use error::Error;
pub(crate) use location::distrust_environment;
pub use location::{FILE_NAME, folder, load, load_from};
pub use write::EditableFile;
