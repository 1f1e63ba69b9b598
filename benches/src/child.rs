//! A contestant in a process of its own, `hatoki-load`: it does so many operations and tells how long they took. A process can have
//! the module only once, with one group; so groups of several sizes stand side by side.

use std::collections::BTreeMap;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::work::Work;

/// One of them, alive; it ends when this is dropped.
pub struct Child {
    process: std::process::Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Child {
    /// Starts `hatoki-load`, which lies at a path, with its arguments and variables, and waits until it is ready.
    ///
    /// # Errors
    /// When it cannot be started or does not come so far; it says why on standard error.
    pub fn start(
        program: &Path,
        arguments: &[&str],
        environment: &BTreeMap<String, String>,
    ) -> io::Result<Self> {
        let mut command = Command::new(program);
        command.args(arguments).envs(environment).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = command.spawn()?;
        let (input, output) = (process.stdin.take(), process.stdout.take());
        let output = output.ok_or_else(|| io::Error::other("it has no standard output"))?;
        let mut child = Self { process, input, output: BufReader::new(output) };
        match child.read()?.as_str() {
            Some("ready") => Ok(child),
            _ => Err(io::Error::other("it does not say that it is ready")),
        }
    }

    /// How long so many threads take for so many operations together; `None` when the work is not offered to so many.
    ///
    /// # Errors
    /// When an operation fails, or the process has ended.
    pub fn time(&mut self, work: Work, threads: usize, operations: u64) -> io::Result<Option<Duration>> {
        let input = self.input.as_mut().ok_or_else(|| io::Error::other("it has no standard input"))?;
        writeln!(input, "time {} {threads} {operations}", work.name())?;
        let answer = self.read()?;
        match (&answer, answer["span_ns"].as_u64()) {
            (Value::Null, _) => Ok(None),
            (_, Some(span_ns)) => Ok(Some(Duration::from_nanos(span_ns))),
            _ => Err(io::Error::other(answer.to_string())),
        }
    }

    fn read(&mut self) -> io::Result<Value> {
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        serde_json::from_str(&line).map_err(io::Error::other)
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.input = None;
        // It ends when its standard input does.
        let _ = self.process.wait();
    }
}
