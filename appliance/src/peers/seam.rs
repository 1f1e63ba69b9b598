//! The seam of an appliance that repairs (HA 4.1, 4.7): members of this house are asked in the process, others over links.
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::{ArcSwap, ArcSwapOption};
use ntls::links::Links;
use partition::{Caller, LinkFacts, Partition};
use spec::messages::RequestHeader;
use spec::platform::{Moment, Platform};
use spec::seam::{Event, Fault, MemberId, Outgoing, Reply, Seam, Standing, Tag, Waiter};

use crate::handler::{Handler, steady_ms};
use crate::link::Lookup;
use crate::partitions::Partitions;

/// Tags of requests to members of this house: those of links count up from 1.
const HOUSE_TAGS: u64 = 1 << 63;

/// Members here and elsewhere.
pub(crate) struct HouseSeam {
    platform: Arc<dyn Platform>,
    since: Moment,
    house: Arc<Partitions>,
    links: ArcSwapOption<Links>,
    /// Members that are not asked over links: somebody offers them who is none of their domain.
    strangers: ArcSwap<BTreeSet<u64>>,
    tags: AtomicU64,
}

impl HouseSeam {
    /// A seam without links.
    pub(crate) fn new(platform: Arc<dyn Platform>, house: Arc<Partitions>) -> Self {
        let since = platform.now();
        let (links, strangers) = (ArcSwapOption::empty(), ArcSwap::default());
        Self { platform, since, house, links, strangers, tags: AtomicU64::new(HOUSE_TAGS) }
    }

    /// The members that are not asked over links from now on.
    pub(crate) fn set_strangers(&self, strangers: BTreeSet<u64>) {
        self.strangers.store(Arc::new(strangers));
    }

    /// The links, unless this member is not asked over them.
    fn links_to(&self, member: MemberId) -> Option<Arc<Links>> {
        if self.strangers.load().contains(&member.0) { None } else { self.links() }
    }

    /// The links to peers.
    pub(crate) fn links(&self) -> Option<Arc<Links>> {
        self.links.load_full()
    }

    /// Other links from now on; those before are closed.
    pub(crate) fn set_links(&self, links: Option<Arc<Links>>) {
        if let Some(old) = self.links.swap(links) {
            old.close();
        }
    }

    fn here(&self, member: MemberId) -> Option<Arc<dyn Handler>> {
        self.house.handler(member.0).filter(|handler| handler.partition().is_some())
    }
}

/// Asks a partition of this house as a peer would.
fn ask(partition: &Partition, request: &Outgoing, tag: Tag) -> Reply {
    let link = LinkFacts { replicator: true, ..LinkFacts::default() };
    let caller = Caller { client: [0; 32], instance: [0; 32] };
    let header = RequestHeader { tag: tag.0, ..request.header.clone() };
    let (header, body) = partition.handle_on(&link, &caller, &header, &request.body, steady_ms());
    Reply { header, body }
}

impl Seam for HouseSeam {
    fn submit(&self, waiter: &Arc<Waiter>, member: MemberId, request: &Outgoing, deadline: Moment) -> Tag {
        if let Some(handler) = self.here(member)
            && let Some(partition) = handler.partition()
        {
            let tag = Tag(self.tags.fetch_add(1, Ordering::Relaxed));
            waiter.deliver(Event::Reply(tag, ask(partition, request, tag)));
            return tag;
        }
        match self.links_to(member) {
            Some(links) => links.submit(waiter, member, request, deadline),
            None => {
                let tag = Tag(self.tags.fetch_add(1, Ordering::Relaxed));
                waiter.deliver(Event::Fault(tag, Fault::NotSent));
                tag
            }
        }
    }

    fn cancel(&self, member: MemberId, tag: Tag) {
        // A request to this house has ended before `submit` returned.
        if let Some(links) = self.links().filter(|_| tag.0 < HOUSE_TAGS) {
            links.cancel(member, tag);
        }
    }

    fn standing(&self, member: MemberId) -> Standing {
        if self.here(member).is_some() {
            return Standing::Up { since: self.since, heard: self.platform.now() };
        }
        match self.links_to(member) {
            Some(links) => links.standing(member),
            None => {
                let reason = "no peer of its domain that alone offers it; see `hsm peer list`".to_owned();
                Standing::Down { reason }
            }
        }
    }

    fn abandon(&self, member: MemberId, reason: &str) {
        if let Some(links) = self.links().filter(|_| self.here(member).is_none()) {
            links.abandon(member, reason);
        }
    }

    fn subscribe(&self, waiter: &Arc<Waiter>) {
        if let Some(links) = self.links() {
            links.subscribe(waiter);
        }
    }

    fn wait(&self, waiter: &Arc<Waiter>, until: Moment) -> Event {
        match self.links() {
            Some(links) => links.wait(waiter, until),
            None => waiter.wait(until),
        }
    }

    fn has_unread(&self, member: MemberId) -> bool {
        self.links().is_some_and(|links| links.has_unread(member))
    }
}
