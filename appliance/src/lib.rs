//! The appliance: `hsmd`, the partition server, and what `hsm`, its operator tool, is made of.
#![forbid(unsafe_code)]

pub mod book;
pub mod config;
pub mod data_dir;
pub mod domains;
pub mod error;
pub mod greeting;
pub mod handler;
pub mod hex;
pub mod link;
pub mod listener;
pub mod registry;
pub mod root_key;
pub mod store;
pub mod workers;
