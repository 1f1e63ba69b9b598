//! A platform of the system's clock, which a test can move on, without threads and sockets.
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, OnceLock};
use std::time::{Duration, Instant};

use partition::SystemRandom;
use spec::platform::{Joiner, Moment, Park, Platform, Stream, Watched};

/// The system, without threads and sockets; `skip` moves its clock on.
pub(crate) struct System {
    pub(crate) skipped_ms: AtomicU64,
}

struct SystemPark {
    token: Mutex<bool>,
    wake: Condvar,
    system: Arc<System>,
}

fn start() -> Instant {
    static START: OnceLock<Instant> = OnceLock::new();
    *START.get_or_init(Instant::now)
}

impl System {
    pub(crate) fn moment(&self) -> Moment {
        Moment(start().elapsed().as_nanos() as u64 + self.skipped_ms.load(Ordering::SeqCst) * 1_000_000)
    }

    pub(crate) fn skip(&self, ms: u64) {
        self.skipped_ms.fetch_add(ms, Ordering::SeqCst);
    }
}

impl Park for SystemPark {
    fn park(&self, until: Moment) {
        let token = self.token.lock().unwrap();
        let timeout = until.since(self.system.moment()).min(Duration::from_secs(60));
        let (mut token, _) = self.wake.wait_timeout_while(token, timeout, |token| !*token).unwrap();
        *token = false;
    }

    fn unpark(&self) {
        *self.token.lock().unwrap() = true;
        self.wake.notify_one();
    }

    fn forget(&self) {
        *self.token.lock().unwrap() = false;
    }
}

/// The platform as the group takes it.
pub(crate) struct Shared(pub(crate) Arc<System>);

impl Platform for Shared {
    fn now(&self) -> Moment {
        self.0.moment()
    }

    fn wall_ms(&self) -> u64 {
        1_700_000_000_000 + self.0.moment().0 / 1_000_000
    }

    fn random(&self, buffer: &mut [u8]) {
        partition::Random::fill(&SystemRandom, buffer);
    }

    fn spawn(&self, _: &str, _: Box<dyn FnOnce() + Send>) -> io::Result<Box<dyn Joiner>> {
        Err(io::Error::other("no threads in these tests"))
    }

    fn parker(&self) -> Arc<dyn Park> {
        Arc::new(SystemPark { token: Mutex::new(false), wake: Condvar::new(), system: self.0.clone() })
    }

    fn thread(&self) -> u64 {
        0
    }

    fn yield_now(&self) {}

    fn poll(&self, _: &mut [Watched], park: &dyn Park, until: Moment) {
        park.park(until);
    }

    fn resolve(&self, _: &str, _: u16) -> io::Result<Vec<SocketAddr>> {
        Err(io::Error::other("no sockets in these tests"))
    }

    fn connect(&self, _: SocketAddr, _: bool) -> io::Result<Arc<dyn Stream>> {
        Err(io::Error::other("no sockets in these tests"))
    }
}
