//! One appliance of a lab: its folder, its address and its process.
use std::fs::{self, File};
use std::net::Ipv4Addr;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};
use serde::{Deserialize, Serialize};

use super::started;
use crate::problem::Problem;

/// An appliance.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Member {
    /// Its number, from 1.
    pub number: usize,
    /// Its folder.
    pub dir: PathBuf,
    /// Its address.
    pub address: Ipv4Addr,
    /// The TCP port that it listens on.
    pub port: u16,
    /// The port of the fault proxy before it, which is what clients use.
    #[serde(default)]
    pub front: Option<u16>,
    /// The network namespace that it runs in.
    #[serde(default)]
    pub namespace: Option<String>,
    /// The serial number of its partition.
    pub serial: u64,
}

/// A member of the group as `vtl haAdmin show --json` tells it.
#[derive(Clone, Debug, Deserialize)]
pub struct MemberState {
    /// The serial number of its partition.
    pub serial: u64,
    /// `alive` or `down`.
    pub status: String,
    /// Whether it holds what the others hold.
    pub equal: Option<bool>,
    /// How many objects it holds.
    pub objects: Option<u64>,
    /// What else is to be said of it.
    pub reason: Option<String>,
}

impl MemberState {
    /// Whether it is alive and holds what the others hold.
    pub fn is_whole(&self) -> bool {
        self.status == "alive" && self.equal == Some(true)
    }
}

impl Member {
    /// The TCP port that clients use.
    pub fn client_port(&self) -> u16 {
        self.front.unwrap_or(self.port)
    }

    /// Its configuration.
    pub fn configuration(&self) -> PathBuf {
        self.dir.join("hsmd.toml")
    }

    /// Its data folder.
    pub fn data(&self) -> PathBuf {
        self.dir.join("data")
    }

    /// Its operator's socket.
    pub fn socket(&self) -> PathBuf {
        self.data().join("admin.sock")
    }

    /// Its certificate, once it has run.
    pub fn certificate(&self) -> PathBuf {
        self.data().join("server.pem")
    }

    /// Its log.
    pub fn log(&self) -> PathBuf {
        self.dir.join("hsmd.log")
    }

    /// The process, if it runs.
    pub fn process(&self) -> Option<Pid> {
        started::read(&self.dir.join("hsmd.pid"))
    }

    /// Whether it runs.
    pub fn is_running(&self) -> bool {
        self.process().is_some()
    }

    /// What the system says of the process.
    pub fn process_state(&self) -> String {
        let Some(pid) = self.process() else { return "not running".into() };
        match started::field(pid.as_raw_nonzero().get(), started::STATE).as_deref() {
            Some("T") => format!("frozen (process {})", pid.as_raw_nonzero()),
            _ => format!("running (process {})", pid.as_raw_nonzero()),
        }
    }

    /// The processor time it has used, in clock ticks; 0 when it does not run.
    pub fn processor_ticks(&self) -> u64 {
        let Some(pid) = self.process() else { return 0 };
        let field = |field| started::field(pid.as_raw_nonzero().get(), field)?.parse::<u64>().ok();
        [started::USER_TICKS, started::SYSTEM_TICKS].into_iter().filter_map(field).sum()
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// When it does not run.
    pub fn signal(&self, signal: Signal) -> Result<(), Problem> {
        let number = self.number;
        let pid =
            self.process().ok_or_else(|| Problem(format!("wanted hsm{number} running, found it stopped")))?;
        rustix::process::kill_process(pid, signal)
            .map_err(|error| Problem(format!("hsm{number} cannot be signalled: {error}")))
    }

    /// Waits until the process has ended.
    ///
    /// # Errors
    /// When it has not after so long.
    pub fn wait_gone(&self, patience: Duration) -> Result<(), Problem> {
        let start = Instant::now();
        while self.is_running() {
            if start.elapsed() > patience {
                return Err(Problem(format!("hsm{} does not end", self.number)));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    /// Starts the process in a group of its own, with its output in the log.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn spawn(&self, hsmd: &Path) -> Result<(), Problem> {
        self.spawn_with(hsmd, &[])
    }

    /// As [`spawn`](Self::spawn), with more variables in its environment.
    ///
    /// # Errors
    /// As for [`spawn`](Self::spawn).
    pub fn spawn_with(&self, hsmd: &Path, variables: &[(&str, &Path)]) -> Result<(), Problem> {
        let log = File::options().create(true).append(true).open(self.log());
        let log = log.map_err(|error| Problem::at(&self.log(), &error))?;
        let other = log.try_clone().map_err(|error| Problem::at(&self.log(), &error))?;
        let mut command = super::spaces::command(self, hsmd);
        command.arg("--config").arg(self.configuration());
        command.envs(variables.iter().copied());
        command.stdin(Stdio::null()).stdout(log).stderr(other).process_group(0);
        let mut child = command.spawn().map_err(|error| Problem(format!("{}: {error}", hsmd.display())))?;
        started::write(&self.dir.join("hsmd.pid"), child.id())?;
        // Collects the process when it ends, should we still be here.
        std::thread::spawn(move || child.wait());
        Ok(())
    }

    /// The last lines of the log.
    pub fn log_end(&self) -> String {
        let text = fs::read_to_string(self.log()).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        let start = lines.len().saturating_sub(20);
        format!("{}:\n{}", self.log().display(), lines[start..].join("\n"))
    }
}
