//! hsmd.
fn main() {}
