//! The simulated network: the seam of each process, with links that are slow, stall in one direction, break, and come
//! back. What was on a link that broke may still be carried out, and its answer never comes.
//!
//! ```text
//! submit --delay--> arrives: Busy | executed --delay--> Reply       a link that breaks: Fault(Unknown) for all that is open
//! ```
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use prost::Message;
use spec::Ouid;
use spec::messages::{Call, ReplyBody, ReplyHeader, RequestBody};
use spec::platform::Moment;
use spec::seam::{Event, Fault, MemberId, Outgoing, Reply, Seam, Standing, Tag, Waiter};
use zeroize::Zeroizing;

use crate::breaks::{Break, Breaks, call_name, writes};
use crate::members::{MEMBERS, Member, caller, place};
use crate::theme::Theme;
use crate::watch::{Done, LinkEpoch, Sent, Watch, identity, took_part};
use crate::world::{World, current_thread};

/// One millisecond in nanoseconds.
pub(crate) const MS: u64 = 1_000_000;
/// A field that this release does not know, as a later one might send it (DESIGN 4: unknown fields are ignored).
const OF_A_LATER_RELEASE: [u8; 3] = [0xF8, 0x7F, 1];
/// How long a slow disk takes for a commit, in milliseconds.
const SLOW_MS: (u64, u64) = (100, 2_000);

/// The network between processes and members.
pub(crate) struct Network {
    world: Arc<World>,
    members: Arc<Vec<Member>>,
    theme: Theme,
    /// What is watched on the wire.
    pub(crate) watch: Watch,
    state: Mutex<State>,
}

struct State {
    links: BTreeMap<(usize, usize), Link>,
    subscribers: Vec<(usize, Weak<Waiter>)>,
    tag: u64,
    sent: u64,
    /// The objects of the last Commit that each thread has sent.
    committed: BTreeMap<usize, Vec<Ouid>>,
    /// One request in so many is answered Busy; 0 for none.
    busy_in: u64,
    latency: u64,
    calm: bool,
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
    /// A network in which everybody is connected.
    pub(crate) fn new(
        world: Arc<World>,
        members: Arc<Vec<Member>>,
        processes: usize,
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
            sent: 0,
            committed: BTreeMap::new(),
            busy_in,
            latency,
            calm: false,
            lonely: BTreeSet::new(),
        };
        let epoch = members[0].partition().map_or(0, |partition| partition.header().credential_epoch);
        let watch = Watch::new(epoch);
        // The last process is the one that starts later.
        let first = state.links.keys().filter(|(process, _)| *process < processes);
        first.for_each(|(process, member)| watch.starts((*process, *member, 1)));
        Arc::new(Self { world, members, theme, watch, state: Mutex::new(state) })
    }

    /// The seam of a process.
    pub(crate) fn seam(self: &Arc<Self>, process: usize) -> Arc<dyn Seam> {
        Arc::new(Door { network: self.clone(), process })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The objects of the last Commit that a thread has sent, once.
    pub(crate) fn take_committed(&self, thread: usize) -> Vec<Ouid> {
        self.state().committed.remove(&thread).unwrap_or_default()
    }

    /// How many members a process is connected to.
    pub(crate) fn connected(&self, process: usize) -> usize {
        self.state().links.iter().filter(|((of, _), link)| *of == process && link.up).count()
    }

    /// Whether a process was connected to fewer than two members at some moment.
    pub(crate) fn was_lonely(&self, process: usize) -> bool {
        self.state().lonely.contains(&process)
    }

    /// The connections of a process that are up.
    pub(crate) fn connections(&self, process: usize) -> Vec<LinkEpoch> {
        let state = self.state();
        let up = state.links.iter().filter(|((of, _), link)| *of == process && link.up);
        up.map(|((process, member), link)| (*process, *member, link.epoch)).collect()
    }

    /// A link breaks when the next request over it was carried out, before the reply leaves.
    pub(crate) fn break_before_reply(&self, process: usize, member: usize, breaks: Breaks) {
        let mut state = self.state();
        state.links.get_mut(&(process, member)).expect("every pair has a link").breaks = Some(breaks);
    }

    /// Requests sent so far.
    pub(crate) fn sent(&self) -> u64 {
        self.state().sent
    }

    /// No more faults: every cut is mended, nothing is slow or busy.
    pub(crate) fn calm(self: &Arc<Self>) {
        let mut state = self.state();
        (state.calm, state.busy_in) = (true, 0);
        for link in state.links.values_mut() {
            (link.cut, link.breaks, link.stalled_there, link.stalled_back) = (false, None, 0, 0);
        }
    }

    fn delay(&self) -> u64 {
        let (latency, calm) = {
            let state = self.state();
            (state.latency, state.calm)
        };
        self.world.chance(|chance| match chance.below(if calm { 90 } else { 100 }) {
            0..90 => chance.between(latency / 4, latency),
            90..98 => chance.between(latency, latency * 8),
            _ => chance.between(latency * 8, 400 * MS),
        })
    }

    /// Breaks a link; it is tried again until it is up.
    pub(crate) fn break_link(self: &Arc<Self>, process: usize, member: usize) {
        let open = {
            let mut state = self.state();
            let Some(link) = state.links.get_mut(&(process, member)).filter(|link| link.up) else { return };
            self.watch.doubts((process, member, link.epoch));
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
            self.watch.closed(tag);
            waiter.deliver(Event::Fault(Tag(tag), Fault::Unknown));
        }
        self.wake_subscribers(process);
        self.reconnect(process, member);
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
            network.watch.connected(epoch, &network.members);
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
        self.carry_out(frame, same);
    }

    /// A slow disk: the commit comes later, and reads overtake it.
    fn is_synced_later(self: &Arc<Self>, frame: &Frame) -> bool {
        let slow = self.members[frame.member].is_slow(self.world.now());
        if frame.synced || !slow || !writes(frame.call) {
            return false;
        }
        let (network, mut frame) = (self.clone(), frame.clone());
        frame.synced = true;
        let wait = self.world.chance(|chance| chance.between(SLOW_MS.0, SLOW_MS.1));
        self.world.after(wait * MS, move || network.arrives(frame));
        true
    }

    /// The member answers Busy now and then, and to nearly everything while it has too much to do (HA 4.5).
    fn is_busy(self: &Arc<Self>, frame: &Frame) -> bool {
        let busy_in = self.state().busy_in;
        let overloaded = self.members[frame.member].is_overloaded(self.world.now());
        let (busy, ms) = self.world.chance(|chance| {
            if overloaded && call_name(frame.call) != "Status" {
                (!chance.once_in(20), chance.between(20, 100))
            } else {
                (busy_in > 0 && chance.once_in(busy_in), chance.between(1, 40))
            }
        });
        if busy && !frame.again {
            let (network, frame) = (self.clone(), frame.clone());
            let ms = u32::try_from(ms).unwrap_or(1);
            self.world.after(self.delay(), move || network.answers(frame, None, ms));
        }
        busy
    }

    fn carry_out(self: &Arc<Self>, frame: Frame, same: bool) {
        let member = &self.members[frame.member];
        let caller = caller(frame.process);
        let whole = ["Store", "Commit"].contains(&call_name(frame.call));
        let before = if whole { self.watch.halves(member) } else { Vec::new() };
        let (now, request) = (self.world.now(), &frame.request);
        let knew = member.partition().map_or(0, |partition| partition.header().credential_epoch);
        let Some((header, mut body)) = member.handle(&caller, &request.header, &request.body, now) else {
            return;
        };
        if whole && took_part(&before, &self.watch.halves(member)) {
            self.world.fail(format!("member {} has taken part of a batch (HA 2.1)", frame.member));
        }
        self.look_at(&frame, knew, &header, &body);
        self.world.note(u64::from(frame.call), || {
            let outcome = ReplyBody::decode(body.as_slice()).map(|reply| reply.outcome).unwrap_or(u32::MAX);
            format!(
                "member {} answers {} of process {}: outcome {outcome}, seq {}{}",
                frame.member,
                call_name(frame.call),
                frame.process,
                header.seq,
                if same { "" } else { ", on a link that broke" }
            )
        });
        if self.theme.later_release {
            body.extend_from_slice(&OF_A_LATER_RELEASE);
        }
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

    fn look_at(&self, frame: &Frame, knew: u64, header: &ReplyHeader, body: &[u8]) {
        let request = RequestBody::decode(frame.request.body.as_slice()).ok();
        let reply = ReplyBody::decode(body).ok();
        let (Some(mut request), Some(reply)) = (request, reply) else { return };
        let ticket = std::mem::take(&mut request.ticket);
        let Some(call) = request.call.take() else { return };
        let link = (frame.process, frame.member, frame.epoch);
        let done = Done { link, call: &call, ticket: &ticket, knew, header, reply: &reply };
        if let Some(broken) = self.watch.done(&done) {
            self.world.fail(broken);
        }
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
            link.open.remove(&frame.tag)
        };
        let Some(waiter) = waiter else { return };
        if reply.is_none() {
            self.watch.busy(frame.tag, self.world.now());
        }
        self.watch.closed(frame.tag);
        waiter.deliver(match reply {
            Some(reply) => Event::Reply(Tag(frame.tag), reply),
            None => Event::Busy(Tag(frame.tag), busy_ms),
        });
    }
}

fn decoded(request: &Outgoing) -> Option<Call> {
    RequestBody::decode(request.body.as_slice()).ok().and_then(|mut body| body.call.take())
}

struct Door {
    network: Arc<Network>,
    process: usize,
}

impl Door {
    fn look_at(
        &self,
        member: usize,
        tag: u64,
        (epoch, heard): (u64, Moment),
        request: &Outgoing,
        call: Option<&Call>,
    ) {
        let (network, process) = (&self.network, self.process);
        let Some(call) = call else { return };
        let sent = Sent {
            process,
            member,
            thread: current_thread(),
            epoch,
            tag,
            heard: heard.0,
            now: network.world.now(),
            call,
            body: identity(&request.body),
        };
        if let Some(broken) = network.watch.sent(&sent, &network.members) {
            network.world.fail(broken);
        }
    }
}

impl Seam for Door {
    fn submit(&self, waiter: &Arc<Waiter>, member: MemberId, request: &Outgoing, _deadline: Moment) -> Tag {
        let network = &self.network;
        network.world.tick();
        let call = decoded(request);
        let (tag, epoch) = {
            let mut state = network.state();
            state.tag += 1;
            if let Some(Call::Commit(commit)) = &call {
                let ouids = commit.ouids.iter().filter_map(|ouid| Ouid::from_bytes(ouid)).collect();
                state.committed.insert(current_thread(), ouids);
            }
            let tag = state.tag;
            let link = place(member).and_then(|place| state.links.get_mut(&(self.process, place)));
            let epoch = match link.filter(|link| link.up) {
                Some(link) => {
                    link.open.insert(tag, waiter.clone());
                    Some((link.epoch, link.life, link.heard))
                }
                None => None,
            };
            state.sent += u64::from(epoch.is_some());
            (tag, epoch)
        };
        let (Some((epoch, life, heard)), Some(place)) = (epoch, place(member)) else {
            waiter.deliver(Event::Fault(Tag(tag), Fault::NotSent));
            return Tag(tag);
        };
        self.look_at(place, tag, (epoch, heard), request, call.as_ref());
        let mut request = request.clone();
        request.header.tag = tag;
        if network.theme.later_release {
            let mut body = Zeroizing::new(request.body.to_vec());
            body.extend_from_slice(&OF_A_LATER_RELEASE);
            request.body = Arc::new(body);
        }
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
            self.network.watch.closed(tag.0);
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
