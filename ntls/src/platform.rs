//! System: the production [`Platform`] (HA 8). It makes no decisions; it is the only place below `appliance` where
//! threads, clocks and sockets of the standard library are named.
//!
//! A forked child inherits sockets and event descriptors and none of what looks after them: see `registry.rs` (HA 6).
use std::any::Any;
use std::cell::RefCell;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime};

use once_cell::race::OnceBox;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, Shutdown, SocketFlags, SocketType, sockopt};
use rustix::process::{Pid, getpid};
use rustix::thread::futex;
use spec::platform::{Joiner, Moment, Park, Platform, Stream, Watched, locks_held};

pub use crate::registry::{Inherited, take_inherited};
use crate::registry::{Owned, age};
use crate::token::{self, EMPTY, Ground, PARKED};

/// What the clock shows first: far from zero, so that what was never done was done long ago.
const FIRST: Moment = Moment(1 << 50);

/// The operating system.
#[derive(Clone, Copy, Debug, Default)]
pub struct System;

impl System {
    /// The platform as the seam wants it.
    pub fn shared() -> Arc<dyn Platform> {
        Arc::new(Self)
    }
}

static START_WITHIN: OnceLock<fn(&mut dyn FnMut())> = OnceLock::new();

/// From now on threads are started within this, which blocks signals meanwhile: a new thread inherits what is blocked. The
/// first one stays.
pub fn start_threads_within(around: fn(&mut dyn FnMut())) {
    let _ = START_WITHIN.set(around);
}

impl Platform for System {
    fn now(&self) -> Moment {
        // Through the C library, which tools that run the application on a machine of their own (valgrind) replace.
        // Nobody waits for the thread that was first, which a fork may have cut off (HA 6).
        static START: OnceBox<Instant> = OnceBox::new();
        let since = START.get_or_init(|| Box::new(Instant::now())).elapsed();
        FIRST.after(since)
    }

    fn wall_ms(&self) -> u64 {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }

    fn random(&self, buffer: &mut [u8]) {
        crate::fill_random(buffer);
    }

    fn spawn(&self, name: &str, work: Box<dyn FnOnce() + Send>) -> io::Result<Box<dyn Joiner>> {
        let mut work = Some(work);
        let mut started = Err(io::Error::other("the thread was not started"));
        let mut start = || {
            if let Some(work) = work.take() {
                started = thread::Builder::new().name(name.to_owned()).spawn(work);
            }
        };
        match START_WITHIN.get() {
            Some(around) => around(&mut start),
            None => start(),
        }
        Ok(Box::new(Thread(started?)))
    }

    fn thread(&self) -> u64 {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        thread_local!(static NUMBER: u64 = NEXT.fetch_add(1, Ordering::Relaxed));
        NUMBER.with(|number| *number)
    }

    fn yield_now(&self) {
        check_no_lock();
        thread::yield_now();
    }

    fn has_one_processor(&self) -> bool {
        thread::available_parallelism().is_ok_and(|processors| processors.get() == 1)
    }

    fn parker(&self) -> Arc<dyn Park> {
        Arc::new(Place::new())
    }

    fn poll(&self, watched: &mut [Watched], park: &dyn Park, until: Moment) {
        if let Some(place) = (park as &dyn Any).downcast_ref::<Place>() {
            place.token().poll(watched, until);
        }
    }

    fn resolve(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        check_no_lock();
        let found: Vec<SocketAddr> = (host, port).to_socket_addrs()?.collect();
        match found.is_empty() {
            true => Err(io::Error::new(io::ErrorKind::NotFound, "the name resolves to no address")),
            false => Ok(found),
        }
    }

    fn connect(&self, address: SocketAddr, keep_alive: bool) -> io::Result<Arc<dyn Stream>> {
        check_no_lock();
        let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
        let socket = Socket::new(socket, keep_alive)?;
        match rustix::net::connect(socket.0.get(), &address) {
            Ok(()) | Err(rustix::io::Errno::INPROGRESS) => Ok(Arc::new(socket)),
            Err(error) => Err(error.into()),
        }
    }
}

struct Thread(JoinHandle<()>);

impl Joiner for Thread {
    fn join(self: Box<Self>) {
        check_no_lock();
        // A panic of the thread has been reported by the standard library; there is nothing else to do with it.
        let _ = self.0.join();
    }
}

/// An event descriptor that ends a poll.
struct Bell(Owned);

impl Bell {
    fn new() -> io::Result<Self> {
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        Ok(Self(Owned::unregistered(rustix::event::eventfd(0, flags)?)))
    }

    fn ring(&self) {
        // A counter that is full rings already.
        let _ = rustix::io::write(self.0.get(), &1u64.to_ne_bytes());
    }

    fn silence(&self) {
        let _ = rustix::io::read(self.0.get(), &mut [0; 8]);
    }
}

/// One token in one word that its owner sleeps on, with a bell for the time that the owner spends in a poll.
#[derive(Default)]
struct Token {
    state: AtomicU32,
    bell: OnceLock<Bell>,
}

/// No lock of the module is held across a system call (HA 5); debug builds look.
pub(crate) fn check_no_lock() {
    debug_assert!(locks_held() == 0 || thread::panicking(), "a thread holds a lock across a system call");
}

/// How many tokens a thread keeps for its next parkers, so that an event descriptor is made once and not for each call.
const SPARE_MAX: usize = 8;

thread_local!(static SPARE: RefCell<Vec<Token>> = const { RefCell::new(Vec::new()) });

/// A place to wait; its token goes back to the spare ones.
struct Place {
    token: Option<Token>,
    /// Who made it: by its number, which a child of another namespace may have as well, and by its age.
    process: (Pid, u64),
}

fn this_process() -> (Pid, u64) {
    (getpid(), age())
}

impl Place {
    fn new() -> Self {
        let mut spare = SPARE.try_with(|spare| spare.borrow_mut().pop()).ok().flatten();
        spare = spare.filter(|token| token.bell.get().is_none_or(|bell| bell.0.is_own()));
        if let Some(token) = &spare {
            token.state.store(EMPTY, Ordering::Release);
        }
        Self { token: Some(spare.unwrap_or_default()), process: this_process() }
    }

    fn token(&self) -> &Token {
        self.token.as_ref().expect("a place holds its token until it is dropped")
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(token) = self.token.take() {
            let _ = SPARE.try_with(|spare| {
                let mut spare = spare.borrow_mut();
                if spare.len() < SPARE_MAX {
                    spare.push(token);
                }
            });
        }
    }
}

impl Park for Place {
    fn park(&self, until: Moment) {
        check_no_lock();
        token::park(self.token(), until);
    }

    fn forget(&self) {
        token::forget(self.token());
    }

    fn is_own(&self) -> bool {
        self.process == this_process()
    }

    fn unpark(&self) {
        // Also when the owner does not sleep, which is chance.
        check_no_lock();
        token::unpark(self.token());
    }
}

const DAY: Duration = Duration::from_secs(86_400);

impl Ground for Token {
    type Word = AtomicU32;

    fn word(&self) -> &AtomicU32 {
        &self.state
    }

    fn now(&self) -> Moment {
        System.now()
    }

    fn sleep(&self, span: Duration) {
        // A day at most, so that `NEVER` stays within what the system's clock can add.
        let timeout = Timespec::try_from(span.min(DAY)).unwrap_or_default();
        let _ = futex::wait(&self.state, futex::Flags::PRIVATE, PARKED, Some(&timeout));
    }

    fn wake(&self) {
        let _ = futex::wake(&self.state, futex::Flags::PRIVATE, 1);
    }

    fn ring(&self) {
        if let Some(bell) = self.bell.get() {
            bell.ring();
        }
    }

    fn silence(&self) {
        if let Some(bell) = self.bell.get() {
            bell.silence();
        }
    }
}

impl Token {
    fn poll(&self, watched: &mut [Watched], until: Moment) {
        check_no_lock();
        let bell = match self.bell.get() {
            Some(bell) => Some(bell),
            None => Bell::new().ok().map(|bell| self.bell.get_or_init(|| bell)),
        };
        token::poll(self, || {
            // Without an event descriptor the poll ends by itself every few milliseconds.
            let until = if bell.is_some() { until } else { until.min(System.now().after_ms(5)) };
            poll(watched, bell.map(|bell| bell.0.get()), until)
        });
    }
}

/// Polls streams and a bell; whether the bell has rung.
fn poll(watched: &mut [Watched], bell: Option<&OwnedFd>, until: Moment) -> bool {
    let timeout = Timespec::try_from(until.since(System.now()).min(DAY)).unwrap_or_default();
    let mut found = [PollFlags::empty(); 4];
    let mut many = Vec::new();
    if watched.len() > found.len() {
        many.resize(watched.len(), PollFlags::empty());
    }
    let found = if many.is_empty() { &mut found[..] } else { &mut many[..] };
    let has_rung = ask(watched, bell, &timeout, found);
    let failed = PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL;
    for (one, found) in watched.iter_mut().zip(found) {
        one.readable = found.intersects(PollFlags::IN | failed);
        one.writable = one.for_writing && found.intersects(PollFlags::OUT | failed);
    }
    has_rung
}

fn one_fd(one: &Watched) -> PollFd<'_> {
    let socket = (&*one.stream as &dyn Any).downcast_ref::<Socket>();
    let socket = socket.expect("a platform polls streams that it made itself");
    let write = if one.for_writing { PollFlags::OUT } else { PollFlags::empty() };
    PollFd::from_borrowed_fd(socket.0.get().as_fd(), PollFlags::IN | write)
}

fn ask(watched: &[Watched], bell: Option<&OwnedFd>, timeout: &Timespec, found: &mut [PollFlags]) -> bool {
    let ring = |bell| PollFd::from_borrowed_fd(OwnedFd::as_fd(bell), PollFlags::IN);
    match (watched, bell) {
        // The usual case without a list on the heap.
        ([one], Some(bell)) => {
            let mut fds = [one_fd(one), PollFd::from_borrowed_fd(bell.as_fd(), PollFlags::IN)];
            let _ = rustix::event::poll(&mut fds, Some(timeout));
            fds.iter()
                .zip(found.iter_mut().take(watched.len()))
                .for_each(|(fd, found)| *found = fd.revents());
            fds.last().is_some_and(|bell| !bell.revents().is_empty())
        }
        _ => {
            let mut fds: Vec<PollFd<'_>> = watched.iter().map(one_fd).chain(bell.map(ring)).collect();
            let _ = rustix::event::poll(&mut fds, Some(timeout));
            fds.iter()
                .zip(found.iter_mut().take(watched.len()))
                .for_each(|(fd, found)| *found = fd.revents());
            bell.is_some() && fds.last().is_some_and(|bell| !bell.revents().is_empty())
        }
    }
}

/// A socket that never blocks.
struct Socket(Owned);

impl Socket {
    fn new(socket: OwnedFd, keep_alive: bool) -> io::Result<Self> {
        let this = Self(Owned::registered(socket));
        let socket = this.0.get();
        sockopt::set_tcp_nodelay(socket, true)?;
        if keep_alive {
            sockopt::set_socket_keepalive(socket, true)?;
            sockopt::set_tcp_keepidle(socket, Duration::from_secs(10))?;
            sockopt::set_tcp_keepintvl(socket, Duration::from_secs(5))?;
            sockopt::set_tcp_keepcnt(socket, 3)?;
        }
        Ok(this)
    }
}

impl Stream for Socket {
    fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        check_no_lock();
        Ok(rustix::net::recv(self.0.get(), buffer, RecvFlags::empty())?.0)
    }

    fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        check_no_lock();
        Ok(rustix::net::send(self.0.get(), bytes, SendFlags::NOSIGNAL)?)
    }

    fn shutdown(&self) {
        check_no_lock();
        // An error means that it is closed already.
        let _ = rustix::net::shutdown(self.0.get(), Shutdown::Both);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::cast_possible_truncation, clippy::indexing_slicing)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::{AsRawFd as _, RawFd};

    use super::*;
    use crate::registry::tests::stands;

    fn pair(keep_alive: bool) -> (Arc<dyn Stream>, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = System.resolve("127.0.0.1", listener.local_addr().unwrap().port()).unwrap()[0];
        let stream = System.connect(address, keep_alive).unwrap();
        (stream, listener.accept().unwrap().0)
    }

    fn polled(stream: &Arc<dyn Stream>, for_writing: bool, ms: u64) -> (bool, bool) {
        let mut watched = [Watched::new(stream.clone(), for_writing)];
        System.poll(&mut watched, &*System.parker(), System.now().after_ms(ms));
        (watched[0].readable, watched[0].writable)
    }

    fn descriptor(stream: &Arc<dyn Stream>) -> RawFd {
        (&**stream as &dyn Any).downcast_ref::<Socket>().unwrap().0.get().as_raw_fd()
    }

    #[test]
    fn keep_alive_is_set_for_1_and_not_for_0() {
        for wanted in [true, false] {
            let (stream, _peer) = pair(wanted);
            let socket = (&*stream as &dyn Any).downcast_ref::<Socket>().unwrap().0.get();
            assert_eq!(sockopt::socket_keepalive(socket).unwrap(), wanted);
            assert!(sockopt::tcp_nodelay(socket).unwrap());
            if wanted {
                assert_eq!(sockopt::tcp_keepidle(socket).unwrap(), Duration::from_secs(10));
                assert_eq!(sockopt::tcp_keepcnt(socket).unwrap(), 3);
            }
        }
    }

    #[test]
    fn descriptors_stand_in_the_registry_while_they_are_open() {
        // Nothing listens there: the socket stands in the registry while it connects, too.
        let connecting = System.connect("192.0.2.1:9".parse().unwrap(), false);
        assert!(connecting.as_ref().is_ok_and(|stream| stands(descriptor(stream))) || connecting.is_err());
        let (stream, _peer) = pair(false);
        let number = descriptor(&stream);
        assert!(stands(number));
        let copy = rustix::io::dup((&*stream as &dyn Any).downcast_ref::<Socket>().unwrap().0.get()).unwrap();
        assert!(!stands(copy.as_raw_fd()), "never registered");
        let bell = Bell::new().unwrap();
        assert!(!stands(bell.0.get().as_raw_fd()), "nothing tells it from the application's own");
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
    fn a_token_that_is_forgotten_ends_no_wait_and_the_next_one_does() {
        let (stream, _peer) = pair(false);
        let park = System.parker();
        for polls in [false, true] {
            park.unpark();
            park.forget();
            let wait = |until| {
                if polls {
                    System.poll(&mut [Watched::new(stream.clone(), false)], &*park, until);
                } else {
                    park.park(until);
                }
            };
            let end = System.now().after_ms(20);
            wait(end);
            assert!(System.now() >= end);
            park.forget();
            park.unpark();
            wait(Moment::NEVER);
        }
    }

    #[test]
    fn a_poll_ends_with_a_token_left_before_or_meanwhile() {
        let (stream, _peer) = pair(false);
        let park = System.parker();
        park.unpark();
        System.poll(&mut [Watched::new(stream.clone(), false)], &*park, Moment::NEVER);
        for round in 0..100 {
            let other = park.clone();
            let thread = thread::spawn(move || {
                if round % 2 == 0 {
                    thread::sleep(Duration::from_millis(1));
                }
                other.unpark();
            });
            System.poll(&mut [Watched::new(stream.clone(), false)], &*park, Moment::NEVER);
            thread.join().unwrap();
            let before = System.now();
            System.poll(&mut [], &*park, before.after_ms(1));
            assert!(System.now() >= before.after_ms(1), "one token ends one poll");
        }
    }

    #[test]
    fn a_new_parker_has_no_token_of_an_older_one() {
        let park = System.parker();
        park.unpark();
        drop(park);
        let before = System.now();
        System.parker().park(before.after_ms(20));
        assert!(System.now() >= before.after_ms(20));
    }

    #[test]
    fn a_poll_tells_what_can_be_read_and_a_shutdown_ends_it() {
        let (stream, mut peer) = pair(true);
        assert_eq!(polled(&stream, true, 5_000), (false, true));
        assert_eq!(stream.read(&mut [0; 8]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        assert_eq!(polled(&stream, false, 10), (false, false));
        peer.write_all(b"abc").unwrap();
        assert_eq!(polled(&stream, false, 5_000), (true, false));
        assert_eq!(stream.read(&mut [0; 8]).unwrap(), 3);
        let other = stream.clone();
        let thread = thread::spawn(move || polled(&other, false, 60_000));
        stream.shutdown();
        assert_eq!(thread.join().unwrap(), (true, false));
        assert_eq!(stream.read(&mut [0; 8]).unwrap(), 0);
    }

    #[test]
    fn a_full_peer_lets_no_write_block() {
        let (stream, mut peer) = pair(false);
        let block = vec![0; 1 << 20];
        let mut written = 0;
        loop {
            match stream.write(&block) {
                Ok(count) => written += count,
                Err(error) => break assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
            }
        }
        assert!(written > 0);
        assert_eq!(polled(&stream, true, 10), (false, false));
        let mut rest = vec![0; written];
        peer.read_exact(&mut rest).unwrap();
        assert_eq!(polled(&stream, true, 5_000), (false, true));
    }

    #[test]
    fn a_refused_connection_is_told_when_it_is_used() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let stream = match System.connect(address, false) {
            Ok(stream) => stream,
            Err(error) => return assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused),
        };
        assert_eq!(polled(&stream, true, 5_000), (true, true));
        assert_eq!(stream.write(b"x").unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
    }
}
