//! The operator's side of `hsmd`: a Unix socket, lines of JSON, one verb a line.
pub mod protocol;
pub mod socket;
pub mod verbs;
