//! `cargo xtask chaos`: one fault after the other under eight signing threads and a creator, each beside a fault-free run
//! just before; the table of docs/ha.md.
//!
//! ```text
//! lab of three ------ kill, freeze, rolling, outage, disk, clock              processes, disks, clocks
//! lab with proxies -- expiry, blackhole, one way, trickle, delay, loss, reset         the network
//!        each: prepare | mark, fault-free run, mark, fault and recovery, mark | tidy
//! ```
pub mod application;
mod faults;
mod load;
mod table;

use std::path::PathBuf;
use std::time::Duration;

use crate::lab::{Guard, LABEL, Lab, Wanted};
use crate::problem::Problem;
use crate::process;
use application::Report;
use faults::{FAULTS, Fault, Pace};
use load::Load;

/// How long a member may take to be whole again.
pub(crate) const RETURN: Duration = Duration::from_secs(90);

const FULL: Pace =
    Pace { before: Duration::from_secs(5), fault: Duration::from_secs(5), outage: Duration::from_secs(10) };
const SHORT: Pace =
    Pace { before: Duration::from_secs(1), fault: Duration::from_secs(2), outage: Duration::from_secs(3) };

/// What one fault came to.
struct Row {
    fault: &'static Fault,
    /// The fault-free run and the fault; or why this host cannot have it.
    outcome: Result<(Report, Report), String>,
}

/// Runs the faults.
///
/// # Errors
/// When an application saw an error, a thread stopped signing for good, or a lab does not come up or recover.
pub fn run(short: bool, only: &[String], dir: Option<PathBuf>, release: bool) -> Result<(), Problem> {
    if let Some(unknown) = only.iter().find(|name| FAULTS.iter().all(|fault| fault.name != **name)) {
        let names: Vec<&str> = FAULTS.iter().map(|fault| fault.name).collect();
        return Err(Problem(format!("wanted one of {}, found {unknown:?}", names.join(", "))));
    }
    let dir =
        dir.unwrap_or_else(|| std::env::temp_dir().join(format!("hatoki-chaos-{}", std::process::id())));
    let pace = if short { SHORT } else { FULL };
    let mut rows = Vec::new();
    for proxied in [false, true] {
        let wanted: Vec<&Fault> = FAULTS
            .iter()
            .filter(|fault| fault.proxied == proxied)
            .filter(|fault| only.is_empty() || only.iter().any(|name| *name == fault.name))
            .collect();
        if wanted.is_empty() {
            continue;
        }
        let dir = dir.join(if proxied { "proxied" } else { "direct" });
        let lab = Wanted { members: 3, dir, release, build: true, proxy: proxied };
        let guard = Guard(Lab::up(&lab, &|_| ())?);
        for fault in wanted {
            let row = Row { fault, outcome: play(&guard.0, fault, pace)? };
            println!("{}", table::line(&row));
            rows.push(row);
        }
    }
    // The folder itself goes when nothing else is in it.
    let _ = std::fs::remove_dir(&dir);
    if !short && only.is_empty() {
        table::write(&rows)?;
    }
    verdict(&rows)
}

/// Makes the members equal while no load runs: the one before may have ended in the middle of a create, and nobody is left
/// whose task a repair would be.
pub(crate) fn whole(lab: &Lab) -> Result<(), Problem> {
    process::run(lab.vtl().args(["haAdmin", "synchronize", "-group", LABEL]))?;
    lab.wait_equal(RETURN)
}

/// One fault on a whole lab; the inner `Err` says why this host cannot have it.
fn play(lab: &Lab, fault: &Fault, pace: Pace) -> Result<Result<(Report, Report), String>, Problem> {
    whole(lab)?;
    if let Err(problem) = (fault.prepare)(lab) {
        return Ok(Err(problem.0));
    }
    let outcome = measured(lab, fault, pace);
    let tidied = (fault.tidy)(lab);
    let reports = outcome?;
    tidied?;
    Ok(Ok(reports))
}

fn measured(lab: &Lab, fault: &Fault, pace: Pace) -> Result<(Report, Report), Problem> {
    let mut load = Load::start(lab)?;
    load.mark()?;
    std::thread::sleep(pace.before);
    let before = load.mark()?;
    (fault.play)(lab, &mut load, pace)?;
    let whole = settled(lab, &mut load)?;
    let mut during = load.mark()?;
    if let Err(problem) = whole {
        during.errors += 1;
        during.last_error = Some(problem.0);
    }
    // A thread that hangs has shown no error yet: each must sign again.
    std::thread::sleep(Duration::from_secs(1));
    let after = load.mark()?;
    if after.slowest_thread == 0 {
        during.errors += 1;
        during.last_error.get_or_insert("a thread signs nothing after the fault".into());
    }
    during.errors += after.errors;
    during.last_error = during.last_error.or(after.last_error);
    during.stall_us = during.stall_us.max(after.stall_us);
    Ok((before, during))
}

/// Waits until all members hold the same, which they can only while nobody creates; the inner `Err` says what differs.
fn settled(lab: &Lab, load: &mut Load) -> Result<Result<(), Problem>, Problem> {
    load.pause(true)?;
    let whole = lab.wait_equal(RETURN);
    load.pause(false)?;
    Ok(whole)
}

fn verdict(rows: &[Row]) -> Result<(), Problem> {
    let errors = |row: &Row| row.outcome.as_ref().map_or(0, |(before, during)| before.errors + during.errors);
    let wrong: Vec<String> = rows
        .iter()
        .filter(|row| errors(row) > 0)
        .map(|row| {
            let last = row.outcome.as_ref().ok().and_then(|(_, during)| during.last_error.clone());
            format!("{}: {} ({})", row.fault.name, errors(row), last.unwrap_or_default())
        })
        .collect();
    let played = rows.iter().filter(|row| row.outcome.is_ok()).count();
    println!("CHAOS: {played} faults played, {} with application-visible errors", wrong.len());
    match wrong.is_empty() {
        true => Ok(()),
        false => Err(Problem(format!("wanted no application-visible error, found {}", wrong.join("; ")))),
    }
}
