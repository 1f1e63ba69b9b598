//! The application under faults: threads that sign with P-256 and one that creates and destroys pairs, every return value
//! that is not CKR_OK counted. A process of its own: a line `mark` answers with what has happened since the line before,
//! `pause` and `resume` are for the creator, `returned` says that the first member starts after an outage of all.
use std::io::{BufRead as _, Write as _};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use cryptoki_sys as c;
use serde::{Deserialize, Serialize};

use crate::c_caller::{Failure, Module};
use crate::problem::Problem;

/// What happened between two marks.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub(super) struct Report {
    /// For how long, in microseconds.
    pub(super) span_us: u64,
    pub(super) signatures: u64,
    /// Signatures of the thread that made the fewest.
    pub(super) slowest_thread: u64,
    /// Pairs created and destroyed again.
    pub(super) creates: u64,
    /// Return values other than CKR_OK.
    pub(super) errors: u64,
    pub(super) last_error: Option<String>,
    /// The longest time that any thread went without a completed signature, in microseconds; what is under way counts.
    pub(super) stall_us: u64,
    /// 99.9 of a hundred signatures took no longer, in microseconds.
    pub(super) p999_us: u64,
    /// The longest creation or destruction, in microseconds.
    pub(super) create_us: u64,
    /// How long after `returned` the last of the threads had its first signature, in microseconds; absent unless it was said.
    pub(super) resumed_us: Option<u64>,
}

/// Latencies in steps of a sixteenth of their power of two.
struct Histogram(Vec<AtomicU64>);

const STEPS: u64 = 16;

impl Histogram {
    fn new() -> Self {
        Self((0..64 * STEPS).map(|_| AtomicU64::new(0)).collect())
    }

    fn place(us: u64) -> usize {
        let us = us.max(STEPS);
        let power = u64::from(us.ilog2());
        let step = (us >> (power - 4)) - STEPS;
        usize::try_from(power * STEPS + step).unwrap_or_default()
    }

    fn count(&self, us: u64) {
        if let Some(slot) = self.0.get(Self::place(us)) {
            slot.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Empties it and answers the upper end of the step below which 99.9 % lie.
    fn take_p999(&self) -> u64 {
        let counts: Vec<u64> = self.0.iter().map(|slot| slot.swap(0, Ordering::Relaxed)).collect();
        let all: u64 = counts.iter().sum();
        let mut above = all / 1000;
        for (place, count) in counts.iter().enumerate().rev() {
            if *count > above {
                let place = u64::try_from(place).unwrap_or_default();
                let (power, step) = (place / STEPS, place % STEPS);
                return ((STEPS + step + 1) << power) >> 4;
            }
            above -= count;
        }
        0
    }
}

/// What the threads share.
struct Tally {
    start: Instant,
    stop: AtomicBool,
    paused: AtomicBool,
    errors: AtomicU64,
    last_error: Mutex<Option<String>>,
    stall_us: AtomicU64,
    create_us: AtomicU64,
    creates: AtomicU64,
    signed: Vec<AtomicU64>,
    /// When each thread last had a signature, in microseconds since the start.
    marks: Vec<AtomicU64>,
    /// When `returned` was said; before that, later than any signature.
    returned_us: AtomicU64,
    resumed_us: AtomicU64,
    latencies: Histogram,
}

impl Tally {
    fn now_us(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    fn fail(&self, failure: &Failure) {
        self.errors.fetch_add(1, Ordering::Relaxed);
        let text = failure.to_string();
        *self.last_error.lock().unwrap_or_else(PoisonError::into_inner) = Some(text);
        // An error that comes at once must not fill the count by the million.
        thread::sleep(Duration::from_millis(10));
    }

    /// What has happened since the last report, at `since_us`.
    fn report(&self, since_us: u64) -> Report {
        let now = self.now_us();
        for mark in &self.marks {
            self.stall_us.fetch_max(now.saturating_sub(mark.load(Ordering::Relaxed)), Ordering::Relaxed);
        }
        let signed: Vec<u64> = self.signed.iter().map(|count| count.swap(0, Ordering::Relaxed)).collect();
        Report {
            span_us: now.saturating_sub(since_us),
            signatures: signed.iter().sum(),
            slowest_thread: signed.iter().min().copied().unwrap_or(0),
            creates: self.creates.swap(0, Ordering::Relaxed),
            errors: self.errors.swap(0, Ordering::Relaxed),
            last_error: self.last_error.lock().unwrap_or_else(PoisonError::into_inner).take(),
            stall_us: self.stall_us.swap(0, Ordering::Relaxed),
            p999_us: self.latencies.take_p999(),
            create_us: self.create_us.swap(0, Ordering::Relaxed),
            resumed_us: Some(self.resumed_us.swap(0, Ordering::Relaxed)).filter(|us| *us > 0),
        }
    }
}

/// An application that has logged in.
pub(super) struct Opened {
    pub(super) module: Arc<Module>,
    pub(super) slot: c::CK_SLOT_ID,
    /// The session that logged in; it may create token objects, and the login holds while it is open.
    pub(super) session: c::CK_SESSION_HANDLE,
}

/// Loads the module that the environment names and logs in.
pub(super) fn open() -> Result<Opened, Problem> {
    let variable = |name: &str| {
        std::env::var(name)
            .map_err(|_| Problem(format!("wanted {name} in the environment, found none; source env.sh")))
    };
    let module = Arc::new(Module::load(&PathBuf::from(variable("P11_MODULE")?))?);
    let slot = module.slot(&variable("P11_TOKEN_LABEL")?)?;
    let session = module.writing_session(slot).map_err(said)?;
    module.login(session, &variable("P11_PIN")?).map_err(said)?;
    Ok(Opened { module, slot, session })
}

pub(super) fn said(failure: Failure) -> Problem {
    Problem(failure.to_string())
}

/// Answers the one who started us.
pub(super) fn tell(document: &impl Serialize) -> Result<(), Problem> {
    let text = serde_json::to_string(document).map_err(|error| Problem(error.to_string()))?;
    let mut out = std::io::stdout().lock();
    writeln!(out, "{text}")
        .and_then(|()| out.flush())
        .map_err(|error| Problem(format!("standard output: {error}")))
}

/// What it signs with.
#[derive(Clone, Debug)]
pub enum Key {
    /// A P-256 key that it makes.
    P256,
    /// An RSA key of 2048 bits that it makes.
    Rsa,
    /// The P-256 key of this label; then nothing is created and destroyed either.
    Named(String),
}

/// Plays the application until standard input ends.
///
/// # Errors
/// When the module cannot be loaded or its first key cannot be made.
pub fn run(threads: usize, key: &Key) -> Result<(), Problem> {
    let Opened { module, slot, session: first } = open()?;
    let work = match key {
        Key::P256 => {
            Work { slot, mechanism: c::CKM_ECDSA, key: module.pair(first, "chaos").map_err(said)?.1 }
        }
        Key::Rsa => {
            let (_, key) = module.rsa_pair(first, 2048, "chaos").map_err(said)?;
            Work { slot, mechanism: c::CKM_SHA256_RSA_PKCS, key }
        }
        Key::Named(label) => Work { slot, mechanism: c::CKM_ECDSA, key: module.private_key(first, label)? },
    };
    let count = || (0..threads).map(|_| AtomicU64::new(0)).collect();
    let tally = Arc::new(Tally {
        start: Instant::now(),
        stop: AtomicBool::new(false),
        paused: AtomicBool::new(false),
        errors: AtomicU64::new(0),
        last_error: Mutex::new(None),
        stall_us: AtomicU64::new(0),
        create_us: AtomicU64::new(0),
        creates: AtomicU64::new(0),
        signed: count(),
        marks: count(),
        returned_us: AtomicU64::new(u64::MAX),
        resumed_us: AtomicU64::new(0),
        latencies: Histogram::new(),
    });
    let mut workers: Vec<_> = (0..threads)
        .map(|number| {
            let (module, tally) = (module.clone(), tally.clone());
            thread::spawn(move || sign(&module, work, number, &tally))
        })
        .collect();
    if !matches!(key, Key::Named(_)) {
        let (creating, shared) = (module.clone(), tally.clone());
        workers.push(thread::spawn(move || create(&creating, slot, &shared)));
    }
    let mut since_us = 0;
    for line in std::io::stdin().lock().lines().map_while(Result::ok) {
        match line.as_str() {
            "pause" => tally.paused.store(true, Ordering::Relaxed),
            "resume" => tally.paused.store(false, Ordering::Relaxed),
            "returned" => tally.returned_us.store(tally.now_us(), Ordering::Relaxed),
            _ => {
                let report = tally.report(since_us);
                since_us = tally.now_us();
                tell(&report)?;
            }
        }
    }
    tally.stop.store(true, Ordering::Relaxed);
    for worker in workers {
        worker.join().map_err(|_| Problem("a thread of the application panicked".into()))?;
    }
    Ok(())
}

/// What is signed with.
#[derive(Clone, Copy)]
struct Work {
    slot: c::CK_SLOT_ID,
    mechanism: c::CK_MECHANISM_TYPE,
    key: c::CK_OBJECT_HANDLE,
}

fn sign(module: &Module, work: Work, number: usize, tally: &Tally) {
    let mut data = [0x5a; 32];
    let session = match module.session(work.slot) {
        Ok(session) => session,
        Err(failure) => return tally.fail(&failure),
    };
    while !tally.stop.load(Ordering::Relaxed) {
        let begun = tally.now_us();
        match module.sign(session, work.mechanism, work.key, &mut data) {
            Ok(_) => {
                let now = tally.now_us();
                tally.latencies.count(now.saturating_sub(begun));
                tally.signed[number].fetch_add(1, Ordering::Relaxed);
                let before = tally.marks[number].swap(now, Ordering::Relaxed);
                tally.stall_us.fetch_max(now.saturating_sub(before), Ordering::Relaxed);
                let returned = tally.returned_us.load(Ordering::Relaxed);
                if (before..=now).contains(&returned) {
                    tally.resumed_us.fetch_max(now - returned, Ordering::Relaxed);
                }
            }
            Err(failure) => tally.fail(&failure),
        }
    }
}

/// Creates and destroys, with a moment between: an application that makes keys does not do nothing else.
fn create(module: &Module, slot: c::CK_SLOT_ID, tally: &Tally) {
    let session = match module.writing_session(slot) {
        Ok(session) => session,
        Err(failure) => return tally.fail(&failure),
    };
    while !tally.stop.load(Ordering::Relaxed) {
        thread::sleep(Duration::from_millis(20));
        if tally.paused.load(Ordering::Relaxed) {
            continue;
        }
        let timed = |work: &dyn Fn() -> Result<(), Failure>| {
            let begun = tally.now_us();
            let outcome = work();
            tally.create_us.fetch_max(tally.now_us().saturating_sub(begun), Ordering::Relaxed);
            outcome
        };
        let made = std::cell::Cell::new((0, 0));
        let outcome = timed(&|| module.pair(session, "chaos-made").map(|pair| made.set(pair)))
            .and_then(|()| timed(&|| module.destroy(session, made.get().0)))
            .and_then(|()| timed(&|| module.destroy(session, made.get().1)));
        match outcome {
            Ok(()) => {
                tally.creates.fetch_add(1, Ordering::Relaxed);
            }
            Err(failure) => tally.fail(&failure),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_999th_of_a_thousand_is_told_within_a_sixteenth() {
        let histogram = Histogram::new();
        (0..2_000).for_each(|_| histogram.count(100));
        (0..5).for_each(|_| histogram.count(50_000));
        let told = histogram.take_p999();
        assert!((50_000..=54_000).contains(&told), "{told}");
        (0..2_000).for_each(|_| histogram.count(100));
        histogram.count(50_000);
        let told = histogram.take_p999();
        assert!((100..=112).contains(&told), "{told}");
        assert_eq!(histogram.take_p999(), 0, "emptied");
    }
}
