//! The load of the demo: signing threads, a pkcs11-tool loop and TLS handshakes, and what they count.
use std::fmt;
use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::SIGNING_LOG;
use super::clients::Clients;
use crate::lab::Lab;
use crate::problem::Problem;
use crate::process::Background;
use crate::signing::Report;

const THREADS: &str = "8";
/// How long the signing threads may take to end.
const PATIENCE: Duration = Duration::from_secs(30);

/// A client that is run again and again.
#[derive(Default)]
struct Repeated {
    runs: AtomicU64,
    errors: AtomicU64,
    last_error: Mutex<Option<String>>,
    longest_ms: AtomicU64,
}

impl Repeated {
    fn once(&self, work: &dyn Fn() -> Result<(), Problem>) {
        let start = Instant::now();
        let outcome = work();
        self.runs.fetch_add(1, Ordering::Relaxed);
        let took = u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.longest_ms.fetch_max(took, Ordering::Relaxed);
        if let Err(problem) = outcome {
            self.errors.fetch_add(1, Ordering::Relaxed);
            *self.last_error.lock().unwrap_or_else(PoisonError::into_inner) = Some(problem.0);
        }
    }

    fn counted(&self) -> Counted {
        Counted {
            runs: self.runs.load(Ordering::Relaxed),
            errors: self.errors.load(Ordering::Relaxed),
            last_error: self.last_error.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            longest_ms: self.longest_ms.load(Ordering::Relaxed),
        }
    }
}

/// What a repeated client has come to.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counted {
    pub(crate) runs: u64,
    pub(crate) errors: u64,
    pub(crate) last_error: Option<String>,
    pub(crate) longest_ms: u64,
}

/// What everything has come to.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    pub(crate) signing: Report,
    pub(crate) tool: Counted,
    pub(crate) handshakes: Counted,
}

impl Tally {
    /// Errors that an application saw.
    pub(crate) fn errors(&self) -> u64 {
        self.signing.errors + self.tool.errors + self.handshakes.errors
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, error) in [
            ("signing thread", &self.signing.last_error),
            ("pkcs11-tool", &self.tool.last_error),
            ("TLS", &self.handshakes.last_error),
        ] {
            if let Some(error) = error {
                writeln!(f, "last error of {name}: {error}")?;
            }
        }
        write!(
            f,
            "SUMMARY: {} signatures by 8 threads, {} runs of pkcs11-tool --sign (longest {} ms), {} TLS handshakes \
             (longest {} ms); application-visible errors: {}; longest stall of a thread: {} ms",
            self.signing.signatures,
            self.tool.runs,
            self.tool.longest_ms,
            self.handshakes.runs,
            self.handshakes.longest_ms,
            self.errors(),
            self.signing.stall_us / 1000
        )
    }
}

/// The load, until stopped or dropped.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    signing: Option<Background>,
    report: Arc<Mutex<Report>>,
    reader: Option<JoinHandle<()>>,
    tool: Arc<Repeated>,
    handshakes: Arc<Repeated>,
    loops: Vec<JoinHandle<()>>,
    _server: Background,
}

impl Load {
    pub(crate) fn start(lab: &Lab, clients: &Clients) -> Result<Self, Problem> {
        clients.prepare_loop()?;
        let (server, port) = clients.server()?;
        let report = Arc::default();
        let log = clients.log(SIGNING_LOG)?;
        let (signing, reader) = signing(lab, &report, log)?;
        let stop = Arc::new(AtomicBool::new(false));
        let (tool, handshakes) = (Arc::new(Repeated::default()), Arc::new(Repeated::default()));
        let mut loops = Vec::new();
        let (own, counted, until) = (clients.clone(), tool.clone(), stop.clone());
        loops.push(thread::spawn(move || repeat(&counted, &until, &|| own.sign_once())));
        let (own, counted, until) = (clients.clone(), handshakes.clone(), stop.clone());
        loops.push(thread::spawn(move || repeat(&counted, &until, &|| own.handshake(port))));
        let signing = Some(signing);
        Ok(Self { stop, signing, report, reader: Some(reader), tool, handshakes, loops, _server: server })
    }

    /// What everything has come to so far.
    pub(crate) fn tally(&self) -> Tally {
        Tally {
            signing: self.report.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            tool: self.tool.counted(),
            handshakes: self.handshakes.counted(),
        }
    }

    /// Whether the signing threads still run.
    pub(crate) fn is_running(&self) -> bool {
        self.reader.as_ref().is_some_and(|reader| !reader.is_finished())
    }

    /// Ends everything and counts.
    pub(crate) fn stop(mut self) -> Result<Tally, Problem> {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(signing) = &mut self.signing {
            // The end of its standard input is the sign to stop.
            drop(signing.child().stdin.take());
        }
        for thread in self.loops.drain(..) {
            thread.join().map_err(|_| Problem("a client's loop panicked".into()))?;
        }
        let start = Instant::now();
        while self.is_running() && start.elapsed() < PATIENCE {
            thread::sleep(Duration::from_millis(10));
        }
        if self.is_running() {
            return Err(Problem(format!("the signing threads do not end within {} s", PATIENCE.as_secs())));
        }
        let ended = self.signing.as_mut().map(|signing| signing.child().wait());
        match ended {
            Some(Ok(status)) if status.success() => Ok(self.tally()),
            Some(Ok(status)) => Err(Problem(format!("the signing process ended with {status}"))),
            Some(Err(error)) => Err(Problem(format!("the signing process: {error}"))),
            None => Err(Problem("there is no signing process".into())),
        }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn repeat(counted: &Repeated, until: &AtomicBool, work: &dyn Fn() -> Result<(), Problem>) {
    while !until.load(Ordering::Relaxed) {
        counted.once(work);
        // A script has other things to do as well, and the processors of a small host are shared.
        thread::sleep(Duration::from_millis(50));
    }
}

/// The signing threads: this program again, with the environment of an application.
/// The module's log goes to a file: on the terminal it would tear the status line.
fn signing(
    lab: &Lab,
    report: &Arc<Mutex<Report>>,
    log: File,
) -> Result<(Background, JoinHandle<()>), Problem> {
    let own =
        std::env::current_exe().map_err(|error| Problem(format!("our own program is not known: {error}")))?;
    let mut command = lab.command(own);
    command
        .args(["sign-loop", "--threads", THREADS])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(log);
    let mut signing = Background::start(&mut command)?;
    let Some(lines) = signing.child().stdout.take() else {
        return Err(Problem("the signing process has no standard output".into()));
    };
    let seen = report.clone();
    let reader = thread::spawn(move || {
        for line in BufReader::new(lines).lines().map_while(Result::ok) {
            if let Ok(report) = serde_json::from_str(&line) {
                *seen.lock().unwrap_or_else(PoisonError::into_inner) = report;
            }
        }
    });
    Ok((signing, reader))
}
