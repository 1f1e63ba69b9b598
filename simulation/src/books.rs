//! What is noted of every request, whatever it travels over: as it leaves its process and as a member carries it out.
//!
//! ```text
//! leaves ----> Watch::sent            what a call has sent, and to whom
//! carry_out -> member -> Watch::done  what the member was asked, what it knew, what it answered
//! ```
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prost::Message;
use spec::Ouid;
use spec::messages::{Call, ReplyBody, ReplyHeader, RequestBody, RequestHeader};
use spec::seam::Outgoing;
use zeroize::Zeroizing;

use crate::breaks::{call_name, writes};
use crate::changes::Changes;
use crate::disk::Image;
use crate::members::{Member, caller};
use crate::watch::{Done, LinkEpoch, Sent, Watch, identity, took_part};
use crate::world::{World, current_thread};

/// A field that this release does not know, as a later one might send it (DESIGN 4: unknown fields are ignored).
const OF_A_LATER_RELEASE: [u8; 3] = [0xF8, 0x7F, 1];
/// How long a slow disk takes for a commit, in milliseconds.
const SLOW_MS: (u64, u64) = (100, 2_000);

/// A request that has reached its member.
pub(crate) struct Asked<'a> {
    /// The connection that it came over.
    pub(crate) link: LinkEpoch,
    /// As in [`Sent::tag`].
    pub(crate) tag: u64,
    pub(crate) header: &'a RequestHeader,
    pub(crate) body: &'a [u8],
    /// The window that the reply grants.
    pub(crate) window: u32,
    /// Whether its connection has ended meanwhile.
    pub(crate) lost: bool,
}

/// See the head of this file.
pub(crate) struct Books {
    world: Arc<World>,
    members: Arc<Vec<Member>>,
    /// What is watched.
    pub(crate) watch: Watch,
    /// Which changes were made again.
    pub(crate) changes: Changes,
    /// Whether messages carry fields of a later release.
    later_release: bool,
    state: Mutex<State>,
}

struct State {
    sent: u64,
    /// The objects of the last Commit that each thread has sent.
    committed: BTreeMap<usize, Vec<Ouid>>,
    /// One request in so many is answered Busy; 0 for none.
    busy_in: u64,
}

impl Books {
    /// Nothing was sent yet; one request in `busy_in` is answered Busy, none for 0.
    pub(crate) fn new(
        world: &Arc<World>,
        members: &Arc<Vec<Member>>,
        later_release: bool,
        busy_in: u64,
    ) -> Arc<Self> {
        let epoch = members[0].partition().map_or(0, |partition| partition.header().credential_epoch);
        let state = State { sent: 0, committed: BTreeMap::new(), busy_in };
        Arc::new(Self {
            world: world.clone(),
            members: members.clone(),
            watch: Watch::new(epoch),
            changes: Changes::default(),
            later_release,
            state: Mutex::new(state),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The objects of the last Commit that a thread has sent, once.
    pub(crate) fn take_committed(&self, thread: usize) -> Vec<Ouid> {
        self.state().committed.remove(&thread).unwrap_or_default()
    }

    /// Requests sent so far.
    pub(crate) fn sent(&self) -> u64 {
        self.state().sent
    }

    /// No request is answered Busy any more but by members that have too much to do.
    pub(crate) fn calm(&self) {
        self.state().busy_in = 0;
    }

    /// A thread is about to ask; whether anything leaves or not.
    pub(crate) fn asks(&self, call: Option<&Call>) {
        if let Some(Call::Commit(commit)) = call {
            let ouids = commit.ouids.iter().filter_map(|ouid| Ouid::from_bytes(ouid)).collect();
            self.state().committed.insert(current_thread(), ouids);
        }
    }

    /// A request leaves over a connection of its process to a member that was last `heard` then.
    pub(crate) fn leaves(
        &self,
        (process, member, epoch): LinkEpoch,
        (tag, heard): (u64, u64),
        request: &Outgoing,
        call: Option<&Call>,
    ) {
        self.state().sent += 1;
        let Some(call) = call else { return };
        let sent = Sent {
            process,
            member,
            thread: current_thread(),
            epoch,
            tag,
            heard,
            now: self.world.now(),
            call,
            body: identity(&request.body),
        };
        if let Some(broken) = self.watch.sent(&sent, &self.members) {
            self.world.fail(broken);
        }
    }

    /// A process finds itself connected to a member; `first` where it never was before. Where all members hold the same at that
    /// moment, and then alone, there is nothing that the member must be given before it is read (HA 4.6).
    pub(crate) fn finds(&self, link: LinkEpoch, first: bool) {
        let mut held = self.members.iter().map(|member| member.disk.look(Image::lasting));
        let one = held.next();
        if first && held.all(|other| Some(other) == one) {
            return self.watch.starts(link);
        }
        self.watch.connected(link);
    }

    /// A process hears a reply over a link: how far the member's store has come.
    pub(crate) fn hears(&self, link: LinkEpoch, seq: u64) {
        self.watch.hears(link, seq, &self.members);
    }

    /// The request as this run's release sends it.
    pub(crate) fn in_its_release(&self, body: &mut Zeroizing<Vec<u8>>) {
        if self.later_release {
            body.extend_from_slice(&OF_A_LATER_RELEASE);
        }
    }

    /// Whether a member answers Busy, now and then, and to nearly everything while it has too much to do (HA 4.5); with the
    /// patience that it asks for, in milliseconds.
    pub(crate) fn busy(&self, member: usize, call: u32) -> Option<u32> {
        let busy_in = self.state().busy_in;
        let overloaded = self.members[member].is_overloaded(self.world.now());
        let (busy, ms) = self.world.chance(|chance| {
            if overloaded && call_name(call) != "Status" {
                (!chance.once_in(20), chance.between(20, 100))
            } else {
                (busy_in > 0 && chance.once_in(busy_in), chance.between(1, 40))
            }
        });
        busy.then(|| u32::try_from(ms).unwrap_or(1))
    }

    /// A slow disk: how long the commit takes, in milliseconds; reads overtake it.
    pub(crate) fn disk_ms(&self, member: usize, call: u32) -> Option<u64> {
        let slow = self.members[member].is_slow(self.world.now());
        (slow && writes(call)).then(|| self.world.chance(|chance| chance.between(SLOW_MS.0, SLOW_MS.1)))
    }

    /// A member carries out a request; nothing where it is down.
    pub(crate) fn carry_out(&self, asked: &Asked<'_>) -> Option<(ReplyHeader, Zeroizing<Vec<u8>>)> {
        let (process, place, _) = asked.link;
        let member = &self.members[place];
        let mut request = RequestBody::decode(asked.body).ok();
        let ticket = request.as_mut().map(|request| std::mem::take(&mut request.ticket)).unwrap_or_default();
        let call = request.as_mut().and_then(|request| request.call.take());
        let number = call.as_ref().map_or(0, Call::number);
        let whole = ["Store", "Commit"].contains(&call_name(number));
        let before = if whole { self.watch.halves(member) } else { Vec::new() };
        let (knew, seq) = member.partition().map_or((0, 0), |partition| {
            let header = partition.header();
            (header.credential_epoch, header.seq)
        });
        let (mut header, mut body) =
            member.handle(&caller(process), asked.header, asked.body, self.world.now())?;
        header.window = asked.window;
        if whole && took_part(&before, &self.watch.halves(member)) {
            self.world.fail(format!("member {place} has taken part of a batch (HA 2.1)"));
        }
        let reply = ReplyBody::decode(body.as_slice()).ok();
        if let (Some(call), Some(reply)) = (&call, &reply) {
            let (link, tag) = (asked.link, asked.tag);
            if let Call::SetAttributes(set) = call {
                let sent = (asked.header.attempt, self.world.now());
                let broken = self.changes.comes(place, set, sent, header.seq > seq);
                let broken = broken.filter(|_| !self.watch.did_clocks_run_apart());
                broken.into_iter().for_each(|what| self.world.fail(what));
            }
            let done = Done { link, tag, call, ticket: &ticket, knew, header: &header, reply };
            if let Some(broken) = self.watch.done(&done) {
                self.world.fail(broken);
            }
        }
        self.world.note(u64::from(number), || {
            let outcome = reply.map_or(u32::MAX, |reply| reply.outcome);
            format!(
                "member {place} answers {} of process {process}: outcome {outcome}, seq {}{}",
                call_name(number),
                header.seq,
                if asked.lost { ", on a link that broke" } else { "" }
            )
        });
        self.in_its_release(&mut body);
        Some((header, body))
    }
}

/// The call of a request, if it is one.
pub(crate) fn call_of(body: &[u8]) -> Option<Call> {
    RequestBody::decode(body).ok().and_then(|mut body| body.call.take())
}
