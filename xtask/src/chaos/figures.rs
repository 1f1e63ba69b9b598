//! Figures beside the table of faults: each of a lab of its own.
use std::path::Path;

use super::{overload, repair};
use crate::lab::{Guard, Lab, Network, Wanted};
use crate::problem::Problem;

/// What came of one.
pub(super) struct Figure {
    /// The word by which `--only` names it.
    pub(super) name: &'static str,
    /// What was measured, and how it came out.
    pub(super) lines: Vec<(String, String)>,
    /// What must not be.
    pub(super) faults: Vec<String>,
    /// Numbers for a program that reads our output.
    pub(super) measures: Vec<(&'static str, u64)>,
}

type Play = fn(&Lab, bool) -> Result<Figure, Problem>;

/// All of them, by name.
pub(super) const FIGURES: &[(&str, Play)] = &[("overload", overload::figure), ("repair", repair::figure)];

/// Plays one on a new lab of three.
pub(super) fn play(
    dir: &Path,
    (name, play): (&str, Play),
    short: bool,
    release: bool,
) -> Result<Figure, Problem> {
    let dir = dir.join(name);
    let lab = Wanted { members: 3, dir, release, build: true, network: Network::Loopback };
    let guard = Guard(Lab::up(&lab, &|_| ())?);
    let figure = play(&guard.0, short)?;
    for (what, value) in &figure.lines {
        println!("{name:<12} {what}: {value}");
    }
    for (what, value) in &figure.measures {
        println!("MEASURE {name} {what} {value}");
    }
    Ok(figure)
}

/// Microseconds for people.
pub(super) fn millis(us: u64) -> String {
    format!("{}.{} ms", us / 1_000, us / 100 % 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn microseconds_are_told_in_milliseconds() {
        assert_eq!((millis(12_345), millis(40)), ("12.3 ms".into(), "0.0 ms".into()));
    }
}
