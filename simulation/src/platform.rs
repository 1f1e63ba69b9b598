//! Platform in the simulation (HA 8): virtual time, seeded chance, threads that wait for their baton.
use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use spec::platform::{Joiner, Moment, Park, Platform, SocketAddr, Stream, Watched};

use crate::world::{World, current_thread};

/// When the simulated worlds begin: milliseconds since 1970.
pub(crate) const BORN_MS: u64 = 1_790_000_000_000;

/// The platform of one process: its clock may be wrong.
pub(crate) struct Simulated {
    world: Arc<World>,
    /// The process that its threads belong to; a fork makes it another one.
    process: AtomicUsize,
    wall_offset_ms: AtomicI64,
    /// What each thread drew last.
    drawn: Mutex<BTreeMap<usize, Vec<u8>>>,
}

impl Simulated {
    /// The platform of a process of the world.
    pub(crate) fn new(world: Arc<World>, process: usize) -> Arc<Self> {
        let process = AtomicUsize::new(process);
        Arc::new(Self { world, process, wall_offset_ms: AtomicI64::new(0), drawn: Mutex::default() })
    }

    /// The world that it is of.
    pub(crate) fn world(&self) -> &Arc<World> {
        &self.world
    }

    /// The process that its threads belong to.
    pub(crate) fn process(&self) -> usize {
        self.process.load(Ordering::Relaxed)
    }

    /// The platform of a forked child from now on.
    pub(crate) fn forked(&self, child: usize) {
        self.process.store(child, Ordering::Relaxed);
    }

    /// What the caller's thread drew last.
    pub(crate) fn last_drawn(&self) -> Vec<u8> {
        let drawn = self.drawn.lock().unwrap_or_else(PoisonError::into_inner);
        drawn.get(&current_thread()).cloned().unwrap_or_default()
    }

    /// The wall clock jumps.
    pub(crate) fn jump_clock(&self, ms: i64) {
        self.wall_offset_ms.fetch_add(ms, Ordering::Relaxed);
    }
}

/// The wall time of a moment.
pub(crate) fn wall_ms(now: u64) -> u64 {
    BORN_MS + now / 1_000_000
}

impl Platform for Simulated {
    fn now(&self) -> Moment {
        Moment(self.world.tick())
    }

    fn wall_ms(&self) -> u64 {
        wall_ms(self.world.now()).saturating_add_signed(self.wall_offset_ms.load(Ordering::Relaxed))
    }

    fn random(&self, buffer: &mut [u8]) {
        self.world.chance(|chance| chance.fill(buffer));
        let mut drawn = self.drawn.lock().unwrap_or_else(PoisonError::into_inner);
        drawn.insert(current_thread(), buffer.to_vec());
    }

    fn spawn(&self, _name: &str, work: Box<dyn FnOnce() + Send>) -> io::Result<Box<dyn Joiner>> {
        let thread = self.world.spawn(self.process(), work);
        Ok(Box::new(Ended { world: self.world.clone(), thread }))
    }

    fn parker(&self) -> Arc<dyn Park> {
        Arc::new(Token { world: self.world.clone(), left: AtomicBool::new(false), waiting: Mutex::new(None) })
    }

    fn thread(&self) -> u64 {
        current_thread() as u64
    }

    fn yield_now(&self) {
        self.world.tick();
    }

    fn poll(&self, _: &mut [Watched], park: &dyn Park, until: Moment) {
        // There are no streams here: only a token or the moment ends it.
        park.park(until);
    }

    fn resolve(&self, host: &str, _: u16) -> io::Result<Vec<SocketAddr>> {
        Err(io::Error::new(io::ErrorKind::ConnectionRefused, format!("there is no network to {host} here")))
    }

    fn connect(&self, address: SocketAddr, _: bool) -> io::Result<Arc<dyn Stream>> {
        Err(io::Error::new(
            io::ErrorKind::ConnectionRefused,
            format!("there is no network to {address} here"),
        ))
    }
}

struct Ended {
    world: Arc<World>,
    thread: usize,
}

impl Joiner for Ended {
    fn join(self: Box<Self>) {
        self.world.join(self.thread);
    }
}

struct Token {
    world: Arc<World>,
    left: AtomicBool,
    waiting: Mutex<Option<usize>>,
}

impl Token {
    fn waiting(&self) -> std::sync::MutexGuard<'_, Option<usize>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Park for Token {
    fn park(&self, until: Moment) {
        if self.left.swap(false, Ordering::AcqRel) {
            return;
        }
        *self.waiting() = Some(current_thread());
        self.world.park(until.0);
        *self.waiting() = None;
        self.left.store(false, Ordering::Release);
    }

    fn unpark(&self) {
        self.left.store(true, Ordering::Release);
        let waiting = *self.waiting();
        if let Some(thread) = waiting {
            self.world.wake(thread);
        }
    }

    fn forget(&self) {
        self.left.store(false, Ordering::Release);
    }
}
