//! demo, lab and test.
fn main() {}
