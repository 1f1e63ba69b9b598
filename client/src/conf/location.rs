//! Where the configuration is: the folder named by `ChrystokiConfigurationPath`, else `/etc`. In a process with more rights
//! than the user who started it no environment variable is looked at: they are that user's.

use std::ffi::OsString;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use super::configuration::Configuration;
use super::error::Error;
use super::parse::FILE_BYTES_MAX;

/// Name of the file in its folder.
pub const FILE_NAME: &str = "Chrystoki.conf";
/// Environment variable that names the folder, not the file.
pub const FOLDER_VARIABLE: &str = "ChrystokiConfigurationPath";
/// The folder when the variable is unset or empty.
pub const DEFAULT_FOLDER: &str = "/etc";

static DISTRUSTED: AtomicBool = AtomicBool::new(false);

/// From now on this process looks at no environment variable.
pub(crate) fn distrust_environment() {
    DISTRUSTED.store(true, Ordering::Release);
}

/// Whether environment variables may decide anything.
pub(crate) fn is_environment_trusted() -> bool {
    !DISTRUSTED.load(Ordering::Acquire)
}

/// An environment variable, if they may decide anything.
pub(crate) fn variable(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|_| is_environment_trusted())
}

/// The folder of the configuration by the environment of this process.
pub fn folder() -> PathBuf {
    folder_from(variable(FOLDER_VARIABLE))
}

/// The folder for a value of [`FOLDER_VARIABLE`]; unset and empty give [`DEFAULT_FOLDER`].
pub fn folder_from(variable: Option<OsString>) -> PathBuf {
    variable.filter(|value| !value.is_empty()).map_or_else(|| PathBuf::from(DEFAULT_FOLDER), PathBuf::from)
}

/// Reads the configuration that the environment names. No file is None: `C_Initialize` succeeds without slots. Errs
/// when the file is there and cannot be read, or is malformed (RULES 2.13).
pub fn load() -> Result<Option<Configuration>, Error> {
    load_from(&folder())
}

/// Reads the configuration of one folder, like [`load`].
pub fn load_from(folder: &Path) -> Result<Option<Configuration>, Error> {
    let file = folder.join(FILE_NAME);
    match read(&file)? {
        Some(bytes) => Configuration::from_bytes(&bytes, &file).map(Some),
        None => Ok(None),
    }
}

/// The bytes of a configuration file, None when there is no such file. Reads no more than one byte beyond the bound.
pub(crate) fn read(file: &Path) -> Result<Option<Vec<u8>>, Error> {
    let wanted = "read the configuration";
    let failed = |error: &std::io::Error| {
        let action = match error.kind() {
            ErrorKind::NotADirectory => {
                format!("set {FOLDER_VARIABLE} to the folder that holds {FILE_NAME}")
            }
            ErrorKind::IsADirectory => {
                format!("remove the folder, or set {FOLDER_VARIABLE} to the one that holds {FILE_NAME}")
            }
            _ => {
                format!("make the file readable for this process, or set {FOLDER_VARIABLE} to another folder")
            }
        };
        Error::environment(file, wanted, error, action)
    };
    let opened = match File::open(file) {
        Ok(opened) => opened,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(&error)),
    };
    let bytes_max = u64::try_from(FILE_BYTES_MAX).unwrap_or(u64::MAX).saturating_add(1);
    let mut bytes = Vec::new();
    opened.take(bytes_max).read_to_end(&mut bytes).map_err(|error| failed(&error))?;
    Ok(Some(bytes))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::cast_possible_truncation)]
mod tests {
    use super::*;

    #[test]
    fn an_unset_or_empty_variable_means_etc() {
        assert_eq!(folder_from(None), Path::new("/etc"));
        assert_eq!(folder_from(Some(OsString::new())), Path::new("/etc"));
        assert_eq!(folder_from(Some(OsString::from("/srv/x"))), Path::new("/srv/x"));
    }

    #[test]
    fn no_file_is_no_configuration_and_no_error() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(load_from(folder.path()).unwrap(), None);
        assert_eq!(load_from(&folder.path().join("absent")).unwrap(), None);
    }

    #[test]
    fn a_variable_that_names_the_file_is_told_to_name_the_folder() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join(FILE_NAME);
        std::fs::write(&file, "").unwrap();
        let text = load_from(&file).unwrap_err().to_string();
        assert!(
            text.contains("set ChrystokiConfigurationPath to the folder that holds Chrystoki.conf"),
            "{text}"
        );
    }

    #[test]
    fn a_file_that_cannot_be_read_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join(FILE_NAME)).unwrap();
        let text = load_from(folder.path()).unwrap_err().to_string();
        assert!(text.contains("wanted to read the configuration, found: ") && text.contains("; "), "{text}");
    }

    #[test]
    fn a_malformed_file_is_an_error_that_names_the_place() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join(FILE_NAME);
        std::fs::write(&file, "Luna = {\n   DefaultTimeOut = 5\n}\n").unwrap();
        let text = load_from(folder.path()).unwrap_err().to_string();
        let place = format!("{}:2:22: wanted `;`, found the end of the line", file.display());
        assert!(text.starts_with(&place), "{text}");
    }
}
