//! The seam between `ha` and the links of one process, looked at: what is asked, and what is heard of it (HA 4.1).
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use ntls::links::Links;
use spec::messages::Call;
use spec::platform::Moment;
use spec::seam::{Event, Fault, MemberId, Outgoing, Seam, Standing, Tag, Waiter};
use zeroize::Zeroizing;

use super::partitions::{Partitions, numbered};
use crate::books::{Books, call_of};
use crate::breaks::call_name;
use crate::links::desk::Desk;
use crate::links::ledger::{End, Ledger};
use crate::members::{MEMBERS, place};
use crate::watch::LinkEpoch;
use crate::world::World;

/// How the members stood whenever the process looked.
#[derive(Default)]
pub(super) struct Looks {
    /// Since when each is up, where it is.
    since: [Option<u64>; MEMBERS],
    /// Whether each ever was.
    known: [bool; MEMBERS],
    /// Whether all of them were up at some moment, and after that fewer than two.
    all: bool,
    lonely: bool,
}

impl Looks {
    /// Those of a process that begins while others are at work: it may be lonely before it is connected.
    pub(super) fn late() -> Self {
        Self { lonely: true, ..Self::default() }
    }

    /// Whether fewer than two were up, after all were.
    pub(super) fn were_lonely(&self) -> bool {
        self.lonely
    }

    /// Since when the member was up when the process looked before, and whether it was known to have ever been.
    fn see(&mut self, member: usize, since: Option<u64>) -> (Option<u64>, bool) {
        let before = std::mem::replace(&mut self.since[member], since);
        let known = self.known[member];
        self.known[member] |= since.is_some();
        let count = self.since.iter().flatten().count();
        self.all |= count == MEMBERS;
        self.lonely |= self.all && count < 2;
        (before, known)
    }
}

/// A request that has not ended.
struct Open {
    number: u64,
    /// Where its caller waits; it may have left what it does not want to hear to be answered.
    waiter: Weak<Waiter>,
    /// The connection that it went over, if it went.
    link: Option<LinkEpoch>,
    /// Whether it asks for random bytes.
    random: bool,
}

/// See the head of this file.
pub(super) struct Tap {
    pub(super) world: Arc<World>,
    pub(super) books: Arc<Books>,
    pub(super) ledger: Arc<Ledger>,
    pub(super) partitions: Arc<Partitions>,
    pub(super) desk: Arc<Desk>,
    pub(super) process: usize,
    pub(super) links: Arc<Links>,
    pub(super) looks: Arc<Mutex<Looks>>,
    pub(super) state: Mutex<State>,
}

/// The requests of a process, by their tags.
#[derive(Default)]
pub(super) struct State {
    open: BTreeMap<u64, Open>,
    /// What was given up: an end may have been on its way.
    given_up: BTreeMap<u64, u64>,
}

impl Tap {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A thread that waited since then hears this.
    fn hears(&self, waiter: &Arc<Waiter>, event: &Event, since: u64) {
        match event {
            Event::Reply(tag, reply) => {
                if let Some(open) = self.ends(*tag, End::Reply, since) {
                    let hears = |link| self.books.hears(link, reply.header.seq);
                    open.link.into_iter().for_each(hears);
                    if open.random {
                        self.books.watch.gives(self.process, &reply.body);
                    }
                }
            }
            Event::Busy(tag, _) => {
                if let Some(number) = self.state().open.get(&tag.0).map(|open| open.number) {
                    self.books.watch.busy(number, self.world.now());
                }
                let _ = self.ends(*tag, End::Busy, since);
            }
            Event::Fault(tag, fault) => {
                let end = if *fault == Fault::NotSent { End::NotSent } else { End::Unknown };
                let _ = self.ends(*tag, end, since);
            }
            Event::Deadline => {
                let state = self.state();
                let own = Arc::as_ptr(waiter);
                let waits = state.open.values().filter(|open| open.waiter.as_ptr() == own);
                let numbers: Vec<u64> = waits.map(|open| open.number).collect();
                drop(state);
                for number in numbers {
                    self.ledger.waits(number, since, |from, to| self.desk.was_stalled(from, to, None));
                }
            }
            Event::Progress(_) | Event::Woken => {}
        }
    }

    /// A request has ended for its caller.
    fn ends(&self, tag: Tag, end: End, since: u64) -> Option<Open> {
        let (open, given_up) = {
            let mut state = self.state();
            (state.open.remove(&tag.0), state.given_up.remove(&tag.0))
        };
        if let Some(open) = open {
            self.world.note(open.number, || format!("request {} has ended: {end:?}", open.number));
            self.books.watch.closed(open.number);
            self.ledger.ended(open.number, end, since, |from, to| self.desk.was_stalled(from, to, None));
            return Some(open);
        }
        match given_up {
            Some(number) => self.ledger.ended_after_all(number, end),
            None => self.world.fail(format!("{end:?} for a request that has ended or never was")),
        }
        None
    }
}

impl Seam for Tap {
    fn submit(&self, waiter: &Arc<Waiter>, member: MemberId, request: &Outgoing, deadline: Moment) -> Tag {
        let call = call_of(&request.body);
        self.books.asks(call.as_ref());
        let number = self.ledger.begin();
        let link = match (place(member), self.standing(member)) {
            (Some(place), Standing::Up { since, heard }) => {
                let link = (self.process, place, since.0);
                self.partitions.sent(number, link);
                self.books.leaves(link, (number, heard.0), request, call.as_ref());
                Some(link)
            }
            _ => None,
        };
        let mut body = Zeroizing::new(request.body.to_vec());
        self.books.in_its_release(&mut body);
        body.extend(numbered(number));
        let request = Outgoing { header: request.header.clone(), body: Arc::new(body) };
        self.world.note(number, || {
            let name = call_name(call.as_ref().map_or(0, Call::number));
            format!("process {} asks {member} for {name}: request {number}", self.process)
        });
        let tag = self.links.submit(waiter, member, &request, deadline);
        let random = matches!(call, Some(Call::Random(_)));
        let open = Open { number, waiter: Arc::downgrade(waiter), link, random };
        if self.state().open.insert(tag.0, open).is_some() {
            self.world.fail(format!("request {number} has a tag that was there before"));
        }
        tag
    }

    fn cancel(&self, member: MemberId, tag: Tag) {
        let open = {
            let mut state = self.state();
            let open = state.open.remove(&tag.0);
            if let Some(open) = &open {
                state.given_up.insert(tag.0, open.number);
            }
            open
        };
        if let Some(open) = open {
            self.books.watch.closed(open.number);
            self.ledger.ended(open.number, End::Cancelled, self.world.now(), |_, _| true);
        }
        self.links.cancel(member, tag);
    }

    fn standing(&self, member: MemberId) -> Standing {
        let standing = self.links.standing(member);
        if let Some(place) = place(member) {
            let since = match standing {
                Standing::Up { since, .. } => Some(since.0),
                Standing::Down { .. } => None,
            };
            let looks = self.looks.lock();
            let (before, known) = looks.unwrap_or_else(PoisonError::into_inner).see(place, since);
            let ended = before.filter(|_| before != since);
            ended.into_iter().for_each(|since| self.books.watch.doubts((self.process, place, since)));
            let begun = since.filter(|_| before != since);
            begun.into_iter().for_each(|since| self.books.finds((self.process, place, since), !known));
        }
        standing
    }

    fn abandon(&self, member: MemberId, reason: &str) {
        self.world.note(member.0, || format!("process {} gives {member} up: {reason}", self.process));
        self.links.abandon(member, reason);
    }

    fn subscribe(&self, waiter: &Arc<Waiter>) {
        self.links.subscribe(waiter);
    }

    fn wait(&self, waiter: &Arc<Waiter>, until: Moment) -> Event {
        let since = self.world.now();
        let event = self.links.wait(waiter, until);
        self.hears(waiter, &event, since);
        event
    }

    fn has_unread(&self, member: MemberId) -> bool {
        self.links.has_unread(member)
    }
}
