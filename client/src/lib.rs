//! Slots, sessions, operations, driver and Chrystoki.conf.

pub mod conf;
