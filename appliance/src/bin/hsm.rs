//! hsm.
fn main() {}
