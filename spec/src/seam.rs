//! The seam (HA 4.1): how a request reaches a member, whatever stands behind it (a link, an in-process partition, a
//! simulated network).
//!
//! ```text
//! submit -> Tag ... Progress* ... Reply | Busy | Fault(NotSent | Unknown)      exactly one end for each tag
//! ```
use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crossbeam_queue::ArrayQueue;
use zeroize::Zeroizing;

use crate::long;
use crate::messages::{ReplyHeader, RequestHeader};
use crate::platform::{Lock, Moment, Park, Platform};
use crate::wipe::wipe_out;

/// A member, named by the serial number of its partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MemberId(pub u64);

impl fmt::Display for MemberId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Names one submitted request; unique for the life of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tag(pub u64);

/// A request ready to travel: its body is encoded once and the same bytes are sent on every try (RULES 1.5). The
/// seam fills `tag` of the header anew for each send.
#[derive(Clone)]
pub struct Outgoing {
    /// What may differ from one send to the next.
    pub header: RequestHeader,
    /// An encoded [`RequestBody`](crate::messages::RequestBody).
    pub body: Arc<Zeroizing<Vec<u8>>>,
}

/// What a member answered.
pub struct Reply {
    /// The member's standing, in every reply.
    pub header: ReplyHeader,
    /// An encoded [`ReplyBody`](crate::messages::ReplyBody).
    pub body: Zeroizing<Vec<u8>>,
}

/// Why no reply will come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// No byte of the request left: it may always be sent again.
    NotSent,
    /// It may or may not have been executed: the call's class decides (HA 4.2).
    Unknown,
}

/// What a waiter hears.
pub enum Event {
    /// The end: an answer.
    Reply(Tag, Reply),
    /// The member is still at work (sent for work over one second). One that was on its way may come behind the end.
    Progress(Tag),
    /// The end: not executed; the member asks for so many milliseconds of patience.
    Busy(Tag, u32),
    /// The end: no answer.
    Fault(Tag, Fault),
    /// Something that the waiter subscribed to has changed.
    Woken,
    /// The moment given to `wait` has come.
    Deadline,
}

/// Whether a member can be reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Connected since the first moment; last heard from at the second.
    Up {
        /// When the link came up.
        since: Moment,
        /// When a byte last came from it.
        heard: Moment,
    },
    /// Not connected, for this reason (a sentence for the operator).
    Down {
        /// What is wrong and what to do.
        reason: String,
    },
}

/// Carries requests to members.
pub trait Seam: Send + Sync {
    /// Sends a request. Never blocks for the network; the outcome comes to the waiter under the returned tag.
    fn submit(&self, waiter: &Arc<Waiter>, member: MemberId, request: &Outgoing, deadline: Moment) -> Tag;
    /// The caller no longer wants the answer. An end that was on its way already may still be heard, once: it is known by
    /// its tag, which is never used again.
    fn cancel(&self, member: MemberId, tag: Tag);
    /// Whether the member can be reached now.
    fn standing(&self, member: MemberId) -> Standing;
    /// Gives up the member's link: everything outstanding on it ends with a fault, and a new link is tried.
    fn abandon(&self, member: MemberId, reason: &str);
    /// The waiter hears `Woken` whenever the standing of any member changes.
    fn subscribe(&self, waiter: &Arc<Waiter>);
    /// The waiter's next event, or `Deadline` once the moment has come. The caller's thread is lent to the seam for so
    /// long: links are driven by those who wait (HA 5).
    fn wait(&self, waiter: &Arc<Waiter>, until: Moment) -> Event {
        waiter.wait(until)
    }
    /// Whether bytes of the member lie unread on our side: then its silence is ours (HA 4.4, 5 (3)).
    fn has_unread(&self, member: MemberId) -> bool {
        let _ = member;
        false
    }
}

/// The mailbox of one caller, and where its requests are.
///
/// What carries requests (the seam) may count, per *place* that it numbers itself, the requests of the caller that have
/// not ended, and note in how many lists the caller stands: [`expect`](Self::expect), [`settle`](Self::settle),
/// [`listed`](Self::listed). A seam that only delivers needs none of that, and then no lock is taken.
pub struct Waiter {
    platform: Arc<dyn Platform>,
    park: Arc<dyn Park>,
    events: ArrayQueue<Event>,
    /// Events that found no room, and whether there are any.
    more: Lock<VecDeque<Event>>,
    has_more: AtomicBool,
    /// Woken without news.
    woken: AtomicBool,
    /// Places with requests that have not ended, and how many.
    places: Lock<Vec<(u32, u32)>>,
    /// Memory of replies that have been read, for those to come.
    spare: ArrayQueue<Zeroizing<Vec<u8>>>,
    listed: AtomicUsize,
}

/// Events that wait without a lock: more than a caller usually has requests on their way.
const EVENTS: usize = 16;
/// Most bodies whose memory a mailbox keeps.
const SPARE_MAX: usize = 2;
/// The memory of a larger body is not kept, in bytes: those of uses over a KiB of data are.
const SPARE_BYTES_MAX: usize = 1_280;

impl Waiter {
    /// An empty mailbox.
    pub fn new(platform: &Arc<dyn Platform>) -> Arc<Self> {
        Arc::new(Self {
            platform: platform.clone(),
            park: platform.parker(),
            events: ArrayQueue::new(EVENTS),
            more: Lock::default(),
            has_more: AtomicBool::new(false),
            woken: AtomicBool::new(false),
            places: Lock::default(),
            spare: ArrayQueue::new(SPARE_MAX),
            listed: AtomicUsize::new(0),
        })
    }

    /// Whether this process made it: one that a forked child has inherited may be cut off in the middle of a delivery, and
    /// must be neither read nor dropped (HA 6).
    pub fn is_own(&self) -> bool {
        self.park.is_own()
    }

    /// Delivers an event and wakes the caller.
    pub fn deliver(&self, event: Event) {
        self.put(event);
        self.park.unpark();
    }

    fn put(&self, event: Event) {
        if let Err(event) = self.events.push(event) {
            if matches!(event, Event::Progress(_)) {
                // It says nothing that the next one will not say; a member may send any number.
                return;
            }
            let mut more = self.more.lock();
            more.push_back(event);
            self.has_more.store(true, Ordering::Release);
        }
    }

    /// Wakes the caller without news; several wakes before a `wait` are one.
    pub fn wake(&self) {
        self.woken.swap(true, Ordering::AcqRel);
        self.park.unpark();
    }

    /// The next event, if one has come. Those of one tag come in their order; `Progress` may be left out.
    pub fn take(&self) -> Option<Event> {
        // An event is large, and is moved once only where each is returned from where it lay.
        if let event @ Some(_) = self.events.pop() {
            return event;
        }
        if let event @ Some(_) = self.take_more() {
            return event;
        }
        let woken = self.woken.load(Ordering::Acquire) && self.woken.swap(false, Ordering::AcqRel);
        woken.then_some(Event::Woken)
    }

    fn take_more(&self) -> Option<Event> {
        if !self.has_more.load(Ordering::Acquire) {
            return None;
        }
        let mut more = self.more.lock();
        let event = more.pop_front();
        self.has_more.store(!more.is_empty(), Ordering::Release);
        event
    }

    /// The next event, or `Deadline` once the moment has come.
    pub fn wait(&self, until: Moment) -> Event {
        loop {
            if let Some(event) = self.take() {
                return event;
            }
            if self.platform.now() >= until {
                return Event::Deadline;
            }
            self.park.park(until);
        }
    }

    /// Where the caller waits: to park, to be polled with, to be woken.
    pub fn park(&self) -> &dyn Park {
        &*self.park
    }

    /// One more request of the caller is at the place. Memory for its reply, as [`lend`](Self::lend) gives it.
    pub fn expect(&self, place: u32) -> Option<Zeroizing<Vec<u8>>> {
        let mut places = self.places.lock();
        match places.iter_mut().find(|(found, _)| *found == place) {
            Some((_, count)) => *count += 1,
            None => places.push((place, 1)),
        }
        drop(places);
        self.lend()
    }

    /// One request at the place has ended, with this event; wakes the caller.
    pub fn settle(&self, place: u32, event: Event) {
        // In this order the caller finds the place or the event, or both for a moment.
        self.put(event);
        self.forget(place);
        self.park.unpark();
    }

    /// One request at the place has ended, and its caller does not want to hear of it.
    pub fn forget(&self, place: u32) {
        let mut places = self.places.lock();
        if let Some(at) = places.iter().position(|(found, _)| *found == place) {
            places[at].1 -= 1;
            if places[at].1 == 0 {
                places.swap_remove(at);
            }
        }
    }

    /// One of the places with requests of the caller that have not ended, by its number from 0; they change order when
    /// one of them is done.
    pub fn place(&self, index: usize) -> Option<u32> {
        self.places.lock().get(index).map(|(place, _)| *place)
    }

    /// Takes back the body of a reply that has been read, wiped: the next reply may be written into its memory.
    pub fn give_back(&self, mut body: Zeroizing<Vec<u8>>) {
        if (1..=SPARE_BYTES_MAX).contains(&body.capacity()) {
            wipe_out(&mut body);
            // What finds no room is one too many.
            let _ = self.spare.push(body);
        } else {
            long::give(body);
        }
    }

    /// Memory for one reply to this caller, if it has some to lend.
    pub fn lend(&self) -> Option<Zeroizing<Vec<u8>>> {
        self.spare.pop()
    }

    /// In how many lists of those who wait the caller stands; changed under the lock of the list.
    pub fn listed(&self) -> &AtomicUsize {
        &self.listed
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::cast_possible_truncation)]
mod tests {
    use std::io;
    use std::net::SocketAddr;

    use super::*;
    use crate::platform::{Joiner, Stream, Watched};

    /// A platform on which nothing happens.
    struct Still;

    impl Park for Still {
        fn park(&self, _: Moment) {}
        fn unpark(&self) {}
        fn forget(&self) {}
    }

    impl Platform for Still {
        fn now(&self) -> Moment {
            Moment(5)
        }

        fn wall_ms(&self) -> u64 {
            0
        }

        fn random(&self, _: &mut [u8]) {}

        fn spawn(&self, _: &str, _: Box<dyn FnOnce() + Send>) -> io::Result<Box<dyn Joiner>> {
            Err(io::ErrorKind::Unsupported.into())
        }

        fn thread(&self) -> u64 {
            0
        }

        fn yield_now(&self) {}

        fn parker(&self) -> Arc<dyn Park> {
            Arc::new(Still)
        }

        fn poll(&self, _: &mut [Watched], _: &dyn Park, _: Moment) {}

        fn resolve(&self, _: &str, _: u16) -> io::Result<Vec<SocketAddr>> {
            Err(io::ErrorKind::Unsupported.into())
        }

        fn connect(&self, _: SocketAddr, _: bool) -> io::Result<Arc<dyn Stream>> {
            Err(io::ErrorKind::Unsupported.into())
        }
    }

    #[test]
    fn a_mailbox_lends_the_memory_of_replies_that_were_read_and_nothing_of_them() {
        let platform: Arc<dyn Platform> = Arc::new(Still);
        let waiter = Waiter::new(&platform);
        assert!(waiter.lend().is_none());
        waiter.give_back(Zeroizing::new(vec![7; SPARE_BYTES_MAX + 1]));
        waiter.give_back(Zeroizing::default());
        assert!(waiter.lend().is_none(), "neither a large one nor none at all");
        (0..9).for_each(|_| waiter.give_back(Zeroizing::new(vec![7; 300])));
        for _ in 0..SPARE_MAX {
            assert!(waiter.lend().is_some_and(|spare| spare.is_empty() && spare.capacity() >= 300));
        }
        assert!(waiter.lend().is_none());
    }

    #[test]
    fn more_events_than_a_mailbox_has_room_for_are_all_heard() {
        let platform: Arc<dyn Platform> = Arc::new(Still);
        let waiter = Waiter::new(&platform);
        let sent = 0..3 * EVENTS as u64;
        for round in 0..2 {
            for tag in sent.clone() {
                waiter.deliver(Event::Fault(Tag(tag), Fault::NotSent));
                waiter.deliver(Event::Progress(Tag(tag)));
            }
            let heard = std::iter::from_fn(|| waiter.take());
            let mut heard: Vec<u64> = heard
                .filter_map(|event| match event {
                    Event::Fault(tag, _) => Some(tag.0),
                    _ => None,
                })
                .collect();
            heard.sort_unstable();
            assert_eq!(heard, sent.clone().collect::<Vec<_>>(), "round {round}");
        }
    }

    #[test]
    fn wakes_are_one_and_are_heard_behind_the_events() {
        let platform: Arc<dyn Platform> = Arc::new(Still);
        let waiter = Waiter::new(&platform);
        (0..3).for_each(|_| waiter.wake());
        waiter.deliver(Event::Fault(Tag(1), Fault::NotSent));
        assert!(matches!(waiter.wait(Moment(5)), Event::Fault(Tag(1), Fault::NotSent)));
        assert!(matches!(waiter.wait(Moment(5)), Event::Woken));
        assert!(matches!(waiter.wait(Moment(5)), Event::Deadline));
    }

    #[test]
    fn a_waiter_stands_at_the_places_of_its_requests_until_they_end() {
        let platform: Arc<dyn Platform> = Arc::new(Still);
        let waiter = Waiter::new(&platform);
        let places = || {
            let mut found: Vec<u32> = (0..).map_while(|index| waiter.place(index)).collect();
            found.sort_unstable();
            found
        };
        waiter.expect(3);
        waiter.expect(8);
        waiter.expect(3);
        assert_eq!(places(), [3, 8]);
        waiter.settle(3, Event::Busy(Tag(1), 2));
        waiter.forget(8);
        waiter.forget(7);
        assert_eq!(places(), [3]);
        waiter.settle(3, Event::Fault(Tag(2), Fault::Unknown));
        assert!(places().is_empty());
        assert!(matches!(waiter.take(), Some(Event::Busy(Tag(1), 2))));
        assert!(matches!(waiter.wait(Moment(5)), Event::Fault(Tag(2), Fault::Unknown)));
        assert!(matches!(waiter.wait(Moment(5)), Event::Deadline));
    }
}
