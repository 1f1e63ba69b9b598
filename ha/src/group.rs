//! The public face: one group of members, and what may be asked of it.
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use arc_swap::Guard;
use spec::meter::News;
use spec::platform::{Lock, Moment, Platform};
use spec::record::Manifest;
use spec::seam::{MemberId, Seam};
use spec::sightings::Sightings;
use spec::{Ouid, Rv};
use zeroize::Zeroizing;

use crate::body::Body;
use crate::desk::status_body;
use crate::error::Error;
use crate::hedge::Budget;
use crate::in_call::InCalls;
use crate::line::Line;
use crate::repair::{Difference, UnderWay};
use crate::settings::GroupSettings;
use crate::snapshot::Snapshot;
use crate::view::View;

/// At most so many objects wait for a closer look (HA 3.1).
const SUSPECTS_MAX: usize = 4_096;

/// Counts the groups of the process; it goes on in a forked child.
static GROUPS: AtomicU64 = AtomicU64::new(1);

/// A group of members that act as one token. Shared by all threads; no lock is held while it waits.
pub struct Group {
    pub(crate) platform: Arc<dyn Platform>,
    pub(crate) seam: Arc<dyn Seam>,
    pub(crate) snapshot: Snapshot,
    /// Tells this group from every other one that this process or its parent ever had.
    pub(crate) identity: u64,
    /// The probe.
    pub(crate) probe: Body,
    /// The probe that asks for the list of mechanisms too.
    pub(crate) probe_for_list: Body,
    pub(crate) line: Line,
    pub(crate) budget: Budget,
    pub(crate) born: Moment,
    settled: AtomicBool,
    /// Whether this process has begun to write token objects.
    writes: AtomicBool,
    divergent: AtomicBool,
    closed: AtomicBool,
    outage_told: AtomicBool,
    /// Whether standby members serve, as last told.
    pub(crate) standby_serves: AtomicBool,
    numbers: AtomicU64,
    turns: AtomicU64,
    pub(crate) searcher: AtomicU64,
    /// Pages that another member gave sooner than the one that is searched, one after the other.
    pub(crate) hedges_won: AtomicU64,
    pub(crate) read_set: Lock<ReadSet>,
    pub(crate) tending: AtomicBool,
    pub(crate) in_calls: InCalls,
    pub(crate) last_difference: Lock<Option<Difference>>,
    pub(crate) under_way: Lock<Option<UnderWay>>,
    /// Who holds a lease of ours that could not be given back.
    pub(crate) unreturned: Lock<Option<Vec<u8>>>,
    /// From when on the lease is asked for again after another repairer had it.
    pub(crate) lease_again: AtomicU64,
    suspects: Lock<BTreeSet<Ouid>>,
    /// Where the members were seen, to be told to them (HA 1.5).
    pub(crate) sightings: Lock<Sightings>,
    repair_ticket: Lock<Option<Zeroizing<Vec<u8>>>>,
}

/// The read set as a search last saw it, and when it changed (HA 3.2).
pub(crate) struct ReadSet {
    pub(crate) ids: Vec<MemberId>,
    pub(crate) changed: Moment,
}

impl Group {
    /// A group over a seam; sends nothing yet.
    pub fn new(platform: Arc<dyn Platform>, seam: Arc<dyn Seam>, settings: GroupSettings) -> Arc<Group> {
        let mut start = [0; 8];
        platform.random(&mut start);
        Arc::new(Group {
            identity: GROUPS.fetch_add(1, Ordering::Relaxed),
            probe: status_body(false, Vec::new()),
            probe_for_list: status_body(true, Vec::new()),
            line: Line::default(),
            budget: Budget::default(),
            born: platform.now(),
            settled: AtomicBool::new(false),
            writes: AtomicBool::new(false),
            divergent: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            outage_told: AtomicBool::new(false),
            standby_serves: AtomicBool::new(false),
            numbers: AtomicU64::new(u64::from_le_bytes(start)),
            turns: AtomicU64::new(0),
            searcher: AtomicU64::new(0),
            hedges_won: AtomicU64::new(0),
            read_set: Lock::new(ReadSet { ids: Vec::new(), changed: platform.now() }),
            tending: AtomicBool::new(false),
            in_calls: InCalls::default(),
            last_difference: Lock::new(None),
            under_way: Lock::new(None),
            unreturned: Lock::new(None),
            lease_again: AtomicU64::new(0),
            suspects: Lock::new(BTreeSet::new()),
            sightings: Lock::default(),
            repair_ticket: Lock::new(None),
            platform,
            seam,
            snapshot: Snapshot::new(Arc::new(settings)),
        })
    }

    /// The Crypto Officer's ticket of this process, or `None` after logout: with it `tend` may repair (HA 4.6,
    /// RULES 3.3).
    pub fn set_repair_ticket(&self, ticket: Option<&[u8]>) {
        *self.repair_ticket.lock() = ticket.map(|ticket| Zeroizing::new(ticket.to_vec()));
    }

    /// The ticket of `set_repair_ticket`.
    pub(crate) fn repair_ticket(&self) -> Option<Zeroizing<Vec<u8>>> {
        self.repair_ticket.lock().clone()
    }

    /// Ends the group (C_Finalize): every call that runs ends within a third of a second, every later one at once,
    /// both with CKR_CRYPTOKI_NOT_INITIALIZED; a write that may have happened ends with `OutcomeUnknown`. `tend`
    /// returns at once. There is no way back.
    pub fn close(&self) {
        self.closed.store(true, Ordering::Release);
    }

    /// Whether `close` was called.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Ends a call of a closed group.
    pub(crate) fn ensure_open(&self) -> Result<(), Error> {
        if self.is_closed() { Err(Error::Rv(Rv::CRYPTOKI_NOT_INITIALIZED)) } else { Ok(()) }
    }

    /// Whether the operator has not been told of this outage yet; false until `outage_over`.
    pub(crate) fn tells_outage(&self) -> bool {
        !self.outage_told.swap(true, Ordering::Relaxed)
    }

    /// A member can be read: the next outage is another one.
    pub(crate) fn outage_over(&self) {
        self.outage_told.store(false, Ordering::Relaxed);
    }

    /// The manifest with the greatest epoch seen; `None` before any member has answered. Sends nothing.
    pub fn manifest(&self) -> Option<Manifest> {
        self.view().manifest.clone()
    }

    /// The settings as they are now.
    pub(crate) fn settings(&self) -> Arc<GroupSettings> {
        self.view().settings.clone()
    }

    /// Who the members are now.
    #[inline]
    pub(crate) fn view(&self) -> Guard<Arc<View>> {
        self.snapshot.view()
    }

    /// A number unique within the process, for traces and debts.
    pub(crate) fn number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed)
    }

    /// Counts the choices of members.
    pub(crate) fn next_turn(&self) -> u64 {
        self.turns.fetch_add(1, Ordering::Relaxed)
    }

    /// A random number of milliseconds from half of `ms` to `ms` (HA 4.5).
    pub(crate) fn jitter_ms(&self, ms: u64) -> u64 {
        let mut bytes = [0; 8];
        self.platform.random(&mut bytes);
        ms / 2 + u64::from_le_bytes(bytes) % (ms / 2 + 1)
    }

    /// Whether the first calls have seen enough members (see `ready`).
    pub(crate) fn is_settled(&self) -> bool {
        self.settled.load(Ordering::Acquire)
    }

    /// From now on calls do not wait for more members to appear.
    pub(crate) fn settle(&self) {
        self.settled.store(true, Ordering::Release);
    }

    /// From now on this process writes token objects.
    pub(crate) fn begin_to_write(&self) {
        self.writes.store(true, Ordering::Release);
    }

    /// Whether there may be writes of this process.
    pub(crate) fn has_begun_to_write(&self) -> bool {
        self.writes.load(Ordering::Acquire)
    }

    /// Whether contents are known to differ and are not repaired (HA 3.2).
    pub(crate) fn is_divergent(&self) -> bool {
        self.divergent.load(Ordering::Acquire)
    }

    /// Notes that contents differ or that they do no more.
    pub(crate) fn set_divergent(&self, divergent: bool) {
        if self.divergent.swap(divergent, Ordering::AcqRel) != divergent {
            self.settings().meter.news(&News::Divergent { divergent });
            if divergent {
                tracing::warn!(
                    "the members' contents differ: searches go to all of them until they are repaired"
                );
            } else {
                tracing::info!("the members' contents agree");
            }
        }
    }

    /// Queues objects for a closer look: some member misses them (HA 3.1).
    pub(crate) fn suspect(&self, ouids: &[Ouid]) {
        let mut suspects = self.suspects.lock();
        suspects.extend(ouids);
        while suspects.len() > SUSPECTS_MAX {
            suspects.pop_last();
        }
    }

    /// Whether objects wait for a closer look.
    pub(crate) fn has_suspects(&self) -> bool {
        !self.suspects.lock().is_empty()
    }

    /// Takes the queue of `suspect`.
    pub(crate) fn take_suspects(&self) -> Vec<Ouid> {
        std::mem::take(&mut *self.suspects.lock()).into_iter().collect()
    }
}
