//! Other programs: run to their end with their output kept, or in the background until dropped.
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Output, Stdio};

use crate::problem::Problem;

/// The command as one would type it, without the environment.
pub fn line(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}

/// Runs a command to its end with nothing on its standard input; its output when it ends with 0. It has a process
/// group of its own, so that Ctrl-C reaches us alone.
///
/// # Errors
/// When it cannot be started or ends otherwise, with what it said.
pub fn run(command: &mut Command) -> Result<Output, Problem> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    let output =
        command.output().map_err(|error| Problem(format!("{} cannot be run: {error}", line(command))))?;
    if output.status.success() {
        return Ok(output);
    }
    let said =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    Err(Problem(format!("{} ended with {}:\n{}", line(command), output.status, said.trim_end())))
}

/// As [`run`]; the text on standard output.
///
/// # Errors
/// As for [`run`].
pub fn text(command: &mut Command) -> Result<String, Problem> {
    run(command).map(|output| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// As [`run`]; the JSON document on standard output.
///
/// # Errors
/// As for [`run`], and when the text is not JSON.
pub fn json(command: &mut Command) -> Result<serde_json::Value, Problem> {
    let text = text(command)?;
    serde_json::from_str(&text)
        .map_err(|error| Problem(format!("{}: wanted JSON, found {text:?}: {error}", line(command))))
}

/// Runs a command with our own terminal; whether it ended with 0.
///
/// # Errors
/// When it cannot be started.
pub fn show(command: &mut Command) -> Result<bool, Problem> {
    match command.status() {
        Ok(status) => Ok(status.success()),
        Err(error) => Err(Problem(format!("{} cannot be run: {error}", line(command)))),
    }
}

/// A program in the background; killed and waited for when dropped.
pub struct Background(Child);

impl Background {
    /// Starts it in a process group of its own.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(command: &mut Command) -> Result<Self, Problem> {
        let child = command.process_group(0).spawn();
        child.map(Self).map_err(|error| Problem(format!("{} cannot be run: {error}", line(command))))
    }

    /// The process, for its pipes.
    pub fn child(&mut self) -> &mut Child {
        &mut self.0
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.0.try_wait(), Ok(None))
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to kill.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
