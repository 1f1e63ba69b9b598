//! Signatures over a null link for a tool that counts instructions: `hatoki-count OPERATIONS` makes that many within the function
//! `hatoki_counted`. A program of its own, because `cargo xtask instructions` builds it in a way of its own.

use std::process::ExitCode;

use benches::null::{Dispatch, Signer};
use tests::p11::Outcome;

fn main() -> ExitCode {
    let Some(operations) = std::env::args().nth(1).and_then(|word| word.parse().ok()) else {
        eprintln!("hatoki-count: wanted a number of operations");
        return ExitCode::FAILURE;
    };
    match count(operations) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failed) => {
            eprintln!("hatoki-count: {} answered 0x{:08x}", failed.function, failed.rv);
            ExitCode::FAILURE
        }
    }
}

fn count(operations: u64) -> Outcome<()> {
    let dispatch = Dispatch::new()?;
    let mut signer = dispatch.signer()?;
    hatoki_counted(&mut signer, operations)
}

/// What is counted: its name is how the tool finds it.
#[inline(never)]
#[unsafe(no_mangle)]
fn hatoki_counted(signer: &mut Signer<'_>, operations: u64) -> Outcome<()> {
    (0..operations).try_for_each(|_| signer.sign())
}
