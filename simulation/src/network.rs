//! The simulated network: the seam of each process, with links that are slow, stall in one direction, break, and come
//! back. What was on a link that broke may still be carried out, and its answer never comes.
//!
//! ```text
//! submit --delay--> arrives: Busy | executed --delay--> Reply       a link that breaks: Fault(Unknown) for all that is open
//! ```
mod capacity;
mod ways;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use spec::messages::Call;
use spec::platform::Moment;
use spec::seam::{Event, Fault, MemberId, Outgoing, Reply, Seam, Standing, Tag, Waiter};
use zeroize::Zeroizing;

use crate::books::{Asked, Books, call_of};
use crate::breaks::{Break, Breaks, call_name};
use crate::members::{MEMBERS, Member, place};
use crate::theme::Theme;
use crate::world::World;

/// One millisecond in nanoseconds.
pub(crate) const MS: u64 = 1_000_000;

/// The network between processes and members.
pub(crate) struct Network {
    world: Arc<World>,
    members: Arc<Vec<Member>>,
    theme: Theme,
    books: Arc<Books>,
    own: Weak<Network>,
    state: Mutex<State>,
}

struct State {
    links: BTreeMap<(usize, usize), Link>,
    subscribers: Vec<(usize, Weak<Waiter>)>,
    tag: u64,
    latency: u64,
    calm: bool,
    /// Where members can do so much and no more.
    lanes: Option<capacity::Lanes>,
    /// Processes that were connected to fewer than two members at some moment.
    lonely: BTreeSet<usize>,
}

struct Link {
    up: bool,
    since: Moment,
    heard: Moment,
    /// Counts the connections.
    epoch: u64,
    /// The life of the member that it leads to.
    life: u64,
    cut: bool,
    /// It breaks when a request was carried out, before the reply leaves.
    breaks: Option<Breaks>,
    stalled_there: u64,
    stalled_back: u64,
    open: BTreeMap<u64, Arc<Waiter>>,
}

/// A request on its way.
#[derive(Clone)]
struct Frame {
    process: usize,
    member: usize,
    epoch: u64,
    tag: u64,
    /// Which life of the member the connection leads to.
    life: u64,
    call: u32,
    request: Outgoing,
    /// A repetition: its reply goes nowhere.
    again: bool,
    /// A slow disk has taken it.
    synced: bool,
}

impl Network {
    /// A network in which everybody is connected; the `first` processes are there from the beginning.
    pub(crate) fn new(
        world: Arc<World>,
        members: Arc<Vec<Member>>,
        processes: usize,
        first: usize,
        theme: Theme,
    ) -> Arc<Self> {
        let now = Moment(world.now());
        let link = |_| Link {
            up: true,
            since: now,
            heard: now,
            epoch: 1,
            life: 0,
            cut: false,
            breaks: None,
            stalled_there: 0,
            stalled_back: 0,
            open: BTreeMap::new(),
        };
        let pairs = (1..=processes).flat_map(|process| (0..MEMBERS).map(move |member| (process, member)));
        let links = pairs.map(|pair| (pair, link(pair))).collect();
        let (busy_in, latency) =
            world.chance(|chance| ([0, 200, 25][chance.place(3)], chance.between(20_000, 2 * MS)));
        let state = State {
            links,
            subscribers: Vec::new(),
            tag: 0,
            latency,
            calm: false,
            lanes: None,
            lonely: BTreeSet::new(),
        };
        let books = Books::new(&world, &members, theme.later_release, busy_in);
        let first = state.links.keys().filter(|(process, _)| *process <= first);
        first.for_each(|(process, member)| books.watch.starts((*process, *member, 1)));
        let state = Mutex::new(state);
        Arc::new_cyclic(|own| Self { world, members, theme, books, own: own.clone(), state })
    }

    /// The seam of a process.
    pub(crate) fn seam(self: &Arc<Self>, process: usize) -> Arc<dyn Seam> {
        Arc::new(Door { network: self.clone(), process })
    }

    fn own(&self) -> Arc<Network> {
        self.own.upgrade().expect("a network that is asked is there")
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn delay(&self) -> u64 {
        let (latency, calm) = {
            let state = self.state();
            (state.latency, state.calm)
        };
        self.world.chance(|chance| self.theme.delay(latency, calm, chance))
    }

    /// Breaks a link; it is tried again until it is up.
    pub(crate) fn break_link(self: &Arc<Self>, process: usize, member: usize) {
        let open = {
            let mut state = self.state();
            let Some(link) = state.links.get_mut(&(process, member)).filter(|link| link.up) else { return };
            self.books.watch.doubts((process, member, link.epoch));
            link.up = false;
            link.epoch += 1;
            let open = std::mem::take(&mut link.open);
            if state.links.iter().filter(|((of, _), link)| *of == process && link.up).count() < 2 {
                state.lonely.insert(process);
            }
            open
        };
        self.world.note(1, || {
            format!("the link of process {process} to member {member} breaks, {} open", open.len())
        });
        for (tag, waiter) in open {
            self.books.watch.closed(tag);
            waiter.deliver(Event::Fault(Tag(tag), Fault::Unknown));
        }
        self.wake_subscribers(process);
        self.reconnect(process, member);
    }

    /// A process has forked: its connections are the parent's and end with it, and nobody waits for what is open.
    pub(crate) fn forked(self: &Arc<Self>, process: usize) {
        self.books.watch.forked(process);
        {
            let mut state = self.state();
            state.subscribers.retain(|(of, _)| *of != process);
            for (_, link) in state.links.iter_mut().filter(|((of, _), _)| *of == process) {
                link.open.clear();
            }
        }
        (0..MEMBERS).for_each(|member| self.break_link(process, member));
    }

    fn reconnect(self: &Arc<Self>, process: usize, member: usize) {
        let network = self.clone();
        let delay = self.world.chance(|chance| chance.between(20 * MS, 400 * MS));
        self.world.after(delay, move || {
            let up = network.members[member].partition().is_some()
                && network.members[member].paused_until() <= network.world.now();
            let now = Moment(network.world.now());
            let mut state = network.state();
            let link = state.links.get_mut(&(process, member)).expect("every pair has a link");
            if link.up {
                return;
            }
            if !up || link.cut {
                drop(state);
                network.reconnect(process, member);
                return;
            }
            (link.up, link.since, link.heard) = (true, now, now);
            (link.epoch, link.life) = (link.epoch + 1, network.members[member].life());
            (link.stalled_there, link.stalled_back) = (0, 0);
            let epoch = (process, member, link.epoch);
            drop(state);
            network.books.watch.connected(epoch);
            network.world.note(2, || format!("process {process} is connected to member {member}"));
            network.wake_subscribers(process);
        });
    }

    /// No connection between the two until it is mended; an open one breaks, or stalls until somebody notices.
    pub(crate) fn cut(self: &Arc<Self>, process: usize, member: usize, silently: bool, nanoseconds: u64) {
        let until = self.world.now() + nanoseconds;
        {
            let mut state = self.state();
            let link = state.links.get_mut(&(process, member)).expect("every pair has a link");
            link.cut = true;
            if silently {
                (link.stalled_there, link.stalled_back) = (until, until);
            }
        }
        if !silently {
            self.break_link(process, member);
        }
        let network = self.clone();
        self.world.after(nanoseconds, move || {
            let mut state = network.state();
            state.links.get_mut(&(process, member)).expect("every pair has a link").cut = false;
        });
    }

    /// One direction carries nothing for so long.
    pub(crate) fn stall(&self, process: usize, member: usize, there: bool, nanoseconds: u64) {
        let until = self.world.now() + nanoseconds;
        let mut state = self.state();
        let link = state.links.get_mut(&(process, member)).expect("every pair has a link");
        *(if there { &mut link.stalled_there } else { &mut link.stalled_back }) = until;
    }

    fn wake_subscribers(&self, process: usize) {
        let waiters: Vec<Arc<Waiter>> = {
            let mut state = self.state();
            state.subscribers.retain(|(_, waiter)| waiter.strong_count() > 0);
            let own = state.subscribers.iter().filter(|(of, _)| *of == process);
            own.filter_map(|(_, waiter)| waiter.upgrade()).collect()
        };
        waiters.iter().for_each(|waiter| waiter.wake());
    }

    /// Until when a frame has to wait, if it has to; and whether its link is still the one it was sent on.
    fn held(&self, frame: &Frame, there: bool) -> (Option<u64>, bool) {
        let state = self.state();
        let link = &state.links[&(frame.process, frame.member)];
        let stalled = if there { link.stalled_there } else { link.stalled_back };
        let paused = if there { self.members[frame.member].paused_until() } else { 0 };
        let same = link.epoch == frame.epoch;
        let until = if same { stalled.max(paused) } else { paused };
        (Some(until).filter(|until| *until > self.world.now()), same)
    }

    fn is_open(&self, frame: &Frame) -> bool {
        self.state().links[&(frame.process, frame.member)].open.contains_key(&frame.tag)
    }

    fn arrives(self: &Arc<Self>, frame: Frame) {
        let (held, same) = self.held(&frame, true);
        if let Some(until) = held {
            let network = self.clone();
            return self.world.after(until - self.world.now(), move || network.arrives(frame));
        }
        // The one thing that HA 2.3 does not promise (docs/simulation.md): a first send that nobody waits for any more.
        let first = frame.request.header.attempt == 0 && call_name(frame.call) == "SetAttributes";
        if first && !self.is_open(&frame) {
            return;
        }
        // What had reached the member's socket before the link broke is carried out, and nobody hears of it.
        if !same && self.world.chance(|chance| chance.once_in(2)) {
            return;
        }
        if self.members[frame.member].life() != frame.life {
            // A connection to an earlier life of the member: the host answers with a reset.
            return self.break_link(frame.process, frame.member);
        }
        if self.is_synced_later(&frame) || self.is_busy(&frame) {
            return;
        }
        if !self.stands_in_line(&frame) {
            self.carry_out(frame, same);
        }
    }

    /// The member answers Busy now and then.
    fn is_busy(self: &Arc<Self>, frame: &Frame) -> bool {
        let busy = self.books.busy(frame.member, frame.call);
        if let Some(ms) = busy.filter(|_| !frame.again) {
            let (network, frame) = (self.clone(), frame.clone());
            self.world.after(self.delay(), move || network.answers(frame, None, ms));
        }
        busy.is_some()
    }

    fn carry_out(self: &Arc<Self>, frame: Frame, same: bool) {
        let asked = Asked {
            link: (frame.process, frame.member, frame.epoch),
            tag: frame.tag,
            header: &frame.request.header,
            body: &frame.request.body,
            window: self.window(),
            lost: !same,
        };
        let Some((header, body)) = self.books.carry_out(&asked) else { return };
        match self.takes_break(&frame).filter(|_| same) {
            Some(Break::Plain) => return self.break_link(frame.process, frame.member),
            Some(Break::Silent(ns)) => self.cut(frame.process, frame.member, true, ns),
            Some(Break::Late(ns)) => return self.break_late(&frame, ns),
            None => {}
        }
        if !frame.again {
            let network = self.clone();
            self.world.after(self.delay(), move || network.answers(frame, Some(Reply { header, body }), 0));
        }
    }

    fn takes_break(&self, frame: &Frame) -> Option<Break> {
        let mut state = self.state();
        let link = state.links.get_mut(&(frame.process, frame.member)).expect("every pair has a link");
        let breaks = link.breaks.filter(|breaks| breaks.of.fits(frame.call))?;
        link.breaks = None;
        Some(breaks.how)
    }

    /// Nothing passes for so long, and then the connection breaks, if it is still the same.
    fn break_late(self: &Arc<Self>, frame: &Frame, nanoseconds: u64) {
        let (process, member, epoch) = (frame.process, frame.member, frame.epoch);
        self.stall(process, member, true, nanoseconds);
        self.stall(process, member, false, nanoseconds);
        let network = self.clone();
        self.world.after(nanoseconds, move || {
            let same = network.state().links[&(process, member)].epoch == epoch;
            if same {
                network.break_link(process, member);
            }
        });
    }

    fn answers(self: &Arc<Self>, frame: Frame, reply: Option<Reply>, busy_ms: u32) {
        let (held, same) = self.held(&frame, false);
        if !same {
            return;
        }
        if let Some(until) = held {
            let network = self.clone();
            let wait = until - self.world.now();
            return self.world.after(wait, move || network.answers(frame, reply, busy_ms));
        }
        let waiter = {
            let mut state = self.state();
            let now = Moment(self.world.now());
            let link = state.links.get_mut(&(frame.process, frame.member)).expect("every pair has a link");
            link.heard = now;
            let epoch = link.epoch;
            // A reply that nobody waits for any more tells the process nothing.
            let waiter = link.open.remove(&frame.tag);
            if let Some(reply) = reply.as_ref().filter(|_| waiter.is_some()) {
                self.books.hears((frame.process, frame.member, epoch), reply.header.seq);
            }
            waiter
        };
        let Some(waiter) = waiter else { return };
        if let Some(reply) = reply.as_ref().filter(|_| call_name(frame.call) == "Random") {
            self.books.watch.gives(frame.process, &reply.body);
        }
        if reply.is_none() {
            self.books.watch.busy(frame.tag, self.world.now());
        }
        self.books.watch.closed(frame.tag);
        waiter.deliver(match reply {
            Some(reply) => Event::Reply(Tag(frame.tag), reply),
            None => Event::Busy(Tag(frame.tag), busy_ms),
        });
    }
}

struct Door {
    network: Arc<Network>,
    process: usize,
}

impl Seam for Door {
    fn submit(&self, waiter: &Arc<Waiter>, member: MemberId, request: &Outgoing, _deadline: Moment) -> Tag {
        let network = &self.network;
        network.world.tick();
        let call = call_of(&request.body);
        network.books.asks(call.as_ref());
        let (tag, epoch) = {
            let mut state = network.state();
            state.tag += 1;
            let tag = state.tag;
            let link = place(member).and_then(|place| state.links.get_mut(&(self.process, place)));
            let epoch = match link.filter(|link| link.up) {
                Some(link) => {
                    link.open.insert(tag, waiter.clone());
                    Some((link.epoch, link.life, link.heard))
                }
                None => None,
            };
            (tag, epoch)
        };
        let (Some((epoch, life, heard)), Some(place)) = (epoch, place(member)) else {
            waiter.deliver(Event::Fault(Tag(tag), Fault::NotSent));
            return Tag(tag);
        };
        network.books.leaves((self.process, place, epoch), (tag, heard.0), request, call.as_ref());
        let mut request = request.clone();
        request.header.tag = tag;
        let mut body = Zeroizing::new(request.body.to_vec());
        network.books.in_its_release(&mut body);
        request.body = Arc::new(body);
        let changes = matches!(call, Some(Call::SetAttributes(_)));
        let call = call.map_or(0, |call| call.number());
        let process = self.process;
        let frame =
            Frame { process, member: place, epoch, tag, life, call, request, again: false, synced: false };
        // A first send of a change is repeated by nobody; what is sent again may arrive at any time.
        let twice_in = if changes { 0 } else { network.theme.twice_in };
        if twice_in > 0 && !network.state().calm && network.world.chance(|chance| chance.once_in(twice_in)) {
            let (network, again) = (network.clone(), Frame { again: true, ..frame.clone() });
            let delay = network.delay() + network.delay();
            self.network.world.after(delay, move || network.arrives(again));
        }
        let network = network.clone();
        self.network.world.after(self.network.delay(), move || network.arrives(frame));
        Tag(tag)
    }

    fn cancel(&self, member: MemberId, tag: Tag) {
        if let Some(place) = place(member) {
            let mut state = self.network.state();
            let link = state.links.get_mut(&(self.process, place)).expect("every pair has a link");
            link.open.remove(&tag.0);
            self.network.books.watch.closed(tag.0);
        }
    }

    fn standing(&self, member: MemberId) -> Standing {
        let state = self.network.state();
        match place(member).map(|place| &state.links[&(self.process, place)]) {
            Some(link) if link.up => Standing::Up { since: link.since, heard: link.heard },
            _ => Standing::Down { reason: format!("there is no connection to member {member}") },
        }
    }

    fn abandon(&self, member: MemberId, _reason: &str) {
        if let Some(place) = place(member) {
            self.network.break_link(self.process, place);
        }
    }

    fn subscribe(&self, waiter: &Arc<Waiter>) {
        self.network.state().subscribers.push((self.process, Arc::downgrade(waiter)));
    }
}
