//! Addresses that labs of this user have taken, so that no other lab moves in while an appliance is dead.
//!
//! One small file per address and port under the system's temporary folder, with the lab's folder in it. It counts
//! while that folder holds a `lab.json`, and in its first minute.
use std::fs::{self, File};
use std::io::{ErrorKind, Write as _};
use std::net::Ipv4Addr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::setup::make_folder;
use crate::problem::Problem;

/// How long a reservation counts before its lab has written `lab.json`.
const FIRST: Duration = Duration::from_secs(60);

fn folder() -> PathBuf {
    std::env::temp_dir().join(format!("hatoki-labs-{}", rustix::process::geteuid().as_raw()))
}

/// Takes an address for the lab in `dir`; whether it could be had.
pub(super) fn reserve(address: Ipv4Addr, port: u16, dir: &Path) -> Result<bool, Problem> {
    let folder = folder();
    make_folder(&folder)?;
    let path = folder.join(format!("{address}-{port}"));
    for _ in 0..2 {
        match File::create_new(&path) {
            Ok(mut file) => {
                let wrote = file.write_all(dir.as_os_str().as_bytes());
                return wrote.map(|()| true).map_err(|error| Problem::at(&path, &error));
            }
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) => return Err(Problem::at(&path, &error)),
        }
        if holder(&path).is_some_and(|holder| holder != dir) {
            return Ok(false);
        }
        // Left behind, or our own from before.
        let _ = fs::remove_file(&path);
    }
    Ok(false)
}

/// Gives up everything that the lab in `dir` has taken.
pub(super) fn release(dir: &Path) {
    for entry in fs::read_dir(folder()).into_iter().flatten().flatten() {
        if fs::read(entry.path()).is_ok_and(|text| text == dir.as_os_str().as_bytes()) {
            // Nobody is hurt by one that stays: it no longer counts.
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// The folder of the lab that holds a reservation, while it counts.
fn holder(path: &Path) -> Option<PathBuf> {
    let dir = PathBuf::from(std::ffi::OsStr::from_bytes(&fs::read(path).ok()?));
    let age = fs::metadata(path).and_then(|facts| facts.modified()).ok()?.elapsed().unwrap_or_default();
    (dir.join("lab.json").exists() || age < FIRST).then_some(dir)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_held_until_its_lab_gives_it_up() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let address = Ipv4Addr::new(127, 0, 0, 97);
        let port = u16::try_from(std::process::id() % 60_000).unwrap() + 1;
        assert!(reserve(address, port, one.path()).unwrap());
        assert!(!reserve(address, port, two.path()).unwrap(), "held");
        assert!(reserve(address, port, one.path()).unwrap(), "by itself");
        release(one.path());
        assert!(reserve(address, port, two.path()).unwrap());
        release(two.path());
    }
}
