//! hsm: the operator's tool of hsmd.
#![forbid(unsafe_code)]
use std::process::ExitCode;

fn main() -> ExitCode {
    match appliance::tool::run(std::env::args_os().skip(1)) {
        appliance::tool::Exit::Success => ExitCode::SUCCESS,
        appliance::tool::Exit::Failure => ExitCode::from(1),
        appliance::tool::Exit::Usage => ExitCode::from(2),
    }
}
