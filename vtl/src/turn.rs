//! One `vtl` at a time changes what a folder of configuration holds: the files of certificates are read, changed and
//! written as a whole, so of two at once the slower one would lose what the other has added.

use std::io::Write as _;
use std::os::fd::OwnedFd;

use ntls::platform::System;
use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use crate::answer::Failure;
use crate::place::Place;

/// How long one waits for the other, in milliseconds.
const WAIT_MS: u64 = 30_000;
/// Between two tries, in milliseconds.
const TRY_MS: u64 = 50;

/// The right to change the folder, until this is dropped or the process ends, however it ends: a lock of the system on
/// the folder itself, which leaves no file behind.
#[derive(Debug)]
pub(crate) struct Turn {
    _folder: Option<OwnedFd>,
}

impl Turn {
    /// Waits until no other `vtl` has the turn, half a minute at most; says that it waits. Where the system cannot lock
    /// the folder (some network file systems) it says so and goes on.
    pub(crate) fn take(place: &Place) -> Result<Turn, Failure> {
        Turn::take_within(place, WAIT_MS)
    }

    fn take_within(place: &Place, wait_ms: u64) -> Result<Turn, Failure> {
        let path = place.join("");
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let folder = match rustix::fs::open(&path, flags, Mode::empty()) {
            Ok(folder) => folder,
            Err(error) => return Ok(without(&path, error)),
        };
        let system = System::shared();
        let until = system.now().after_ms(wait_ms);
        let mut told = false;
        loop {
            match rustix::fs::flock(&folder, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(Turn { _folder: Some(folder) }),
                Err(Errno::WOULDBLOCK | Errno::INTR) => {}
                Err(error) => return Ok(without(&path, error)),
            }
            if system.now() >= until {
                return Err(Failure::new(
                    format!("to change the files in {} alone", path.display()),
                    format!("another vtl that has been changing them for {} s", wait_ms / 1_000),
                    "wait until it has ended, then run the command again",
                ));
            }
            if !told {
                tell(&format!("waiting for another vtl that changes the files in {}", path.display()));
                told = true;
            }
            system.parker().park(system.now().after_ms(TRY_MS));
        }
    }
}

fn without(path: &std::path::Path, error: Errno) -> Turn {
    tell(&format!(
        "wanted to lock {} against another vtl, found: {error}; let only one change it at a time",
        path.display()
    ));
    Turn { _folder: None }
}

fn tell(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "vtl: {text}");
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::testing::Folder;

    #[test]
    fn a_turn_is_one_at_a_time_and_the_wait_is_bounded() {
        let folder = Folder::new(0);
        let first = Turn::take(&folder.place()).unwrap();
        let failure = Turn::take_within(&folder.place(), 120).unwrap_err();
        assert!(
            failure.0.contains("another vtl") && failure.0.contains("run the command again"),
            "{failure}"
        );
        drop(first);
        assert!(Turn::take_within(&folder.place(), 0).is_ok());
    }

    #[test]
    fn a_folder_that_cannot_be_locked_is_changed_all_the_same() {
        let folder = Folder::new(0);
        let place = folder.place();
        drop(folder);
        assert!(Turn::take_within(&place, 0).unwrap()._folder.is_none());
    }
}
