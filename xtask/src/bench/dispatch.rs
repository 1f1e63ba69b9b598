//! The module over a null link: `hatoki-dispatch` run a few times, and once in the debug build, which counts locks.
use std::path::Path;
use std::process::Command;

use serde::{Deserialize, Serialize};

use super::results::median;
use crate::problem::Problem;
use crate::{cargo, process};

/// A signature at so many threads.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, Serialize)]
pub(super) struct Dispatch {
    pub(super) threads: u64,
    /// Processor time of the calling thread, in nanoseconds.
    pub(super) cpu_ns: f64,
    /// How often memory was asked for.
    pub(super) allocations: f64,
}

/// Medians over so many runs.
pub(super) fn measure(programs: &Path, runs: usize) -> Result<Vec<Dispatch>, Problem> {
    let program = programs.join("hatoki-dispatch");
    let mut all: Vec<Vec<Dispatch>> = Vec::new();
    for _ in 0..runs {
        let value = process::json(Command::new(&program).arg("time"))?;
        let run = serde_json::from_value(value)
            .map_err(|error| Problem(format!("{}: {error}", program.display())))?;
        all.push(run);
    }
    Ok(medians(&all))
}

/// Where one signature takes locks, by the debug build: run by cargo, it is built; else it is the one beside the other build.
/// `None` when there is none.
pub(super) fn locks() -> Result<Option<Vec<String>>, Problem> {
    let program = match cargo::is_run_by_cargo() {
        true => {
            let mut command = cargo::cargo();
            command.args(["build", "-p", "benches", "--bin", "hatoki-dispatch"]);
            if !process::show(&mut command)? {
                return Err(Problem("the debug build failed".into()));
            }
            cargo::target()?.join("debug/hatoki-dispatch")
        }
        false => cargo::beside().with_file_name("debug").join("hatoki-dispatch"),
    };
    if !program.is_file() {
        return Ok(None);
    }
    let value = process::json(Command::new(&program).arg("locks"))?;
    serde_json::from_value(value)
        .map(Some)
        .map_err(|error| Problem(format!("{}: {error}", program.display())))
}

fn medians(runs: &[Vec<Dispatch>]) -> Vec<Dispatch> {
    let Some(first) = runs.first() else { return Vec::new() };
    let middle = |place: usize, figure: fn(&Dispatch) -> f64| {
        median(runs.iter().filter_map(|run| run.get(place)).map(figure).collect())
    };
    let at = |(place, one): (usize, &Dispatch)| Dispatch {
        threads: one.threads,
        cpu_ns: middle(place, |one| one.cpu_ns),
        allocations: middle(place, |one| one.allocations),
    };
    first.iter().enumerate().map(at).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_joined_by_their_medians() {
        let run = |cpu_ns| vec![Dispatch { threads: 1, cpu_ns, allocations: 2.0 }];
        assert_eq!(medians(&[run(9.0), run(1.0), run(5.0)]), run(5.0));
        assert!(medians(&[]).is_empty());
    }
}
