//! Another client of a lab's group: with a certificate and a `Chrystoki.conf` of its own, as a second application host has.
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use super::{Lab, write_private};
use crate::problem::Problem;
use crate::process;

/// Its name, and that of its folder in the lab's.
pub(super) const NAME: &str = "neighbour";

impl Lab {
    /// Makes and registers it; the environment of its applications.
    ///
    /// # Errors
    /// When a step fails.
    pub fn neighbour(&self) -> Result<Vec<(&'static str, String)>, Problem> {
        let (own, folder) = (self.configuration(), self.dir().join(NAME));
        process::run(Command::new("cp").arg("-a").arg(&own).arg(&folder))?;
        let certificates = folder.join("cert/client");
        fs::remove_dir_all(&certificates).map_err(|error| Problem::at(&certificates, &error))?;
        let file = folder.join("Chrystoki.conf");
        let text = fs::read_to_string(&file).map_err(|error| Problem::at(&file, &error))?;
        // Absolute paths lead into the first client's folder.
        let text = text.replace(&format!("{}/", own.display()), &format!("{}/", folder.display()));
        write_private(&file, &text)?;
        let environment = self.environment_in(folder);
        // The certificate that is named is not there, so the new one takes its place.
        process::run(self.vtl().envs(environment.clone()).args(["createCert", "-n", NAME]))?;
        let certificate = certificates.join(format!("{NAME}.pem"));
        for member in self.members() {
            let serial = member.serial.to_string();
            let mut register = self.hsm(member.number)?;
            process::run(register.args(["client", "register", "-client", NAME, "-cert"]).arg(&certificate))?;
            let mut assign = self.hsm(member.number)?;
            process::run(assign.args(["client", "assignPartition", "-client", NAME, "-partition", &serial]))?;
        }
        Ok(environment)
    }

    /// The environment of an application whose configuration is in that folder.
    fn environment_in(&self, folder: PathBuf) -> Vec<(&'static str, String)> {
        let mut environment = self.environment();
        for (name, value) in &mut environment {
            if *name == "ChrystokiConfigurationPath" {
                *value = folder.display().to_string();
            }
        }
        environment
    }
}
