//! System: the production [`Platform`] (HA 8). It makes no decisions; it is the only place below `appliance` where
//! threads, clocks and sockets of the standard library are named.
//!
//! A forked child inherits the sockets and none of what looks after them: their numbers stand in a registry without
//! locks, from which the child takes them to close them without a word (HA 6). A socket whose connect is still under way at
//! the fork is not in it yet; the child keeps that one, unused.
use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, TcpStream, ToSocketAddrs as _};
use std::os::fd::{AsRawFd as _, RawFd};
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, OnceLock};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime};

use rustix::net::sockopt;
use spec::platform::{Joiner, Lock, Moment, Park, Platform, Stream};

/// The operating system.
#[derive(Clone, Copy, Debug, Default)]
pub struct System;

impl System {
    /// The platform as the seam wants it.
    pub fn shared() -> Arc<dyn Platform> {
        Arc::new(Self)
    }
}

/// The moment that all others are counted from.
fn epoch() -> Instant {
    static START: OnceLock<Instant> = OnceLock::new();
    *START.get_or_init(Instant::now)
}

impl Platform for System {
    fn now(&self) -> Moment {
        Moment(0).after(epoch().elapsed())
    }

    fn wall_ms(&self) -> u64 {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }

    fn random(&self, buffer: &mut [u8]) {
        crate::fill_random(buffer);
    }

    fn spawn(&self, name: &str, work: Box<dyn FnOnce() + Send>) -> io::Result<Box<dyn Joiner>> {
        let thread = thread::Builder::new().name(name.to_owned()).spawn(work)?;
        Ok(Box::new(Thread(thread)))
    }

    fn parker(&self) -> Arc<dyn Park> {
        Arc::new(Token { left: Lock::new(false), changed: Condvar::new() })
    }

    fn connect(
        &self,
        host: &str,
        port: u16,
        timeout: Duration,
        keep_alive: bool,
    ) -> io::Result<Box<dyn Stream>> {
        let until = Instant::now().checked_add(timeout);
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the name resolves to no address");
        for address in (host, port).to_socket_addrs()? {
            let left = until.map_or(timeout, |until| until.saturating_duration_since(Instant::now()));
            if left.is_zero() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            match TcpStream::connect_timeout(&address, left) {
                Ok(stream) => {
                    return Socket::over(stream, keep_alive).map(|s| Box::new(s) as Box<dyn Stream>);
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }
}

/// Most sockets that the registry holds: the servers of a configuration are at most 100. One that finds no room is left
/// open in a forked child, which does no harm but to the peer's hope of seeing the end soon.
const REGISTERED_MAX: usize = 256;

/// A place of the registry that holds no socket.
const FREE: i32 = -1;

/// The descriptors of every open [`Socket`] of this process.
static OPEN_SOCKETS: [AtomicI32; REGISTERED_MAX] = [const { AtomicI32::new(FREE) }; REGISTERED_MAX];

/// Takes the descriptors of all sockets out of the registry: in a forked child, what it inherited and has to close by
/// number. The parent's registry is another one. In a process that is not a fresh child the sockets stay in use: do not
/// close them.
pub fn take_open_sockets() -> impl Iterator<Item = RawFd> {
    OPEN_SOCKETS
        .iter()
        .map(|place| place.swap(FREE, Ordering::AcqRel))
        .filter(|descriptor| *descriptor != FREE)
}

fn register(descriptor: RawFd) {
    let take = |place: &AtomicI32| {
        place.compare_exchange(FREE, descriptor, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    };
    let _ = OPEN_SOCKETS.iter().any(take);
}

/// Before the descriptor is closed, so that its number never stands for somebody else's file.
fn unregister(descriptor: RawFd) {
    let give = |place: &AtomicI32| {
        place.compare_exchange(descriptor, FREE, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    };
    let _ = OPEN_SOCKETS.iter().any(give);
}

struct Thread(JoinHandle<()>);

impl Joiner for Thread {
    fn join(self: Box<Self>) {
        // A panic of the thread has been reported by the standard library; there is nothing else to do with it.
        let _ = self.0.join();
    }
}

/// One token behind a condition variable, so that one parker may serve whichever thread waits.
struct Token {
    left: Lock<bool>,
    changed: Condvar,
}

impl Park for Token {
    fn park(&self, until: Moment) {
        let mut left = self.left.lock();
        while !*left {
            let wait = until.since(System.now());
            if wait.is_zero() {
                return;
            }
            // A day at most, so that `NEVER` stays within what the system's clock can add.
            let wait = wait.min(Duration::from_secs(86_400));
            left = match self.changed.wait_timeout(left, wait) {
                Ok((guard, _)) => guard,
                Err(poisoned) => poisoned.into_inner().0,
            };
        }
        *left = false;
    }

    fn unpark(&self) {
        *self.left.lock() = true;
        self.changed.notify_one();
    }
}

/// A connected socket. The timeouts of the operating system are set only when they change.
struct Socket {
    stream: TcpStream,
    read_timeout_ns: AtomicU64,
    write_timeout_ns: AtomicU64,
}

impl Socket {
    fn over(stream: TcpStream, keep_alive: bool) -> io::Result<Self> {
        register(stream.as_raw_fd());
        let socket = Self { stream, read_timeout_ns: AtomicU64::new(0), write_timeout_ns: AtomicU64::new(0) };
        let stream = &socket.stream;
        stream.set_nodelay(true)?;
        if keep_alive {
            sockopt::set_socket_keepalive(stream, true)?;
            sockopt::set_tcp_keepidle(stream, Duration::from_secs(10))?;
            sockopt::set_tcp_keepintvl(stream, Duration::from_secs(5))?;
            sockopt::set_tcp_keepcnt(stream, 3)?;
        }
        Ok(socket)
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        unregister(self.stream.as_raw_fd());
    }
}

/// The timeout as the operating system takes it, if it differs from the one set before.
fn changed(set: &AtomicU64, timeout: Duration) -> Option<Duration> {
    let timeout = timeout.max(Duration::from_millis(1));
    let ns = u64::try_from(timeout.as_nanos()).unwrap_or(u64::MAX);
    (set.swap(ns, Ordering::Relaxed) != ns).then_some(timeout)
}

impl Stream for Socket {
    fn read(&self, buffer: &mut [u8], timeout: Duration) -> io::Result<usize> {
        if let Some(timeout) = changed(&self.read_timeout_ns, timeout) {
            self.stream.set_read_timeout(Some(timeout))?;
        }
        (&self.stream).read(buffer)
    }

    fn write(&self, bytes: &[u8], timeout: Duration) -> io::Result<usize> {
        if let Some(timeout) = changed(&self.write_timeout_ns, timeout) {
            self.stream.set_write_timeout(Some(timeout))?;
        }
        (&self.stream).write(bytes)
    }

    fn shutdown(&self) {
        // An error means that it is closed already.
        let _ = self.stream.shutdown(Shutdown::Both);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::cast_possible_truncation, clippy::indexing_slicing)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn keep_alive_is_set_for_1_and_not_for_0() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        for wanted in [true, false] {
            let socket = Socket::over(TcpStream::connect(address).unwrap(), wanted).unwrap();
            assert_eq!(sockopt::socket_keepalive(&socket.stream).unwrap(), wanted);
            assert!(socket.stream.nodelay().unwrap());
            if wanted {
                assert_eq!(sockopt::tcp_keepidle(&socket.stream).unwrap(), Duration::from_secs(10));
                assert_eq!(sockopt::tcp_keepcnt(&socket.stream).unwrap(), 3);
            }
        }
    }

    #[test]
    fn a_socket_stands_in_the_registry_while_it_is_open() {
        let stands = |descriptor: RawFd| {
            OPEN_SOCKETS.iter().filter(|place| place.load(Ordering::Acquire) == descriptor).count()
        };
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let kept = stream.try_clone().unwrap();
        let descriptor = stream.as_raw_fd();
        let socket = Socket::over(stream, false).unwrap();
        assert_eq!((stands(descriptor), stands(kept.as_raw_fd())), (1, 0));
        drop(socket);
        // Its number may be another test's by now, but `kept` was never registered.
        assert_eq!(stands(kept.as_raw_fd()), 0);
        let again = Socket::over(kept, false).unwrap();
        assert_eq!(stands(again.stream.as_raw_fd()), 1);
    }

    #[test]
    fn a_token_left_before_the_park_is_not_lost() {
        let park = System.parker();
        park.unpark();
        park.park(Moment::NEVER);
        let before = System.now();
        park.park(before.after_ms(20));
        assert!(System.now() >= before.after_ms(20));
    }

    #[test]
    fn a_read_times_out_and_a_shutdown_ends_it() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let stream = System.connect("127.0.0.1", port, Duration::from_secs(5), true).unwrap();
        let (mut peer, _) = listener.accept().unwrap();
        let mut buffer = [0; 8];
        let error = stream.read(&mut buffer, Duration::from_millis(10)).unwrap_err();
        assert!(matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut));
        peer.write_all(b"abc").unwrap();
        assert_eq!(stream.read(&mut buffer, Duration::from_secs(5)).unwrap(), 3);
        let stream: Arc<dyn Stream> = Arc::from(stream);
        let reader = stream.clone();
        let thread = System
            .spawn(
                "reader",
                Box::new(move || {
                    assert_eq!(reader.read(&mut [0; 8], Duration::from_secs(60)).unwrap(), 0);
                }),
            )
            .unwrap();
        stream.shutdown();
        thread.join();
    }

    #[test]
    fn a_full_peer_lets_no_write_block_for_long() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let stream = System.connect("127.0.0.1", port, Duration::from_secs(5), false).unwrap();
        let _peer = listener.accept().unwrap();
        let start = System.now();
        let block = vec![0; 1 << 20];
        let error = loop {
            match stream.write(&block, Duration::from_millis(20)) {
                Ok(written) => assert!(written > 0),
                Err(error) => break error,
            }
            assert!(System.now().since(start) < Duration::from_secs(20), "the peer reads nothing");
        };
        assert!(matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut));
    }
}
