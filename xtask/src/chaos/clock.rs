//! A wall clock of one appliance's own.
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::thread::sleep;

use super::faults::{Pace, VICTIM, stop};
use super::load::Load;
use crate::lab::Lab;
use crate::problem::Problem;
use crate::process;

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

fn files(lab: &Lab) -> (PathBuf, PathBuf) {
    (lab.dir().join("clock.so"), lab.dir().join("clock.seconds"))
}

/// An hour forward, then two back, then as it was.
pub(super) fn jump(lab: &Lab, _: &mut Load, pace: Pace) -> Result<(), Problem> {
    for seconds in [3_600, -3_600, 0] {
        set(lab, seconds)?;
        sleep(pace.fault / 2);
    }
    Ok(())
}

/// Thirty years on for one appliance, and its connections begin anew, again and again.
pub(super) fn expiry(lab: &Lab, _: &mut Load, pace: Pace) -> Result<(), Problem> {
    set(lab, 30 * 365 * 86_400)?;
    for _ in 0..5 {
        lab.fault(&format!("{VICTIM} cut"))?;
        sleep(pace.fault / 5);
    }
    set(lab, 0)
}

fn set(lab: &Lab, seconds: i64) -> Result<(), Problem> {
    let (_, path) = files(lab);
    let new = path.with_extension("new");
    fs::write(&new, seconds.to_string())
        .and_then(|()| fs::rename(&new, &path))
        .map_err(|error| Problem::at(&path, &error))
}

/// Restarts one appliance with a wall clock of its own.
pub(super) fn own(lab: &Lab) -> Result<(), Problem> {
    let (library, _) = files(lab);
    let source = library.with_extension("c");
    fs::write(&source, CLOCK).map_err(|error| Problem::at(&source, &error))?;
    process::run(Command::new("cc").args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).arg(&source))?;
    set(lab, 0)?;
    restart(lab)?;
    super::whole(lab)
}

fn restart(lab: &Lab) -> Result<(), Problem> {
    stop(lab)?;
    let (library, seconds) = files(lab);
    let variables = [("LD_PRELOAD", library.as_path()), ("HATOKI_CHAOS_CLOCK", seconds.as_path())];
    lab.member(VICTIM)?.spawn_with(&lab.programs().hsmd(), &variables)?;
    lab.wait_ready(VICTIM)
}

/// Gives it the host's clock back.
pub(super) fn none(lab: &Lab) -> Result<(), Problem> {
    stop(lab)?;
    lab.start(VICTIM)?;
    let (library, seconds) = files(lab);
    for path in [library.with_extension("c"), library, seconds] {
        // What is not there need not go.
        let _ = fs::remove_file(path);
    }
    super::whole(lab)
}
