//! The data folder: its lock, permissions and private files.
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use zeroize::Zeroizing;

use crate::error::Error;

/// A data folder that this process alone uses, until the value is dropped.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    _lock: File,
}

impl DataDir {
    /// Makes or takes the folder: mode 0700, owned by this user, locked.
    ///
    /// # Errors
    /// When another process uses it, when others than its owner may enter, or when it cannot be made.
    pub fn open(path: &Path) -> Result<DataDir, Error> {
        let failed = |what: &str, error: std::io::Error| {
            Error::environment(format!("data_dir {}: cannot {what}: {error}", path.display()))
        };
        if !path.exists() {
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(path)
                .map_err(|e| failed("make it", e))?;
        }
        let facts = fs::metadata(path).map_err(|e| failed("read it", e))?;
        if !facts.is_dir() {
            let text = format!("data_dir {}: wanted a folder, found another kind of file", path.display());
            return Err(Error::environment(text));
        }
        private(path, &facts, "0700", "chmod 700")?;
        let mut lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path.join("lock"))
            .map_err(|e| failed("open its lock file", e))?;
        if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            let mut owner = String::new();
            let _ = (&lock).take(32).read_to_string(&mut owner);
            return Err(Error::environment(format!(
                "data_dir {}: wanted a folder that no other hsmd uses, found it in use by process {}; stop that one or \
                 set another data_dir",
                path.display(),
                owner.trim()
            )));
        }
        let line = format!("{}\n", std::process::id());
        lock.set_len(0).and_then(|()| lock.rewind()).map_err(|e| failed("write its lock file", e))?;
        lock.write_all(line.as_bytes()).map_err(|e| failed("write its lock file", e))?;
        Ok(DataDir { path: path.to_owned(), _lock: lock })
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The folder of the partitions' databases, made when missing.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn partitions(&self) -> Result<PathBuf, Error> {
        let path = self.path.join("partitions");
        match fs::DirBuilder::new().mode(0o700).create(&path) {
            Ok(()) => Ok(path),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(path),
            Err(error) => Err(Error::environment(format!("cannot make {}: {error}", path.display()))),
        }
    }
}

/// Reads a private file; `None` when it does not exist.
///
/// # Errors
/// When others than its owner may read it, or it cannot be read.
pub fn read_private(path: &Path) -> Result<Option<Zeroizing<Vec<u8>>>, Error> {
    let failed =
        |error: std::io::Error| Error::environment(format!("cannot read {}: {error}", path.display()));
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let facts = file.metadata().map_err(failed)?;
    private(path, &facts, "0600", "chmod 600")?;
    let mut bytes = Zeroizing::new(Vec::with_capacity(usize::try_from(facts.len()).unwrap_or(0) + 1));
    file.read_to_end(&mut bytes).map_err(failed)?;
    Ok(Some(bytes))
}

/// Writes a new file of mode `mode`, durably; never replaces one.
///
/// # Errors
/// When it exists already or cannot be written.
pub fn write_new(path: &Path, bytes: &[u8], mode: u32) -> Result<(), Error> {
    let write = || -> std::io::Result<()> {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
    };
    write().map_err(|error| Error::environment(format!("cannot write {}: {error}", path.display())))
}

/// Writes a file of mode `mode` in the place of what was there, whole or not at all, durably.
///
/// # Errors
/// When it cannot be written.
pub fn replace(path: &Path, bytes: &[u8], mode: u32) -> Result<(), Error> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let beside = PathBuf::from(beside);
    // A leftover of an interrupted run.
    let _ = fs::remove_file(&beside);
    write_new(&beside, bytes, mode)?;
    let rename = || {
        fs::rename(&beside, path)?;
        File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
    };
    rename().map_err(|error| Error::environment(format!("cannot write {}: {error}", path.display())))
}

fn private(path: &Path, facts: &fs::Metadata, wanted: &str, command: &str) -> Result<(), Error> {
    let mode = facts.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(Error::environment(format!(
            "{}: wanted mode {wanted} (its owner alone), found {mode:04o}; run: {command} {}",
            path.display(),
            path.display()
        )));
    }
    let own = rustix::process::geteuid().as_raw();
    if facts.uid() != own {
        return Err(Error::environment(format!(
            "{}: wanted it owned by the user of hsmd ({own}), found user {}; run hsmd as that user or chown it",
            path.display(),
            facts.uid()
        )));
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn set_mode(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn a_folder_in_use_is_refused_and_free_again_when_dropped() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("data");
        let first = DataDir::open(&path).unwrap();
        let error = DataDir::open(&path).unwrap_err().to_string();
        assert!(error.contains(&format!("in use by process {}", std::process::id())), "{error}");
        drop(first);
        DataDir::open(&path).unwrap();
    }

    #[test]
    fn loose_permissions_of_the_folder_are_refused() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("data");
        drop(DataDir::open(&path).unwrap());
        for mode in [0o750, 0o701, 0o755, 0o770] {
            set_mode(&path, mode);
            let error = DataDir::open(&path).unwrap_err().to_string();
            assert!(error.contains("chmod 700") && error.contains(&format!("found {mode:04o}")), "{error}");
        }
    }

    #[test]
    fn a_file_in_place_of_the_folder_is_refused() {
        let place = tempfile::NamedTempFile::new().unwrap();
        assert!(DataDir::open(place.path()).unwrap_err().to_string().contains("wanted a folder"));
    }

    #[test]
    fn private_files_are_written_once_and_read_only_when_private() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("root.key");
        assert!(read_private(&path).unwrap().is_none());
        write_new(&path, b"secret", 0o600).unwrap();
        assert_eq!(read_private(&path).unwrap().unwrap().as_slice(), b"secret");
        assert!(write_new(&path, b"other", 0o600).is_err());
        set_mode(&path, 0o640);
        let error = read_private(&path).unwrap_err().to_string();
        assert!(error.contains("chmod 600") && !error.contains("secret"), "{error}");
    }
}
