//! Peers that misbehave and names that do not resolve hold up nobody else (HA 4.2, 4.5).
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use ntls::links::ServerAddress;
use ntls::platform::System;
use rustix::net::{AddressFamily, SocketType};
use spec::platform::{Joiner, Moment, Park, Platform, Stream, Watched};
use spec::seam::{Event, Fault, Seam as _, Standing};

mod support;
use support::{Act, MEMBER, Server, Tended, World, echo, next, request, until_up, waiter, within};

type Resolver = dyn Fn(&str) -> io::Result<Vec<SocketAddr>> + Send + Sync;

/// The system with a resolver of the test's.
struct Names(Box<Resolver>);

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
    fn resolve(&self, host: &str, _port: u16) -> io::Result<Vec<SocketAddr>> {
        (self.0)(host)
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
    let names = Names(Box::new(move |_| {
        drop(wait.lock());
        end.store(true, Ordering::Release);
        Err(io::Error::other("no such name"))
    }));
    let links = Tended::over(Arc::new(names), world.settings(vec![named("slow.test"), server.name()]));
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
fn a_name_is_looked_up_by_the_caller_where_no_thread_may_be_made() {
    let world = World::new();
    let server = Server::start(world.plan(echo()));
    let (here, address) = (thread::current().id(), server.address);
    let names = Names(Box::new(move |_| {
        assert_eq!(thread::current().id(), here);
        Ok(vec![address])
    }));
    let mut settings = world.settings(vec![named("here.test")]);
    settings.may_spawn = false;
    let links = ntls::links::Links::new(Arc::new(names), settings);
    until_up(&links);
    links.close();
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
    let names = Names(Box::new(move |_| Ok(vec![silent, good])));
    let links = Tended::over(Arc::new(names), world.settings(vec![named("two.test")]));
    until_up(&links);
}
