//! Meter: what the routing reports while it works, for counters, histograms and the HA log. Calls are short and never
//! block; an implementation takes no lock that a calling thread may wait for.
use std::fmt::Debug;
use std::time::Duration;

use crate::seam::MemberId;

/// How one send of a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ended {
    /// With a reply that decided the call.
    Answered,
    /// With a reply that is no decision: another member is asked.
    Declined,
    /// The member asked for patience (HA 4.5).
    Busy,
    /// Without a reply.
    Lost,
    /// The caller no longer wanted the answer: the loser of a hedge, an evacuated request.
    Cancelled,
}

/// Why a request went to another member too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Moved {
    /// Its link broke, or the member could not do it.
    Failover,
    /// It was slower than usual (HA 4.3).
    Hedge,
    /// Its member fell silent (HA 4.4).
    Evacuation,
    /// Its member was busy (HA 4.5).
    Busy,
}

/// What has become of a member or of the group, for the HA log.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the fields say what they are")]
pub enum News {
    /// The member is read and written again.
    Admitted { member: MemberId },
    /// The member answers and is compared and repaired before it is read.
    Recovering { member: MemberId },
    /// The member cannot be used, for this reason.
    Lost { member: MemberId, reason: String },
    /// The member is suspected: it was silent for longer than it ever is (HA 4.4).
    Suspected { member: MemberId },
    /// An attempt to reach a lost member has failed.
    AttemptFailed { member: MemberId, reason: String },
    /// The member has come to the group.
    Joined { member: MemberId },
    /// The member has left the group.
    Left { member: MemberId },
    /// No member can be reached.
    AllLost,
    /// No active member can be read, and these standby members serve (HA 2.4).
    StandbyServes { members: Vec<MemberId> },
    /// An active member serves again, and the standby members rest.
    ActiveServes,
    /// Repair has moved so many records.
    Repaired { records: u64 },
    /// Contents are known to differ, or do so no more (HA 3.2).
    Divergent { divergent: bool },
}

/// Takes what the routing reports.
pub trait Meter: Send + Sync + Debug {
    /// One send of a call (its number in [`CALLS`](crate::calls::CALLS)) to a member has ended after this time.
    fn ended(&self, member: MemberId, call: u32, ended: Ended, took: Duration);
    /// A request went from one member to another too.
    fn moved(&self, from: MemberId, to: MemberId, call: u32, why: Moved);
    /// A member's or the group's standing has changed.
    fn news(&self, news: &News);
}

/// A meter that takes no notice.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Meter for Silent {
    fn ended(&self, _: MemberId, _: u32, _: Ended, _: Duration) {}
    fn moved(&self, _: MemberId, _: MemberId, _: u32, _: Moved) {}
    fn news(&self, _: &News) {}
}
