//! The seam (HA 4.1): how a request reaches a member, whatever stands behind it (a link, an in-process partition, a
//! simulated network).
//!
//! ```text
//! submit -> Tag ... Progress* ... Reply | Busy | Fault(NotSent | Unknown)      exactly one end for each tag
//! ```
use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use zeroize::Zeroizing;

use crate::messages::{ReplyHeader, RequestHeader};
use crate::platform::{Lock, Moment, Park, Platform};

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
    /// The member is still at work (sent for work over one second).
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
    /// The caller no longer wants the answer; nothing more is heard of the tag.
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

/// The mailbox of one caller.
pub struct Waiter {
    platform: Arc<dyn Platform>,
    park: Arc<dyn Park>,
    events: Lock<VecDeque<Event>>,
}

impl Waiter {
    /// An empty mailbox.
    pub fn new(platform: &Arc<dyn Platform>) -> Arc<Self> {
        Arc::new(Self {
            platform: platform.clone(),
            park: platform.parker(),
            events: Lock::new(VecDeque::new()),
        })
    }

    /// Delivers an event and wakes the caller.
    pub fn deliver(&self, event: Event) {
        self.events.lock().push_back(event);
        self.park.unpark();
    }

    /// Wakes the caller without news; several wakes before a `wait` are one.
    pub fn wake(&self) {
        let mut events = self.events.lock();
        if !events.iter().any(|event| matches!(event, Event::Woken)) {
            events.push_back(Event::Woken);
        }
        drop(events);
        self.park.unpark();
    }

    /// The next event, or `Deadline` once the moment has come.
    pub fn wait(&self, until: Moment) -> Event {
        loop {
            if let Some(event) = self.events.lock().pop_front() {
                return event;
            }
            if self.platform.now() >= until {
                return Event::Deadline;
            }
            self.park.park(until);
        }
    }
}
