//! Runs the contract suite against the module named by `P11_MODULE`.
use std::process::ExitCode;

use tests::contract::{Context, play};

fn main() -> ExitCode {
    play(Context::from_environment)
}
