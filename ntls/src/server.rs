//! One server of the configuration: its links, where it stands, what it offers. What every call asks is read without a
//! lock.
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use spec::messages::PartitionName;
use spec::platform::{Lock, Moment};
use spec::seam::{MemberId, Standing};

use crate::channel::ServerAddress;
use crate::link::Link;
use crate::names::Names;

/// What all links of one server share.
pub(crate) struct Public {
    pub(crate) address: ServerAddress,
    face: ArcSwap<Face>,
    /// [`Face::since`], for those who ask nothing else; [`DOWN`] for `None`.
    since: AtomicU64,
    /// The moment of the last byte from the server.
    heard: AtomicU64,
    state: Lock<State>,
}

/// No moment since which a server is up.
const DOWN: u64 = u64::MAX;

/// What is read without the lock; published whenever it changes.
struct Face {
    /// Since when it is up; `None` while no link takes requests.
    since: Option<Moment>,
    /// Why it is not up.
    reason: String,
    /// The partitions that the server offered last, in ascending order.
    serials: Vec<u64>,
}

struct State {
    since: Option<Moment>,
    reason: String,
    settled: bool,
    offers: Vec<PartitionName>,
}

impl State {
    fn face(&self) -> Face {
        let mut serials: Vec<u64> = self.offers.iter().map(|offer| offer.serial).collect();
        serials.sort_unstable();
        Face { since: self.since, reason: self.reason.clone(), serials }
    }
}

impl Public {
    fn new(address: ServerAddress) -> Self {
        let reason = format!("{address} has not been tried yet");
        let state = State { since: None, reason, settled: false, offers: Vec::new() };
        Self {
            address,
            face: ArcSwap::from_pointee(state.face()),
            since: AtomicU64::new(DOWN),
            heard: AtomicU64::new(0),
            state: Lock::new(state),
        }
    }

    /// A byte has come.
    pub(crate) fn hear(&self, now: Moment) {
        self.heard.store(now.0, Ordering::Release);
    }

    /// What the server offers from now on.
    pub(crate) fn offer(&self, offers: Vec<PartitionName>) {
        let mut state = self.state.lock();
        state.offers = offers;
        self.publish(&state);
    }

    fn publish(&self, state: &State) {
        self.face.store(Arc::new(state.face()));
        self.since.store(state.since.map_or(DOWN, |since| since.0), Ordering::Release);
    }

    /// Since when it is up, if it is.
    fn since(&self) -> Option<Moment> {
        Some(self.since.load(Ordering::Acquire)).filter(|since| *since != DOWN).map(Moment)
    }

    fn heard(&self) -> Moment {
        Moment(self.heard.load(Ordering::Acquire))
    }
}

/// See the head of this file.
pub(crate) struct Server {
    pub(crate) public: Arc<Public>,
    /// The links in use, and older ones until newer ones have come up; changed by whoever configures or drives.
    pub(crate) links: ArcSwap<Vec<Arc<Link>>>,
    /// Its addresses.
    pub(crate) names: Names,
}

impl Server {
    pub(crate) fn new(address: ServerAddress) -> Self {
        Self { public: Arc::new(Public::new(address)), links: ArcSwap::default(), names: Names::default() }
    }

    pub(crate) fn address(&self) -> &ServerAddress {
        &self.public.address
    }

    /// The link for the next request: of those that take requests the one with the fewest outstanding, a newer one
    /// before an older one.
    pub(crate) fn pick(&self) -> Option<Arc<Link>> {
        let links = self.links.load();
        links
            .iter()
            .filter(|link| link.is_open())
            .min_by_key(|link| (link.is_retired(), link.load()))
            .cloned()
    }

    /// A link has come up or gone, or takes no more requests: where the server stands is worked out anew. `reason` says
    /// why, when no other link is left. Whether anything has changed.
    pub(crate) fn publish(&self, now: Moment, reason: Option<&str>) -> bool {
        let is_up = self.links.load().iter().any(|link| link.is_open());
        let mut state = self.public.state.lock();
        let (was_up, was_settled) = (state.since.is_some(), state.settled);
        let mut has_news = false;
        match (is_up, state.since) {
            (true, None) => state.since = Some(now),
            (false, Some(_)) => state.since = None,
            _ => {}
        }
        if let Some(reason) = reason.filter(|reason| !is_up && state.reason != **reason) {
            reason.clone_into(&mut state.reason);
            has_news = true;
        }
        state.settled |= is_up || reason.is_some();
        let changed = was_up != is_up || was_settled != state.settled || has_news;
        if changed {
            self.public.publish(&state);
        }
        changed
    }

    pub(crate) fn offers(&self) -> Vec<PartitionName> {
        self.public.state.lock().offers.clone()
    }

    pub(crate) fn is_settled(&self) -> bool {
        self.public.state.lock().settled
    }

    pub(crate) fn is_up(&self) -> bool {
        self.public.since().is_some()
    }

    /// The server's standing, if it is up.
    pub(crate) fn up(&self) -> Option<Standing> {
        Some(Standing::Up { since: self.public.since()?, heard: self.public.heard() })
    }

    /// Whether requests for this partition can be sent now.
    pub(crate) fn leads_to(&self, member: MemberId) -> bool {
        let face = self.public.face.load();
        face.since.is_some() && face.serials.binary_search(&member.0).is_ok()
    }

    pub(crate) fn standing(&self) -> Standing {
        let face = self.public.face.load();
        match face.since {
            Some(since) => Standing::Up { since, heard: self.public.heard() },
            None => Standing::Down { reason: face.reason.clone() },
        }
    }

    /// As [`standing`](Self::standing), for one partition of the server.
    pub(crate) fn standing_of(&self, member: MemberId) -> Standing {
        let face = self.public.face.load();
        if face.since.is_some() && face.serials.binary_search(&member.0).is_err() {
            let reason = format!(
                "{} no longer offers partition {member}: assign it with `hsm client assignPartition`",
                self.address()
            );
            return Standing::Down { reason };
        }
        self.standing()
    }

    pub(crate) fn why_down(&self) -> Option<String> {
        match self.standing() {
            Standing::Up { .. } => None,
            Standing::Down { reason } => Some(reason),
        }
    }
}
