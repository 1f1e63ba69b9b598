//! Platform of one simulated process with a network (HA 8): what `Simulated` is, and sockets, names, threads that another one
//! overtakes at each system call, and threads that stand still in the middle of one.
use std::any::Any;
use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use ntls::links::Links;
use spec::platform::{Joiner, Moment, Park, Platform, SocketAddr, Stream, Watched, locks_held};

use super::ledger::Ledger;
use super::server::Server;
use super::wire::{Line, Socket, Way, Wire, socket};
use super::{MS, S, US};
use crate::platform::Simulated;
use crate::world::{World, current_thread};

/// The network as all processes see it.
pub(crate) struct Network {
    pub(crate) world: Arc<World>,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) servers: Vec<Arc<Server>>,
    line: Line,
    wires: Mutex<Vec<Weak<Wire>>>,
    /// Looking up a name takes long, or comes to nothing.
    names_fail: AtomicBool,
    /// Until when new connections of each process to each server lead nowhere.
    cut_until: Mutex<Vec<Vec<u64>>>,
}

impl Network {
    /// A network that works.
    pub(crate) fn new(
        world: &Arc<World>,
        ledger: &Arc<Ledger>,
        servers: Vec<Arc<Server>>,
        line: Line,
        processes: usize,
    ) -> Arc<Self> {
        Arc::new(Self {
            world: world.clone(),
            ledger: ledger.clone(),
            line,
            wires: Mutex::default(),
            names_fail: AtomicBool::new(false),
            cut_until: Mutex::new(vec![vec![0; servers.len()]; processes + 1]),
            servers,
        })
    }

    /// The connections that there are, in the order of their beginnings.
    pub(crate) fn wires(&self) -> Vec<Arc<Wire>> {
        let mut wires = held(&self.wires);
        wires.retain(|wire| wire.strong_count() > 0);
        wires.iter().filter_map(Weak::upgrade).collect()
    }

    /// Whether names are looked up in vain from now on.
    pub(crate) fn lose_names(&self, lost: bool) {
        self.names_fail.store(lost, Ordering::Relaxed);
    }

    /// New connections of a process lead nowhere until then.
    pub(crate) fn cut(&self, process: usize, until: u64) {
        held(&self.cut_until)[process].fill(until);
    }

    /// New connections of a process to one server lead nowhere until then.
    pub(crate) fn cut_one(&self, process: usize, server: usize, until: u64) {
        held(&self.cut_until)[process][server] = until;
    }

    /// Nothing passes these ways between a process and a server until then.
    pub(crate) fn hold_between(&self, process: usize, server: usize, ways: &[Way], until: u64) {
        for wire in self.wires_between(process, server) {
            ways.iter().for_each(|way| wire.hold(*way, until));
        }
    }

    /// What connects a process and a server breaks.
    pub(crate) fn break_between(&self, process: usize, server: usize) {
        self.wires_between(process, server).iter().for_each(Wire::reset);
    }

    fn wires_between(&self, process: usize, server: usize) -> Vec<Arc<Wire>> {
        let mut wires = self.wires();
        wires.retain(|wire| wire.process == process && wire.server.number == server && wire.is_open());
        wires
    }

    fn connect(self: &Arc<Self>, process: usize, address: SocketAddr) -> Option<Arc<Wire>> {
        let IpAddr::V4(ip) = address.ip() else { return None };
        let server = self.servers.get(usize::from(ip.octets()[3]))?.clone();
        let place = server.number;
        let number = self.world.chance(|chance| chance.bits() >> 40);
        self.world.note(number, || format!("process {process} connects to {address}: connection {number}"));
        let wire = Wire::begin(&self.world, &self.ledger, self.line, (number, process, server));
        wire.hold(Way::Up, held(&self.cut_until)[process][place]);
        held(&self.wires).push(Arc::downgrade(&wire));
        Some(wire)
    }
}

/// The platform of one process.
pub(crate) struct Desk {
    base: Arc<Simulated>,
    network: Arc<Network>,
    process: usize,
    /// What the process has made with this platform.
    links: OnceLock<Weak<Links>>,
    threads: Mutex<Vec<usize>>,
    streams: AtomicI64,
    /// From when to when something of the process stood still: one thread, or all.
    stalls: Mutex<Vec<(u64, u64, Option<usize>)>>,
    /// The next thread that reads for all stands still for so long.
    next_stall: Mutex<Option<u64>>,
    /// For each thread, how often it has waited since when.
    waits: Mutex<BTreeMap<usize, (u64, u32)>>,
    /// Whether the system refuses a thread now and then.
    refuses: AtomicBool,
    own: OnceLock<Weak<Desk>>,
}

/// A thread that waits so often within so many nanoseconds does not wait.
const WAITS_MAX: u32 = 2_000;
const WAITS_SPAN: u64 = 10 * MS;

fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Desk {
    /// The platform of a process.
    pub(crate) fn new(network: &Arc<Network>, process: usize) -> Arc<Self> {
        Self::over(network, Simulated::new(network.world.clone(), process))
    }

    /// The platform of a process over one without a network.
    pub(crate) fn over(network: &Arc<Network>, base: Arc<Simulated>) -> Arc<Self> {
        let process = base.process();
        let desk = Arc::new(Self {
            base,
            network: network.clone(),
            process,
            links: OnceLock::new(),
            threads: Mutex::default(),
            streams: AtomicI64::new(0),
            stalls: Mutex::default(),
            next_stall: Mutex::default(),
            waits: Mutex::default(),
            refuses: AtomicBool::new(true),
            own: OnceLock::new(),
        });
        desk.own.get_or_init(|| Arc::downgrade(&desk));
        desk
    }

    fn world(&self) -> &Arc<World> {
        &self.network.world
    }

    fn own(&self) -> Arc<Desk> {
        self.own.get().and_then(Weak::upgrade).expect("a desk that is asked is there")
    }

    /// Whose invariants are looked at whenever a thread parks.
    pub(crate) fn watch(&self, links: &Arc<Links>) {
        self.links.get_or_init(|| Arc::downgrade(links));
    }

    /// The system never refuses the process a thread.
    pub(crate) fn grant_threads(&self) {
        self.refuses.store(false, Ordering::Relaxed);
    }

    /// Streams that are open.
    pub(crate) fn streams(&self) -> i64 {
        self.streams.load(Ordering::Relaxed)
    }

    pub(crate) fn count_stream(&self, more: i64) {
        self.streams.fetch_add(more, Ordering::Relaxed);
    }

    /// Threads that the process has started through Platform and that have not ended.
    pub(crate) fn threads(&self) -> usize {
        held(&self.threads).iter().filter(|thread| !self.world().has_ended(**thread)).count()
    }

    /// All threads of the process stand still for so long, unless they have done so just now.
    pub(crate) fn pause(&self, nanoseconds: u64) {
        let now = self.world().now();
        if held(&self.stalls).iter().any(|(_, end, who)| who.is_none() && now < *end + S) {
            return;
        }
        self.stand_still(nanoseconds);
    }

    /// All threads of the process stand still for so long.
    pub(crate) fn stand_still(&self, nanoseconds: u64) {
        self.world().pause(self.process, nanoseconds);
        self.note_stall(nanoseconds, None);
    }

    /// The next thread that reads stands still for so long, with the leadership in its hands.
    pub(crate) fn stall_leader(&self, nanoseconds: u64) {
        held(&self.next_stall).get_or_insert(nanoseconds);
    }

    /// No thread is to stand still any more; until when those do that have begun to.
    pub(crate) fn calm(&self) -> u64 {
        held(&self.next_stall).take();
        held(&self.stalls).iter().map(|(_, end, _)| *end).max().unwrap_or(0)
    }

    fn note_stall(&self, nanoseconds: u64, thread: Option<usize>) {
        let now = self.world().now();
        held(&self.stalls).push((now, now + nanoseconds, thread));
    }

    /// Whether something of the process stood still between two moments, or had just ended to; with a thread, whether that
    /// one did.
    pub(crate) fn was_stalled(&self, from: u64, to: u64, thread: Option<usize>) -> bool {
        held(&self.stalls).iter().any(|(begin, end, who)| {
            *begin <= to && from <= *end + 5 * MS && (thread.is_none() || who.is_none() || *who == thread)
        })
    }

    /// A thread enters the operating system: no lock may be held, and another thread may overtake it.
    pub(crate) fn enter_system(&self, what: &str) {
        if locks_held() > 0 {
            self.world().fail(format!("HA 5 (2): a lock is held across a system call ({what})"));
        }
        self.overtaken(4);
    }

    /// A thread is about to wait.
    fn count_wait(&self) {
        let now = self.world().now();
        let mut waits = held(&self.waits);
        let (since, count) = waits.entry(current_thread()).or_insert((now, 0));
        if now - *since > WAITS_SPAN {
            (*since, *count) = (now, 0);
        }
        *count += 1;
        if *count == WAITS_MAX {
            self.world().fail(format!("a thread runs in a circle: {WAITS_MAX} waits within 10 ms"));
        }
    }

    /// Now and then other threads go on before this one, for a moment or for as long as a processor may be away.
    fn overtaken(&self, once_in: u64) {
        let away = self.world().chance(|chance| match chance.once_in(once_in) {
            true if chance.once_in(2) => Some(0),
            true => Some(US << chance.below(9)),
            false => None,
        });
        match away {
            None => {}
            Some(0) => self.world().give_way(),
            Some(nanoseconds) => self.world().sleep(nanoseconds),
        }
    }

    /// Whether the links keep their invariants; `place` is that of a thread that is about to park.
    fn look(&self, place: Option<&dyn Park>) {
        let links = self.links.get().and_then(Weak::upgrade);
        if let Some(broken) = links.and_then(|links| links.broken_rule(place)) {
            self.world().fail(broken);
        }
    }

    /// A thread that reads for all stands still, if that is its lot.
    pub(crate) fn lead_on(&self) {
        let stall = held(&self.next_stall).take();
        if let Some(nanoseconds) = stall {
            self.note_stall(nanoseconds, Some(current_thread()));
            self.world().excuse(self.process, nanoseconds);
            self.world().note(nanoseconds, || format!("a thread stands still for {} ms", nanoseconds / MS));
            self.world().sleep(nanoseconds);
        }
    }

    fn early(&self) -> bool {
        self.world().chance(|chance| chance.once_in(64))
    }
}

impl Platform for Desk {
    fn now(&self) -> Moment {
        let now = self.base.now();
        self.overtaken(16);
        now
    }

    fn wall_ms(&self) -> u64 {
        self.base.wall_ms()
    }

    fn random(&self, buffer: &mut [u8]) {
        self.base.random(buffer);
    }

    fn spawn(&self, name: &str, work: Box<dyn FnOnce() + Send>) -> io::Result<Box<dyn Joiner>> {
        let refuses = self.refuses.load(Ordering::Relaxed);
        if refuses && self.world().chance(|chance| chance.once_in(16)) {
            return Err(ErrorKind::WouldBlock.into());
        }
        let thread = self.world().spawn(self.process, work);
        self.world().note(thread as u64, || format!("thread {thread} is {name}"));
        held(&self.threads).push(thread);
        Ok(Box::new(Ended(self.own(), thread)))
    }

    fn thread(&self) -> u64 {
        self.base.thread()
    }

    fn yield_now(&self) {
        self.overtaken(2);
    }

    fn parker(&self) -> Arc<dyn Park> {
        Arc::new(Token { desk: self.own(), left: AtomicBool::new(false), waiting: Mutex::default() })
    }

    fn poll(&self, watched: &mut [Watched], park: &dyn Park, until: Moment) {
        self.enter_system("poll");
        self.count_wait();
        self.look(None);
        let token = (park as &dyn Any).downcast_ref::<Token>();
        let token = token.expect("a platform polls with parkers that it made itself");
        if token.left.swap(false, Ordering::AcqRel) {
            return;
        }
        if !found(watched) && self.world().now() < until.0 && !self.early() {
            let me = current_thread();
            watched.iter().for_each(|one| socket(&*one.stream).polled_by(me, true));
            *held(&token.waiting) = Some(me);
            self.world().park(until.0);
            *held(&token.waiting) = None;
            watched.iter().for_each(|one| socket(&*one.stream).polled_by(me, false));
            token.left.store(false, Ordering::Release);
            found(watched);
        }
    }

    fn resolve(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        self.enter_system("resolve");
        let fails = self.network.names_fail.load(Ordering::Relaxed);
        let wait = self
            .world()
            .chance(|chance| if fails { chance.between(1, 20) * S } else { chance.below(3 * MS) });
        self.world().sleep(wait);
        let number = host.strip_prefix("hsm").and_then(|rest| rest.strip_suffix(".example"));
        match number.and_then(|number| number.parse().ok()).filter(|_| !fails) {
            Some(number) => Ok(addresses(number, port)),
            None => Err(io::Error::new(ErrorKind::NotFound, "no such name")),
        }
    }

    fn connect(&self, address: SocketAddr, _: bool) -> io::Result<Arc<dyn Stream>> {
        self.enter_system("connect");
        let wire = self.network.connect(self.process, address).ok_or(ErrorKind::NetworkUnreachable)?;
        Ok(Arc::new(Socket::new(wire, self.own())))
    }
}

/// The addresses of a server by its name: one that leads nowhere, and its own.
fn addresses(number: u8, port: u16) -> Vec<SocketAddr> {
    let at = |last| SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 0, last)), port);
    vec![at(u8::MAX), at(number)]
}

/// Fills in what a poll finds; whether it is anything.
fn found(watched: &mut [Watched]) -> bool {
    let mut any = false;
    for one in watched {
        let (readable, writable) = socket(&*one.stream).readiness();
        (one.readable, one.writable) = (readable, writable && one.for_writing);
        any |= one.readable || one.writable;
    }
    any
}

struct Ended(Arc<Desk>, usize);

impl Joiner for Ended {
    fn join(self: Box<Self>) {
        self.0.world().join(self.1);
    }
}

/// A place to wait.
struct Token {
    desk: Arc<Desk>,
    left: AtomicBool,
    waiting: Mutex<Option<usize>>,
}

impl Park for Token {
    fn park(&self, until: Moment) {
        self.desk.enter_system("park");
        self.desk.count_wait();
        self.desk.look(Some(self));
        if self.left.swap(false, Ordering::AcqRel) || self.desk.early() {
            return;
        }
        *held(&self.waiting) = Some(current_thread());
        self.desk.world().park(until.0);
        *held(&self.waiting) = None;
        self.left.store(false, Ordering::Release);
    }

    fn unpark(&self) {
        self.left.store(true, Ordering::Release);
        let waiting = *held(&self.waiting);
        if let Some(thread) = waiting {
            self.desk.world().wake(thread);
        }
        self.desk.overtaken(3);
    }

    fn forget(&self) {
        self.desk.overtaken(3);
        self.left.store(false, Ordering::Release);
        self.desk.overtaken(3);
    }
}
