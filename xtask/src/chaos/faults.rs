//! The faults: what is done to a lab of three, and how it is undone.
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

use rustix::process::Signal;

use super::load::Load;
use crate::lab::Lab;
use crate::problem::Problem;
use crate::process;

/// How long things last.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// The fault-free run in front of each fault.
    pub(super) before: Duration,
    /// The fault.
    pub(super) fault: Duration,
    /// The outage of all.
    pub(super) outage: Duration,
}

/// One row of the table.
pub(super) struct Fault {
    /// The word by which `--only` names it.
    pub(super) name: &'static str,
    /// What is done.
    pub(super) text: &'static str,
    /// Whether it needs a lab with proxies.
    pub(super) proxied: bool,
    /// What must be there before the clock runs; `Err` says why this host cannot have the fault.
    pub(super) prepare: fn(&Lab) -> Result<(), Problem>,
    /// Does it, lets it last and undoes it.
    pub(super) play: fn(&Lab, &mut Load, Pace) -> Result<(), Problem>,
    /// Takes away what `prepare` made.
    pub(super) tidy: fn(&Lab) -> Result<(), Problem>,
}

fn nothing(_: &Lab) -> Result<(), Problem> {
    Ok(())
}

const fn direct(
    name: &'static str,
    text: &'static str,
    play: fn(&Lab, &mut Load, Pace) -> Result<(), Problem>,
) -> Fault {
    Fault { name, text, proxied: false, prepare: nothing, play, tidy: nothing }
}

const fn network(
    name: &'static str,
    text: &'static str,
    play: fn(&Lab, &mut Load, Pace) -> Result<(), Problem>,
) -> Fault {
    Fault { name, text, proxied: true, prepare: nothing, play, tidy: nothing }
}

/// All of them, in the order of the table.
pub(super) const FAULTS: &[Fault] = &[
    direct("kill", "SIGKILL of one, started again", |lab, _, pace| {
        lab.kill(2)?;
        sleep(pace.fault);
        lab.start(2)
    }),
    direct("freeze", "SIGSTOP of one, then SIGCONT", |lab, _, pace| {
        lab.freeze(3)?;
        sleep(pace.fault);
        lab.thaw(3)
    }),
    direct("rolling", "rolling restart of all three", rolling),
    direct("outage", "all three dead for 10 s (nothing is created meanwhile)", outage),
    Fault {
        name: "disk",
        text: "the disk of one is full; made room, then restarted",
        proxied: false,
        prepare: small_disk,
        play: full_disk,
        tidy: whole_disk,
    },
    Fault {
        name: "clock",
        text: "the clock of one jumps an hour forward, then two back",
        proxied: false,
        prepare: own_clock,
        play: |lab, _, pace| {
            for seconds in [3_600, -3_600, 0] {
                set_clock(lab, seconds)?;
                sleep(pace.fault / 2);
            }
            Ok(())
        },
        tidy: no_clock,
    },
    Fault {
        name: "expiry",
        text: "certificates have expired as one sees it: it refuses every new connection",
        proxied: true,
        prepare: own_clock,
        play: expiry,
        tidy: no_clock,
    },
    network("blackhole", "black hole: nothing to or from one", |lab, _, pace| {
        proxied(lab, "1 blackhole", pace)
    }),
    network("oneway-up", "one way: nothing to one, its answers arrive", |lab, _, pace| {
        proxied(lab, "2 oneway=up", pace)
    }),
    network("oneway-down", "one way: requests arrive at one, nothing comes back", |lab, _, pace| {
        proxied(lab, "3 oneway=down", pace)
    }),
    network("trickle", "a byte every 5 ms to and from one", |lab, _, pace| proxied(lab, "1 trickle", pace)),
    network("delay", "20 ms more each way to and from one", |lab, _, pace| {
        proxied(lab, "2 delay=20ms", pace)
    }),
    network("loss", "5 % of the records to and from one are lost and sent again", |lab, _, pace| {
        proxied(lab, "3 loss=5%", pace)
    }),
    network("reset", "the connections of one are reset, ten times", |lab, _, pace| {
        for _ in 0..10 {
            lab.fault("1 cut")?;
            sleep(pace.fault / 10);
        }
        Ok(())
    }),
];

fn proxied(lab: &Lab, fault: &str, pace: Pace) -> Result<(), Problem> {
    lab.fault(fault)?;
    sleep(pace.fault);
    lab.fault("all clear").map(drop)
}

fn rolling(lab: &Lab, load: &mut Load, pace: Pace) -> Result<(), Problem> {
    for member in lab.members() {
        member.signal(Signal::TERM)?;
        member.wait_gone(Duration::from_secs(30))?;
        lab.start(member.number)?;
        super::settled(lab, load)??;
        // An operator looks at the group before the next one; so does the application's own link.
        sleep(pace.fault / 2);
    }
    Ok(())
}

fn outage(lab: &Lab, load: &mut Load, pace: Pace) -> Result<(), Problem> {
    // A create below the minimum fails by rule (HA 2.2), and the first to return is alone.
    load.pause(true)?;
    sleep(Duration::from_secs(1));
    let numbers = 1..=lab.members().len();
    numbers.clone().try_for_each(|number| lab.kill(number))?;
    sleep(pace.outage);
    numbers.clone().try_for_each(|number| lab.start(number))?;
    lab.wait_equal(super::RETURN)?;
    load.pause(false)
}

/// The appliance whose disk and clock are changed.
const VICTIM: usize = 2;

fn stop(lab: &Lab) -> Result<(), Problem> {
    let member = lab.member(VICTIM)?;
    if member.is_running() {
        member.signal(Signal::TERM)?;
        member.wait_gone(Duration::from_secs(30))?;
    }
    Ok(())
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Moves the data of one appliance to a disk of 32 MiB in memory.
fn small_disk(lab: &Lab) -> Result<(), Problem> {
    if !is_root() {
        return Err(Problem("a small disk is mounted by root only".into()));
    }
    let data = lab.member(VICTIM)?.data();
    stop(lab)?;
    let aside = data.with_extension("aside");
    fs::rename(&data, &aside).map_err(|error| Problem::at(&data, &error))?;
    crate::lab::make_folder(&data)?;
    let mounted = process::run(
        Command::new("mount").args(["-t", "tmpfs", "-o", "size=32m,mode=700", "hatoki-chaos"]).arg(&data),
    );
    let moved = match &mounted {
        Ok(_) => process::run(Command::new("cp").arg("-a").arg(aside.join(".")).arg(&data)).map(drop),
        Err(problem) => Err(problem.clone()),
    };
    if mounted.is_err() {
        let _ = fs::remove_dir(&data);
        fs::rename(&aside, &data).map_err(|error| Problem::at(&data, &error))?;
    }
    lab.start(VICTIM)?;
    super::whole(lab)?;
    moved
}

fn filler(lab: &Lab) -> Result<PathBuf, Problem> {
    Ok(lab.member(VICTIM)?.data().join("filler"))
}

fn full_disk(lab: &Lab, _: &mut Load, pace: Pace) -> Result<(), Problem> {
    let path = filler(lab)?;
    fill(&path).map_err(|error| Problem::at(&path, &error))?;
    sleep(pace.fault);
    fs::remove_file(&path).map_err(|error| Problem::at(&path, &error))?;
    // After a commit that failed a store takes no more until its operator has looked at the disk and restarted hsmd.
    stop(lab)?;
    lab.start(VICTIM)
}

/// Writes until there is no room.
fn fill(path: &Path) -> std::io::Result<()> {
    use std::io::Write as _;
    let mut file = fs::File::create(path)?;
    for block in [64 << 10, 4 << 10, 512_usize] {
        let bytes = vec![0x55; block];
        loop {
            match file.write_all(&bytes) {
                Ok(()) => {}
                Err(error) if error.kind() == std::io::ErrorKind::StorageFull => break,
                Err(error) => return Err(error),
            }
        }
    }
    Ok(())
}

fn whole_disk(lab: &Lab) -> Result<(), Problem> {
    let data = lab.member(VICTIM)?.data();
    let aside = data.with_extension("aside");
    if !aside.exists() {
        return Ok(());
    }
    stop(lab)?;
    fs::remove_dir_all(&aside).map_err(|error| Problem::at(&aside, &error))?;
    process::run(Command::new("cp").arg("-a").arg(&data).arg(&aside))?;
    process::run(Command::new("umount").arg(&data))?;
    fs::remove_dir(&data).map_err(|error| Problem::at(&data, &error))?;
    fs::rename(&aside, &data).map_err(|error| Problem::at(&aside, &error))?;
    lab.start(VICTIM)?;
    super::whole(lab)
}

/// A library in front of the C library: wall time is later by what a file says, in seconds; the monotonic clock is as it is.
const CLOCK: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
int clock_gettime(clockid_t id, struct timespec *at) {
    int answer = (int)syscall(SYS_clock_gettime, id, at);
    const char *path = getenv("HATOKI_CHAOS_CLOCK");
    if (answer == 0 && id == CLOCK_REALTIME && path != NULL) {
        FILE *file = fopen(path, "r");
        long later = 0;
        if (file != NULL) {
            if (fscanf(file, "%ld", &later) == 1) at->tv_sec += later;
            fclose(file);
        }
    }
    return answer;
}
"#;

fn clock_files(lab: &Lab) -> (PathBuf, PathBuf) {
    (lab.dir().join("clock.so"), lab.dir().join("clock.seconds"))
}

/// Thirty years on for one appliance, and its connections begin anew, again and again.
fn expiry(lab: &Lab, _: &mut Load, pace: Pace) -> Result<(), Problem> {
    set_clock(lab, 30 * 365 * 86_400)?;
    for _ in 0..5 {
        lab.fault(&format!("{VICTIM} cut"))?;
        sleep(pace.fault / 5);
    }
    set_clock(lab, 0)
}

fn set_clock(lab: &Lab, seconds: i64) -> Result<(), Problem> {
    let (_, path) = clock_files(lab);
    let new = path.with_extension("new");
    fs::write(&new, seconds.to_string())
        .and_then(|()| fs::rename(&new, &path))
        .map_err(|error| Problem::at(&path, &error))
}

/// Restarts one appliance with a wall clock of its own.
fn own_clock(lab: &Lab) -> Result<(), Problem> {
    let (library, _) = clock_files(lab);
    let source = library.with_extension("c");
    fs::write(&source, CLOCK).map_err(|error| Problem::at(&source, &error))?;
    process::run(Command::new("cc").args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).arg(&source))?;
    set_clock(lab, 0)?;
    restart_with_clock(lab)?;
    super::whole(lab)
}

fn restart_with_clock(lab: &Lab) -> Result<(), Problem> {
    stop(lab)?;
    let (library, seconds) = clock_files(lab);
    let variables = [("LD_PRELOAD", library.as_path()), ("HATOKI_CHAOS_CLOCK", seconds.as_path())];
    lab.member(VICTIM)?.spawn_with(&lab.programs().hsmd(), &variables)?;
    lab.wait_ready(VICTIM)
}

fn no_clock(lab: &Lab) -> Result<(), Problem> {
    stop(lab)?;
    lab.start(VICTIM)?;
    let (library, seconds) = clock_files(lab);
    for path in [library.with_extension("c"), library, seconds] {
        // What is not there need not go.
        let _ = fs::remove_file(path);
    }
    super::whole(lab)
}
