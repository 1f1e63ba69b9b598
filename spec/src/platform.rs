//! Platform (HA 8): the one door through which the client, `ha` and the link reach clock, chance, threads, parking
//! and sockets. The traits stand here; the production implementation makes no decisions and lives with the link.
use std::any::Any;
use std::cell::Cell;
use std::io;
pub use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, TryLockError};
use std::time::Duration;

/// A point of the monotonic clock, in nanoseconds since an arbitrary start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Moment(pub u64);

const NS_PER_MS: u64 = 1_000_000;

impl Moment {
    /// Later than every moment that a clock shows.
    pub const NEVER: Moment = Moment(u64::MAX);

    /// This moment and `span` later, saturating.
    pub fn after(self, span: Duration) -> Moment {
        Moment(self.0.saturating_add(u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)))
    }

    /// This moment and `ms` milliseconds later, saturating.
    #[inline]
    pub fn after_ms(self, ms: u64) -> Moment {
        Moment(self.0.saturating_add(ms.saturating_mul(NS_PER_MS)))
    }

    /// The time from `earlier` to this moment; zero when `earlier` is not earlier.
    pub fn since(self, earlier: Moment) -> Duration {
        Duration::from_nanos(self.ns_since(earlier))
    }

    /// The same in nanoseconds.
    #[inline]
    pub fn ns_since(self, earlier: Moment) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// The same in milliseconds, whole ones.
    #[inline]
    pub fn ms_since(self, earlier: Moment) -> u64 {
        self.ns_since(earlier) / NS_PER_MS
    }
}

/// A place where one thread waits; an `unpark` before the `park` is not lost (one token, as `std::thread::park`).
pub trait Park: Any + Send + Sync {
    /// Waits for a token until the moment comes; returns early without reason at times.
    fn park(&self, until: Moment);
    /// Leaves a token and wakes the waiting thread.
    fn unpark(&self);
    /// Takes away a token that was left: for the thread that waits here, and while it does not; it looks at all that the token may
    /// have been left for afterwards.
    fn forget(&self);
    /// Whether this process made it, and not the one that it was forked from (HA 6).
    fn is_own(&self) -> bool {
        true
    }
}

/// A thread that can be waited for.
pub trait Joiner: Send {
    /// Waits until the thread has ended.
    fn join(self: Box<Self>);
}

/// A byte stream that is connected or being connected. Nothing here waits; [`Platform::poll`] does.
pub trait Stream: Any + Send + Sync {
    /// Reads at least one byte or answers 0 at the end; `WouldBlock` when nothing has come.
    ///
    /// # Errors
    /// Those of the operating system; an attempt to connect that failed tells so here or in `write`.
    fn read(&self, buffer: &mut [u8]) -> io::Result<usize>;
    /// Writes some bytes; `WouldBlock` when there is no room, or no connection yet.
    ///
    /// # Errors
    /// Those of the operating system.
    fn write(&self, bytes: &[u8]) -> io::Result<usize>;
    /// Ends both directions: whoever polls the stream hears that it is readable, and reads its end.
    fn shutdown(&self);
}

/// A stream that is polled, and what the poll found.
pub struct Watched {
    /// The stream, made by the same platform.
    pub stream: Arc<dyn Stream>,
    /// Whether room for writing is waited for as well.
    pub for_writing: bool,
    /// Whether a read would answer something: bytes, the end or an error.
    pub readable: bool,
    /// Whether a write would; false unless it was waited for.
    pub writable: bool,
}

impl Watched {
    /// A stream to be polled for reading, and for writing if so wanted.
    pub fn new(stream: Arc<dyn Stream>, for_writing: bool) -> Self {
        Self { stream, for_writing, readable: false, writable: false }
    }
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
    /// Names the calling thread: a number that no other living thread of the process has.
    fn thread(&self) -> u64;
    /// Lets other threads run before this one goes on.
    fn yield_now(&self);
    /// Whether the threads of this process share one processor, as far as the system tells; what is faster there may be slower
    /// where two threads can run at once.
    fn has_one_processor(&self) -> bool {
        false
    }
    /// A new place to wait.
    fn parker(&self) -> Arc<dyn Park>;
    /// Waits until a stream is ready, a token lies in `park` (and takes it) or the moment has come; what was found
    /// stands in `watched`. Returns early without reason at times. The one thread that `park` belongs to may call it.
    fn poll(&self, watched: &mut [Watched], park: &dyn Park, until: Moment);
    /// The addresses of a host and port, at least one. May block as long as the system's resolver does.
    ///
    /// # Errors
    /// Those of the resolver.
    fn resolve(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>>;
    /// Begins a connection and returns at once; the stream takes bytes once it stands.
    ///
    /// # Errors
    /// Those that the system knows at once.
    fn connect(&self, address: SocketAddr, keep_alive: bool) -> io::Result<Arc<dyn Stream>>;
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
    #[cfg_attr(debug_assertions, track_caller)]
    #[inline]
    pub fn lock(&self) -> Locked<'_, T> {
        let guard = match self.0.try_lock() {
            Ok(guard) => guard,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => self.wait(),
        };
        counted::take();
        Locked(guard)
    }

    #[cold]
    fn wait(&self) -> MutexGuard<'_, T> {
        let Some(give_way) = CONTENDED.get() else {
            return self.0.lock().unwrap_or_else(PoisonError::into_inner);
        };
        loop {
            give_way();
            match self.0.try_lock() {
                Ok(guard) => return guard,
                Err(TryLockError::Poisoned(poisoned)) => return poisoned.into_inner(),
                Err(TryLockError::WouldBlock) => {}
            }
        }
    }
}

/// A lock that is held until this is dropped.
pub struct Locked<'a, T>(MutexGuard<'a, T>);

impl<T> std::ops::Deref for Locked<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T> std::ops::DerefMut for Locked<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        &mut self.0
    }
}

impl<T: std::fmt::Debug> std::fmt::Debug for Locked<'_, T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl<T> Drop for Locked<'_, T> {
    #[inline]
    fn drop(&mut self) {
        counted::give_back();
    }
}

/// Told of each lock that a thread takes: the place in the code.
type Listener = fn(&'static std::panic::Location<'static>);

/// From now on, in debug builds, this is called for each lock that the calling thread takes; `None` ends it. For tests that
/// count (DESIGN 3).
pub fn when_locked(listener: Option<Listener>) {
    counted::LISTENER.set(listener);
}

/// How many locks the calling thread holds, in debug builds; 0 in others.
pub fn locks_held() -> u32 {
    counted::HELD.get()
}

mod counted {
    use super::{Cell, Listener};

    thread_local! {
        pub(super) static HELD: Cell<u32> = const { Cell::new(0) };
        pub(super) static LISTENER: Cell<Option<Listener>> = const { Cell::new(None) };
    }

    #[cfg(debug_assertions)]
    #[track_caller]
    pub(super) fn take() {
        HELD.set(HELD.get().saturating_add(1));
        if let Some(listener) = LISTENER.get() {
            listener(std::panic::Location::caller());
        }
    }

    #[cfg(debug_assertions)]
    pub(super) fn give_back() {
        HELD.set(HELD.get().saturating_sub(1));
    }

    #[cfg(not(debug_assertions))]
    #[inline]
    pub(super) fn take() {}

    #[cfg(not(debug_assertions))]
    #[inline]
    pub(super) fn give_back() {}
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
