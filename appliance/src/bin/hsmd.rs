//! hsmd: the partition server.
#![forbid(unsafe_code)]
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

/// The partition server of Hatoki.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// The configuration file.
    #[arg(long, default_value = "/etc/hatoki/hsmd.toml")]
    config: PathBuf,
}

fn main() -> ExitCode {
    match appliance::start::run(&Arguments::parse().config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("hsmd: {error}");
            ExitCode::FAILURE
        }
    }
}
