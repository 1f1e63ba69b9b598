//! SIGKILL of an appliance at a random moment of a burst of creates: every acknowledged key is there and signs.
#![allow(clippy::unwrap_used)]

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tests::lab::Lab;

/// Rounds of the issue; `HATOKI_CRASH_ROUNDS` overrides them for a longer search.
const ROUNDS: u64 = 200;

/// A small generator, seeded and printed, so that a failing run can be repeated.
fn next(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

#[test]
fn every_acknowledged_key_survives_sigkill_and_signs() {
    let rounds =
        std::env::var("HATOKI_CRASH_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(ROUNDS);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().subsec_nanos();
    let mut seed =
        std::env::var("HATOKI_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(u64::from(now) | 1);
    println!("repeat with HATOKI_SEED={seed}");
    let lab = Lab::up(1);
    let mut scene = lab.scene("bursts", &[&rounds.to_string(), "4"]);
    for _ in 0..rounds {
        scene.expect("ROUND");
        scene.go();
        std::thread::sleep(Duration::from_micros(next(&mut seed) % 50_000));
        lab.lab("kill", Some(1));
        lab.lab("start", Some(1));
        scene.expect("MADE");
        scene.go();
    }
    let acknowledged: u64 = scene.expect("RESULT").parse().unwrap();
    assert!(acknowledged >= rounds, "bursts were acknowledged: {acknowledged}");
    println!("{acknowledged} acknowledged keys signed after {rounds} kills");
    scene.finish();
}
