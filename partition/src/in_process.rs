//! Partitions behind the seam of HA 4.1 without a network: synchronous, with controls for tests.
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use spec::messages::RequestHeader;
use spec::platform::{Moment, Platform};
use spec::seam::{Event, Fault, MemberId, Outgoing, Reply, Seam, Standing, Tag, Waiter};

use crate::census::one_call;
use crate::partition::{Caller, Partition};

/// A seam over partitions of this process.
pub struct InProcess {
    platform: Arc<dyn Platform>,
    caller: Caller,
    next_tag: AtomicU64,
    state: Mutex<State>,
}

struct Member {
    partition: Arc<Partition>,
    up: bool,
    since: Moment,
}

#[derive(Default)]
struct State {
    members: BTreeMap<MemberId, Member>,
    subscribers: Vec<Weak<Waiter>>,
    /// Requests whose reply is to be lost once: executed, then a fault.
    lose_reply: HashSet<(MemberId, u32)>,
    /// Requests that are to be lost once before they arrive.
    lose_request: HashSet<(MemberId, u32)>,
    counts: HashMap<(MemberId, u32), u64>,
}

impl InProcess {
    /// All members up; every request comes from `caller`.
    pub fn new(
        platform: Arc<dyn Platform>,
        caller: Caller,
        members: Vec<(MemberId, Arc<Partition>)>,
    ) -> Arc<InProcess> {
        let since = platform.now();
        let members =
            members.into_iter().map(|(id, partition)| (id, Member { partition, up: true, since })).collect();
        let state = State { members, ..State::default() };
        Arc::new(InProcess { platform, caller, next_tag: AtomicU64::new(1), state: Mutex::new(state) })
    }

    /// Takes a member off the network or brings it back; subscribers hear of it.
    pub fn set_down(&self, member: MemberId, down: bool) {
        let since = self.platform.now();
        if let Some(member) = self.state.lock().members.get_mut(&member).filter(|member| member.up == down) {
            (member.up, member.since) = (!down, since);
        }
        self.wake_subscribers();
    }

    /// Puts another partition in a member's place: a restart over the same store, or a clone.
    pub fn swap(&self, member: MemberId, partition: Arc<Partition>) {
        let since = self.platform.now();
        self.state.lock().members.insert(member, Member { partition, up: true, since });
        self.wake_subscribers();
    }

    /// The partition of a member.
    pub fn partition(&self, member: MemberId) -> Option<Arc<Partition>> {
        self.state.lock().members.get(&member).map(|member| member.partition.clone())
    }

    /// The next such call is executed and its reply lost: `Fault(Unknown)`.
    pub fn lose_reply_once(&self, member: MemberId, call: u32) {
        self.state.lock().lose_reply.insert((member, call));
    }

    /// The next such call is lost on its way, which the sender cannot tell: `Fault(Unknown)`.
    pub fn lose_request_once(&self, member: MemberId, call: u32) {
        self.state.lock().lose_request.insert((member, call));
    }

    /// How many requests of a call have reached a member.
    pub fn count(&self, member: MemberId, call: u32) -> u64 {
        self.state.lock().counts.get(&(member, call)).copied().unwrap_or(0)
    }

    /// How many requests have reached all members.
    pub fn count_all(&self) -> u64 {
        self.state.lock().counts.values().sum()
    }

    fn wake_subscribers(&self) {
        let subscribers: Vec<Arc<Waiter>> = {
            let mut state = self.state.lock();
            state.subscribers.retain(|waiter| waiter.strong_count() > 0);
            state.subscribers.iter().filter_map(Weak::upgrade).collect()
        };
        subscribers.iter().for_each(|waiter| waiter.wake());
    }

    /// What becomes of a request: the partition that runs it and whether its reply arrives, or a fault.
    fn route(&self, member: MemberId, call: u32) -> Result<(Arc<Partition>, bool), Fault> {
        let mut state = self.state.lock();
        let partition = match state.members.get(&member) {
            Some(member) if member.up => member.partition.clone(),
            _ => return Err(Fault::NotSent),
        };
        if state.lose_request.remove(&(member, call)) {
            return Err(Fault::Unknown);
        }
        *state.counts.entry((member, call)).or_default() += 1;
        let arrives = !state.lose_reply.remove(&(member, call));
        Ok((partition, arrives))
    }
}

impl Seam for InProcess {
    fn submit(&self, waiter: &Arc<Waiter>, member: MemberId, request: &Outgoing, _deadline: Moment) -> Tag {
        let tag = Tag(self.next_tag.fetch_add(1, Ordering::Relaxed));
        let call = one_call(&request.body).map_or(0, |(row, _)| row.number);
        let event = match self.route(member, call) {
            Err(fault) => Event::Fault(tag, fault),
            Ok((partition, arrives)) => {
                let header = RequestHeader { tag: tag.0, ..request.header.clone() };
                let now_ms = self.platform.wall_ms();
                let (header, body) = partition.handle(&self.caller, &header, &request.body, now_ms);
                if arrives {
                    Event::Reply(tag, Reply { header, body })
                } else {
                    Event::Fault(tag, Fault::Unknown)
                }
            }
        };
        waiter.deliver(event);
        tag
    }

    fn cancel(&self, _member: MemberId, _tag: Tag) {
        // Every request has ended before `submit` returns.
    }

    fn standing(&self, member: MemberId) -> Standing {
        match self.state.lock().members.get(&member) {
            Some(Member { up: true, since, .. }) => {
                Standing::Up { since: *since, heard: self.platform.now() }
            }
            Some(_) => Standing::Down { reason: format!("member {member} was taken down by the test") },
            None => Standing::Down { reason: format!("there is no member {member} in this process") },
        }
    }

    fn abandon(&self, _member: MemberId, _reason: &str) {
        // Nothing is outstanding and there is no link to give up.
    }

    fn subscribe(&self, waiter: &Arc<Waiter>) {
        self.state.lock().subscribers.push(Arc::downgrade(waiter));
    }
}
