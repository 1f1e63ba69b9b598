//! What is watched on the wire and on the disks while a world runs: rules of HA that no single answer can show broken.
//!
//! ```text
//! submit ----> sent: sends of a call, moved requests (HA 4.4), who is read (HA 4.6), tags (nothing random twice)
//! executed --> done: restored members (HA 1.5), PINs and tickets (HA 2.7), whole batches (HA 2.1), new ouids
//! ```
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prost::Message;
use spec::Ouid;
use spec::calls::{Class, call as row_of};
use spec::messages::{Answer, Call, Outcome, ReplyBody, ReplyHeader};

use crate::disk::Image;
use crate::members::{CO_PIN, MEMBERS, Member};
use crate::network::MS;

/// A request is moved only to a member heard from within so many milliseconds (HA 4.4), and time goes on while it is.
const HEARD_MS: u64 = 1_050;
/// Silence begins so long after a request was sent, in milliseconds (HA 4.4): what is sent elsewhere sooner is a hedge.
const SILENT_MS: u64 = 25;
/// Who has answered so often may be found slow, and what it was sent be hedged (HA 4.3).
const KNOWN_BY: u32 = 100;
/// Hedges that need no earlier request, and one more for so many requests (HA 4.3).
const HEDGES_FREE: u64 = 8;
const HEDGE_IN: u64 = 50;
/// So many sends of a call need no time at all, and then one more in so many milliseconds: far above what waiting with
/// jitter gives (HA 4.5).
const SENDS_FREE: u64 = 60;
const SEND_MS: u64 = 4;
/// A send this soon after a Busy has not waited, in nanoseconds.
const HASTE_NS: u64 = 500_000;
/// Busy moves a call once, and a chance meeting of two replies may look like another time or two.
const HASTY_MAX: u64 = 5;

/// A process's link to a member, and which of its connections.
pub(crate) type LinkEpoch = (usize, usize, u64);

/// A request as it leaves.
pub(crate) struct Sent<'a> {
    pub(crate) process: usize,
    pub(crate) member: usize,
    pub(crate) thread: usize,
    pub(crate) epoch: u64,
    pub(crate) tag: u64,
    /// When the member was heard last.
    pub(crate) heard: u64,
    pub(crate) now: u64,
    pub(crate) call: &'a Call,
    /// Tells one body from another while both exist.
    pub(crate) body: usize,
}

/// A request that a member has carried out.
pub(crate) struct Done<'a> {
    pub(crate) link: LinkEpoch,
    pub(crate) tag: u64,
    pub(crate) call: &'a Call,
    pub(crate) ticket: &'a [u8],
    /// The epoch of the member's credentials before.
    pub(crate) knew: u64,
    pub(crate) header: &'a ReplyHeader,
    pub(crate) reply: &'a ReplyBody,
}

/// What one call of the application has sent.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sends {
    /// Requests, probes left out.
    pub(crate) all: u64,
    /// Members that a write was sent to.
    pub(crate) written: BTreeSet<usize>,
    /// Changes of attributes: more than one is a resend.
    pub(crate) changes: u64,
    number: u64,
    /// Whether a member did not know its object: then all others are asked at once, which moves nothing (HA 3.1).
    asks_all: bool,
    /// When it heard Busy last, and how often it sent the next request at once.
    busy_at: u64,
    hasty: u64,
}

/// What a member that returned must hold before it is read: what each of its references was known to hold when it came back.
type Mark = Vec<(LinkEpoch, Holdings)>;

/// The objects that a member holds for good, and their states.
type Holdings = BTreeMap<Ouid, i32>;

#[derive(Default)]
struct State {
    calls: BTreeMap<usize, Sends>,
    number: u64,
    /// Who waits for each request.
    threads: BTreeMap<u64, usize>,
    /// Requests that may be moved, by tag: thread, body, member and when they left.
    open: BTreeMap<u64, (usize, usize, usize, u64)>,
    /// Uses of each process that each member has carried out.
    replies: BTreeMap<(usize, usize), u32>,
    /// Requests of each process that may be hedged, and hedges.
    hedged: BTreeMap<usize, (u64, u64)>,
    /// The Crypto Officer's PIN of each epoch of the credentials.
    pins: BTreeMap<u64, Vec<u8>>,
    /// The epoch at which each ticket was given.
    tickets: BTreeMap<Vec<u8>, u64>,
    /// Epochs that ended all tickets before them.
    revoked: Vec<u64>,
    apart: bool,
    /// Members that were ever taken out of the group.
    left: BTreeSet<usize>,
    /// Random bytes that were given to each process, and those of them that were given to it before it forked.
    given: BTreeMap<usize, Vec<Vec<u8>>>,
    parents: BTreeMap<usize, Vec<Vec<u8>>>,
    unproved: [bool; MEMBERS],
    batches: Vec<Vec<Ouid>>,
    ouids: BTreeSet<Ouid>,
    tags: BTreeMap<Vec<u8>, (usize, u64)>,
    /// Connections over which a member that is known to hold everything is read.
    verified: BTreeSet<LinkEpoch>,
    marks: BTreeMap<LinkEpoch, Mark>,
    /// The greatest seq that was heard over each link, and what the member held then.
    heard: BTreeMap<LinkEpoch, (u64, Holdings)>,
}

/// See the head of this file. What is found broken comes back as text.
pub(crate) struct Watch(Mutex<State>);

impl Watch {
    /// Nothing was sent yet, and the credentials have this epoch.
    pub(crate) fn new(credential_epoch: u64) -> Self {
        let pins = BTreeMap::from([(credential_epoch, CO_PIN.to_vec())]);
        Self(Mutex::new(State { pins, ..State::default() }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A call of the application begins on a thread.
    pub(crate) fn begin(&self, thread: usize) {
        let mut state = self.state();
        state.number += 1;
        let number = state.number;
        state.calls.insert(thread, Sends { number, ..Sends::default() });
    }

    /// The call of a thread ended after so many milliseconds; what it has sent, and whether that was too much.
    pub(crate) fn end(&self, thread: usize, took_ms: u64) -> (Sends, Option<String>) {
        let sends = self.state().calls.remove(&thread).unwrap_or_default();
        let max = SENDS_FREE + took_ms / SEND_MS;
        let many =
            (sends.all > max).then(|| format!("a call of {took_ms} ms sent {} requests (HA 4.5)", sends.all));
        let hasty = (sends.hasty > HASTY_MAX).then(|| {
            format!("a call of {took_ms} ms did not wait after {} times Busy (HA 4.5)", sends.hasty)
        });
        (sends, many.or(hasty))
    }

    /// A request leaves.
    pub(crate) fn sent(&self, sent: &Sent<'_>, members: &[Member]) -> Option<String> {
        let mut state = self.state();
        let class = row_of(sent.call.number()).map(|row| row.class);
        let _ = state.threads.insert(sent.tag, sent.thread);
        let waits = matches!(
            sent.call,
            Call::Use(_) | Call::Plan(_) | Call::GetAttributes(_) | Call::Make(_) | Call::Random(_)
        );
        let number = match state.calls.get_mut(&sent.thread) {
            Some(call) if !matches!(sent.call, Call::Status(_)) => {
                call.all += 1;
                call.changes += u64::from(matches!(sent.call, Call::SetAttributes(_)));
                let hasty = waits && sent.now < call.busy_at + HASTE_NS;
                if hasty {
                    // Each Busy once.
                    (call.hasty, call.busy_at) = (call.hasty + 1, 0);
                }
                if matches!(class, Some(Class::Store | Class::Destroy)) {
                    call.written.insert(sent.member);
                }
                call.number
            }
            _ => 0,
        };
        let repeated = state.repeats_a_tag(sent, number);
        let hedges = state.hedges(sent);
        let moved = hedges.or(state.moves_to_the_silent(sent));
        let unrepaired = state.reads(sent, members);
        repeated.or(moved).or(unrepaired)
    }

    /// A request was answered, or nobody waits for it any more.
    pub(crate) fn closed(&self, tag: u64) {
        let mut state = self.state();
        state.open.remove(&tag);
        state.threads.remove(&tag);
    }

    /// A process hears how far a member's store has come; from then on it knows what the member holds, unless that one has gone
    /// on meanwhile.
    pub(crate) fn hears(&self, link: LinkEpoch, seq: u64, members: &[Member]) {
        let mut state = self.state();
        if state.heard.get(&link).is_some_and(|(heard, _)| *heard >= seq) {
            return;
        }
        let held = members[link.1].disk.look(|image| (image.seq() == seq).then(|| image.lasting()));
        if let Some(held) = held {
            state.heard.insert(link, (seq, held));
        }
    }

    /// The caller of a request hears Busy.
    pub(crate) fn busy(&self, tag: u64, now: u64) {
        let mut state = self.state();
        let thread = state.threads.get(&tag).copied();
        if let Some(call) = thread.and_then(|thread| state.calls.get_mut(&thread)) {
            call.busy_at = now;
        }
    }

    /// A link of a process to a member has come up: what the member must hold before it is read over it.
    pub(crate) fn connected(&self, link: LinkEpoch) {
        let mut state = self.state();
        let (process, member, _) = link;
        let references = state.verified.iter().filter(|(of, other, _)| *of == process && *other != member);
        let known = |reference: &LinkEpoch| Some((*reference, state.heard.get(reference)?.1.clone()));
        let mark = references.filter_map(known).collect();
        state.marks.insert(link, mark);
    }

    /// At the start everybody holds the same and is connected.
    pub(crate) fn starts(&self, link: LinkEpoch) {
        self.state().verified.insert(link);
    }

    /// A connection has ended, or its member has refused something and may not be read any more.
    pub(crate) fn doubts(&self, link: LinkEpoch) {
        self.state().verified.remove(&link);
    }

    /// The disk of a member was put back, and the member knows: it is nobody's reference any more, also over a link that never
    /// went down, since one of its connections was made anew before the other one ended.
    pub(crate) fn put_back(&self, member: usize) {
        let mut state = self.state();
        state.unproved[member] = true;
        state.verified.retain(|(_, other, _)| *other != member);
    }

    /// All tickets given before this epoch of the credentials have ended.
    pub(crate) fn revoked(&self, epoch: u64) {
        let mut state = self.state();
        let pin = state.pin_at(epoch);
        state.pins.insert(epoch, pin);
        state.revoked.push(epoch);
    }

    /// The clocks of the members tell other times from now on.
    pub(crate) fn clocks_run_apart(&self) {
        self.state().apart = true;
    }

    /// Whether the clocks of the members ever told other times.
    pub(crate) fn did_clocks_run_apart(&self) -> bool {
        self.state().apart
    }

    /// A member is taken out of the group: how a process sees it depends on what it has heard of that (HA 3.4).
    pub(crate) fn leaves(&self, member: usize) {
        let mut state = self.state();
        state.left.insert(member);
        state.verified.retain(|(_, other, _)| *other != member);
        state.marks.retain(|(_, other, _), _| *other != member);
    }

    /// Whether any member was ever taken out of the group.
    pub(crate) fn has_anybody_left(&self) -> bool {
        !self.state().left.is_empty()
    }

    /// Whether a member was ever taken out of the group.
    pub(crate) fn has_left(&self, member: usize) -> bool {
        self.state().left.contains(&member)
    }

    /// Hedges of all processes.
    pub(crate) fn hedges(&self) -> u64 {
        self.state().hedged.values().map(|(_, hedges)| hedges).sum()
    }

    /// A process is given random bytes by a member.
    pub(crate) fn gives(&self, process: usize, reply: &[u8]) {
        let reply = ReplyBody::decode(reply).ok();
        if let Some(Answer::Random(random)) = reply.as_ref().and_then(|reply| reply.answer.as_ref()) {
            self.state().given.entry(process).or_default().push(random.output.clone());
        }
    }

    /// A process has forked.
    pub(crate) fn forked(&self, process: usize) {
        let mut state = self.state();
        let given = state.given.remove(&process).unwrap_or_default();
        state.parents.entry(process).or_default().extend(given);
    }

    /// Whether members gave these bytes to a process before it forked.
    pub(crate) fn were_given_before_a_fork(&self, process: usize, bytes: &[u8]) -> bool {
        let state = self.state();
        let given = state.parents.get(&process).into_iter().flatten();
        given.flat_map(|given| given.windows(bytes.len())).any(|window| window == bytes)
    }

    /// Whether tickets were ever ended.
    pub(crate) fn was_revoked(&self) -> bool {
        !self.state().revoked.is_empty()
    }

    /// The PIN that holds at an epoch.
    pub(crate) fn pin(&self, epoch: u64) -> Vec<u8> {
        self.state().pin_at(epoch)
    }

    /// The states of the objects of all pairs at one member.
    pub(crate) fn halves(&self, member: &Member) -> Vec<Vec<Option<i32>>> {
        let state = self.state();
        let states = |image: &Image, batch: &[Ouid]| batch.iter().map(|ouid| image.state(*ouid)).collect();
        member.disk.look(|image| state.batches.iter().map(|batch| states(image, batch)).collect())
    }

    /// A member has carried out a request.
    pub(crate) fn done(&self, done: &Done<'_>) -> Option<String> {
        let mut state = self.state();
        let outcome = Outcome(done.reply.outcome);
        // A member that refuses a write which it owes is out until it has been compared (HA 2.5).
        let is_write = matches!(
            done.call,
            Call::Store(_) | Call::Commit(_) | Call::SetAttributes(_) | Call::Destroy(_) | Call::Join(_)
        );
        let refuses = is_write && !matches!(outcome, Outcome::OK | Outcome::DESTROYED);
        if refuses || matches!(outcome, Outcome::RECOVERING | Outcome::FAILED) {
            state.verified.remove(&done.link);
        }
        if matches!(done.call, Call::Use(_)) {
            *state.replies.entry((done.link.0, done.link.1)).or_default() += 1;
        }
        let asks_all = matches!(outcome, Outcome::UNKNOWN | Outcome::BEHIND);
        let thread = state.threads.get(&done.tag).copied();
        if let Some(call) = thread.and_then(|thread| state.calls.get_mut(&thread)) {
            call.asks_all |= asks_all;
        }
        let served = state.serves_unproved(done, outcome);
        let credential = state.takes_old_credentials(done, outcome);
        served.or(credential).or_else(|| state.makes(done))
    }
}

impl State {
    fn pin_at(&self, epoch: u64) -> Vec<u8> {
        self.pins.range(..=epoch).next_back().map(|(_, pin)| pin.clone()).unwrap_or_default()
    }

    /// Nothing random twice: a tag belongs to one call.
    fn repeats_a_tag(&mut self, sent: &Sent<'_>, number: u64) -> Option<String> {
        let tag = match sent.call {
            Call::Login(login) => &login.tag,
            Call::SetPin(set) => &set.tag,
            Call::Make(make) => &make.tag,
            Call::SetAttributes(set) => &set.tag,
            _ => return None,
        };
        let own = (sent.process, number);
        let first = *self.tags.entry(tag.clone()).or_insert(own);
        (first != own).then(|| format!("two calls have one tag: {first:?} and {own:?} (process, call)"))
    }

    /// When a request that is on its way to another member left.
    fn first_send(&self, sent: &Sent<'_>) -> Option<u64> {
        let same = |(thread, body, member, _): &&(usize, usize, usize, u64)| {
            (*thread, *body) == (sent.thread, sent.body) && *member != sent.member
        };
        self.open.values().filter(same).map(|(.., at)| *at).min()
    }

    /// Hedges keep within their budget (HA 4.3).
    fn hedges(&mut self, sent: &Sent<'_>) -> Option<String> {
        if !matches!(sent.call, Call::Use(_) | Call::Plan(_) | Call::GetAttributes(_) | Call::Random(_)) {
            return None;
        }
        let asks_all = self.calls.get(&sent.thread).is_some_and(|call| call.asks_all);
        let first = self.first_send(sent);
        let hedge = first.is_some_and(|at| sent.now < at + SILENT_MS * MS);
        let (requests, hedges) = self.hedged.entry(sent.process).or_default();
        *requests += u64::from(first.is_none());
        *hedges += u64::from(hedge && !asks_all);
        (*hedges > HEDGES_FREE + *requests / HEDGE_IN).then(|| {
            format!("process {} sent {hedges} hedges for {requests} requests (HA 4.3)", sent.process)
        })
    }

    /// A second send of a request that is on its way goes to a member that was heard lately (HA 4.4).
    fn moves_to_the_silent(&mut self, sent: &Sent<'_>) -> Option<String> {
        if !matches!(sent.call, Call::Use(_) | Call::Plan(_) | Call::GetAttributes(_) | Call::Random(_)) {
            return None;
        }
        let first = self.first_send(sent);
        self.open.insert(sent.tag, (sent.thread, sent.body, sent.member, sent.now));
        // A hedge asks for no such thing (HA 4.3).
        let hedges =
            self.replies.iter().any(|((of, _), replies)| *of == sent.process && *replies >= KNOWN_BY);
        let silent_ms = sent.now.saturating_sub(sent.heard) / MS;
        let asks_all = self.calls.get(&sent.thread).is_some_and(|call| call.asks_all);
        (first.is_some() && !hedges && !asks_all && silent_ms > HEARD_MS).then(|| {
            format!(
                "process {} moved a request to member {}, which was silent for {silent_ms} ms (HA 4.4)",
                sent.process, sent.member
            )
        })
    }

    /// A member that returned is read once it holds what its references held when it returned (HA 2.4, 4.6).
    fn reads(&mut self, sent: &Sent<'_>, members: &[Member]) -> Option<String> {
        if !matches!(
            sent.call,
            Call::Use(_) | Call::Plan(_) | Call::GetAttributes(_) | Call::Find(_) | Call::SetAttributes(_)
        ) {
            return None;
        }
        let link = (sent.process, sent.member, sent.epoch);
        let mark = self.marks.remove(&link)?;
        let mut alive = mark.iter().filter(|(reference, _)| self.verified.contains(reference)).peekable();
        alive.peek()?;
        // What its references have done since, it was sent, or it owes it (HA 2.4, 2.5).
        let missing = members[sent.member].disk.look(|image| {
            let lacks = |(ouid, state): &(&Ouid, &i32)| image.state(**ouid).is_none_or(|is| is < **state);
            alive.find_map(|(reference, held)| held.iter().find(lacks).map(|found| (reference.1, found)))
        });
        if let Some((reference, (ouid, state))) = missing {
            return Some(format!(
                "process {} reads member {} again, which lacks {ouid:?} in state {state}, as member {reference} held it (HA 4.6)",
                sent.process, sent.member
            ));
        }
        self.verified.insert(link);
        None
    }

    /// A member whose store was put back serves nothing until it was compared (HA 1.5).
    fn serves_unproved(&mut self, done: &Done<'_>, outcome: Outcome) -> Option<String> {
        let (process, member, _) = done.link;
        if outcome != Outcome::OK || !self.unproved[member] {
            return None;
        }
        match done.call {
            Call::Join(join) if join.repaired => {
                self.unproved[member] = false;
                None
            }
            Call::Login(_)
            | Call::Use(_)
            | Call::Find(_)
            | Call::GetAttributes(_)
            | Call::Plan(_)
            | Call::Make(_) => {
                let name = row_of(done.call.number()).map_or("?", |row| row.name);
                Some(format!(
                    "member {member} was put back and serves {name} of process {process} before it was compared (HA 1.5)"
                ))
            }
            _ => None,
        }
    }

    /// No old-epoch credential is accepted by a member that knows better (HA 2.7).
    fn takes_old_credentials(&mut self, done: &Done<'_>, outcome: Outcome) -> Option<String> {
        let (_, member, _) = done.link;
        let epoch = done.header.credential_epoch;
        match (done.call, &done.reply.answer) {
            (Call::SetPin(set), _) if outcome == Outcome::OK && set.user == spec::UserType::USER.0 => {
                self.pins.entry(epoch).or_insert_with(|| set.new.clone());
            }
            // Who becomes the home begins a new row of versions with the credentials that it has (HA 2.7).
            (Call::ChangeManifest(_), _) if outcome == Outcome::OK && epoch > done.knew => {
                let pin = self.pin_at(done.knew);
                self.pins.entry(epoch).or_insert(pin);
            }
            (Call::Login(login), Some(Answer::Login(answer))) => {
                self.tickets.insert(answer.ticket.clone(), epoch);
                if login.user == spec::UserType::USER.0 && login.pin != self.pin_at(epoch) {
                    return Some(format!(
                        "member {member} took a PIN that is not that of epoch {epoch:#x} (HA 2.7)"
                    ));
                }
            }
            _ => {}
        }
        let given = *self.tickets.get(done.ticket)?;
        let ended = self.revoked.iter().any(|end| given < *end && *end <= done.knew);
        let looked_at = !matches!(outcome, Outcome::TICKET_DEAD | Outcome::RECOVERING | Outcome::WRONG_GROUP);
        // A PIN is a right of its own, and Status asks for none.
        let asks = !matches!(done.call, Call::Status(_) | Call::Login(_) | Call::SetPin(_));
        let looked_at = looked_at && asks && outcome == Outcome::OK;
        (ended && looked_at).then(|| {
            let name = row_of(done.call.number()).map_or("?", |row| row.name);
            format!("member {member} knew epoch {:#x} and carried out {name} with a ticket of {given:#x} (HA 2.7)", done.knew)
        })
    }

    /// New objects are new, and their batch is known from now on.
    fn makes(&mut self, done: &Done<'_>) -> Option<String> {
        let Some(Answer::Make(made)) = &done.reply.answer else { return None };
        let ouids: Vec<Ouid> =
            made.outputs.iter().filter_map(|output| Ouid::from_bytes(&output.ouid)).collect();
        let again = ouids.iter().find(|ouid| !self.ouids.insert(**ouid)).copied();
        if ouids.len() > 1 {
            self.batches.push(ouids);
        }
        again.map(|ouid| format!("two objects have one ouid: {ouid:?}"))
    }
}

/// Whether a member has taken part of a batch: its objects were alike before and are not after (HA 2.1). One that is
/// destroyed takes nothing from the rest.
pub(crate) fn took_part(before: &[Vec<Option<i32>>], after: &[Vec<Option<i32>>]) -> bool {
    let alike = |states: &[Option<i32>]| {
        let mut alive = states.iter().filter(|state| **state != Some(2));
        let first = alive.next();
        alive.all(|state| Some(state) == first)
    };
    before.iter().zip(after).any(|(before, after)| alike(before) && !alike(after))
}

/// Tells one body from another while both exist.
pub(crate) fn identity<T>(body: &Arc<T>) -> usize {
    Arc::as_ptr(body) as *const () as usize
}
