//! Runs every target for a bounded number of inputs.

use fuzz::{corpus, run, targets};

#[test]
fn frames_never_panic() {
    run("frames", &corpus::frames(), targets::frames);
}

#[test]
fn bodies_never_panic() {
    let samples: Vec<Vec<u8>> = corpus::requests().into_iter().chain(corpus::replies()).collect();
    run("bodies", &samples, targets::bodies);
}

#[test]
fn configurations_never_panic() {
    run("configuration", &corpus::configurations(), targets::configuration);
}
