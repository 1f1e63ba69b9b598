//! The guard against small regressions: how many instructions a signature over the null link takes, counted by callgrind and
//! compared with benches/instructions.json. No clock is involved, so a loaded host counts the same; cryptography is behind the
//! null link, so a host with other cryptographic instructions does too.
//!
//! The crates on the path of a call are optimised for this, as a release build has them, and nothing else is built anew: their
//! count in the debug build would be that of code that nobody runs.
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::{Deserialize, Serialize};

use crate::problem::Problem;
use crate::{cargo, packages, process};

/// The crates that are optimised: those that a call runs through up to the link, and the one that calls.
const ON_THE_PATH: &[&str] =
    &["spec", "digests", "ha", "ntls", "client", "hatoki", "arc-swap", "prost", "rustix", "benches"];
/// As `[profile.release]` has it, but for link-time optimisation.
const SETTINGS: &[&str] =
    &["opt-level=\"s\"", "codegen-units=1", "debug-assertions=false", "overflow-checks=false"];
/// As `.cargo/config.toml` has it, whatever flags whoever counts has set.
const INLINING: &str = "-C llvm-args=-inline-threshold=225";
/// Signatures that are counted.
const OPERATIONS: u64 = 2_000;
/// How many more, or fewer, are let pass, in per cent.
const SLACK_PERCENT: u64 = 5;

/// What is recorded.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
struct Recorded {
    /// Instructions of one C_SignInit and C_Sign.
    sign: u64,
    /// The compiler of the count, for whoever wonders about a difference.
    rustc: String,
}

/// Counts, and compares or records.
///
/// # Errors
/// When the count is further off than it may be, or cannot be taken.
pub fn run(record: bool) -> Result<(), Problem> {
    packages::need(packages::FOR_COUNTING)?;
    let program = build()?;
    let counted = Recorded { sign: count(&program)? / OPERATIONS, rustc: compiler()? };
    let path = cargo::root().join("benches/instructions.json");
    if record {
        let text = serde_json::to_string_pretty(&counted).map_err(|error| Problem(error.to_string()))?;
        println!("a signature over the null link takes {} instructions: recorded", counted.sign);
        return fs::write(&path, text + "\n").map_err(|error| Problem::at(&path, &error));
    }
    let text = fs::read_to_string(&path).map_err(|error| Problem::at(&path, &error))?;
    let recorded: Recorded =
        serde_json::from_str(&text).map_err(|error| Problem(format!("{}: {error}", path.display())))?;
    println!(
        "a signature over the null link takes {} instructions; {} are recorded",
        counted.sign, recorded.sign
    );
    compare(&recorded, &counted).map_err(Problem)
}

/// Whether the count is near enough to the recorded one.
fn compare(recorded: &Recorded, counted: &Recorded) -> Result<(), String> {
    let slack = recorded.sign * SLACK_PERCENT / 100;
    if counted.sign.abs_diff(recorded.sign) <= slack {
        return Ok(());
    }
    let compilers = match recorded.rustc == counted.rustc {
        true => String::new(),
        false => format!(" (that was by {}, this is {})", recorded.rustc, counted.rustc),
    };
    let advice = match counted.sign > recorded.sign {
        true => {
            "look for what the path of a call does more than before; if that is worth it, record the new count with"
        }
        false => "the path of a call has become shorter: record that, so that it stays so, with",
    };
    Err(format!(
        "wanted {} instructions for a signature over the null link, give or take {SLACK_PERCENT} %, found {}{compilers}; {advice}\n\n    \
         cargo xtask instructions --record\n",
        recorded.sign, counted.sign
    ))
}

/// Builds the program with the crates of the path optimised, whole and without leftovers of earlier builds, so that the same
/// source gives the same code.
fn build() -> Result<PathBuf, Problem> {
    let mut command = cargo::cargo();
    command.args(["build", "-p", "benches", "--bin", "hatoki-count"]).env("CARGO_INCREMENTAL", "0");
    command.env_remove("CARGO_ENCODED_RUSTFLAGS").env("RUSTFLAGS", INLINING);
    for name in ON_THE_PATH {
        for setting in SETTINGS {
            command.args(["--config", &format!("profile.dev.package.{name}.{setting}")]);
        }
    }
    let is_built = process::show(&mut command)?;
    let folder = cargo::target()?.join("debug");
    // On its way cargo has linked the module too, into the file that it takes for that of the debug build. Without that file
    // the next build makes it anew.
    let module = cargo::Programs::within(folder.join("deps")).module();
    if let Err(error) = fs::remove_file(&module)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        return Err(Problem::at(&module, &error));
    }
    match is_built {
        true => Ok(folder.join("hatoki-count")),
        false => Err(Problem("the build failed".into())),
    }
}

/// Instructions within `hatoki_counted`.
fn count(program: &Path) -> Result<u64, Problem> {
    let mut command = Command::new("valgrind");
    command.args(["--tool=callgrind", "--callgrind-out-file=/dev/null", "--collect-atstart=no"]);
    command.arg("--toggle-collect=hatoki_counted").arg(program).arg(OPERATIONS.to_string());
    let output = process::run(&mut command)?;
    let said = String::from_utf8_lossy(&output.stderr);
    parse(&said).ok_or_else(|| Problem(format!("wanted a count from callgrind, found:\n{said}")))
}

/// The number of its line `==123== Collected : 456`.
fn parse(said: &str) -> Option<u64> {
    let line = said.lines().find_map(|line| line.split_once("Collected :"))?;
    line.1.trim().parse().ok().filter(|count| *count > 0)
}

fn compiler() -> Result<String, Problem> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    Ok(process::text(Command::new(rustc).arg("--version"))?.trim().to_owned())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn of(sign: u64, rustc: &str) -> Recorded {
        Recorded { sign, rustc: rustc.into() }
    }

    #[test]
    fn a_count_further_off_than_five_per_cent_fails_and_says_how_to_record_it() {
        let recorded = of(1_000, "a");
        assert!([950, 1_000, 1_050].iter().all(|sign| compare(&recorded, &of(*sign, "b")).is_ok()));
        let more = compare(&recorded, &of(1_051, "b")).unwrap_err();
        assert!(
            more.contains("does more") && more.contains("--record") && more.contains("by a, this is b"),
            "{more}"
        );
        assert!(compare(&recorded, &of(949, "a")).unwrap_err().contains("shorter"));
    }

    #[test]
    fn the_count_is_read_from_what_callgrind_says_and_nothing_counted_is_no_count() {
        assert_eq!(parse("==9== Events    : Ir\n==9== Collected : 12345\n==9== "), Some(12_345));
        assert_eq!(parse("==9== Collected : 0"), None);
        assert_eq!(parse("no such function"), None);
    }
}
