//! `cargo xtask simulate`: many seeds of the simulated world, or one in words; with `--bug`, until a planted one is found.
use std::io::IsTerminal;
use std::ops::Range;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::Instant;

use simulation::{Bug, Outcome, Wish, links, overload, plant, run, whole};

/// What the command line asks for.
struct Wanted {
    from: u64,
    seeds: u64,
    seed: Option<u64>,
    bug: Option<Bug>,
    resume: Option<String>,
    all: bool,
    load: bool,
    which: Which,
}

/// What is simulated.
#[derive(Clone, Copy)]
enum Which {
    /// The world above the seam.
    World,
    /// The links below it.
    Links,
    /// Both in one.
    Whole,
}

impl Which {
    /// Its word on the command line.
    fn word(self) -> &'static str {
        match self {
            Which::World => "",
            Which::Links => " --links",
            Which::Whole => " --whole",
        }
    }
}

impl Wanted {
    fn run(&self, seed: u64, story: bool) -> Outcome {
        let run = match self.which {
            Which::World => run,
            Which::Links => links::run,
            Which::Whole => whole::run,
        };
        run(Wish { seed, faults: true, story })
    }
}

/// Seeds between two notes of how far the search has come.
const CHUNK: u64 = 500;
/// Width of the bar in characters.
const BAR: u64 = 30;

fn main() -> ExitCode {
    let wanted = match read(std::env::args().skip(1)) {
        Ok(wanted) => wanted,
        Err(problem) => {
            eprintln!(
                "simulate: {problem}\nwanted: [--seeds N] [--from N] [--resume FILE] [--all yes] [--load yes] [--seed N] [--bug NAME] [--links | --whole]"
            );
            return ExitCode::FAILURE;
        }
    };
    plant(wanted.bug);
    match wanted.seed {
        Some(seed) if wanted.load => {
            println!("seed {seed}: {:?}", overload(seed));
            ExitCode::SUCCESS
        }
        Some(seed) => tell(&wanted, seed),
        None => many(&wanted),
    }
}

fn read(mut words: impl Iterator<Item = String>) -> Result<Wanted, String> {
    let mut wanted = Wanted {
        from: 0,
        seeds: 100_000,
        seed: None,
        bug: None,
        resume: None,
        all: false,
        load: false,
        which: Which::World,
    };
    while let Some(word) = words.next() {
        let which = [Which::Links, Which::Whole].into_iter().find(|which| which.word().trim() == word);
        if let Some(which) = which {
            wanted.which = which;
            continue;
        }
        let value = words.next().ok_or(format!("{word} without a value"))?;
        let number = || value.parse().map_err(|_| format!("{word} wants a number, found {value}"));
        match word.as_str() {
            "--seeds" => wanted.seeds = number()?,
            "--from" => wanted.from = number()?,
            "--seed" => wanted.seed = Some(number()?),
            "--all" => wanted.all = value == "yes",
            "--load" => wanted.load = value == "yes",
            "--resume" => {
                let last = std::fs::read_to_string(&value).unwrap_or_default();
                wanted.from = last.trim().parse().unwrap_or(wanted.from);
                wanted.resume = Some(value);
            }
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
fn tell(wanted: &Wanted, seed: u64) -> ExitCode {
    let outcome = wanted.run(seed, true);
    outcome.story.iter().for_each(|line| println!("{line}"));
    println!("seed {seed}: {} ms, {} requests, {} hedges", outcome.ms, outcome.requests, outcome.hedges);
    match outcome.failure {
        None => ExitCode::SUCCESS,
        Some(failure) => {
            println!("seed {seed} FAILED: {failure}");
            ExitCode::FAILURE
        }
    }
}

/// Many seeds, on every processor; ends at the first failure, unless all of them are wanted. `--resume FILE` keeps in
/// the file how far the search has come, and goes on from there.
fn many(wanted: &Wanted) -> ExitCode {
    let (mut next, mut failures) = (wanted.from, Vec::new());
    let start = Instant::now();
    while next < wanted.seeds && (failures.is_empty() || wanted.all) {
        let end = (next + CHUNK).min(wanted.seeds);
        failures.extend(chunk(wanted, next..end, start));
        next = end;
        let kept = wanted
            .resume
            .as_ref()
            .filter(|_| failures.is_empty())
            .map(|file| (file, std::fs::write(file, next.to_string())));
        if let Some((file, Err(error))) = kept {
            eprintln!("simulate: {file} does not take how far the search has come: {error}");
        }
    }
    eprintln!();
    failures.sort();
    let bug = wanted.bug.map_or(String::new(), |bug| format!(" --bug {bug:?}"));
    let world = wanted.which.word();
    for (seed, failure) in &failures {
        println!("seed {seed} FAILED: {failure}");
        println!("replay it:  cargo xtask simulate{world} --seed {seed}{bug}");
    }
    println!(
        "seeds {} to {next}: {} failed, in {} s",
        wanted.from,
        failures.len(),
        start.elapsed().as_secs()
    );
    if failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Some seeds at once; those that failed.
fn chunk(wanted: &Wanted, seeds: Range<u64>, start: Instant) -> Vec<(u64, String)> {
    let (next, failures) = (AtomicU64::new(seeds.start), Mutex::new(Vec::new()));
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    let is_over =
        || !wanted.all && failures.lock().is_ok_and(|found: MutexGuard<'_, Vec<_>>| !found.is_empty());
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end || is_over() {
                        return;
                    }
                    let outcome = wanted.run(seed, false);
                    if let Some(failure) = outcome.failure {
                        let text = format!("{failure} ({})", outcome.theme);
                        failures.lock().expect("a thread that runs a seed does not panic").push((seed, text));
                    }
                    show(wanted, seed + 1, start);
                }
            });
        }
    });
    failures.into_inner().expect("a thread that runs a seed does not panic")
}

/// The bar on a terminal; elsewhere a line now and then.
fn show(wanted: &Wanted, done: u64, start: Instant) {
    let (of, so_far) = ((wanted.seeds - wanted.from).max(1), done - wanted.from);
    let rate = so_far as f64 / start.elapsed().as_secs_f64().max(0.001);
    let full = so_far * BAR / of;
    let bar: String = (0..BAR).map(|at| if at < full { '#' } else { '.' }).collect();
    let left = (of - so_far) as f64 / rate.max(0.001);
    let line = format!("[{bar}] seed {done} of {}, {rate:.1} a second, {left:.0} s left", wanted.seeds);
    if std::io::stderr().is_terminal() {
        eprint!("\r{line} ");
    } else if so_far.is_multiple_of(CHUNK) {
        eprintln!("{line}");
    }
}
