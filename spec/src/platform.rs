//! Platform (HA 8): the one door through which the client, `ha` and the link reach clock, chance, threads, parking
//! and sockets. The traits stand here; the production implementation makes no decisions and lives with the link.
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, TryLockError};
use std::time::Duration;

/// A point of the monotonic clock, in nanoseconds since an arbitrary start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Moment(pub u64);

impl Moment {
    /// Later than every moment that a clock shows.
    pub const NEVER: Moment = Moment(u64::MAX);

    /// This moment and `span` later, saturating.
    pub fn after(self, span: Duration) -> Moment {
        Moment(self.0.saturating_add(u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)))
    }

    /// This moment and `ms` milliseconds later, saturating.
    pub fn after_ms(self, ms: u64) -> Moment {
        self.after(Duration::from_millis(ms))
    }

    /// The time from `earlier` to this moment; zero when `earlier` is not earlier.
    pub fn since(self, earlier: Moment) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

/// A place where one thread waits; an `unpark` before the `park` is not lost (one token, as `std::thread::park`).
pub trait Park: Send + Sync {
    /// Waits for a token until the moment comes; returns early without reason at times.
    fn park(&self, until: Moment);
    /// Leaves a token and wakes the waiting thread.
    fn unpark(&self);
}

/// A thread that can be waited for.
pub trait Joiner: Send {
    /// Waits until the thread has ended.
    fn join(self: Box<Self>);
}

/// A connected byte stream whose two directions may be used by two threads at once.
pub trait Stream: Send + Sync {
    /// Reads at least one byte or answers 0 at the end; `WouldBlock` or `TimedOut` when nothing came in `timeout`.
    ///
    /// # Errors
    /// Those of the operating system.
    fn read(&self, buffer: &mut [u8], timeout: Duration) -> io::Result<usize>;
    /// Writes some bytes; `WouldBlock` or `TimedOut` when none could be written in `timeout`.
    ///
    /// # Errors
    /// Those of the operating system.
    fn write(&self, bytes: &[u8], timeout: Duration) -> io::Result<usize>;
    /// Ends both directions; a blocked read or write returns.
    fn shutdown(&self);
}

/// Clock, chance, threads, parking and sockets, as arguments.
pub trait Platform: Send + Sync + 'static {
    /// The monotonic clock.
    fn now(&self) -> Moment;
    /// Wall time in milliseconds since 1970. No safety rule uses it (HA 1.4).
    fn wall_ms(&self) -> u64;
    /// Fills the buffer from the system's cryptographic generator.
    fn random(&self, buffer: &mut [u8]);
    /// Starts a named thread.
    ///
    /// # Errors
    /// When the system refuses one.
    fn spawn(&self, name: &str, work: Box<dyn FnOnce() + Send>) -> io::Result<Box<dyn Joiner>>;
    /// A new place to wait.
    fn parker(&self) -> Arc<dyn Park>;
    /// Connects to a host and port, trying each address it resolves to.
    ///
    /// # Errors
    /// Those of resolution and connection; `TimedOut` when `timeout` passes first.
    fn connect(
        &self,
        host: &str,
        port: u16,
        timeout: Duration,
        keep_alive: bool,
    ) -> io::Result<Box<dyn Stream>>;
}

/// What a thread does instead of sleeping in the operating system while another one has the lock: `None` until
/// somebody schedules threads himself.
static CONTENDED: OnceLock<fn()> = OnceLock::new();

/// From now on a thread that finds a [`Lock`] taken calls this and tries again, over and over: for a simulation that
/// lets one thread run at a time. The first one stays.
pub fn when_contended(give_way: fn()) {
    let _ = CONTENDED.set(give_way);
}

/// A lock that recovers from poison: a panic elsewhere must not end the module's service (HA 6).
#[derive(Default, Debug)]
pub struct Lock<T>(Mutex<T>);

impl<T> Lock<T> {
    /// A lock around a value.
    pub const fn new(value: T) -> Self {
        Self(Mutex::new(value))
    }

    /// Takes the lock.
    pub fn lock(&self) -> MutexGuard<'_, T> {
        loop {
            match (self.0.try_lock(), CONTENDED.get()) {
                (Ok(guard), _) => return guard,
                (Err(TryLockError::Poisoned(poisoned)), _) => return poisoned.into_inner(),
                (Err(TryLockError::WouldBlock), Some(give_way)) => give_way(),
                (Err(TryLockError::WouldBlock), None) => {
                    return self.0.lock().unwrap_or_else(PoisonError::into_inner);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_saturate_instead_of_wrapping() {
        assert_eq!(Moment::NEVER.after_ms(1), Moment::NEVER);
        assert_eq!(Moment(5).since(Moment(9)), Duration::ZERO);
        assert_eq!(Moment(0).after_ms(2).since(Moment(0)), Duration::from_millis(2));
    }
}
