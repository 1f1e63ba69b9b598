//! Durable storage in SQLite.
pub mod database;
