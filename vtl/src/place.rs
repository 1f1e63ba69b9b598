//! The folder of the configuration that a verb works on.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use client::conf::{self, Configuration, Document, EditableFile, Group};

use crate::answer::Failure;

/// What brings the client's own files.
pub(crate) const CREATE_CERT: &str = "make the client's certificate with vtl createCert";
/// What brings those that tell which servers are trusted.
pub(crate) const ADD_SERVER: &str = "add the servers' certificates with vtl addServer";

/// The folder of one `Chrystoki.conf`.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    folder: PathBuf,
}

impl Place {
    /// The folder of the option, else the one of the environment. It is made absolute, so that the paths written into
    /// the configuration hold from any working folder. Errs when there is no such folder.
    pub(crate) fn new(option: Option<PathBuf>) -> Result<Place, Failure> {
        let folder = option.unwrap_or_else(conf::folder);
        let absolute = fs::canonicalize(&folder).map_err(|error| {
            let action = "make it, or name another with --config or ChrystokiConfigurationPath";
            Failure::new(format!("the folder {} for Chrystoki.conf", folder.display()), error, action)
        })?;
        Ok(Place { folder: absolute })
    }

    /// A path inside the folder.
    pub(crate) fn join(&self, path: &str) -> PathBuf {
        self.folder.join(path)
    }

    /// The configuration file.
    pub(crate) fn file(&self) -> PathBuf {
        self.folder.join(conf::FILE_NAME)
    }

    /// Whether there is a configuration file.
    pub(crate) fn has_file(&self) -> bool {
        self.file().exists()
    }

    /// The configuration. Errs when there is none, since the verb that asks needs servers.
    pub(crate) fn configuration(&self) -> Result<Configuration, Failure> {
        conf::load_from(&self.folder)?.ok_or_else(|| {
            let action = "begin with vtl createCert and vtl addServer, or name another folder with --config";
            Failure::new(self.file().display(), "no such file", action)
        })
    }

    /// What is amiss in the configuration although it is usable: values that are passed over, names that nobody knows, files
    /// that are not there. A configuration that cannot be read is the verb's failure and not told here.
    pub(crate) fn complaints(&self) -> Vec<String> {
        let Ok(Some(configuration)) = conf::load_from(&self.folder) else { return Vec::new() };
        let mut complaints: Vec<String> = configuration.warnings.iter().map(ToString::to_string).collect();
        if configuration.servers.is_empty() {
            // The files come with the first server.
            return complaints;
        }
        let files = [
            ("ServerCAFile", Some(&configuration.server_ca), ADD_SERVER),
            ("ClientCertFile", configuration.client_certificate.as_ref(), CREATE_CERT),
            ("ClientPrivKeyFile", configuration.client_private_key.as_ref(), CREATE_CERT),
        ];
        for (key, file, action) in files {
            let Some((file, Err(error))) = file.map(|file| (file, fs::metadata(file))) else { continue };
            let action = match error.kind() {
                ErrorKind::NotFound => action,
                _ => "let this user read it",
            };
            complaints.push(format!(
                "{}: wanted the file {} that {key} names, found {error}; {action}",
                self.file().display(),
                file.display()
            ));
        }
        complaints
    }

    /// Changes the configuration file, which must be there, and gives what it says then.
    pub(crate) fn change(
        &self,
        change: impl FnOnce(&Configuration, &mut Document) -> Result<(), Failure>,
    ) -> Result<Configuration, Failure> {
        let mut file = self.editable()?;
        let before = self.configuration()?;
        change(&before, &mut file.document)?;
        Ok(file.save()?)
    }

    /// The configuration for editing; a file that is not there is made on saving.
    pub(crate) fn editable(&self) -> Result<EditableFile, Failure> {
        Ok(EditableFile::open(&self.file())?)
    }
}

/// The group that an option names by label or serial number.
pub(crate) fn group<'a>(configuration: &'a Configuration, name: &str) -> Result<&'a Group, Failure> {
    let by_serial = || configuration.groups.iter().find(|group| group.serial.to_string() == name);
    configuration.group(name).or_else(by_serial).ok_or_else(|| {
        let labels: Vec<&str> = configuration.groups.iter().map(|group| group.label.as_str()).collect();
        let found = if labels.is_empty() {
            "no group".to_owned()
        } else {
            format!("the groups {}", labels.join(", "))
        };
        let wanted = format!("a group {name} in {}", configuration.file.display());
        Failure::new(wanted, found, "name one of them, or make it with vtl haAdmin newGroup")
    })
}

/// A path as the configuration can hold it. Errs when it is not UTF-8.
pub(crate) fn text(path: &Path) -> Result<&str, Failure> {
    path.to_str().ok_or_else(|| {
        Failure::new(
            "a folder whose name is UTF-8",
            path.display(),
            "choose another folder for the configuration",
        )
    })
}

/// Makes a folder with its parents. Errs with the path and what the system said.
pub(crate) fn make_folder(folder: &Path) -> Result<(), Failure> {
    fs::create_dir_all(folder).map_err(|error| {
        Failure::new(
            format!("to make the folder {}", folder.display()),
            error,
            "run as a user who may write there",
        )
    })
}
