//! Processes that outlive the command that started them: each is known by a file with its number and the moment it began,
//! so that a number that was given to another process since is not taken for it.
use std::fs;
use std::path::Path;

use rustix::process::Pid;

use crate::problem::Problem;

/// Fields of `/proc/PID/stat` behind the program's name, from 0.
pub(super) const STATE: usize = 0;
pub(super) const USER_TICKS: usize = 11;
pub(super) const SYSTEM_TICKS: usize = 12;
const BEGAN: usize = 19;

/// Writes the file of a child that has not been waited for.
///
/// # Errors
/// When the file cannot be written.
pub(super) fn write(path: &Path, child: u32) -> Result<(), Problem> {
    let began = i32::try_from(child).ok().and_then(|number| field(number, BEGAN));
    let began = began.ok_or_else(|| Problem(format!("/proc does not know the process {child}")))?;
    fs::write(path, format!("{child} {began}\n")).map_err(|error| Problem::at(path, &error))
}

/// The process of a file, while it or a thread of it runs.
pub(super) fn read(path: &Path) -> Option<Pid> {
    let text = fs::read_to_string(path).ok()?;
    let (number, began) = text.trim().split_once(' ')?;
    let number: i32 = number.parse().ok()?;
    let is_it = field(number, BEGAN)? == began && !has_ended(number);
    Pid::from_raw(number).filter(|_| is_it)
}

/// A field of a process that there is, be it only until it is waited for.
pub(super) fn field(number: i32, field: usize) -> Option<String> {
    let text = fs::read_to_string(format!("/proc/{number}/stat")).ok()?;
    let (_, behind) = text.rsplit_once(") ")?;
    behind.split_whitespace().nth(field).map(str::to_owned)
}

/// Whether a process has ended, all of its threads: while one of them is on its way out it still holds the files of all,
/// the lock of the data folder among them.
fn has_ended(number: i32) -> bool {
    let first = field(number, STATE).is_none_or(|state| matches!(state.as_str(), "Z" | "X"));
    let others = fs::read_dir(format!("/proc/{number}/task")).map_or(0, |threads| threads.skip(1).count());
    first && others == 0
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn a_process_is_known_while_it_runs_and_another_of_its_number_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cat.pid");
        assert_eq!(read(&path), None, "nothing was started");
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        write(&path, child.id()).unwrap();
        assert_eq!(read(&path).unwrap().as_raw_nonzero().get().unsigned_abs(), child.id());
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, text.replace(' ', " 1")).unwrap();
        assert_eq!(read(&path), None, "one that began at another moment");
        fs::write(&path, text).unwrap();
        drop(child.stdin.take());
        while read(&path).is_some() {
            std::thread::yield_now();
        }
        assert!(field(child.id().try_into().unwrap(), STATE).is_some(), "ended, and not waited for yet");
        child.wait().unwrap();
        assert_eq!(read(&path), None);
    }
}
