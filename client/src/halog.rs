//! The HA log in the vendor's place and shape: `haErrorLog.txt` in the folder `haLogPath`, a line for each event.
//!
//! ```text
//! Sun Nov 22 02:00:00 2026 : [4711] HA group: 11001 unable to reach member: 1002. its link is down: ...
//!
//! note (any thread, no lock) -> ring of RING lines -> flush (the tender, or a call where threads are forbidden) -> file
//! a file of logLen bytes or more -> haErrorLog-20261122T020000000Z-4711.txt
//! ```
//! Times are UTC. A ring that is full loses its oldest lines and says how many; a call never waits for the disk where
//! there is a tender. Lines hold names, numbers and reasons, no secrets: there are none in what comes here.
use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use arc_swap::ArcSwapOption;
use rustix::fs::{FileType, FlockOperation, Mode, OFlags};
use spec::platform::Platform;

use crate::calendar::{Compact, Ctime};
use crate::conf;
use crate::outlet::quietly;

/// The file's name in its folder.
const FILE: &str = "haErrorLog.txt";
/// So many lines wait to be written.
const RING: usize = 256;
/// A line's event is cut to so many bytes.
const EVENT_BYTES_MAX: usize = 600;

/// Where to, and up to which length.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    folder: PathBuf,
    bytes_max: u64,
}

/// A line with its number, in the order of which lines are written.
struct Line {
    number: u64,
    text: String,
}

/// See the head of this file.
pub(crate) struct HaLog {
    platform: Arc<dyn Platform>,
    pid: u32,
    place: ArcSwapOption<Place>,
    ring: Box<[ArcSwapOption<Line>]>,
    numbers: AtomicU64,
    /// Lines that stand in the ring or have stood there.
    stored: AtomicU64,
    /// How many of them the last flush has seen.
    seen: AtomicU64,
    lost: AtomicU64,
    flushing: AtomicBool,
    /// The operator has been told that the file cannot be written.
    refused: AtomicBool,
}

impl HaLog {
    /// A log of this process that goes nowhere yet.
    pub(crate) fn new(platform: Arc<dyn Platform>) -> Self {
        Self {
            platform,
            pid: std::process::id(),
            place: ArcSwapOption::const_empty(),
            ring: (0..RING).map(|_| ArcSwapOption::const_empty()).collect(),
            numbers: AtomicU64::new(0),
            stored: AtomicU64::new(0),
            seen: AtomicU64::new(0),
            lost: AtomicU64::new(0),
            flushing: AtomicBool::new(false),
            refused: AtomicBool::new(false),
        }
    }

    /// Writes as the configuration says from now on; `None` and an absent folder switch it off.
    pub(crate) fn configure(&self, settings: Option<&conf::HaLog>) {
        let place = settings.filter(|settings| settings.enabled).and_then(|settings| {
            Some(Place { folder: settings.folder.clone()?, bytes_max: u64::from(settings.bytes_max) })
        });
        self.refused.store(false, Ordering::Relaxed);
        self.place.store(place.map(Arc::new));
    }

    /// Notes an event of a group. Takes no lock and writes nothing yet.
    pub(crate) fn note(&self, group: u64, event: &str) {
        if self.place.load().is_none() {
            return;
        }
        let mut event = event.replace(|c: char| c.is_control(), " ");
        let end = (0..=EVENT_BYTES_MAX.min(event.len())).rev().find(|at| event.is_char_boundary(*at));
        event.truncate(end.unwrap_or(0));
        self.keep(&format!("HA group: {group} {event}"));
    }

    fn keep(&self, text: &str) {
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        let text = format!("{} : [{}] {text}\n", Ctime(self.platform.wall_ms()), self.pid);
        let slot = usize::try_from(number).unwrap_or(0) % RING;
        if self.ring[slot].swap(Some(Arc::new(Line { number, text }))).is_some() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
        self.stored.fetch_add(1, Ordering::Release);
    }

    /// Writes what waits. Where another thread does so already, it is left to that one or to the next flush.
    pub(crate) fn flush(&self) {
        let stored = self.stored.load(Ordering::Acquire);
        if stored == self.seen.load(Ordering::Relaxed) || self.flushing.swap(true, Ordering::AcqRel) {
            return;
        }
        self.seen.store(stored, Ordering::Relaxed);
        let mut lines: Vec<Arc<Line>> = self.ring.iter().filter_map(|slot| slot.swap(None)).collect();
        lines.sort_unstable_by_key(|line| line.number);
        let mut text: String = lines.iter().map(|line| line.text.as_str()).collect();
        let lost = self.lost.swap(0, Ordering::Relaxed);
        if lost > 0 {
            let now = Ctime(self.platform.wall_ms());
            text.push_str(&format!("{now} : [{}] {lost} lines before these could not be kept\n", self.pid));
        }
        if let Some(place) = self.place.load_full() {
            let mut written = Ok(());
            quietly(|| written = append(&place, text.as_bytes(), self.pid, self.platform.wall_ms()));
            if let Err(error) = written
                && !self.refused.swap(true, Ordering::Relaxed)
            {
                tracing::warn!(
                    "haLogPath: wanted to append to {FILE} in {}, found: {error}; make the folder writable for this \
                     process or name another",
                    place.folder.display()
                );
            }
        }
        self.flushing.store(false, Ordering::Release);
    }
}

/// Appends to the file and renames it when it has become long enough. The last lines may go beyond the length.
fn append(place: &Place, text: &[u8], pid: u32, wall_ms: u64) -> io::Result<()> {
    let path = place.folder.join(FILE);
    // Without NONBLOCK a named pipe in its place would hold the application up until somebody reads.
    let flags = OFlags::APPEND
        | OFlags::CREATE
        | OFlags::WRONLY
        | OFlags::NOFOLLOW
        | OFlags::NONBLOCK
        | OFlags::CLOEXEC;
    let mode = Mode::RUSR | Mode::WUSR | Mode::RGRP;
    let mut file = File::from(rustix::fs::open(&path, flags, mode)?);
    if FileType::from_raw_mode(rustix::fs::fstat(&file)?.st_mode) != FileType::RegularFile {
        return Err(io::Error::other("it is no regular file"));
    }
    file.write_all(text)?;
    if rustix::fs::fstat(&file)?.st_size.unsigned_abs() < place.bytes_max {
        return Ok(());
    }
    // One process renames; the others meet it later.
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => rotate(place, &path, &file, pid, wall_ms),
        Err(_) => Ok(()),
    }
}

fn rotate(place: &Place, path: &Path, file: &File, pid: u32, wall_ms: u64) -> io::Result<()> {
    let (own, there) = (rustix::fs::fstat(file)?, rustix::fs::lstat(path)?);
    if (own.st_dev, own.st_ino) != (there.st_dev, there.st_ino) {
        return Ok(());
    }
    std::fs::rename(path, place.folder.join(format!("haErrorLog-{}-{pid}.txt", Compact(wall_ms))))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::cast_possible_truncation)]
mod tests {
    use super::*;

    fn settings(folder: &Path, bytes_max: u32) -> conf::HaLog {
        conf::HaLog { enabled: true, folder: Some(folder.to_owned()), bytes_max }
    }

    fn log(folder: &Path, bytes_max: u32) -> HaLog {
        let log = HaLog::new(Arc::new(ntls::platform::System));
        log.configure(Some(&settings(folder, bytes_max)));
        log
    }

    #[test]
    fn a_line_has_date_process_group_and_event_and_stays_one_line() {
        let folder = tempfile::tempdir().unwrap();
        let log = log(folder.path(), 262_144);
        log.note(11_001, "unable to reach member: 1002. gone\nfor now");
        assert!(!folder.path().join(FILE).exists(), "nothing is written by the thread that notes");
        log.flush();
        let text = std::fs::read_to_string(folder.path().join(FILE)).unwrap();
        let tail = format!(
            " : [{}] HA group: 11001 unable to reach member: 1002. gone for now\n",
            std::process::id()
        );
        assert!(text.ends_with(&tail) && text.lines().count() == 1, "{text}");
    }

    #[test]
    fn without_a_folder_or_switched_off_nothing_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let log = log(folder.path(), 100);
        log.configure(Some(&conf::HaLog { enabled: false, ..settings(folder.path(), 100) }));
        log.note(1, "x");
        log.configure(Some(&conf::HaLog { folder: None, ..settings(folder.path(), 100) }));
        log.note(1, "x");
        log.configure(None);
        log.note(1, "x");
        log.configure(Some(&settings(folder.path(), 100)));
        log.flush();
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_long_file_is_renamed_and_a_new_one_begun() {
        let folder = tempfile::tempdir().unwrap();
        let log = log(folder.path(), 200);
        for number in 0..20 {
            log.note(1, &format!("event {number}"));
            log.flush();
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
        let mut all = String::new();
        let mut files = 0;
        for entry in std::fs::read_dir(folder.path()).unwrap() {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            assert!(name.starts_with("haErrorLog") && name.ends_with(".txt"), "{name}");
            let text = std::fs::read_to_string(entry.path()).unwrap();
            assert!(text.len() < 400, "{}", text.len());
            all += &text;
            files += 1;
        }
        assert!(files > 3, "{files}");
        for number in 0..20 {
            assert_eq!(all.matches(&format!(" event {number}\n")).count(), 1, "{number}\n{all}");
        }
    }

    #[test]
    fn more_lines_than_the_ring_holds_lose_the_oldest_and_say_so() {
        let folder = tempfile::tempdir().unwrap();
        let log = log(folder.path(), 1 << 30);
        for number in 0..RING + 3 {
            log.note(1, &format!("event {number}"));
        }
        log.flush();
        let text = std::fs::read_to_string(folder.path().join(FILE)).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), RING + 1);
        assert!(lines[0].ends_with(" event 3"), "{}", lines[0]);
        assert!(lines[RING].ends_with("] 3 lines before these could not be kept"), "{}", lines[RING]);
    }

    #[test]
    fn threads_that_note_while_another_writes_lose_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let log = log(folder.path(), 1 << 30);
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let log = &log;
                scope.spawn(move || {
                    for number in 0..60 {
                        log.note(thread, &format!("event {number}"));
                        log.flush();
                    }
                });
            }
        });
        log.flush();
        let text = std::fs::read_to_string(folder.path().join(FILE)).unwrap();
        assert_eq!(text.lines().count(), 240);
    }

    #[test]
    fn a_named_pipe_in_the_place_of_the_file_holds_nobody_up() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(FILE);
        let log = log(folder.path(), 1_000);
        let mode = Mode::RUSR | Mode::WUSR;
        rustix::fs::mknodat(rustix::fs::CWD, &path, FileType::Fifo, mode, 0).unwrap();
        log.note(1, "nobody reads");
        log.flush();
        assert!(log.refused.load(Ordering::Relaxed));
        let reader = rustix::fs::open(&path, OFlags::RDONLY | OFlags::NONBLOCK, Mode::empty()).unwrap();
        log.note(1, "somebody reads");
        log.flush();
        assert!(rustix::io::read(&reader, &mut [0; 16]).is_ok_and(|count| count == 0), "nothing is written");
    }

    #[test]
    fn a_link_in_the_place_of_the_file_is_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("target");
        std::fs::write(&target, "").unwrap();
        std::os::unix::fs::symlink(&target, folder.path().join(FILE)).unwrap();
        let log = log(folder.path(), 1_000);
        log.note(1, "x");
        log.flush();
        assert_eq!(std::fs::read_to_string(&target).unwrap(), "");
    }
}
