//! Durable storage in SQLite.
mod columns;
pub mod database;
mod sqlite;

pub use sqlite::SqliteStore;
