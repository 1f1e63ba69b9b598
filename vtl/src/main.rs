//! `vtl`: the client tool for certificates, servers and HA groups, with the verbs and options of the vendor's tool.
#![forbid(unsafe_code)]

mod answer;
mod arguments;
mod asking;
mod census;
mod expiry;
mod gathered;
mod global;
mod members;
mod network;
mod normalise;
mod password;
mod pem;
mod place;
mod progress;
mod slots;
mod stats;
#[cfg(test)]
mod testing;
mod trusted;
mod turn;
mod verbs;

use std::process::ExitCode;

use clap::{CommandFactory, Parser};

use arguments::Arguments;

fn main() -> ExitCode {
    let words = normalise::normalised(Arguments::command(), std::env::args_os());
    let arguments = match Arguments::try_parse_from(words) {
        Ok(arguments) => arguments,
        Err(error) => {
            // Help and version are printed to standard output and are no error; usage errors give 2.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { answer::USAGE } else { answer::OK });
        }
    };
    answer::show(arguments.json, verbs::run(arguments))
}
