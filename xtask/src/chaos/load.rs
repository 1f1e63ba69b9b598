//! The application's process, from outside.
use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{ChildStdin, ChildStdout, Stdio};
use std::time::{Duration, Instant};

use super::application::Report;
use crate::lab::Lab;
use crate::problem::Problem;
use crate::process::Background;

/// Eight signing threads and a creator, until dropped.
pub(super) struct Load {
    _process: Background,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    log: std::path::PathBuf,
}

impl Load {
    pub(super) fn start(lab: &Lab, rsa: bool) -> Result<Self, Problem> {
        Self::start_with(lab, if rsa { &["--rsa"] } else { &[] }, &lab.configuration())
    }

    /// With these arguments and the configuration of this folder.
    pub(super) fn start_with(lab: &Lab, arguments: &[&str], configuration: &Path) -> Result<Self, Problem> {
        let own = std::env::current_exe()
            .map_err(|error| Problem(format!("our own program is not known: {error}")))?;
        let path = lab.dir().join("chaos.log");
        let log = File::options().create(true).append(true).open(&path);
        let log = log.map_err(|error| Problem::at(&path, &error))?;
        let mut command = lab.command(own);
        command.arg("chaos-load").args(arguments).env("ChrystokiConfigurationPath", configuration);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log);
        let mut process = Background::start(&mut command)?;
        let (Some(input), Some(output)) = (process.child().stdin.take(), process.child().stdout.take())
        else {
            return Err(Problem("the application has no standard input and output".into()));
        };
        let mut load = Self { _process: process, input, output: BufReader::new(output), log: path };
        // Until all threads are at work.
        let begun = Instant::now();
        while load.mark()?.slowest_thread == 0 {
            if begun.elapsed() > Duration::from_secs(300) {
                return Err(Problem("a signing thread does not begin within five minutes".into()));
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        Ok(load)
    }

    /// What has happened since the last mark.
    pub(super) fn mark(&mut self) -> Result<Report, Problem> {
        self.say("mark")?;
        let mut line = String::new();
        let read = self.output.read_line(&mut line);
        match (read, serde_json::from_str(&line)) {
            (Ok(_), Ok(report)) => Ok(report),
            _ => {
                let said = std::fs::read_to_string(&self.log).unwrap_or_default();
                let end: Vec<&str> = said.lines().rev().take(10).collect();
                Err(Problem(format!("the application ended: {}", end.join(" | "))))
            }
        }
    }

    /// Lets the creator rest, or go on.
    pub(super) fn pause(&mut self, paused: bool) -> Result<(), Problem> {
        self.say(if paused { "pause" } else { "resume" })
    }

    /// After an outage of all, the first member starts now: the next report tells how long after that all threads had signed.
    pub(super) fn returned(&mut self) -> Result<(), Problem> {
        self.say("returned")
    }

    fn say(&mut self, line: &str) -> Result<(), Problem> {
        writeln!(self.input, "{line}").map_err(|error| Problem(format!("the application has ended: {error}")))
    }
}
