//! Peers that misbehave and names that do not resolve hold up nobody else (HA 4.2, 4.5).
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use ntls::links::{LinkSettings, Links, ServerAddress};
use ntls::platform::System;
use rustix::net::{AddressFamily, SocketType};
use spec::platform::{Joiner, Moment, Park, Platform, Stream, Watched};
use spec::seam::{Event, Fault, Seam as _, Standing};

mod support;
use support::{Act, MEMBER, Server, Tended, World, echo, next, request, until_up, waiter, within};

type Resolver = dyn Fn(&str) -> io::Result<Vec<SocketAddr>> + Send + Sync;

/// The system with a resolver of the test's.
struct Names {
    resolver: Box<Resolver>,
    polls: AtomicUsize,
    /// So many threads are refused.
    refused: AtomicUsize,
    /// No thread goes on from a poll that ends between these two moments before the later one.
    stall: Mutex<Option<(Moment, Moment)>>,
    /// Whether there is one processor.
    is_small: bool,
}

impl Names {
    fn new(resolver: impl Fn(&str) -> io::Result<Vec<SocketAddr>> + Send + Sync + 'static) -> Arc<Self> {
        Self::on(false, resolver)
    }

    fn on(
        is_small: bool,
        resolver: impl Fn(&str) -> io::Result<Vec<SocketAddr>> + Send + Sync + 'static,
    ) -> Arc<Self> {
        Arc::new(Self {
            is_small,
            resolver: Box::new(resolver),
            polls: AtomicUsize::new(0),
            refused: AtomicUsize::new(0),
            stall: Mutex::default(),
        })
    }
}

impl Platform for Names {
    fn now(&self) -> Moment {
        System.now()
    }
    fn wall_ms(&self) -> u64 {
        System.wall_ms()
    }
    fn random(&self, buffer: &mut [u8]) {
        System.random(buffer);
    }
    fn spawn(&self, name: &str, work: Box<dyn FnOnce() + Send>) -> io::Result<Box<dyn Joiner>> {
        match self.refused.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)) {
            Ok(_) => Err(io::ErrorKind::WouldBlock.into()),
            Err(_) => System.spawn(name, work),
        }
    }
    fn thread(&self) -> u64 {
        System.thread()
    }
    fn yield_now(&self) {
        System.yield_now();
    }
    fn has_one_processor(&self) -> bool {
        self.is_small
    }
    fn parker(&self) -> Arc<dyn Park> {
        System.parker()
    }
    fn poll(&self, watched: &mut [Watched], park: &dyn Park, until: Moment) {
        self.polls.fetch_add(1, Ordering::Relaxed);
        System.poll(watched, park, until);
        let stall = *self.stall.lock().unwrap();
        if let Some((_, end)) = stall.filter(|(begin, end)| (*begin..*end).contains(&System.now())) {
            thread::sleep(end.since(System.now()));
        }
    }
    fn resolve(&self, host: &str, _port: u16) -> io::Result<Vec<SocketAddr>> {
        (self.resolver)(host)
    }
    fn connect(&self, address: SocketAddr, keep_alive: bool) -> io::Result<Arc<dyn Stream>> {
        System.connect(address, keep_alive)
    }
}

fn named(host: &str) -> ServerAddress {
    ServerAddress { host: host.to_owned(), port: 1792 }
}

#[test]
fn a_peer_that_ends_tls_and_not_its_socket_is_dropped_whatever_it_sends_behind() {
    let world = World::new();
    let server = Server::start(world.plan(Arc::new(|_, _| vec![Act::Behind, Act::Sleep(1_000)])));
    let links = world.links(vec![server.name()]);
    let waiter = waiter();
    let tag = links.submit(&waiter, MEMBER, &request(vec![1]), within(60_000));
    assert!(matches!(next(&links, &waiter, 10_000), Event::Fault(found, Fault::Unknown) if found == tag));
    let (_, standing) = links.servers().remove(0);
    assert!(matches!(standing, Standing::Down { reason } if reason.contains("closed the connection")));
}

#[test]
fn a_name_that_is_long_in_resolving_holds_up_no_other_server() {
    let world = World::new();
    let server = Server::start(world.plan(echo()));
    let (done, ended) = (Arc::new(Mutex::new(())), Arc::new(AtomicBool::new(false)));
    let (wait, end) = (done.clone(), ended.clone());
    let held = done.lock().unwrap();
    let names = Names::new(move |_| {
        drop(wait.lock());
        end.store(true, Ordering::Release);
        Err(io::Error::other("no such name"))
    });
    let links = Tended::over(names, world.settings(vec![named("slow.test"), server.name()]));
    until_up(&links);
    let waiter = waiter();
    let tag = links.submit(&waiter, MEMBER, &request(vec![1]), within(5_000));
    assert!(matches!(next(&links, &waiter, 5_000), Event::Reply(found, _) if found == tag));
    assert!(!ended.load(Ordering::Acquire), "the name is still being looked up");
    drop(held);
    let until = within(10_000);
    let why = || match links.servers().remove(0).1 {
        Standing::Down { reason } => reason,
        Standing::Up { .. } => panic!("there is nothing to be up"),
    };
    while !why().contains("no such name") {
        assert!(System.now() < until, "{}", why());
        thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn who_waits_while_a_name_is_looked_up_sleeps() {
    let world = World::new();
    let done = Arc::new(Mutex::new(()));
    let wait = done.clone();
    let held = done.lock().unwrap();
    let names = Names::new(move |_| {
        drop(wait.lock());
        Err(io::Error::other("no such name"))
    });
    let links = Tended::over(names.clone(), world.settings(vec![named("slow.test")]));
    thread::sleep(Duration::from_millis(300));
    let polls = names.polls.load(Ordering::Relaxed);
    assert!(polls < 50, "{polls} polls in 300 ms");
    drop(held);
    drop(links);
}

#[test]
fn a_name_is_looked_up_by_the_caller_where_no_thread_may_be_made() {
    let world = World::new();
    let server = Server::start(world.plan(echo()));
    let (here, address) = (thread::current().id(), server.address);
    let names = Names::new(move |_| {
        assert_eq!(thread::current().id(), here);
        Ok(vec![address])
    });
    let mut settings = world.settings(vec![named("here.test")]);
    settings.may_spawn = false;
    let links = ntls::links::Links::new(names, settings);
    until_up(&links);
    links.close();
}

#[test]
fn a_caller_looks_up_no_name_because_the_system_refuses_a_thread() {
    let world = World::new();
    let server = Server::start(world.plan(echo()));
    let address = server.address;
    let names = Names::new(move |_| {
        assert_eq!(thread::current().name(), Some("hatoki-resolve"));
        Ok(vec![address])
    });
    names.refused.store(2, Ordering::Relaxed);
    let links = Tended::over(names, world.settings(vec![named("late.test")]));
    until_up(&links);
}

/// An address that neither takes connections nor refuses them: the queue of its listener is full.
fn full() -> (rustix::fd::OwnedFd, Vec<Arc<dyn Stream>>, SocketAddr) {
    let listener = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
    rustix::net::bind(&listener, &any).unwrap();
    rustix::net::listen(&listener, 0).unwrap();
    let address = TcpListener::from(listener.try_clone().unwrap()).local_addr().unwrap();
    let waiting = (0..8).map(|_| System.connect(address, false).unwrap()).collect();
    (listener, waiting, address)
}

#[test]
fn an_address_that_is_silent_gives_way_to_the_next_one() {
    let world = World::new();
    let server = Server::start(world.plan(echo()));
    let (_listener, _waiting, silent) = full();
    let good = server.address;
    let names = Names::new(move |_| Ok(vec![silent, good]));
    let links = Tended::over(names, world.settings(vec![named("two.test")]));
    until_up(&links);
}

/// HA 5 (3): the server says nothing for most of `ReceiveTimeout`; then this process does not run, and goes on behind the
/// poll of the thread that leads, while the answer lies in the socket.
#[test]
fn ha_5_an_answer_that_lies_unread_after_a_stall_of_our_own_is_read() {
    let world = World::new();
    let server =
        Server::start(world.plan(Arc::new(|_, body| vec![Act::Sleep(850), Act::Reply(body.to_vec())])));
    let mut settings = world.settings(vec![server.name()]);
    settings.receive_timeout_ms = 1_000;
    let address = server.address;
    let platform = Names::new(move |_| Ok(vec![address]));
    let links = Links::new(platform.clone(), settings);
    until_up(&links);
    let (waiter, begun) = (waiter(), System.now());
    *platform.stall.lock().unwrap() = Some((begun.after_ms(600), begun.after_ms(1_600)));
    let tag = links.submit(&waiter, MEMBER, &request(vec![1]), within(60_000));
    let event = next(&links, &waiter, 10_000);
    let is_fault = matches!(event, Event::Fault(..));
    assert!(matches!(event, Event::Reply(found, _) if found == tag), "given up: {is_fault}");
}

#[test]
fn short_requests_go_together_on_one_processor_and_behind_no_long_one() {
    for is_small in [true, false] {
        let world = World::new();
        let late = |body: &[u8]| vec![Act::Sleep(300), Act::Reply(body.to_vec())];
        let server = Server::start(world.plan(Arc::new(move |_, body| late(body))));
        let name = server.name();
        let platform = Names::on(is_small, move |host| System.resolve(host, name.port));
        let settings = world.settings(vec![server.name()]);
        let links = Tended::over(platform, LinkSettings { links_per_member: 2, ..settings });
        let until = within(10_000);
        while links.links_up() < 2 {
            assert!(System.now() < until);
            thread::sleep(Duration::from_millis(5));
        }
        // A tag tells its link in its lower bits.
        let waiter = waiter();
        let link = |bytes| links.submit(&waiter, MEMBER, &request(vec![7; bytes]), within(20_000)).0 & 0xffff;
        let answered = |count| {
            (0..count).for_each(|_| assert!(matches!(next(&links, &waiter, 20_000), Event::Reply(..))));
        };
        let (short, other, long) = (link(10), link(10), link(20_000));
        assert_eq!((short == other, short == long), (is_small, !is_small));
        answered(3);
        let (long, behind) = (link(20_000), link(10));
        assert_ne!(long, behind);
        answered(2);
        assert_eq!(link(10), short, "a long request that has ended is in nobody's way");
        answered(1);
    }
}
