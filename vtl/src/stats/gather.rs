//! Finds the pages, reads them within bounds, and passes over those whose process is gone.

use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use spec::stats::{self, BYTES_MAX, Page};

use super::plain;

/// Names that are looked at in one folder.
const NAMES_MAX: usize = 4_096;
/// Entries of a folder that are looked at.
const ENTRIES_MAX: usize = 1 << 20;
/// Bytes of pages that are read at one time; the pages beyond are named and left out.
const ALL_BYTES_MAX: usize = 128 << 20;

/// What was found.
#[derive(Default)]
pub(crate) struct Gathered {
    /// The pages of processes that run, by process and group.
    pub(crate) pages: Vec<Read>,
    /// What could not be read, each with the reason.
    pub(crate) complaints: Vec<String>,
}

/// One page with the name of its process.
pub(crate) struct Read {
    pub(crate) page: Page,
    /// Name of the program, as the system tells it; empty when it does not.
    pub(crate) command: String,
}

/// Where the pages of this user stand: in `XDG_RUNTIME_DIR` for programs of a session, in `/tmp` for services.
pub(crate) fn folders() -> Vec<PathBuf> {
    let uid = rustix::process::getuid().as_raw();
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    let mut folders = vec![stats::folder(runtime.as_deref(), uid), stats::folder(None, uid)];
    folders.dedup();
    folders
}

/// Reads every page of the folders; `proc` is where the system tells of processes (`/proc`).
pub(crate) fn gather(folders: &[PathBuf], proc: &Path) -> Gathered {
    let mut gathered = Gathered::default();
    let mut bytes_left = ALL_BYTES_MAX;
    for folder in folders {
        if let Some(reason) = refused(folder) {
            gathered.complaints.push(format!("{}: {reason}", shown(folder)));
            continue;
        }
        for (path, pid, serial) in names(folder, proc) {
            let started = started_ticks(proc, pid);
            match read(&path, &mut bytes_left) {
                Ok(None) => {}
                Ok(Some(page)) if (page.pid, page.serial) != (pid, serial) => {
                    gathered.complaints.push(format!("{}: its content is of another process", shown(&path)));
                }
                Ok(Some(page)) if is_of_another(&page, started) => {}
                Ok(Some(page)) => gathered.pages.push(Read { page, command: command(proc, pid) }),
                Err(reason) => gathered.complaints.push(format!("{}: {reason}", shown(&path))),
            }
        }
    }
    gathered.pages.sort_by_key(|read| (read.page.pid, read.page.serial));
    gathered
}

/// A process of the same number that began later is not the one that made the page.
fn is_of_another(page: &Page, started: Option<u64>) -> bool {
    page.started_ticks != 0 && started.is_some_and(|ticks| ticks != page.started_ticks)
}

/// Why a folder that bears a user's number is not that user's: anybody can make one in `/tmp` and fill it with figures.
/// Others are as the operator names them.
fn refused(folder: &Path) -> Option<String> {
    let uid: u32 = folder.file_name()?.to_str()?.strip_prefix("hatoki-")?.parse().ok()?;
    let facts = std::fs::symlink_metadata(folder).ok()?;
    if facts.is_dir() && facts.uid() == uid {
        return None;
    }
    let found = if facts.is_dir() { format!("one of user {}", facts.uid()) } else { "no folder".to_owned() };
    Some(format!("wanted a folder of user {uid}, found {found}; it is passed over, remove it"))
}

/// The pages of processes that run, by their names, in ascending order. Those of processes that were killed stay behind and
/// may be many more.
fn names(folder: &Path, proc: &Path) -> Vec<(PathBuf, u32, u64)> {
    let is_told = proc.exists();
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let page = |entry: std::fs::DirEntry| {
        let (pid, serial) = stats::parse_file_name(entry.file_name().to_str()?)?;
        Some((entry.path(), pid, serial))
    };
    let runs = |(_, pid, _): &(PathBuf, u32, u64)| !is_told || proc.join(pid.to_string()).exists();
    let pages = entries.flatten().take(ENTRIES_MAX).filter_map(page);
    let mut names: Vec<_> = pages.filter(runs).take(NAMES_MAX).collect();
    names.sort();
    names
}

/// One page; `None` when it has gone meanwhile. Links, pipes and devices are refused and never waited for.
fn read(path: &Path, bytes_left: &mut usize) -> Result<Option<Page>, String> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = match rustix::fs::open(path, flags, Mode::empty()) {
        Ok(descriptor) => File::from(descriptor),
        Err(rustix::io::Errno::NOENT) => return Ok(None),
        Err(error) => return Err(format!("wanted to read it, found: {error}")),
    };
    if !file.metadata().is_ok_and(|facts| facts.is_file()) {
        return Err("wanted a file, found something else".to_owned());
    }
    let room = BYTES_MAX.min(*bytes_left);
    let mut bytes = Vec::new();
    let limit = u64::try_from(room).unwrap_or(u64::MAX);
    file.take(limit).read_to_end(&mut bytes).map_err(|error| format!("wanted to read it, found: {error}"))?;
    *bytes_left -= bytes.len();
    match stats::read(&bytes) {
        Ok(page) => Ok(Some(page)),
        Err(_) if *bytes_left == 0 => Err(format!(
            "left out: the pages before it hold {ALL_BYTES_MAX} bytes already; name one with -pid"
        )),
        Err(fault) => Err(fault.to_string()),
    }
}

/// When a process was started, in clock ticks since the machine was: field 22 of its `stat`, counted behind the name,
/// which may hold anything. `None` when there is no such process.
fn started_ticks(proc: &Path, pid: u32) -> Option<u64> {
    let text = std::fs::read_to_string(proc.join(pid.to_string()).join("stat")).ok()?;
    text.rsplit_once(')')?.1.split_ascii_whitespace().nth(19)?.parse().ok()
}

fn command(proc: &Path, pid: u32) -> String {
    let name = std::fs::read_to_string(proc.join(pid.to_string()).join("comm")).unwrap_or_default();
    plain(name.trim_end())
}

fn shown(path: &Path) -> String {
    plain(&path.display().to_string())
}

#[cfg(test)]
#[path = "gather_tests.rs"]
pub(crate) mod tests;
