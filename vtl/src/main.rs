//! `vtl`: the client tool for certificates, servers and HA groups, with the verbs and options of the vendor's tool.
#![forbid(unsafe_code)]

mod answer;
mod arguments;
mod asking;
mod census;
mod equality;
mod members;
mod network;
mod normalise;
mod password;
mod place;
#[cfg(test)]
mod testing;
mod verbs;

use std::process::ExitCode;

use clap::Parser;

use arguments::Arguments;

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse_from(normalise::normalised(std::env::args_os())) {
        Ok(arguments) => arguments,
        Err(error) => {
            // Help and version are printed to standard output and are no error; usage errors give 2.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { answer::USAGE } else { answer::OK });
        }
    };
    answer::show(arguments.json, verbs::run(arguments))
}
