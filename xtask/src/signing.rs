//! The demo's application: threads that sign through the module, each C_Sign once per signature, every return value
//! that is not CKR_OK counted. It runs as a process of its own and reports a line of JSON every 200 ms.
use std::io::{Read as _, Write as _};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use cryptoki_sys as c;
use serde::{Deserialize, Serialize};

use crate::c_caller::Module;
use crate::problem::Problem;

/// The label of the RSA key that it signs with.
pub const RSA_LABEL: &str = "demo-rsa";
/// The label of the P-256 key that it signs with.
pub const EC_LABEL: &str = "demo-ec";

/// One report.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct Report {
    /// Signatures made and found right so far.
    pub signatures: u64,
    /// Return values other than CKR_OK, and wrong signatures, so far.
    pub errors: u64,
    /// The longest time between two signatures of one thread so far, in microseconds; what is under way counts.
    pub stall_us: u64,
    /// The last error.
    pub last_error: Option<String>,
}

/// What the threads share.
struct Tally {
    start: Instant,
    stop: AtomicBool,
    signatures: AtomicU64,
    errors: AtomicU64,
    stall_us: AtomicU64,
    last_error: Mutex<Option<String>>,
    /// When each thread last had a signature, in microseconds since the start; 0 before it has begun.
    marks: Vec<AtomicU64>,
}

impl Tally {
    fn now_us(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    fn fail(&self, error: String) {
        self.errors.fetch_add(1, Ordering::Relaxed);
        *self.last_error.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
    }

    /// A thread has come to the end of a call.
    fn mark(&self, thread: usize) {
        let now = self.now_us();
        let before = self.marks[thread].swap(now, Ordering::Relaxed);
        self.stall_us.fetch_max(now.saturating_sub(before), Ordering::Relaxed);
    }

    fn report(&self) -> Report {
        let now = self.now_us();
        for mark in &self.marks {
            let mark = mark.load(Ordering::Relaxed);
            if mark > 0 {
                self.stall_us.fetch_max(now.saturating_sub(mark), Ordering::Relaxed);
            }
        }
        Report {
            signatures: self.signatures.load(Ordering::Relaxed),
            errors: self.errors.load(Ordering::Relaxed),
            stall_us: self.stall_us.load(Ordering::Relaxed),
            last_error: self.last_error.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }
}

/// Signs with so many threads until standard input ends, then reports once more.
///
/// # Errors
/// When the module cannot be loaded or the keys are not there.
pub fn run(threads: usize) -> Result<(), Problem> {
    let variable = |name: &str| {
        std::env::var(name)
            .map_err(|_| Problem(format!("wanted {name} in the environment, found none; source env.sh")))
    };
    let module = Arc::new(Module::load(&PathBuf::from(variable("P11_MODULE")?))?);
    let slot = module.slot(&variable("P11_TOKEN_LABEL")?)?;
    let said = |failure: crate::c_caller::Failure| Problem(failure.to_string());
    // The login holds for all sessions of the application, so this one stays open.
    let first = module.session(slot).map_err(said)?;
    module.login(first, &variable("P11_PIN")?).map_err(said)?;
    let keys = [module.private_key(first, RSA_LABEL)?, module.private_key(first, EC_LABEL)?];
    let tally = Arc::new(Tally {
        start: Instant::now(),
        stop: AtomicBool::new(false),
        signatures: AtomicU64::new(0),
        errors: AtomicU64::new(0),
        stall_us: AtomicU64::new(0),
        last_error: Mutex::new(None),
        marks: (0..threads).map(|_| AtomicU64::new(0)).collect(),
    });
    let workers: Vec<_> = (0..threads)
        .map(|number| {
            let (module, tally) = (module.clone(), tally.clone());
            thread::spawn(move || work(&module, slot, keys[number % 2], number, &tally))
        })
        .collect();
    let watched = tally.clone();
    thread::spawn(move || {
        // The end of our standard input is the sign to stop; so is the death of who started us.
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        watched.stop.store(true, Ordering::Relaxed);
    });
    while !tally.stop.load(Ordering::Relaxed) {
        thread::sleep(Duration::from_millis(200));
        print(&tally.report())?;
    }
    for worker in workers {
        worker.join().map_err(|_| Problem("a signing thread panicked".into()))?;
    }
    print(&tally.report())
}

fn print(report: &Report) -> Result<(), Problem> {
    let line = serde_json::to_string(report).map_err(|error| Problem(error.to_string()))?;
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")
        .and_then(|()| out.flush())
        .map_err(|error| Problem(format!("standard output: {error}")))
}

/// One thread: even ones sign with RSA and compare (the padding is deterministic), odd ones with P-256.
fn work(module: &Module, slot: c::CK_SLOT_ID, key: c::CK_OBJECT_HANDLE, number: usize, tally: &Tally) {
    let is_rsa = number.is_multiple_of(2);
    let mechanism = if is_rsa { c::CKM_SHA256_RSA_PKCS } else { c::CKM_ECDSA };
    let mut data = [0x5a; 32];
    let session = match module.session(slot) {
        Ok(session) => session,
        Err(failure) => return tally.fail(failure.to_string()),
    };
    let mut wanted: Option<Vec<u8>> = None;
    tally.marks[number].store(tally.now_us(), Ordering::Relaxed);
    while !tally.stop.load(Ordering::Relaxed) {
        match module.sign(session, mechanism, key, &mut data) {
            Ok(signature) => {
                let right = match (&wanted, is_rsa) {
                    (Some(wanted), true) => *wanted == signature,
                    (None, true) => signature.len() == 256,
                    (_, false) => signature.len() == 64,
                };
                if right {
                    tally.signatures.fetch_add(1, Ordering::Relaxed);
                } else {
                    tally.fail(format!("thread {number}: a signature of {} bytes is wrong", signature.len()));
                }
                wanted.get_or_insert(signature);
            }
            Err(failure) => {
                tally.fail(failure.to_string());
                // An error that comes at once must not fill the count by the million.
                thread::sleep(Duration::from_millis(10));
            }
        }
        tally.mark(number);
    }
    tally.marks[number].store(0, Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_under_way_counts_as_a_stall() {
        let tally = Tally {
            start: Instant::now(),
            stop: AtomicBool::new(false),
            signatures: AtomicU64::new(0),
            errors: AtomicU64::new(0),
            stall_us: AtomicU64::new(0),
            last_error: Mutex::new(None),
            marks: vec![AtomicU64::new(1), AtomicU64::new(0)],
        };
        thread::sleep(Duration::from_millis(20));
        tally.fail("C_Sign answered 0x00000030".into());
        let report = tally.report();
        assert!(report.stall_us >= 19_000, "{report:?}");
        assert_eq!((report.errors, report.last_error.as_deref()), (1, Some("C_Sign answered 0x00000030")));
    }
}
