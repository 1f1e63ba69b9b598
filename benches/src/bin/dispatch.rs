//! The module over a null link, measured in the process that links it.
//!
//! ```text
//! hatoki-dispatch time [THREADS ...]     nanoseconds and allocations of a signature, as JSON; by default at 1, 2, 8 and 32
//! hatoki-dispatch locks                  the places where one signature takes a lock, each as often as it does, as JSON
//! ```

use std::cell::RefCell;
use std::panic::Location;
use std::process::ExitCode;
use std::sync::Barrier;
use std::thread;

use benches::counting::{self, COUNTED};
use benches::null::Dispatch;
use benches::processor;
use serde::Serialize;
use spec::platform::when_locked;
use tests::memory::Told;
use tests::p11::{Failed, Outcome};

#[global_allocator]
static ALLOCATOR: Told = COUNTED;

/// Signatures of each thread, of up to eight; a debug build is measured by its tests only.
const OPERATIONS: u64 = if cfg!(debug_assertions) { 2_000 } else { 200_000 };
/// Signatures of all threads, of more than eight.
const OPERATIONS_MAX: u64 = 8 * OPERATIONS;

/// What a signature takes.
#[derive(Serialize)]
struct Figures {
    threads: u64,
    /// Processor time of the thread, in nanoseconds.
    cpu_ns: f64,
    /// Times that memory was asked for.
    allocations: f64,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let numbers = |words: &[&str]| words.iter().map(|word| word.parse().ok()).collect::<Option<Vec<u64>>>();
    let outcome = match words.split_first() {
        Some((&"time", [])) => time(&[1, 2, 8, 32]),
        Some((&"time", threads)) => numbers(threads).map_or_else(usage, |threads| time(&threads)),
        Some((&"locks", [])) => locks(),
        _ => usage(),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("hatoki-dispatch: {error}");
            ExitCode::FAILURE
        }
    }
}

fn usage() -> Result<(), String> {
    Err("wanted time [THREADS ...] or locks".into())
}

fn told(failed: Failed) -> String {
    format!("{} answered 0x{:08x}", failed.function, failed.rv)
}

fn time(threads: &[u64]) -> Result<(), String> {
    let dispatch = Dispatch::new().map_err(told)?;
    let all: Outcome<Vec<Figures>> = threads.iter().map(|threads| at(&dispatch, *threads)).collect();
    let text = serde_json::to_string(&all.map_err(told)?).map_err(|error| error.to_string())?;
    println!("{text}");
    Ok(())
}

/// The mean over so many threads at once.
#[allow(clippy::cast_precision_loss, reason = "a mean for people")]
fn at(dispatch: &Dispatch, threads: u64) -> Outcome<Figures> {
    let ready = Barrier::new(usize::try_from(threads).unwrap_or(1));
    let operations = OPERATIONS.min(OPERATIONS_MAX / threads.max(1));
    let one = || -> Outcome<(u64, u64)> {
        let signer = dispatch.signer();
        ready.wait();
        let mut signer = signer?;
        let (cpu, allocations) = (processor::of_thread(), counting::calls());
        (0..operations).try_for_each(|_| signer.sign())?;
        Ok((processor::of_thread() - cpu, counting::calls() - allocations))
    };
    let figures = thread::scope(|scope| {
        let running: Vec<_> = (0..threads).map(|_| scope.spawn(one)).collect();
        let ended = running.into_iter().map(|thread| thread.join().expect("a signer does not panic"));
        ended.collect::<Outcome<Vec<_>>>()
    })?;
    let all = (operations * threads) as f64;
    let sum = |of: fn(&(u64, u64)) -> u64| figures.iter().map(of).sum::<u64>() as f64 / all;
    Ok(Figures { threads, cpu_ns: sum(|of| of.0), allocations: sum(|of| of.1) })
}

thread_local! {
    static PLACES: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// Locks tell of themselves in debug builds only.
fn locks() -> Result<(), String> {
    if !cfg!(debug_assertions) {
        return Err("wanted a debug build, which counts locks; found a release build".into());
    }
    let dispatch = Dispatch::new().map_err(told)?;
    let mut signer = dispatch.signer().map_err(told)?;
    when_locked(Some(note));
    let outcome = signer.sign();
    when_locked(None);
    outcome.map_err(told)?;
    let text = serde_json::to_string(&PLACES.take()).map_err(|error| error.to_string())?;
    println!("{text}");
    Ok(())
}

fn note(place: &'static Location<'static>) {
    PLACES.with_borrow_mut(|places| places.push(format!("{}:{}", place.file(), place.line())));
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod counted {
    use benches::work::Work;

    use super::*;

    /// One test: the module of a process is initialised once.
    #[test]
    fn warm_calls_through_the_functions_of_the_module_ask_for_no_memory() {
        let dispatch = Dispatch::new().map_err(told).unwrap();
        for threads in [1, 3] {
            let figures = at(&dispatch, threads).map_err(told).unwrap();
            assert!(
                figures.allocations < 0.01,
                "{} allocations for each signature at {threads} threads",
                figures.allocations
            );
        }
        let before = counting::calls();
        drop(std::hint::black_box(Box::new(before)));
        assert_eq!(counting::calls(), before + 1, "what asks for memory is counted");
        let all = [Work::Hmac1k, Work::Hmac1kVerify, Work::Gcm1k, Work::Gcm1kDecrypt, Work::Cbc1k];
        for work in all {
            let asked = asked(&dispatch, work).map_err(told).unwrap();
            assert_eq!(asked, 0, "allocations in a hundred of {}", work.name());
        }
    }

    /// What a hundred operations of a new thread ask for, warm. The least of a few hundreds: what is learnt of a member when it is
    /// first chosen is kept, and when that is depends on the host.
    fn asked(dispatch: &Dispatch, work: Work) -> Outcome<u64> {
        let hundreds = || {
            let mut repeated = dispatch.repeated(work)?;
            let mut hundred = |_| {
                let before = counting::calls();
                (0..100).try_for_each(|_| repeated.once())?;
                Ok(counting::calls() - before)
            };
            let requests = dispatch.answered();
            let found = (0..4).map(&mut hundred).collect::<Outcome<Vec<u64>>>()?;
            assert_eq!(dispatch.answered() - requests, 400, "each of {} is one request", work.name());
            Ok(found)
        };
        let found = thread::scope(|scope| scope.spawn(hundreds).join().expect("a worker does not panic"))?;
        Ok(found.into_iter().min().unwrap_or(u64::MAX))
    }
}
