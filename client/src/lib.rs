//! Slots, sessions, operations, driver and Chrystoki.conf.
