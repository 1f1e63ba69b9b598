//! Links: the seam (HA 4.1) over the network. Each server has a few multiplexed links that the waiting threads drive
//! themselves (`wait`, `link`); there is no thread in here. Lost links are tried again for ever, with full jitter from
//! 50 ms to 5 s (HA 4.5), by whoever does the background work (`duty`).
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Weak;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use spec::messages::PartitionName;
use spec::platform::{Lock, Moment, Platform, Stream, Watched};
use spec::seam::{Event, Fault, MemberId, Outgoing, Seam, Standing, Tag, Waiter};

pub use crate::channel::ServerAddress;
use crate::dial::Opened;
use crate::duty::{self, IDLE_MS, Seat};
use crate::instance::InstanceKey;
use crate::link::Link;
use crate::material::Material;
use crate::routes::{Route, find};
use crate::server::Server;
use crate::tls::ServerTrust;
use crate::wait;

/// Most links to one server.
pub const LINKS_PER_MEMBER_MAX: usize = 4;
/// Links to one server unless the configuration says otherwise.
pub const LINKS_PER_MEMBER: usize = 2;

/// What the links are made of.
#[derive(Clone)]
pub struct LinkSettings {
    /// The servers, in the order of the configuration.
    pub servers: Vec<ServerAddress>,
    /// `ClientCertFile`, PEM. Files are read at every try to connect, so a late one is found.
    pub certificate_file: PathBuf,
    /// `ClientPrivKeyFile`, PEM.
    pub key_file: PathBuf,
    /// `ServerCAFile`, PEM.
    pub server_ca_file: PathBuf,
    /// Links to each server, 1 to 4; other numbers are taken as the nearest of these.
    pub links_per_member: usize,
    /// Whether threads may be made: short-lived ones then look up the names of servers.
    pub may_spawn: bool,
    /// A link on which requests wait and nothing arrives for so many milliseconds is given up (`ReceiveTimeout`).
    pub receive_timeout_ms: u64,
    /// `TCPKeepAlive`.
    pub tcp_keep_alive: bool,
    /// This software and its release, for the appliance's log.
    pub software: String,
    /// The application instance; its tickets are bound to it (RULES 2.6).
    pub instance: Arc<InstanceKey>,
}

/// A partition that a server offers this client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The server.
    pub server: ServerAddress,
    /// The partition's serial number.
    pub serial: u64,
    /// The partition's label.
    pub label: String,
}

/// What all links of one [`Links`] share.
pub(crate) struct Shared {
    pub(crate) platform: Arc<dyn Platform>,
    pub(crate) settings: ArcSwap<LinkSettings>,
    closing: AtomicBool,
    /// Whether some link is not up and should be.
    pub(crate) wants: AtomicBool,
    /// The thread that does the background work whenever it waits; 0 while there is none.
    attendant: AtomicU64,
    pub(crate) seat: Seat,
    /// In the order of the configuration.
    pub(crate) servers: ArcSwap<Vec<Arc<Server>>>,
    /// All links, those that only end what they have begun included, in the order of their numbers.
    table: ArcSwap<Vec<Arc<Link>>>,
    next_number: AtomicU32,
    /// Which server leads to a partition: the first that offered it, while it is up. In the order of the partitions; read
    /// without a lock.
    pub(crate) routes: ArcSwap<Vec<Route>>,
    subscribers: Lock<Vec<Weak<Waiter>>>,
}

impl Shared {
    /// Whether bytes that nobody has read lie in one of these sockets.
    pub(crate) fn has_unread(&self, streams: impl IntoIterator<Item = Arc<dyn Stream>>) -> bool {
        let mut all: Vec<_> = streams.into_iter().map(|stream| Watched::new(stream, false)).collect();
        self.platform.poll(&mut all, &*self.platform.parker(), self.platform.now());
        all.iter().any(|one| one.readable)
    }

    pub(crate) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }

    /// Whether the calling thread may do the background work, and whether it watches idle links with it: the attendant
    /// always; without one whoever waits while some link is down, or waits for nothing but news.
    pub(crate) fn may_work(&self, for_news: bool) -> (bool, bool) {
        match self.attendant.load(Ordering::Acquire) {
            0 => (for_news || self.wants.load(Ordering::SeqCst), for_news),
            thread => {
                let is_it = thread == self.platform.thread();
                (is_it, is_it)
            }
        }
    }

    /// Whoever does the background work looks again.
    pub(crate) fn stir(&self) {
        self.seat.stir();
    }

    /// The link of a number.
    pub(crate) fn link(&self, number: u32) -> Option<Arc<Link>> {
        let table = self.table.load();
        let at = table.binary_search_by_key(&number, |link| link.number).ok()?;
        table.get(at).cloned()
    }

    pub(crate) fn all_links(&self) -> Vec<Arc<Link>> {
        self.table.load().to_vec()
    }

    /// Makes a new link to the server, not connected yet.
    fn add_link(&self, server: &Server) {
        let number = self.next_number.fetch_add(1, Ordering::Relaxed);
        let link = Arc::new(Link::new(number, server.public.clone()));
        self.table.rcu(|table| {
            let mut table = table.to_vec();
            table.push(link.clone());
            table.sort_by_key(|link| link.number);
            table
        });
        server.links.rcu(|links| [links.as_slice(), std::slice::from_ref(&link)].concat());
    }

    fn server_of(&self, link: &Link) -> Option<Arc<Server>> {
        self.servers.load().iter().find(|server| Arc::ptr_eq(&server.public, &link.server)).cloned()
    }

    /// A link has come up: it takes requests, older ones of its server whose place it takes end what they have begun.
    pub(crate) fn link_up(&self, server: &Arc<Server>, link: &Arc<Link>, opened: Opened) {
        let hello = opened.hello.clone();
        let serials: Vec<u64> = hello.partitions.iter().map(|partition| partition.serial).collect();
        server.public.offer(hello.partitions);
        link.opened(self, opened);
        self.route(server, serials.into_iter());
        server.publish(self.platform.now(), None);
        tracing::info!(server = %server.address(), appliance = hello.appliance, client = hello.client, "link up");
        for old in server.links.load().iter().filter(|old| old.is_retired()) {
            old.drain(self, "a newer link has taken its place");
        }
        server.links.rcu(|links| links.iter().filter(|link| !link.is_retired()).cloned().collect::<Vec<_>>());
        link.tick(self);
        self.wants.store(true, Ordering::SeqCst);
        self.changed();
        self.stir();
    }

    /// A connection has ended: others to the same server may have ended with it, unseen while nobody reads there.
    pub(crate) fn link_lost(&self, link: &Link, reason: String) {
        if let Some(server) = self.server_of(link).filter(|_| !self.is_closing()) {
            let scout = Waiter::new(&self.platform);
            for sibling in server.links.load().iter().filter(|sibling| sibling.number != link.number) {
                duty::glance(self, sibling, &scout);
            }
        }
        self.link_down(link, reason);
    }

    /// A link has gone, or could not be made.
    pub(crate) fn link_down(&self, link: &Link, reason: String) {
        self.wants.store(true, Ordering::SeqCst);
        if link.is_retired() {
            self.table.rcu(|table| {
                table.iter().filter(|other| other.number != link.number).cloned().collect::<Vec<_>>()
            });
        }
        if let Some(server) = self.server_of(link) {
            if link.is_retired() {
                server.links.rcu(|links| {
                    links.iter().filter(|other| other.number != link.number).cloned().collect::<Vec<_>>()
                });
            }
            let has_news = server.publish(self.platform.now(), Some(&reason));
            let any_up = self.servers.load().iter().any(|server| server.is_up());
            // Members behind the other links go on serving: news, not an alarm.
            match (has_news && !self.is_closing(), any_up) {
                (true, true) => tracing::info!(server = %server.address(), reason, "link down"),
                (true, false) => {
                    tracing::warn!(server = %server.address(), reason, "link down, and no other is up");
                }
                (false, _) => {}
            }
        }
        self.changed();
        self.stir();
    }

    /// A link takes no more requests.
    pub(crate) fn link_drains(&self, link: &Link, reason: &str) {
        if let Some(server) = self.server_of(link) {
            server.publish(self.platform.now(), Some(reason));
        }
        self.changed();
    }

    /// A server offers other partitions than before.
    pub(crate) fn link_offers(&self, link: &Link, partitions: Vec<PartitionName>) {
        let serials: Vec<u64> = partitions.iter().map(|partition| partition.serial).collect();
        link.server.offer(partitions);
        if let Some(server) = self.server_of(link) {
            self.route(&server, serials.into_iter());
        }
        self.changed();
    }

    /// Wakes all who subscribed.
    fn changed(&self) {
        let waiters: Vec<Arc<Waiter>> = {
            let mut subscribers = self.subscribers.lock();
            subscribers.retain(|waiter| waiter.strong_count() > 0);
            subscribers.iter().filter_map(Weak::upgrade).collect()
        };
        for waiter in waiters {
            waiter.wake();
        }
    }

    /// The link for a request of so many bytes now.
    fn pick(&self, waiter: &Arc<Waiter>, member: MemberId, bytes: usize, now: Moment) -> Option<Arc<Link>> {
        let link = self.link_for(member, bytes)?;
        // Without an attendant nobody has watched an idle link: what has come on it is read first.
        if self.attendant.load(Ordering::Acquire) == 0
            && now >= link.used().after_ms(IDLE_MS)
            && link.load() == 0
        {
            duty::glance(self, &link, waiter);
            return if link.is_open() { Some(link) } else { self.link_for(member, bytes) };
        }
        Some(link)
    }
}

/// A tag names its link in its lower bits, and is unique for the life of the process by the others.
fn next_tag(link: Option<&Link>) -> Tag {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let number = link.map_or(NO_LINK, |link| u64::from(link.number) & NO_LINK);
    Tag(NEXT.fetch_add(1, Ordering::Relaxed) << 16 | number)
}

/// The lower bits of a tag that no link carries; also their mask.
const NO_LINK: u64 = 0xffff;

/// All links of a configuration.
pub struct Links {
    pub(crate) shared: Arc<Shared>,
    /// What the present links were made with.
    material: Lock<Material>,
}

/// The calling thread does the background work of the links whenever it waits, until this is dropped.
pub struct Attendance<'a>(&'a Shared);

impl Drop for Attendance<'_> {
    fn drop(&mut self) {
        self.0.attendant.store(0, Ordering::Release);
        self.0.changed();
    }
}

impl Links {
    /// Makes the links; nothing is connected before somebody waits. Starts no thread that lasts.
    pub fn new(platform: Arc<dyn Platform>, settings: LinkSettings) -> Arc<Self> {
        let material = Material::of(&settings);
        let shared = Arc::new(Shared {
            platform,
            settings: ArcSwap::from_pointee(settings.clone()),
            closing: AtomicBool::new(false),
            wants: AtomicBool::new(false),
            attendant: AtomicU64::new(0),
            seat: Seat::new(),
            servers: ArcSwap::default(),
            table: ArcSwap::default(),
            next_number: AtomicU32::new(0),
            routes: ArcSwap::default(),
            subscribers: Lock::default(),
        });
        let links = Arc::new(Self { shared, material: Lock::new(material) });
        links.arrange(&settings, false, None);
        links
    }

    /// Takes new settings at run time. Links to servers that are gone, and links made with another certificate, key or trust,
    /// end what they have begun; the latter go on taking requests until a new one has come up in their place, unless what
    /// their server showed is no longer trusted. No request is dropped.
    pub fn configure(&self, settings: LinkSettings) {
        let new = Material::of(&settings);
        let trust = ServerTrust::load(&settings.server_ca_file).ok();
        let ending = {
            let mut material = self.material.lock();
            let has_changed = *material != new;
            *material = new;
            self.arrange(&settings, has_changed, trust.as_ref())
        };
        // They say goodbye, which no lock may wait for (HA 5 (2)).
        for (link, reason, drains) in ending {
            if drains {
                link.drain(&self.shared, reason);
            }
            if !link.is_up() {
                self.shared.link_down(&link, reason.to_owned());
            }
        }
        self.shared.wants.store(true, Ordering::SeqCst);
        self.shared.changed();
        self.shared.stir();
    }

    /// Brings servers and links in line with the settings. Answers the links that are of no more use, why, and whether they
    /// take no more requests from now on.
    fn arrange(
        &self,
        settings: &LinkSettings,
        has_new_material: bool,
        trust: Option<&ServerTrust>,
    ) -> Vec<(Arc<Link>, &'static str, bool)> {
        let (shared, mut ending) = (&self.shared, Vec::new());
        if shared.is_closing() {
            return ending;
        }
        shared.settings.store(Arc::new(settings.clone()));
        let before = shared.servers.load_full();
        let mut servers: Vec<Arc<Server>> = Vec::new();
        for address in &settings.servers {
            if servers.iter().any(|server| server.address() == address) {
                continue;
            }
            let known = before.iter().find(|server| server.address() == address).cloned();
            let together = shared.platform.has_one_processor();
            servers.push(known.unwrap_or_else(|| Arc::new(Server::new(address.clone(), together))));
        }
        let wanted = settings.links_per_member.clamp(1, LINKS_PER_MEMBER_MAX);
        for server in &servers {
            let links = server.links.load_full();
            let kept = links.iter().filter(|link| !link.is_retired() && !has_new_material).count();
            // The ones that are too many, or all when they were made with other material.
            for link in links.iter().filter(|link| !link.is_retired()).skip(kept.min(wanted)) {
                link.retire();
                let drains = kept > wanted || !self.is_trusted(trust, server, link);
                ending.push((link.clone(), "the configuration has changed", drains));
            }
            for _ in kept..wanted {
                shared.add_link(server);
            }
        }
        shared.servers.store(Arc::new(servers.clone()));
        let is_gone = |server: &Arc<Server>| !servers.iter().any(|kept| Arc::ptr_eq(kept, server));
        for server in before.iter().filter(|server| is_gone(server)) {
            let links = server.links.load();
            ending.extend(
                links
                    .iter()
                    .map(|link| (link.clone(), "the server was removed from the configuration", true)),
            );
        }
        shared
            .routes
            .rcu(|routes| routes.iter().filter(|route| !is_gone(&route.server)).cloned().collect::<Vec<_>>());
        ending
    }

    /// Whether what the server showed on the link is still trusted.
    fn is_trusted(&self, trust: Option<&ServerTrust>, server: &Server, link: &Link) -> bool {
        let (host, now_ms) = (&server.address().host, self.shared.platform.wall_ms());
        let peer = link.peer();
        trust.zip(peer).is_some_and(|(trust, peer)| trust.vouches_for(&peer, host, now_ms))
    }

    /// The calling thread does the background work from now on, whenever it waits; other threads that wait do none.
    pub fn attend(&self) -> Attendance<'_> {
        self.shared.attendant.store(self.shared.platform.thread(), Ordering::Release);
        self.shared.stir();
        self.shared.seat.clear();
        Attendance(&self.shared)
    }

    /// The partitions that the servers offer, or offered while they were last connected.
    pub fn partitions(&self) -> Vec<Seen> {
        let mut all = Vec::new();
        for server in self.shared.servers.load().iter() {
            all.extend(server.offers().into_iter().map(|partition| Seen {
                server: server.address().clone(),
                serial: partition.serial,
                label: partition.label,
            }));
        }
        all
    }

    /// The servers and whether each can be reached.
    pub fn servers(&self) -> Vec<(ServerAddress, Standing)> {
        let servers = self.shared.servers.load();
        servers.iter().map(|server| (server.address().clone(), server.standing())).collect()
    }

    /// How many links are up.
    pub fn links_up(&self) -> usize {
        self.shared.table.load().iter().filter(|link| link.is_up()).count()
    }

    /// Whether the first try to connect to every server has ended, one way or the other.
    pub fn is_settled(&self) -> bool {
        self.shared.servers.load().iter().all(|server| server.is_settled())
    }

    /// Waits until [`is_settled`](Self::is_settled) or the moment has come; answers the former.
    pub fn settle(&self, until: Moment) -> bool {
        let waiter = Waiter::new(&self.shared.platform);
        self.subscribe(&waiter);
        while !self.is_settled() {
            if matches!(self.wait(&waiter, until), Event::Deadline) {
                return self.is_settled();
            }
        }
        true
    }

    /// The key-exchange group of the first link that is up, as IANA names it (`X25519MLKEM768`).
    pub fn negotiated_group(&self) -> Option<String> {
        self.shared.table.load().iter().find_map(|link| link.key_exchange_group())
    }

    /// Ends all links; returns at once. Outstanding requests end with a fault, and whoever waits is woken.
    pub fn close(&self) {
        self.shared.closing.store(true, Ordering::Release);
        for link in self.shared.all_links() {
            link.retire();
            link.close(&self.shared, "the client is stopping");
        }
        self.shared.changed();
        self.shared.stir();
    }
}

impl Drop for Links {
    fn drop(&mut self) {
        self.close();
    }
}

impl Seam for Links {
    fn submit(&self, waiter: &Arc<Waiter>, member: MemberId, request: &Outgoing, deadline: Moment) -> Tag {
        let (shared, now) = (&self.shared, self.shared.platform.now());
        let mut header = request.header.clone();
        if header.partition == 0 {
            header.partition = member.0;
        }
        if header.remaining_ms == 0 {
            let left = deadline.since(now).as_millis();
            header.remaining_ms = u32::try_from(left).unwrap_or(u32::MAX);
        }
        // A link may begin to drain between the choice and the request; the one that takes its place is there then.
        for _ in 0..LINKS_PER_MEMBER_MAX {
            let Some(link) = shared.pick(waiter, member, request.body.len(), now) else { break };
            let tag = next_tag(Some(&link));
            header.tag = tag.0;
            if link.submit(shared, waiter, &header, &request.body, (now, deadline)) {
                return tag;
            }
        }
        let tag = next_tag(None);
        waiter.deliver(Event::Fault(tag, Fault::NotSent));
        tag
    }

    fn cancel(&self, _member: MemberId, tag: Tag) {
        let is_its = |link: &&Arc<Link>| u64::from(link.number) & NO_LINK == tag.0 & NO_LINK;
        let _ = self.shared.table.load().iter().filter(is_its).any(|link| link.cancel(&self.shared, tag));
    }

    fn standing(&self, member: MemberId) -> Standing {
        // The usual case: every call asks for every member.
        if let Some(up) = find(&self.shared.routes.load(), member)
            .filter(|route| route.offered)
            .and_then(|route| route.server.up())
        {
            return up;
        }
        if let Some(server) = self.shared.server_for(member) {
            return server.standing_of(member);
        }
        let servers = self.shared.servers.load();
        let down: Vec<String> = servers.iter().filter_map(|server| server.why_down()).collect();
        let found = if down.is_empty() {
            "every server is connected and none offers it: assign it with `hsm client assignPartition`"
                .to_owned()
        } else {
            format!("of the servers, these are not connected: {}", down.join("; "))
        };
        Standing::Down { reason: format!("no connected server offers partition {member}; {found}") }
    }

    fn abandon(&self, member: MemberId, reason: &str) {
        let Some(server) = self.shared.server_for(member) else { return };
        for link in server.links.load().iter() {
            link.abandon(&self.shared, format!("{} was given up: {reason}", server.address()));
        }
    }

    fn subscribe(&self, waiter: &Arc<Waiter>) {
        self.shared.subscribers.lock().push(Arc::downgrade(waiter));
    }

    fn wait(&self, waiter: &Arc<Waiter>, until: Moment) -> Event {
        wait::wait(&self.shared, waiter, until)
    }

    fn has_unread(&self, member: MemberId) -> bool {
        let Some(server) = self.shared.server_for(member) else { return false };
        self.shared.has_unread(server.links.load().iter().filter_map(|link| link.stream()))
    }
}

/// How long to wait by chance before try number `attempt` (from 0): full jitter between 50 ms and a bound that doubles up to
/// 5 s (HA 4.5).
pub(crate) fn retry_delay(chance: u64, attempt: u32) -> Duration {
    const LEAST_MS: u64 = 50;
    const MOST_MS: u64 = 5_000;
    let bound = LEAST_MS.saturating_mul(2u64.saturating_pow(attempt.min(16).saturating_add(1))).min(MOST_MS);
    let span = bound.saturating_sub(LEAST_MS).saturating_add(1);
    let above = chance.checked_rem(span).unwrap_or_default();
    Duration::from_millis(LEAST_MS.saturating_add(above))
}

#[cfg(test)]
#[path = "links_tests.rs"]
#[allow(clippy::unwrap_used, clippy::arithmetic_side_effects, clippy::indexing_slicing)]
mod tests;
