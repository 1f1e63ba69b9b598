//! Editing a `Chrystoki.conf` in place: parse, change, check, replace the file atomically.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use super::configuration::Configuration;
use super::document::Document;
use super::error::Error;
use super::location::read;
use super::parse::parse;

/// A configuration file opened for editing.
#[derive(Debug)]
pub struct EditableFile {
    path: PathBuf,
    original: Option<Vec<u8>>,
    /// The parsed content; change it, then call [`EditableFile::save`].
    pub document: Document,
}

impl EditableFile {
    /// Opens a file; one that does not exist is empty and will be made. Errs when it cannot be read or is malformed.
    pub fn open(path: &Path) -> Result<EditableFile, Error> {
        let original = read(path)?;
        let document = parse(original.as_deref().unwrap_or_default(), path)?;
        Ok(EditableFile { path: path.to_path_buf(), original, document })
    }

    /// Checks the changed document as `C_Initialize` would, then replaces the file: a temporary file in the same
    /// folder with the same mode, synced, renamed over the old one. Errs and leaves the file alone when the result
    /// would be malformed, when another process has changed the file since it was opened, or when the system refuses.
    pub fn save(&mut self) -> Result<Configuration, Error> {
        let text = self.document.to_text();
        let configuration = Configuration::from_bytes(text.as_bytes(), &self.path)?;
        if read(&self.path)? != self.original {
            let changed = std::io::Error::other("it has changed since it was read");
            return Err(Error::environment(&self.path, WANTED, &changed, "run the command again"));
        }
        replace(&self.path, text.as_bytes(), DEFAULT_MODE)?;
        self.original = Some(text.into_bytes());
        Ok(configuration)
    }
}

const WANTED: &str = "replace the file";
const DEFAULT_MODE: u32 = 0o644;

/// Replaces a file atomically, keeping mode and, where the system allows it, owner of the one that was there; a new
/// file gets `new_mode`. A symbolic link is followed. Errs with the file untouched.
pub fn replace(path: &Path, bytes: &[u8], new_mode: u32) -> Result<(), Error> {
    let failed = |error: std::io::Error| {
        Error::environment(
            path,
            WANTED,
            &error,
            "run as a user who may write in its folder, and see that the disk has room",
        )
    };
    let target = match fs::canonicalize(path) {
        Ok(target) => target,
        Err(error) if error.kind() == ErrorKind::NotFound => path.to_path_buf(),
        Err(error) => return Err(failed(error)),
    };
    let (temporary, file) = temporary_beside(&target).map_err(failed)?;
    let written = fill(&file, bytes, &target, new_mode).and_then(|()| fs::rename(&temporary, &target));
    if let Err(error) = written {
        // The temporary file is ours alone; a second failure adds nothing to the first.
        let _ = fs::remove_file(&temporary);
        return Err(failed(error));
    }
    let folder = target.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed)
}

fn fill(mut file: &File, bytes: &[u8], target: &Path, new_mode: u32) -> std::io::Result<()> {
    file.write_all(bytes)?;
    take_over_mode(file, target, new_mode)?;
    file.sync_all()
}

/// Makes a new file of mode 0600 beside the target.
fn temporary_beside(target: &Path) -> std::io::Result<(PathBuf, File)> {
    static COUNTER: AtomicU32 = AtomicU32::new(0);
    const TRIES_MAX: u32 = 100;
    let name = target.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut last = std::io::Error::other("no free name for a temporary file");
    for _ in 0..TRIES_MAX {
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let temporary = target.with_file_name(format!(".{name}.{}.{number}.tmp", std::process::id()));
        match options.open(&temporary) {
            Ok(file) => return Ok((temporary, file)),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => last = error,
            Err(error) => return Err(error),
        }
    }
    Err(last)
}

#[cfg(unix)]
fn take_over_mode(file: &File, target: &Path, new_mode: u32) -> std::io::Result<()> {
    use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown};
    let mode = match fs::metadata(target) {
        Ok(old) => {
            let ours = file.metadata()?;
            if (old.uid(), old.gid()) != (ours.uid(), ours.gid()) {
                // Only root may give a file away; the mode below never grants more than the old file did.
                let _ = fchown(file, Some(old.uid()), Some(old.gid()));
            }
            old.mode() & 0o7777
        }
        Err(error) if error.kind() == ErrorKind::NotFound => new_mode,
        Err(error) => return Err(error),
    };
    file.set_permissions(fs::Permissions::from_mode(mode))
}

#[cfg(not(unix))]
fn take_over_mode(_file: &File, _target: &Path, _new_mode: u32) -> std::io::Result<()> {
    Ok(())
}

#[cfg(test)]
#[path = "write_tests.rs"]
mod tests;
