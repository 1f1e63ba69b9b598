//! A platform whose clock stands until a test moves it; all else is the system's.
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ntls::platform::System;
use spec::platform::{Joiner, Moment, Park, Platform, SocketAddr, Stream, Watched};

/// See the head of this file.
pub(crate) struct Clock(AtomicU64);

impl Clock {
    /// Stands at the present.
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self(AtomicU64::new(System.now().0)))
    }

    /// Moves on.
    pub(crate) fn advance_ms(&self, ms: u64) {
        self.0.store(self.now().after_ms(ms).0, Ordering::Release);
    }
}

impl Platform for Clock {
    fn now(&self) -> Moment {
        Moment(self.0.load(Ordering::Acquire))
    }

    fn wall_ms(&self) -> u64 {
        System.wall_ms()
    }

    fn random(&self, buffer: &mut [u8]) {
        System.random(buffer);
    }

    fn spawn(&self, name: &str, work: Box<dyn FnOnce() + Send>) -> io::Result<Box<dyn Joiner>> {
        System.spawn(name, work)
    }

    fn thread(&self) -> u64 {
        System.thread()
    }

    fn yield_now(&self) {
        System.yield_now();
    }

    fn parker(&self) -> Arc<dyn Park> {
        System.parker()
    }

    fn poll(&self, watched: &mut [Watched], park: &dyn Park, until: Moment) {
        System.poll(watched, park, until);
    }

    fn resolve(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        System.resolve(host, port)
    }

    fn connect(&self, address: SocketAddr, keep_alive: bool) -> io::Result<Arc<dyn Stream>> {
        System.connect(address, keep_alive)
    }
}
