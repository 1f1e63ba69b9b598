//! `cargo xtask test`: everything that must hold, step by step, stopping at the first failure.
use std::process::Command;
use std::time::{Duration, Instant};

use crate::problem::Problem;
use crate::{bench, cargo, packages, process};

/// One step: its heading and the cargo command behind it.
type Step = (&'static str, &'static [&'static str]);

const STEPS: &[Step] = &[
    ("format", &["fmt", "--all", "--check"]),
    ("lints", &["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]),
    ("build", &["build", "--workspace"]),
    ("tests: unit, contract, process, real clients", &["test", "--workspace"]),
    // The only build that has planted bugs (HA 8).
    (
        "simulation: planted bugs are found",
        &[
            "test",
            "-p",
            "simulation",
            "--features",
            "planted",
            "--test",
            "seeds",
            "--test",
            "links",
            "--test",
            "whole",
        ],
    ),
];

/// Installs what is needed and runs all steps.
///
/// # Errors
/// When a package is missing or a step fails.
pub fn run() -> Result<(), Problem> {
    let start = Instant::now();
    step("packages", || packages::need(packages::FOR_TESTS))?;
    for (heading, arguments) in STEPS {
        step(heading, || {
            let mut command: Command = cargo::cargo();
            command.args(*arguments);
            match process::show(&mut command)? {
                true => Ok(()),
                false => Err(Problem(format!("cargo {} failed", arguments.join(" ")))),
            }
        })?;
    }
    step("instructions of a call", || bench::instructions::run(false))?;
    println!("\n== all steps passed ({})", seconds(start.elapsed()));
    Ok(())
}

/// `cargo xtask simulate`: the program `simulate` in its release build, with the planted bugs only where one is named.
///
/// # Errors
/// When a seed breaks a rule.
pub fn simulate(arguments: &[String]) -> Result<(), Problem> {
    let mut command = cargo::cargo();
    command.args(["run", "--release", "-p", "simulation", "--bin", "simulate"]);
    if arguments.iter().any(|argument| argument == "--bug") {
        command.args(["--features", "planted"]);
    }
    command.arg("--").args(arguments);
    match process::show(&mut command)? {
        true => Ok(()),
        false => Err(Problem("a seed broke a rule; the command that replays it stands above".into())),
    }
}

fn step(heading: &str, work: impl FnOnce() -> Result<(), Problem>) -> Result<(), Problem> {
    println!("\n== {heading}");
    let start = Instant::now();
    let outcome = work();
    let verdict = if outcome.is_ok() { "passed" } else { "FAILED" };
    println!("== {heading}: {verdict} ({})", seconds(start.elapsed()));
    outcome
}

fn seconds(span: Duration) -> String {
    format!("{:.1} s", span.as_secs_f64())
}
