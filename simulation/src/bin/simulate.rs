//! `cargo xtask simulate`: many seeds of the simulated world, or one in words; with `--bug`, until a planted one is found.
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};

use simulation::{Bug, Wish, plant, run};

/// What the command line asks for.
struct Wanted {
    seeds: u64,
    seed: Option<u64>,
    bug: Option<Bug>,
}

fn main() -> ExitCode {
    let wanted = match read(std::env::args().skip(1)) {
        Ok(wanted) => wanted,
        Err(problem) => {
            eprintln!("simulate: {problem}\nwanted: [--seeds N] [--seed N] [--bug NAME]");
            return ExitCode::FAILURE;
        }
    };
    plant(wanted.bug);
    match wanted.seed {
        Some(seed) => tell(seed),
        None => many(&wanted),
    }
}

fn read(mut words: impl Iterator<Item = String>) -> Result<Wanted, String> {
    let mut wanted = Wanted { seeds: 100_000, seed: None, bug: None };
    while let Some(word) = words.next() {
        let value = words.next().ok_or(format!("{word} without a value"))?;
        let number = || value.parse().map_err(|_| format!("{word} wants a number, found {value}"));
        match word.as_str() {
            "--seeds" => wanted.seeds = number()?,
            "--seed" => wanted.seed = Some(number()?),
            "--bug" => {
                let names = || Bug::ALL.map(|bug| format!("{bug:?}")).join(", ");
                wanted.bug =
                    Some(Bug::named(&value).ok_or_else(|| format!("--bug wants one of {}", names()))?);
            }
            _ => return Err(format!("{word} is no option")),
        }
    }
    Ok(wanted)
}

/// One seed in words.
fn tell(seed: u64) -> ExitCode {
    let outcome = run(Wish { seed, faults: true, story: true });
    outcome.story.iter().for_each(|line| println!("{line}"));
    println!("seed {seed}: {} ms, {} requests", outcome.ms, outcome.requests);
    match outcome.failure {
        None => ExitCode::SUCCESS,
        Some(failure) => {
            println!("seed {seed} FAILED: {failure}");
            ExitCode::FAILURE
        }
    }
}

/// Many seeds, on every processor; ends at the first failure.
fn many(wanted: &Wanted) -> ExitCode {
    let (next, failed) = (AtomicU64::new(0), AtomicU64::new(u64::MAX));
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= wanted.seeds || failed.load(Ordering::Relaxed) < seed {
                        return;
                    }
                    if let Some(failure) = run(Wish { seed, faults: true, story: false }).failure {
                        failed.fetch_min(seed, Ordering::Relaxed);
                        println!("seed {seed} FAILED: {failure}");
                    } else if seed.is_multiple_of(100) {
                        println!("{seed} of {} seeds", wanted.seeds);
                    }
                }
            });
        }
    });
    match failed.into_inner() {
        u64::MAX => {
            println!("{} seeds, nothing found", wanted.seeds);
            ExitCode::SUCCESS
        }
        seed => {
            let bug = wanted.bug.map_or(String::new(), |bug| format!(" --bug {bug:?}"));
            println!("replay it:  cargo xtask simulate --seed {seed}{bug}");
            ExitCode::FAILURE
        }
    }
}
