//! Overload (HA 4.5): 3 times what the group can do for a while, then 0.7 times. What comes of it in time is goodput.
//!
//! ```text
//! closed loop: capacity -- 0.7 x: usual latency -- 3 x, calls with a deadline: goodput -- 0.7 x: latency, by seconds
//! ```
//! Calls come when they are due, whatever became of the ones before (an open loop), and a latency counts from then.
use std::fs;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use cryptoki_sys as c;
use serde::{Deserialize, Serialize};

use super::application::{self, Opened, said};
use super::figures::{Figure, millis};
use crate::lab::Lab;
use crate::problem::Problem;
use crate::process;

/// The deadline of a call: `DefaultTimeOut` of the application.
const DEADLINE_MS: u64 = 1_000;
/// The least costly key of which two processors make so few signatures a second that a thread can stand for each call.
const KEY_BITS: u64 = 4_096;
/// Threads that find out the capacity, and then as many as calls may be under way at once.
const CLOSED: usize = 16;
const OPEN_MAX: usize = 2_048;
/// What one appliance takes at a time from one link, and its threads: so few that its limits are met.
const SETTINGS: &str = "window = 32\ncrypto_threads = 1\n";

/// What came of it.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub(super) struct Outcome {
    /// Signatures a second in a closed loop.
    capacity: u64,
    usual: Phase,
    over: Phase,
    /// The seconds at 0.7 x afterwards.
    after: Vec<Phase>,
    /// Signatures that were not what they should be.
    wrong: u64,
}

/// A while at one rate.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
struct Phase {
    /// Calls that were due, each second.
    offered: u64,
    /// Those that had their signature by their deadline, each second.
    good: u64,
    /// Those that had an error, all of the phase.
    errors: u64,
    /// Within so many microseconds half, and 99 of a hundred, of the good ones had it.
    p50_us: u64,
    p99_us: u64,
}

/// One call: how many microseconds after the start of its phase it was due, and what it took since then.
struct Sample {
    due_us: u64,
    took_us: u64,
    good: bool,
    error: bool,
}

struct Signer {
    opened: Opened,
    key: c::CK_OBJECT_HANDLE,
    expected: Vec<u8>,
    wrong: AtomicU64,
    last_error: Mutex<Option<String>>,
}

impl Signer {
    /// One signature: whether it came, and was right.
    fn sign(&self, session: c::CK_SESSION_HANDLE) -> bool {
        match self.opened.module.sign(session, c::CKM_SHA256_RSA_PKCS, self.key, &mut DATA.to_vec()) {
            Ok(signature) if signature == self.expected => true,
            Ok(_) => {
                self.wrong.fetch_add(1, Ordering::Relaxed);
                false
            }
            Err(failure) => {
                *self.last_error.lock().unwrap_or_else(PoisonError::into_inner) = Some(failure.to_string());
                false
            }
        }
    }
}

const DATA: [u8; 32] = [0x5a; 32];

/// The application: plays all phases and tells what came of them.
///
/// # Errors
/// When the module cannot be loaded or its key cannot be made.
pub fn run(seconds: u64) -> Result<(), Problem> {
    let opened = patiently(application::open)?;
    let module = &opened.module;
    let (_, key) = patiently(|| module.rsa_pair(opened.session, KEY_BITS, "overload").map_err(said))?;
    // PKCS #1 v1.5 has one right signature.
    let sign = || module.sign(opened.session, c::CKM_SHA256_RSA_PKCS, key, &mut DATA.to_vec()).map_err(said);
    let expected = patiently(sign)?;
    let (wrong, last_error) = (AtomicU64::new(0), Mutex::new(None));
    let signer = Arc::new(Signer { opened, key, expected, wrong, last_error });
    closed(&signer, Duration::from_secs(2));
    let capacity = closed(&signer, Duration::from_secs(seconds.div_ceil(2))).max(1);
    let usual = summed(&open(&signer, capacity * 7 / 10, seconds.div_ceil(2)), seconds.div_ceil(2));
    let over = summed(&open(&signer, capacity * 3, seconds), seconds);
    let after = open(&signer, capacity * 7 / 10, 8);
    let after = (0..8).map(|second| {
        let here = |sample: &&Sample| sample.due_us / 1_000_000 == second;
        summed_of(after.iter().filter(here), 1)
    });
    let after = after.collect();
    let error = signer.last_error.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(error) = error {
        eprintln!("the last error: {error}");
    }
    application::tell(&Outcome { capacity, usual, over, after, wrong: signer.wrong.load(Ordering::Relaxed) })
}

/// A host with much else to do may not be done by the deadline at first.
fn patiently<T>(work: impl Fn() -> Result<T, Problem>) -> Result<T, Problem> {
    const TRIES: usize = 30;
    for _ in 1..TRIES {
        if let Ok(done) = work() {
            return Ok(done);
        }
    }
    work()
}

/// Signs as fast as some threads can; signatures a second.
fn closed(signer: &Arc<Signer>, lasts: Duration) -> u64 {
    let begun = Instant::now();
    let threads: Vec<_> = (0..CLOSED)
        .map(|_| {
            let signer = signer.clone();
            thread::spawn(move || {
                let Ok(session) = signer.opened.module.session(signer.opened.slot) else { return 0 };
                let mut signed = 0;
                while begun.elapsed() < lasts {
                    signed += u64::from(signer.sign(session));
                }
                signed
            })
        })
        .collect();
    let signed: u64 = threads.into_iter().map(|thread| thread.join().unwrap_or(0)).sum();
    signed * 1_000 / u64::try_from(begun.elapsed().as_millis()).unwrap_or(1).max(1)
}

/// So many calls a second for so many seconds, each when it is due.
fn open(signer: &Arc<Signer>, rate: u64, seconds: u64) -> Vec<Sample> {
    let rate = rate.max(1);
    let under_way = usize::try_from(rate * DEADLINE_MS * 11 / 10_000).unwrap_or(OPEN_MAX);
    let next = Arc::new(AtomicU64::new(0));
    let begun = Instant::now();
    let threads: Vec<_> = (0..under_way.clamp(CLOSED, OPEN_MAX))
        .map(|_| {
            let (signer, next) = (signer.clone(), next.clone());
            // A call needs little of a stack; there are many of them.
            thread::Builder::new().stack_size(256 << 10).spawn(move || {
                let Ok(session) = signer.opened.module.session(signer.opened.slot) else { return Vec::new() };
                let mut samples = Vec::new();
                loop {
                    let due_us = next.fetch_add(1, Ordering::Relaxed) * 1_000_000 / rate;
                    if due_us >= seconds * 1_000_000 {
                        return samples;
                    }
                    let due = begun + Duration::from_micros(due_us);
                    thread::sleep(due.saturating_duration_since(Instant::now()));
                    let deadline = Duration::from_millis(DEADLINE_MS);
                    // No thread was free before its end: nobody is asked any more.
                    let late = due.elapsed() >= deadline;
                    let right = !late && signer.sign(session);
                    let took = due.elapsed();
                    let took_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
                    samples.push(Sample {
                        due_us,
                        took_us,
                        good: right && took <= deadline,
                        error: !late && !right,
                    });
                }
            })
        })
        .collect();
    threads.into_iter().flatten().flat_map(|thread| thread.join().unwrap_or_default()).collect()
}

fn summed(samples: &[Sample], seconds: u64) -> Phase {
    summed_of(samples.iter(), seconds)
}

fn summed_of<'a>(samples: impl Iterator<Item = &'a Sample>, seconds: u64) -> Phase {
    let (mut offered, mut errors, mut took_us) = (0, 0, Vec::new());
    for sample in samples {
        offered += 1;
        errors += u64::from(sample.error);
        if sample.good {
            took_us.push(sample.took_us);
        }
    }
    took_us.sort_unstable();
    let good = took_us.len();
    let at = |percent: usize| took_us.get((good * percent / 100).min(good.saturating_sub(1))).copied();
    Phase {
        offered: offered / seconds.max(1),
        good: u64::try_from(good).unwrap_or_default() / seconds.max(1),
        errors,
        p50_us: at(50).unwrap_or_default(),
        p99_us: at(99).unwrap_or_default(),
    }
}

/// Plays it on a lab of three, whose appliances get narrow limits and whose application gets a deadline.
pub(super) fn figure(lab: &Lab, short: bool) -> Result<Figure, Problem> {
    for member in lab.members() {
        let path = member.configuration();
        let text = fs::read_to_string(&path).map_err(|error| Problem::at(&path, &error))?;
        fs::write(&path, text + SETTINGS).map_err(|error| Problem::at(&path, &error))?;
        lab.kill(member.number)?;
        lab.start(member.number)?;
    }
    let path = lab.configuration().join("Chrystoki.conf");
    let text = fs::read_to_string(&path).map_err(|error| Problem::at(&path, &error))?;
    let section = format!("\nLuna = {{\n   DefaultTimeOut = {DEADLINE_MS};\n}}\n");
    fs::write(&path, text.clone() + &section).map_err(|error| Problem::at(&path, &error))?;
    let own =
        std::env::current_exe().map_err(|error| Problem(format!("our own program is not known: {error}")))?;
    let mut command = lab.command(own);
    command.args(["chaos-overload", "--seconds", if short { "4" } else { "10" }]);
    let outcome = process::json(&mut command);
    fs::write(&path, text).map_err(|error| Problem::at(&path, &error))?;
    let outcome = serde_json::from_value(outcome?).map_err(|error| Problem(format!("overload: {error}")))?;
    Ok(told(&outcome, short))
}

/// Wrong signatures are faults; how much comes through in time is a figure, for a host may have other work to do meanwhile.
fn told(outcome: &Outcome, short: bool) -> Figure {
    let Outcome { capacity, usual, over, after, wrong } = outcome;
    let share = over.good * 100 / (*capacity).max(1);
    let calm = after.iter().position(|second| second.good > 0 && second.p99_us <= 2 * usual.p99_us.max(1));
    let offered: u64 = after.iter().map(|second| second.offered).sum();
    let good: u64 = after.iter().map(|second| second.good).sum();
    // Those of the first second come to an end that the overload has left behind.
    let errors = usual.errors + after.iter().skip(1).map(|second| second.errors).sum::<u64>();
    let mut faults = Vec::new();
    if *wrong > 0 {
        faults.push(format!("{wrong} wrong signatures"));
    }
    let seconds = if short { 4 } else { 10 };
    let lines = vec![
        ("capacity: RSA-4096 signatures a second in a closed loop".into(), capacity.to_string()),
        (
            format!("goodput of {} calls a second for {seconds} s, each with {DEADLINE_MS} ms", over.offered),
            format!("{}/s, {share} % of the capacity", over.good),
        ),
        ("p50 and p99 at 0.7 x before".into(), format!("{}, {}", millis(usual.p50_us), millis(usual.p99_us))),
        (
            "second after the overload from which p99 is at most twice that".into(),
            calm.map_or("none of 8".into(), |second| (second + 1).to_string()),
        ),
        ("errors at 0.7 x, before and from the second second after".into(), errors.to_string()),
        (
            "signatures and their p99 in each second after".into(),
            after
                .iter()
                .map(|second| format!("{} ({})", second.good, millis(second.p99_us)))
                .collect::<Vec<_>>()
                .join(", "),
        ),
    ];
    Figure {
        name: "overload",
        lines,
        faults,
        measures: vec![("goodput-percent", share), ("after-percent", good * 100 / offered.max(1))],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_phase_counts_what_was_in_time_and_what_was_an_error() {
        let sample = |took_us, good, error| Sample { due_us: 0, took_us, good, error };
        let samples = [sample(10, true, false), sample(30, true, false), sample(9, false, true)];
        let phase = summed(&samples, 1);
        assert_eq!((phase.offered, phase.good, phase.errors), (3, 2, 1));
        assert_eq!((phase.p50_us, phase.p99_us), (30, 30));
    }
}
