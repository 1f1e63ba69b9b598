//! `cargo xtask chaos`: one fault after the other under eight signing threads and a creator, each beside a fault-free run
//! just before; the table of docs/ha.md.
//!
//! ```text
//! lab of three --------- kill, freeze, rolling, outage, disk, clock, stuck        processes, disks, clocks
//! lab with namespaces -- blackhole, drop, one way, and with netem delay, loss     the kernel's network
//! lab with proxies ----- expiry, trickle, reset, and what the one before cannot   a network of ours
//!        each: prepare | mark, fault-free run, mark, fault and recovery, mark | tidy
//! labs of their own ---- overload, repair                                         figures
//! ```
pub mod application;
mod clock;
mod disk;
mod faults;
mod figures;
mod load;
pub mod overload;
pub mod repair;
mod stuck;
mod table;

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::lab::{Guard, LABEL, Lab, Network, Wanted, spaces};
use crate::problem::Problem;
use crate::process;
use application::Report;
use faults::{FAULTS, Fault, Pace, Place};
use figures::{FIGURES, Figure};
use load::Load;

/// How long a member may take to be whole again.
pub(crate) const RETURN: Duration = Duration::from_secs(300);

const FULL: Pace =
    Pace { before: Duration::from_secs(5), fault: Duration::from_secs(5), outage: Duration::from_secs(10) };
const SHORT: Pace =
    Pace { before: Duration::from_secs(1), fault: Duration::from_secs(2), outage: Duration::from_secs(3) };

/// What one fault came to.
struct Row {
    fault: &'static Fault,
    /// What made it.
    network: Network,
    /// The fault-free run and the fault; or why this host cannot have it.
    outcome: Result<(Report, Report), String>,
}

/// Runs the faults.
///
/// # Errors
/// When an application saw an error, a thread stopped signing for good, or a lab does not come up or recover.
pub fn run(short: bool, only: &[String], dir: Option<PathBuf>, release: bool) -> Result<(), Problem> {
    let names = || FAULTS.iter().map(|fault| fault.name).chain(FIGURES.iter().map(|(name, _)| *name));
    if let Some(unknown) = only.iter().find(|wanted| names().all(|name| name != **wanted)) {
        let names: Vec<&str> = names().collect();
        return Err(Problem(format!("wanted one of {}, found {unknown:?}", names.join(", "))));
    }
    let dir =
        dir.unwrap_or_else(|| std::env::temp_dir().join(format!("hatoki-chaos-{}", std::process::id())));
    let pace = if short { SHORT } else { FULL };
    let is_chosen = |name: &str| only.is_empty() || only.iter().any(|wanted| wanted == name);
    let chosen: Vec<&Fault> = FAULTS.iter().filter(|fault| is_chosen(fault.name)).collect();
    take_down_on_interrupt(&dir)?;
    let rows = play_all(&dir, &chosen, pace, release)?;
    let figures = FIGURES.iter().filter(|(name, _)| is_chosen(name));
    let figures: Vec<Figure> =
        figures.map(|figure| figures::play(&dir, *figure, short, release)).collect::<Result<_, _>>()?;
    // The folder itself goes when nothing else is in it.
    let _ = std::fs::remove_dir(&dir);
    if !short && only.is_empty() {
        table::write(&rows, &figures)?;
    }
    verdict(&rows, &figures)
}

/// The labs, one after the other, and in the end the rows in the order of the table.
fn play_all(dir: &Path, chosen: &[&'static Fault], pace: Pace, release: bool) -> Result<Vec<Row>, Problem> {
    let mut left = chosen.to_vec();
    let mut rows = Vec::new();
    let cuts = left.iter().any(|fault| matches!(fault.place, Place::Cut | Place::Shaped));
    let mut networks = vec![Network::Loopback];
    match spaces::available() {
        Ok(()) if cuts => networks.push(Network::Namespaces),
        Err(Problem(why)) if cuts => {
            println!("cuts are played by proxies, for namespaces cannot be had: {why}")
        }
        _ => {}
    }
    networks.push(Network::Proxied);
    for network in networks {
        if left.iter().all(|fault| !suits(fault.place, network, true)) {
            continue;
        }
        let lab = Wanted { members: 3, dir: dir.join(folder(network)), release, build: true, network };
        let guard = Guard(Lab::up(&lab, &|_| ())?);
        let netem = network == Network::Namespaces && spaces::has_netem(&guard.0);
        let (here, later) = left.into_iter().partition(|fault| suits(fault.place, network, netem));
        left = later;
        for fault in here {
            let row = Row { fault, network, outcome: play(&guard.0, fault, pace)? };
            println!("{}", table::line(&row));
            rows.push(row);
        }
    }
    rows.sort_by_key(|row| FAULTS.iter().position(|fault| fault.name == row.fault.name));
    Ok(rows)
}

/// Whether a fault is played on this network, with or without netem.
fn suits(place: Place, network: Network, netem: bool) -> bool {
    match (place, network) {
        (Place::Direct, network) => network == Network::Loopback,
        (_, Network::Loopback) => false,
        (_, Network::Proxied) => true,
        (Place::Proxied, Network::Namespaces) => false,
        (Place::Cut, Network::Namespaces) => true,
        (Place::Shaped, Network::Namespaces) => netem,
    }
}

const fn folder(network: Network) -> &'static str {
    match network {
        Network::Loopback => "direct",
        Network::Proxied => "proxied",
        Network::Namespaces => "spaces",
    }
}

/// Ctrl-C takes down what stands, then ends us as it would have at once.
pub(crate) fn take_down_on_interrupt(dir: &Path) -> Result<(), Problem> {
    let dir = dir.to_owned();
    let handler = move || {
        for entry in std::fs::read_dir(&dir).into_iter().flatten().flatten() {
            // What is no lab, or cannot be taken down, stays for `lab down`.
            let _ = Lab::open(&entry.path()).and_then(|lab| lab.down(false));
        }
        let _ = std::fs::remove_dir(&dir);
        let own = rustix::process::getpid();
        let _ = rustix::process::kill_process(own, rustix::process::Signal::KILL);
    };
    ctrlc::set_handler(handler).map_err(|error| Problem(format!("Ctrl-C cannot be caught: {error}")))
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
    let mut load = Load::start(lab, fault.rsa)?;
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
    // A thread that hangs has shown no error yet: each must sign again. A host that has much else to do gets more time.
    let mut after = Report::default();
    for seconds in [1, 4, 16, 64] {
        std::thread::sleep(Duration::from_secs(seconds));
        let next = load.mark()?;
        after.slowest_thread = next.slowest_thread;
        after.errors += next.errors;
        after.last_error = after.last_error.or(next.last_error);
        after.stall_us = after.stall_us.max(next.stall_us);
        after.resumed_us = after.resumed_us.max(next.resumed_us);
        if after.slowest_thread > 0 {
            break;
        }
    }
    if after.slowest_thread == 0 {
        during.errors += 1;
        during.last_error.get_or_insert("a thread signs nothing after the fault".into());
    }
    during.errors += after.errors;
    during.last_error = during.last_error.or(after.last_error);
    during.stall_us = during.stall_us.max(after.stall_us);
    during.resumed_us = during.resumed_us.max(after.resumed_us);
    Ok((before, during))
}

/// Waits until all members hold the same, which they can only while nobody creates; the inner `Err` says what differs.
fn settled(lab: &Lab, load: &mut Load) -> Result<Result<(), Problem>, Problem> {
    load.pause(true)?;
    let whole = lab.wait_equal(RETURN);
    load.pause(false)?;
    Ok(whole)
}

fn verdict(rows: &[Row], figures: &[Figure]) -> Result<(), Problem> {
    let errors = |row: &Row| row.outcome.as_ref().map_or(0, |(before, during)| before.errors + during.errors);
    let mut wrong: Vec<String> = rows
        .iter()
        .filter(|row| errors(row) > 0)
        .map(|row| {
            let last = row.outcome.as_ref().ok().and_then(|(_, during)| during.last_error.clone());
            format!("{}: {} ({})", row.fault.name, errors(row), last.unwrap_or_default())
        })
        .collect();
    let played = rows.iter().filter(|row| row.outcome.is_ok()).count();
    println!("CHAOS: {played} faults played, {} with application-visible errors", wrong.len());
    for figure in figures {
        wrong.extend(figure.faults.iter().map(|fault| format!("{}: {fault}", figure.name)));
        println!("FIGURE {}: {} faults", figure.name, figure.faults.len());
    }
    match wrong.is_empty() {
        true => Ok(()),
        false => {
            Err(Problem(format!("wanted no fault that an application sees, found {}", wrong.join("; "))))
        }
    }
}
