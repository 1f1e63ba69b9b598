//! SIGKILL of an appliance at a random moment of a burst of creates: every acknowledged key is there and signs.
#![allow(clippy::unwrap_used)]

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tests::lab::Lab;

/// Kills; `HATOKI_CRASH_ROUNDS` overrides them for a longer search.
const ROUNDS: u64 = 200;
/// Key pairs of one burst.
const BURST: u64 = 6;

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
    let mut scene = lab.scene("bursts", &[&rounds.to_string(), &BURST.to_string()]);
    let mut interrupted = 0;
    // Kills come within this of the start of a burst: about as long as a burst takes on this host.
    let mut span_us = 50_000;
    for _ in 0..rounds {
        scene.expect("ROUND");
        scene.go();
        std::thread::sleep(Duration::from_micros(next(&mut seed) % span_us));
        lab.kill_now(1);
        let killed = Instant::now();
        lab.lab("start", Some(1));
        if scene.expect_at("MADE").0 > killed {
            interrupted += 1;
            span_us = (span_us * 9 / 8).min(50_000);
        } else {
            span_us = (span_us * 3 / 4).max(1_000);
        }
        scene.go();
    }
    let acknowledged: u64 = scene.expect("RESULT").parse().unwrap();
    println!(
        "{acknowledged} acknowledged pairs signed after {rounds} kills, {interrupted} of them inside a burst"
    );
    assert!(acknowledged >= rounds * BURST / 2, "bursts go on after the restart");
    assert!(interrupted >= rounds / 2, "the kills hit the bursts");
    scene.finish();
}
