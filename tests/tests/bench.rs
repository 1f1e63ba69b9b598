//! `cargo xtask bench` from end to end, in the debug build and with short windows: everybody takes part, every figure is there.
//! What the figures are is asserted nowhere.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use serde_json::Value;
use tests::lab::{expect_ok, run};

/// The JSON of a short run of these.
fn measured(only: &str) -> Value {
    let folder = tempfile::Builder::new().prefix("hk-").tempdir().unwrap();
    let dir = folder.path().display().to_string();
    let arguments = ["bench", "--debug", "--quick", "--json", "--only", only, "--dir", &dir];
    let text = expect_ok(&run("xtask", &arguments, &BTreeMap::new()), "xtask bench");
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[test]
fn signatures_of_all_contestants_are_measured_in_turn_and_judged() {
    let run =
        measured("p256-sign/1t/1cpu,round-trip/1t,login,rsa2048-verify,hmac-1k,gcm-1k-decrypt,find,dispatch");
    assert_eq!(run["results"]["failures"], Value::Array(vec![]), "{run}");
    for bar in run["bars"].as_array().unwrap() {
        assert!(bar["measured"].is_number() && bar["met"].is_boolean(), "{bar}");
    }
    let who = |cell: usize| -> Vec<&str> {
        let series = run["results"]["cells"][cell]["series"].as_array().unwrap();
        assert!(series.iter().all(|series| {
            let windows = series["windows"].as_array().unwrap();
            windows.len() == 5 && windows.iter().all(|window| window["operations"].as_u64() > Some(0))
        }));
        series.iter().map(|series| series["contestant"].as_str().unwrap()).collect()
    };
    assert_eq!(who(0), ["softhsm2", "library", "hatoki-2"]);
    assert_eq!(who(1), ["link"]);
    let counted = |cell: usize, place: usize| &run["results"]["cells"][cell]["series"][place]["allocations"];
    assert!(counted(0, 2).is_number() && counted(0, 0).is_null(), "{run}");
    assert!(counted(1, 0).is_number(), "{run}");
    // The library has nobody to log in; and after logins the keys are there again.
    assert_eq!(who(2), ["softhsm2", "hatoki-2"]);
    (3..6).for_each(|cell| assert_eq!(who(cell), ["softhsm2", "library", "hatoki-2"], "{cell}"));
    // Beside other clients of the token that search it.
    assert_eq!(who(6), ["softhsm2", "hatoki-2"]);
    let threads = run["results"]["dispatch"].as_array().unwrap().iter().map(|one| one["threads"].as_u64());
    assert!(threads.eq([1, 2, 8, 32].map(Some)), "{run}");
}
