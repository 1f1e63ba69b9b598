//! Where lines of the log go: a file, or standard error. Both may be taken away at any time, by an application that
//! closes descriptors it does not know (every daemon does) and opens files of its own under their numbers; so each line
//! looks first whether the number still stands for what it stood for.
//!
//! ```text
//! LogPath          same file? -> write          another one, or none -> opened anew by its path
//! standard error   same file as at C_Initialize? -> write, without waiting and without a signal     else: not written
//! ```
//! No lock is held, which a forked child might inherit locked.
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, IntoRawFd as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwapOption;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{FileType, Mode, OFlags};
use rustix::net::SendFlags;

use crate::conf;
use crate::host::Around;

/// What is written to a pipe in one piece (`PIPE_BUF`): longer lines for standard error are cut.
const PIECE_BYTES: usize = 4096;

static WRITE_WITHIN: OnceLock<Around> = OnceLock::new();

/// See [`crate::host::Host::write_log`]. The first one stays.
pub(crate) fn write_within(around: Around) {
    let _ = WRITE_WITHIN.set(around);
}

/// Runs something that writes to a file or a pipe, so that no signal of it reaches the application.
pub(crate) fn quietly(mut write: impl FnMut()) {
    match WRITE_WITHIN.get() {
        Some(around) => around(&mut write),
        None => write(),
    }
}

/// What tells one open file from others under the same number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    device: u64,
    inode: u64,
    kind: FileType,
}

impl Identity {
    fn of(file: impl AsFd) -> Option<Identity> {
        let stat = rustix::fs::fstat(file).ok()?;
        Some(Identity {
            device: stat.st_dev,
            inode: stat.st_ino,
            kind: FileType::from_raw_mode(stat.st_mode),
        })
    }

    /// That of standard error as it is now; `None` when it is closed.
    pub(crate) fn of_standard_error() -> Option<Identity> {
        Identity::of(rustix::stdio::stderr())
    }
}

/// An open file that is closed only while its number is its own.
struct Opened {
    file: Option<File>,
    identity: Option<Identity>,
}

impl Opened {
    /// The file, unless its number stands for another one by now.
    fn file(&self) -> Option<&File> {
        self.file.as_ref().filter(|file| self.identity.is_some() && Identity::of(file) == self.identity)
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        let is_ours = self.file().is_some();
        if let Some(file) = self.file.take().filter(|_| !is_ours) {
            let _ = file.into_raw_fd();
        }
    }
}

/// The file of `LogPath`.
pub(crate) struct LogFile {
    path: PathBuf,
    opened: ArcSwapOption<Opened>,
}

impl LogFile {
    /// Opens the file for appending, made if need be.
    ///
    /// # Errors
    /// Those of the system; under an environment that is not trusted also when it is a symbolic link.
    pub(crate) fn open(path: &Path) -> io::Result<LogFile> {
        let opened = open(path, conf::location::is_environment_trusted())?;
        Ok(LogFile { path: path.to_owned(), opened: ArcSwapOption::from_pointee(opened) })
    }

    /// Writes a line by one `write`; opens the file anew when the application has closed it.
    fn write(&self, line: &[u8]) {
        let opened = self.opened.load_full();
        if let Some(file) = opened.as_ref().and_then(|opened| opened.file()) {
            let _ = rustix::io::write(file, line);
            return;
        }
        let Ok(anew) = open(&self.path, conf::location::is_environment_trusted()) else { return };
        if let Some(file) = &anew.file {
            let _ = rustix::io::write(file, line);
        }
        self.opened.store(Some(Arc::new(anew)));
    }
}

/// `NONBLOCK` matters to a pipe with a name alone: nobody waits for its reader.
fn open(path: &Path, follow_links: bool) -> io::Result<Opened> {
    let mut flags = OFlags::APPEND | OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC;
    flags |= OFlags::NONBLOCK | OFlags::NOCTTY;
    if !follow_links {
        flags |= OFlags::NOFOLLOW;
    }
    let file = File::from(rustix::fs::open(path, flags, Mode::RUSR | Mode::WUSR | Mode::RGRP)?);
    let identity = Identity::of(&file);
    Ok(Opened { file: Some(file), identity })
}

/// Where lines go.
pub(crate) enum Outlet {
    /// To `LogPath`.
    File(LogFile),
    /// To standard error while it is this file; nowhere when it was closed from the start.
    StandardError(Option<Identity>),
}

impl Outlet {
    /// Writes a line, or loses it: a log that cannot be written must not disturb the application.
    pub(crate) fn write(&self, line: &[u8]) {
        quietly(|| match self {
            Outlet::File(file) => file.write(line),
            Outlet::StandardError(None) => {}
            Outlet::StandardError(Some(identity)) => write_standard_error(*identity, line),
        });
    }
}

fn write_standard_error(wanted: Identity, line: &[u8]) {
    let stderr = rustix::stdio::stderr();
    if Identity::of(stderr) != Some(wanted) {
        return;
    }
    match wanted.kind {
        FileType::Socket => {
            let _ = rustix::net::send(stderr, line, SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
        }
        FileType::Fifo | FileType::CharacterDevice => write_without_waiting(wanted, line),
        _ => {
            let _ = rustix::io::write(stderr, line);
        }
    }
}

/// To a pipe or a terminal that may be full. The application's descriptor waits, and shall go on waiting, so the file is
/// opened again for this line, in a way that does not. A descriptor that is kept would keep a pipe open that the
/// application has closed. Where that cannot be (no `/proc`, other rights by now) it is asked whether there is room,
/// which another writer may take in between.
fn write_without_waiting(wanted: Identity, line: &[u8]) {
    let piece = line.get(..PIECE_BYTES).unwrap_or(line);
    let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    match rustix::fs::open("/proc/self/fd/2", flags, Mode::empty()) {
        Ok(again) if Identity::of(&again) == Some(wanted) => {
            let _ = rustix::io::write(&again, piece);
        }
        // Another file by now, or a pipe that nobody reads.
        Ok(_) | Err(rustix::io::Errno::NXIO) => {}
        Err(_) => {
            let stderr = rustix::stdio::stderr();
            let mut asked = [PollFd::from_borrowed_fd(stderr, PollFlags::OUT)];
            let _ = rustix::event::poll(&mut asked, Some(&Timespec::default()));
            if asked[0].revents() == PollFlags::OUT {
                let _ = rustix::io::write(stderr, piece);
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::cast_possible_truncation)]
mod tests {
    use super::*;
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

    fn text(path: &Path) -> String {
        std::fs::read_to_string(path).unwrap()
    }

    #[test]
    fn a_log_file_whose_number_another_file_has_is_opened_anew_and_the_other_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let (path, theirs) = (folder.path().join("hatoki.log"), folder.path().join("theirs"));
        let log = LogFile::open(&path).unwrap();
        log.write(b"one\n");
        // As if the application had closed our number and had got it for a file of its own.
        let identity = log.opened.load().as_ref().unwrap().identity;
        let other = File::create(&theirs).unwrap();
        let link = PathBuf::from(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&other)));
        let taken = Opened { file: Some(other), identity };
        drop(log.opened.swap(Some(Arc::new(taken))));
        log.write(b"two\n");
        assert_eq!((text(&path), text(&theirs)), ("one\ntwo\n".to_owned(), String::new()));
        assert_eq!(std::fs::metadata(link).unwrap().ino(), theirs.metadata().unwrap().ino(), "not closed");
        log.write(b"three\n");
        assert_eq!(text(&path), "one\ntwo\nthree\n");
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o027, 0);
    }

    #[test]
    fn a_link_is_followed_only_where_the_environment_is_trusted() {
        let folder = tempfile::tempdir().unwrap();
        let (path, target) = (folder.path().join("hatoki.log"), folder.path().join("target"));
        std::os::unix::fs::symlink(&target, &path).unwrap();
        assert!(open(&path, false).is_err());
        assert!(!target.exists());
        assert!(open(&path, true).is_ok());
    }

    #[test]
    fn a_named_pipe_that_nobody_reads_is_refused_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pipe");
        rustix::fs::mknodat(rustix::fs::CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        assert!(LogFile::open(&path).is_err());
    }
}
