//! Client tool: certificates, servers, HA groups.
fn main() {}
