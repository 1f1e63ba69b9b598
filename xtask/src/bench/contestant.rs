//! A contestant's process, from outside: a line in, a line out.
use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use super::cells::Cell;
use super::results::Window;
use crate::problem::Problem;
use crate::process::Background;

/// SoftHSM2 in the calling process.
pub(super) const SOFTHSM: &str = "softhsm2";
/// AWS-LC with nothing around it.
pub(super) const LIBRARY: &str = "library";
/// The links of the module alone, to a group of two.
pub(super) const LINK: &str = "link";

/// One TLS connection and nothing around it.
pub(super) const TLS: &str = "tls";

/// The module with a group of so many members.
pub(super) fn group_of(members: usize) -> String {
    format!("hatoki-{members}")
}

/// One of them, alive.
pub(super) struct Contestant {
    name: String,
    /// The appliances behind it, by process.
    members: Vec<u32>,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    log: PathBuf,
    _process: Background,
}

impl Contestant {
    /// Starts it and waits until it is ready.
    pub(super) fn start(
        name: &str,
        programs: &Path,
        arguments: &[&str],
        environment: Vec<(&str, String)>,
        members: Vec<u32>,
        log: &Path,
    ) -> Result<Self, Problem> {
        let file = File::options().create(true).append(true).open(log);
        let file = file.map_err(|error| Problem::at(log, &error))?;
        let mut command = Command::new(programs.join("hatoki-load"));
        command.args(arguments).envs(environment);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(file);
        let mut process = Background::start(&mut command)?;
        let (Some(input), Some(output)) = (process.child().stdin.take(), process.child().stdout.take())
        else {
            return Err(Problem(format!("{name} has no standard input and output")));
        };
        let output = BufReader::new(output);
        let mut contestant =
            Self { name: name.to_owned(), members, input, output, log: log.to_owned(), _process: process };
        match contestant.read()?.as_str() {
            Some("ready") => Ok(contestant),
            _ => Err(Problem(format!("{name} does not say that it is ready"))),
        }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Measures one window. `None`: not offered; the inner `Err`: what went wrong in it.
    pub(super) fn run(
        &mut self,
        cell: Cell,
        warm: Duration,
        span: Duration,
    ) -> Result<Result<Option<Window>, String>, Problem> {
        self.ask(cell, warm, span)?;
        self.answer()
    }

    /// Begins one window.
    pub(super) fn ask(&mut self, cell: Cell, warm: Duration, span: Duration) -> Result<(), Problem> {
        let members: String = self.members.iter().map(|member| format!(" {member}")).collect();
        let (warm, span) = (warm.as_millis(), span.as_millis());
        let line = format!("run {} {} {warm} {span}{members}", cell.work, cell.threads);
        writeln!(self.input, "{line}").map_err(|error| self.ended(&error.to_string()))
    }

    /// What came of the window that was begun.
    pub(super) fn answer(&mut self) -> Result<Result<Option<Window>, String>, Problem> {
        let answer = self.read()?;
        match answer["error"].as_str() {
            Some(error) => Ok(Err(error.to_owned())),
            None => {
                let window = serde_json::from_value(answer).map_err(|error| self.ended(&error.to_string()));
                window.map(Ok)
            }
        }
    }

    fn read(&mut self) -> Result<serde_json::Value, Problem> {
        let mut line = String::new();
        let read = self.output.read_line(&mut line);
        match (read, serde_json::from_str(&line)) {
            (Ok(_), Ok(value)) => Ok(value),
            (Err(error), _) => Err(self.ended(&error.to_string())),
            (_, Err(error)) => Err(self.ended(&error.to_string())),
        }
    }

    fn ended(&self, why: &str) -> Problem {
        let said = std::fs::read_to_string(&self.log).unwrap_or_default();
        let end: Vec<&str> = said.lines().rev().take(5).collect();
        Problem(format!("{} has ended ({why}): {}", self.name, end.join(" | ")))
    }
}
