//! Hashes and public-key checks that run in the application's process.
