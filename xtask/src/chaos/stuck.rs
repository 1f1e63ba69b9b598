//! Workers that are stuck while the links of their appliance are served: some threads of one process are stopped, which a
//! debugger can do and a signal cannot.
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread::sleep;

use super::faults::{Pace, VICTIM};
use super::load::Load;
use crate::lab::Lab;
use crate::problem::Problem;
use crate::process::{self, Background};

/// Stops the threads of the given numbers until its standard input ends; they go on by themselves should it die.
const STOPPER: &str = r#"
#include <stdio.h>
#include <stdlib.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
int main(int count, char **numbers) {
    int stopped = 0;
    for (int i = 1; i < count; i++) {
        int number = atoi(numbers[i]), status;
        if (ptrace(PTRACE_SEIZE, number, 0, 0) == 0 && ptrace(PTRACE_INTERRUPT, number, 0, 0) == 0
            && waitpid(number, &status, __WALL) == number)
            stopped++;
    }
    printf("%d\n", stopped);
    fflush(stdout);
    while (getchar() != EOF) {}
    return 0;
}
"#;

fn files(lab: &Lab) -> (PathBuf, PathBuf) {
    (lab.dir().join("stopper.c"), lab.dir().join("stopper"))
}

/// Builds the stopper.
pub(super) fn prepare(lab: &Lab) -> Result<(), Problem> {
    let (source, program) = files(lab);
    fs::write(&source, STOPPER).map_err(|error| Problem::at(&source, &error))?;
    process::run(Command::new("cc").args(["-O1", "-o"]).arg(&program).arg(&source)).map(drop)
}

/// Removes it.
pub(super) fn tidy(lab: &Lab) -> Result<(), Problem> {
    let (source, program) = files(lab);
    for path in [source, program] {
        // What is not there need not go.
        let _ = fs::remove_file(path);
    }
    Ok(())
}

/// Stops the workers for a while, and looks meanwhile whether the appliance still answers what needs none.
pub(super) fn play(lab: &Lab, _: &mut Load, pace: Pace) -> Result<(), Problem> {
    let member = lab.member(VICTIM)?;
    let workers = workers(lab)?;
    let mut command = Command::new(files(lab).1);
    command.args(workers.iter().map(u32::to_string)).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut stopper = Background::start(&mut command)?;
    let mut said = String::new();
    if let Some(output) = stopper.child().stdout.take() {
        BufReader::new(output).read_line(&mut said).map_err(|error| Problem(format!("stopper: {error}")))?;
    }
    if said.trim().parse().unwrap_or(0) == 0_usize {
        return Err(Problem(format!(
            "wanted some of hsm{VICTIM}'s {} worker threads stopped, found none: this process may not trace",
            workers.len()
        )));
    }
    let answers = lab.states()?.iter().any(|state| state.serial == member.serial && state.status == "alive");
    sleep(pace.fault);
    drop(stopper);
    match answers {
        true => Ok(()),
        false => Err(Problem(format!("wanted hsm{VICTIM} to answer without its workers, found it silent"))),
    }
}

/// The threads of the appliance that serve no link: those that it starts with serve links and come first.
fn workers(lab: &Lab) -> Result<Vec<u32>, Problem> {
    let pid = lab.member(VICTIM)?.process();
    let pid = pid.ok_or_else(|| Problem(format!("wanted hsm{VICTIM} running, found it stopped")))?;
    let folder = PathBuf::from(format!("/proc/{}/task", pid.as_raw_nonzero()));
    let mut threads: Vec<u32> = fs::read_dir(&folder)
        .map_err(|error| Problem::at(&folder, &error))?
        .flatten()
        .filter(|thread| {
            fs::read_to_string(thread.path().join("comm")).is_ok_and(|name| name.trim_end() == "hsmd")
        })
        .filter_map(|thread| thread.file_name().to_str()?.parse().ok())
        .collect();
    threads.sort_unstable();
    // One that runs `main` and one for each processor.
    let serving = 1 + std::thread::available_parallelism().map_or(1, usize::from);
    Ok(threads.split_off(serving.min(threads.len())))
}
