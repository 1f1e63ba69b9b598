//! A SoftHSM2 token in a folder of its own.
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::problem::Problem;
use crate::process;

/// Where packages of distributions put the module.
const MODULES: &[&str] = &[
    "/usr/lib/softhsm/libsofthsm2.so",
    "/usr/lib64/pkcs11/libsofthsm2.so",
    "/usr/lib/pkcs11/libsofthsm2.so",
    "/opt/homebrew/lib/softhsm/libsofthsm2.so",
];
const LABEL: &str = "bench";
const PIN: &str = "1234";

/// The token; its folder goes when this is dropped.
pub(super) struct Token(PathBuf);

impl Token {
    /// Makes it in a new folder.
    pub(super) fn new(dir: &Path) -> Result<Self, Problem> {
        let tokens = dir.join("tokens");
        crate::lab::make_folder(&tokens)?;
        let token = Self(dir.to_owned());
        let text = format!(
            "directories.tokendir = {}\nobjectstore.backend = file\nlog.level = ERROR\n",
            tokens.display()
        );
        fs::write(token.configuration(), text).map_err(|error| Problem::at(dir, &error))?;
        let mut command = Command::new("softhsm2-util");
        command.env("SOFTHSM2_CONF", token.configuration());
        command.args(["--init-token", "--free", "--label", LABEL, "--pin", PIN, "--so-pin", PIN]);
        process::run(&mut command)?;
        Ok(token)
    }

    fn configuration(&self) -> PathBuf {
        self.0.join("softhsm2.conf")
    }

    /// The environment of an application that uses it.
    pub(super) fn environment(&self) -> Vec<(&'static str, String)> {
        let module = MODULES.iter().find(|path| Path::new(path).is_file()).unwrap_or(&MODULES[0]);
        vec![
            ("SOFTHSM2_CONF", self.configuration().display().to_string()),
            ("P11_MODULE", (*module).to_owned()),
            ("P11_TOKEN_LABEL", LABEL.to_owned()),
            ("P11_PIN", PIN.to_owned()),
        ]
    }
}

impl Drop for Token {
    fn drop(&mut self) {
        // What cannot be removed lies in the folder that the run names.
        let _ = fs::remove_dir_all(&self.0);
    }
}
