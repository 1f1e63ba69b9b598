//! A world for tests: a clock that jumps to the next event, a scripted seam, and members that model a partition in a
//! few lines. The tests of the rules stand below.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, clippy::field_reassign_with_default)]

mod admission;
mod closing;
mod deadlines;
mod in_calls;
mod members;
mod metering;
mod partition;
mod reads;
mod repairing;
mod roles;
mod searches;
mod sick;
mod timing;
mod verdicts;
mod writes;

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use prost::Message;
use spec::messages::{Call, ObjectRef, Outcome, ReplyBody, RequestBody, RequestHeader, Use};
use spec::platform::{Joiner, Lock, Moment, Park, Platform, Stream, Watched};
use spec::seam::{Event, Fault, MemberId, Outgoing, Reply, Seam, Standing, Tag, Waiter};
use spec::{Ouid, Rv};
use zeroize::Zeroizing;

use crate::group::Group;
use crate::settings::GroupSettings;
use partition::Model;

/// The serial number of the group in all tests.
pub(super) const SERIAL: u64 = 1_154;
/// The ticket that the models accept as a Crypto Officer's.
pub(super) const TICKET: &[u8] = b"ticket";
/// The number of the probe.
const STATUS: u32 = 10;
/// How long a request takes, in milliseconds.
const LATENCY_MS: u64 = 1;

/// Names a token object.
pub(super) fn reference(ouid: Ouid) -> ObjectRef {
    ObjectRef { ouid: ouid.0.to_vec(), ..ObjectRef::default() }
}

/// One use of a key.
pub(super) fn one_use(ouid: Ouid) -> Call {
    let mut one = Use::default();
    one.key = Some(reference(ouid));
    Call::Use(one)
}

type Work = Box<dyn FnOnce() + Send>;

/// The clock: it stands still while somebody computes and jumps to the next event when everybody waits.
pub(super) struct Clock {
    now: AtomicU64,
    next: AtomicU64,
    events: Lock<BTreeMap<(u64, u64), Work>>,
    /// How often the process has forked; this is the child.
    forks: AtomicU64,
}

impl Clock {
    fn now(&self) -> Moment {
        Moment(self.now.load(Ordering::SeqCst))
    }

    fn after_ms(&self, ms: u64, work: impl FnOnce() + Send + 'static) {
        let at = self.now().after_ms(ms).0;
        let number = self.next.fetch_add(1, Ordering::SeqCst);
        self.events.lock().insert((at, number), Box::new(work));
    }

    /// Runs the next event that is due until the moment; false when there is none.
    fn step(&self, until: Moment) -> bool {
        let mut events = self.events.lock();
        let Some((key, work)) = events.pop_first() else { return false };
        if key.0 > until.0 {
            events.insert(key, work);
            return false;
        }
        drop(events);
        self.now.fetch_max(key.0, Ordering::SeqCst);
        work();
        true
    }

    fn run_until(&self, until: Moment) {
        while self.step(until) {}
        assert_ne!(until, Moment::NEVER, "nothing will ever happen again");
        self.now.fetch_max(until.0, Ordering::SeqCst);
    }
}

struct FakePark {
    clock: Arc<Clock>,
    token: AtomicBool,
    forks: u64,
}

impl Park for FakePark {
    fn park(&self, until: Moment) {
        while !self.token.swap(false, Ordering::SeqCst) {
            if !self.clock.step(until) {
                self.clock.run_until(until);
                return;
            }
        }
    }

    fn unpark(&self) {
        self.token.store(true, Ordering::SeqCst);
    }

    fn forget(&self) {
        self.token.store(false, Ordering::SeqCst);
    }

    fn is_own(&self) -> bool {
        self.forks == self.clock.forks.load(Ordering::SeqCst)
    }
}

struct FakePlatform {
    clock: Arc<Clock>,
    chance: AtomicU64,
}

impl Platform for FakePlatform {
    fn now(&self) -> Moment {
        self.clock.now()
    }

    fn wall_ms(&self) -> u64 {
        self.clock.now().0 / 1_000_000
    }

    fn random(&self, buffer: &mut [u8]) {
        for byte in buffer {
            let x = self.chance.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::SeqCst);
            *byte = (x ^ (x >> 29) ^ (x >> 43)) as u8;
        }
    }

    fn spawn(&self, _: &str, _: Work) -> io::Result<Box<dyn Joiner>> {
        Err(io::Error::other("no threads in this world"))
    }

    fn parker(&self) -> Arc<dyn Park> {
        let forks = self.clock.forks.load(Ordering::SeqCst);
        Arc::new(FakePark { clock: self.clock.clone(), token: AtomicBool::new(false), forks })
    }

    fn thread(&self) -> u64 {
        0
    }

    fn yield_now(&self) {}

    fn poll(&self, _: &mut [Watched], park: &dyn Park, until: Moment) {
        park.park(until);
    }

    fn resolve(&self, _: &str, _: u16) -> io::Result<Vec<SocketAddr>> {
        Err(io::Error::other("no sockets in this world"))
    }

    fn connect(&self, _: SocketAddr, _: bool) -> io::Result<Arc<dyn Stream>> {
        Err(io::Error::other("no sockets in this world"))
    }
}

/// What befalls one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// Executed and answered.
    Fine,
    /// No byte left.
    NotSent,
    /// Lost on its way: not executed.
    LostBefore,
    /// Executed, its reply lost.
    LostAfter,
    /// Never answered; the link stays.
    Silent,
    /// Not executed; patience asked for.
    Busy(u32),
    /// Refused with this outcome.
    Answer(Outcome),
    /// Refused with this code.
    Rv(Rv),
    /// Executed, answered after so many milliseconds with progress every second.
    Slow(u64),
}

/// One member's place in the scripted network.
struct Place {
    model: Model,
    up: Option<Moment>,
    heard: Moment,
    frozen: bool,
    stuck: bool,
    unread: bool,
    script: BTreeMap<u32, VecDeque<Fate>>,
    outstanding: Vec<(Tag, Arc<Waiter>)>,
}

/// The scripted network with its members.
pub(super) struct World {
    pub(super) clock: Arc<Clock>,
    places: Lock<BTreeMap<MemberId, Place>>,
    tags: AtomicU64,
    sent: Lock<Vec<(MemberId, u32)>>,
    executed: Lock<Vec<(MemberId, u32)>>,
    abandoned: Lock<Vec<MemberId>>,
    cancelled: Lock<Vec<MemberId>>,
    headers: Lock<Vec<RequestHeader>>,
    bodies: Lock<Vec<(u32, Vec<u8>)>>,
    me: std::sync::Weak<World>,
}

impl World {
    /// A group of so many members with serial numbers from 1, all up and empty.
    pub(super) fn new(members: u64) -> Arc<World> {
        let clock = Arc::new(Clock {
            now: AtomicU64::new(1_000_000_000),
            next: AtomicU64::new(0),
            events: Lock::default(),
            forks: AtomicU64::new(0),
        });
        let place = |serial| Place {
            model: Model::new(serial, members),
            up: Some(clock.now()),
            heard: clock.now(),
            frozen: false,
            stuck: false,
            unread: false,
            script: BTreeMap::new(),
            outstanding: Vec::new(),
        };
        let places = (1..=members).map(|serial| (MemberId(serial), place(serial))).collect();
        Arc::new_cyclic(|me| World {
            clock: clock.clone(),
            places: Lock::new(places),
            tags: AtomicU64::new(1),
            sent: Lock::default(),
            executed: Lock::default(),
            abandoned: Lock::default(),
            cancelled: Lock::default(),
            headers: Lock::default(),
            bodies: Lock::default(),
            me: me.clone(),
        })
    }

    /// A group over this world, with the defaults and an outage wait of 5 s.
    pub(super) fn group(self: &Arc<Self>) -> Arc<Group> {
        self.group_with(|_| {})
    }

    /// A group over this world with other settings.
    pub(super) fn group_with(self: &Arc<Self>, change: impl FnOnce(&mut GroupSettings)) -> Arc<Group> {
        let mut settings = GroupSettings {
            members: self.places.lock().keys().copied().collect(),
            serial: Some(SERIAL),
            outage_wait_ms: 5_000,
            ..GroupSettings::default()
        };
        change(&mut settings);
        Group::new(self.platform(), self.clone(), settings)
    }

    /// A platform whose clock is the world's.
    pub(super) fn platform(&self) -> Arc<dyn Platform> {
        Arc::new(FakePlatform { clock: self.clock.clone(), chance: AtomicU64::new(7) })
    }

    /// The process forks: what was made before is the parent's.
    pub(super) fn fork(&self) {
        self.clock.forks.fetch_add(1, Ordering::SeqCst);
    }

    /// Milliseconds since the world began.
    pub(super) fn ms(&self) -> u64 {
        self.clock.now().0 / 1_000_000 - 1_000
    }

    /// The next request of this call to this member meets this fate (after those told before).
    pub(super) fn script(&self, member: u64, call: u32, fate: Fate) {
        let mut places = self.places.lock();
        places.get_mut(&MemberId(member)).unwrap().script.entry(call).or_default().push_back(fate);
    }

    /// Forgets the scripted fates of a member.
    pub(super) fn unscript(&self, member: u64) {
        self.places.lock().get_mut(&MemberId(member)).unwrap().script.clear();
    }

    /// Looks at or changes a member's model.
    pub(super) fn model<T>(&self, member: u64, look: impl FnOnce(&mut Model) -> T) -> T {
        look(&mut self.places.lock().get_mut(&MemberId(member)).unwrap().model)
    }

    /// Takes a member's link down; what was outstanding ends with an unknown outcome.
    pub(super) fn down(&self, member: u64) {
        let mut places = self.places.lock();
        let place = places.get_mut(&MemberId(member)).unwrap();
        place.up = None;
        for (tag, waiter) in place.outstanding.drain(..) {
            waiter.deliver(Event::Fault(tag, Fault::Unknown));
        }
    }

    /// Brings a member's link up again.
    pub(super) fn up(&self, member: u64) {
        // A link never comes up at the moment of another one.
        let now = Moment(self.clock.now.fetch_add(1, Ordering::SeqCst) + 1);
        let mut places = self.places.lock();
        let place = places.get_mut(&MemberId(member)).unwrap();
        place.up = Some(now);
        place.heard = now;
        place.frozen = false;
    }

    /// The member answers nothing any more, its link stays up.
    pub(super) fn freeze(&self, member: u64) {
        self.places.lock().get_mut(&MemberId(member)).unwrap().frozen = true;
    }

    /// The member of `freeze` answers again, on the same link.
    pub(super) fn thaw(&self, member: u64) {
        self.places.lock().get_mut(&MemberId(member)).unwrap().frozen = false;
    }

    /// How many requests were sent, of all calls.
    pub(super) fn sent_in_all(&self) -> usize {
        self.sent.lock().len()
    }

    /// The member answers probes and does no work, or works again.
    pub(super) fn stick(&self, member: u64, stuck: bool) {
        self.places.lock().get_mut(&MemberId(member)).unwrap().stuck = stuck;
    }

    /// Bytes of the member lie unread on our side, or do no more.
    pub(super) fn unread(&self, member: u64, unread: bool) {
        self.places.lock().get_mut(&MemberId(member)).unwrap().unread = unread;
    }

    /// The members at which a request was cancelled, in order.
    pub(super) fn cancelled(&self) -> Vec<u64> {
        self.cancelled.lock().iter().map(|member| member.0).collect()
    }

    /// The header of the last request.
    pub(super) fn last_header(&self) -> RequestHeader {
        self.headers.lock().last().unwrap().clone()
    }

    /// Does something after so many milliseconds.
    pub(super) fn later(self: &Arc<Self>, ms: u64, work: impl FnOnce(&World) + Send + 'static) {
        let world = self.clone();
        self.clock.after_ms(ms, move || work(&world));
    }

    /// Lets time pass.
    pub(super) fn pass_ms(&self, ms: u64) {
        self.clock.run_until(self.clock.now().after_ms(ms));
    }

    /// So many rounds of background work, each at its time.
    pub(super) fn tend(&self, group: &Group, rounds: usize) {
        for _ in 0..rounds {
            let next = group.tend();
            self.clock.run_until(next);
        }
    }

    /// The members to which this call was sent, in order.
    pub(super) fn sent(&self, call: u32) -> Vec<u64> {
        self.sent.lock().iter().filter(|(_, number)| *number == call).map(|(member, _)| member.0).collect()
    }

    /// The members that executed this call, in order.
    pub(super) fn executed(&self, call: u32) -> Vec<u64> {
        self.executed
            .lock()
            .iter()
            .filter(|(_, number)| *number == call)
            .map(|(member, _)| member.0)
            .collect()
    }

    /// The bodies of this call as they were sent, in order.
    pub(super) fn bodies(&self, call: u32) -> Vec<Vec<u8>> {
        let bodies = self.bodies.lock();
        bodies.iter().filter(|(number, _)| *number == call).map(|(_, body)| body.clone()).collect()
    }

    /// Forgets what was sent and executed so far.
    pub(super) fn forget(&self) {
        self.bodies.lock().clear();
        self.sent.lock().clear();
        self.executed.lock().clear();
        self.cancelled.lock().clear();
    }

    /// The members whose links were given up.
    pub(super) fn abandoned(&self) -> Vec<u64> {
        self.abandoned.lock().iter().map(|member| member.0).collect()
    }

    /// Whether each member holds the object committed.
    pub(super) fn holders(&self, ouid: Ouid) -> Vec<bool> {
        self.places.lock().values().map(|place| place.model.is_live(ouid)).collect()
    }

    fn execute(&self, member: MemberId, request: &Outgoing, number: u32) -> Event {
        self.executed.lock().push((member, number));
        let mut places = self.places.lock();
        let place = places.get_mut(&member).unwrap();
        let body = RequestBody::decode(request.body.as_slice()).unwrap();
        let reply = place.model.handle(body, &request.header);
        let body = Zeroizing::new(reply.encode_to_vec());
        Event::Reply(Tag(0), Reply { header: place.model.header(), body })
    }

    /// An end comes to the waiter after some time, if the request is still outstanding then.
    fn answer_after(self: &Arc<Self>, ms: u64, member: MemberId, tag: Tag, event: Event) {
        let world = self.clone();
        self.clock.after_ms(ms, move || {
            let mut places = world.places.lock();
            let place = places.get_mut(&member).unwrap();
            let Some(at) = place.outstanding.iter().position(|(other, _)| *other == tag) else { return };
            place.heard = world.clock.now();
            let waiter = match event {
                Event::Progress(_) => place.outstanding[at].1.clone(),
                _ => place.outstanding.swap_remove(at).1,
            };
            waiter.deliver(match event {
                Event::Reply(_, reply) => Event::Reply(tag, reply),
                Event::Busy(_, ms) => Event::Busy(tag, ms),
                Event::Fault(_, fault) => Event::Fault(tag, fault),
                Event::Progress(_) => Event::Progress(tag),
                other => other,
            });
        });
    }
}

impl Seam for World {
    fn submit(&self, waiter: &Arc<Waiter>, member: MemberId, request: &Outgoing, _: Moment) -> Tag {
        let me = self.me.upgrade().unwrap();
        let tag = Tag(self.tags.fetch_add(1, Ordering::SeqCst));
        let number = RequestBody::decode(request.body.as_slice()).unwrap().call.as_ref().unwrap().number();
        self.sent.lock().push((member, number));
        self.headers.lock().push(request.header.clone());
        self.bodies.lock().push((number, request.body.to_vec()));
        let fate = {
            let mut places = self.places.lock();
            let place = places.get_mut(&member).unwrap();
            let fate = place.script.get_mut(&number).and_then(VecDeque::pop_front).unwrap_or(Fate::Fine);
            place.outstanding.push((tag, waiter.clone()));
            match place.up {
                None => Fate::NotSent,
                Some(_) if place.frozen => Fate::Silent,
                Some(_) if place.stuck && number != STATUS => Fate::Silent,
                Some(_) => fate,
            }
        };
        let refusal = |reply: ReplyBody| {
            let header = self.places.lock().get(&member).unwrap().model.header();
            Event::Reply(tag, Reply { header, body: Zeroizing::new(reply.encode_to_vec()) })
        };
        let (ms, event) = match fate {
            Fate::Fine => (LATENCY_MS, self.execute(member, request, number)),
            Fate::NotSent => (0, Event::Fault(tag, Fault::NotSent)),
            Fate::LostBefore => (LATENCY_MS, Event::Fault(tag, Fault::Unknown)),
            Fate::LostAfter => {
                self.execute(member, request, number);
                (LATENCY_MS, Event::Fault(tag, Fault::Unknown))
            }
            Fate::Silent => return tag,
            Fate::Busy(ms) => (LATENCY_MS, Event::Busy(tag, ms)),
            Fate::Answer(outcome) => {
                (LATENCY_MS, refusal(ReplyBody { outcome: outcome.0, ..ReplyBody::default() }))
            }
            Fate::Rv(rv) => {
                (LATENCY_MS, refusal(ReplyBody { outcome: Outcome::RV.0, rv: rv.0, ..ReplyBody::default() }))
            }
            Fate::Slow(ms) => {
                for second in 1..=ms / 1_000 {
                    me.answer_after(second * 1_000, member, tag, Event::Progress(tag));
                }
                (ms, self.execute(member, request, number))
            }
        };
        me.answer_after(ms, member, tag, event);
        tag
    }

    fn cancel(&self, member: MemberId, tag: Tag) {
        self.cancelled.lock().push(member);
        self.places.lock().get_mut(&member).unwrap().outstanding.retain(|(other, _)| *other != tag);
    }

    fn standing(&self, member: MemberId) -> Standing {
        let places = self.places.lock();
        match places.get(&member).and_then(|place| place.up.map(|since| (since, place.heard))) {
            Some((since, heard)) => Standing::Up { since, heard },
            None => Standing::Down { reason: "taken down by the test".to_owned() },
        }
    }

    fn abandon(&self, member: MemberId, _: &str) {
        self.abandoned.lock().push(member);
        self.down(member.0);
    }

    fn subscribe(&self, _: &Arc<Waiter>) {}

    fn has_unread(&self, member: MemberId) -> bool {
        self.places.lock().get(&member).is_some_and(|place| place.unread)
    }
}
