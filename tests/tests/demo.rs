//! The demo itself, with the programs of this build.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use tests::lab::{expect_ok, run};

#[test]
fn the_demo_ends_with_no_error_and_three_equal_members() {
    let output = run("xtask", &["demo", "--debug"], &BTreeMap::new());
    let text = expect_ok(&output, "xtask demo");
    assert!(text.contains("SUMMARY: ") && text.contains("application-visible errors: 0;"), "{text}");
}
