//! Links: the seam (HA 4.1) over the network. One link per server, each with one lock and one reader thread that
//! also connects and, with full jitter from 50 ms to 5 s, reconnects for ever (HA 4.5).
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;
use spec::platform::{Joiner, Lock, Moment, Park, Platform};
use spec::seam::{Event, Fault, MemberId, Outgoing, Seam, Standing, Tag, Waiter};

pub use crate::channel::ServerAddress;
use crate::instance::InstanceKey;
use crate::link::Link;

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
    pub(crate) settings: LinkSettings,
    pub(crate) closing: AtomicBool,
    links: Vec<Arc<Link>>,
    /// Which link leads to a partition: that of the first server that offered it, while it is up. Read without a lock.
    routes: ArcSwap<HashMap<MemberId, Arc<Link>>>,
    subscribers: Lock<Vec<Weak<Waiter>>>,
}

impl Shared {
    pub(crate) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }

    /// Wakes all who subscribed.
    pub(crate) fn changed(&self) {
        let waiters: Vec<Arc<Waiter>> = {
            let mut subscribers = self.subscribers.lock();
            subscribers.retain(|waiter| waiter.strong_count() > 0);
            subscribers.iter().filter_map(Weak::upgrade).collect()
        };
        for waiter in waiters {
            waiter.wake();
        }
    }

    /// Leads requests for these partitions to the link, unless another one that is up offers them already.
    pub(crate) fn route(&self, link: &Arc<Link>, serials: impl Iterator<Item = u64>) {
        let members: Vec<MemberId> = serials.map(MemberId).collect();
        self.routes.rcu(|routes| {
            let mut routes = HashMap::clone(routes);
            for member in &members {
                if routes.get(member).is_none_or(|other| !other.leads_to(*member)) {
                    routes.insert(*member, link.clone());
                }
            }
            routes
        });
    }

    /// The link to a partition: the routed one while it is up and offers it, else any other that does; the routed one
    /// when none does, since it can say why.
    fn link_of(&self, member: MemberId) -> Option<Arc<Link>> {
        let routed = self.routes.load().get(&member).cloned();
        if routed.as_ref().is_some_and(|link| link.leads_to(member)) {
            return routed;
        }
        self.links.iter().find(|link| link.leads_to(member)).cloned().or(routed)
    }

    /// Whether any link is up.
    pub(crate) fn any_up(&self) -> bool {
        self.links.iter().any(|link| link.is_up())
    }
}

/// Tags are unique for the life of the process.
fn next_tag() -> Tag {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    Tag(NEXT.fetch_add(1, Ordering::Relaxed))
}

/// All links of a configuration.
pub struct Links {
    shared: Arc<Shared>,
    threads: Lock<Vec<Thread>>,
}

/// A link's thread.
struct Thread {
    joiner: Box<dyn Joiner>,
    /// What it does when it ends.
    end: Arc<End>,
}

/// The end of a thread, for one that waits for it no longer than it wants.
struct End {
    come: AtomicBool,
    park: Arc<dyn Park>,
}

impl End {
    /// Waits for the end until the moment; whether it has come.
    fn wait(&self, platform: &dyn Platform, until: Moment) -> bool {
        while !self.come.load(Ordering::Acquire) && platform.now() < until {
            self.park.park(until);
        }
        self.come.load(Ordering::Acquire)
    }
}

/// How long `close` waits for the threads, all together. One that sits in the resolution of a name or in a connect is
/// left alone then: it ends by itself, and touches nothing but what it holds.
const CLOSE_MS: u64 = 1_000;

impl Links {
    /// Starts one thread for each server; returns at once.
    pub fn new(platform: Arc<dyn Platform>, settings: LinkSettings) -> Arc<Self> {
        let links: Vec<Arc<Link>> = settings
            .servers
            .iter()
            .map(|server| Arc::new(Link::new(server.clone(), platform.parker())))
            .collect();
        let shared = Arc::new(Shared {
            platform,
            settings,
            closing: AtomicBool::new(false),
            links,
            routes: ArcSwap::default(),
            subscribers: Lock::default(),
        });
        let mut threads = Vec::new();
        for (index, link) in shared.links.iter().enumerate() {
            let end = Arc::new(End { come: AtomicBool::new(false), park: shared.platform.parker() });
            let (work_link, work_shared, work_end) = (link.clone(), shared.clone(), end.clone());
            let work = Box::new(move || {
                Link::serve(&work_link, &work_shared);
                work_end.come.store(true, Ordering::Release);
                work_end.park.unpark();
            });
            match shared.platform.spawn(&format!("hatoki-link-{index}"), work) {
                Ok(joiner) => threads.push(Thread { joiner, end }),
                Err(error) => link.fail(&shared, format!("no thread for the link can be started: {error}")),
            }
        }
        Arc::new(Self { shared, threads: Lock::new(threads) })
    }

    /// The partitions that the servers offer, or offered while they were last connected.
    pub fn partitions(&self) -> Vec<Seen> {
        let mut all = Vec::new();
        for link in &self.shared.links {
            all.extend(link.offers().into_iter().map(|partition| Seen {
                server: link.server.clone(),
                serial: partition.serial,
                label: partition.label,
            }));
        }
        all
    }

    /// The servers and whether each can be reached.
    pub fn servers(&self) -> Vec<(ServerAddress, Standing)> {
        self.shared.links.iter().map(|link| (link.server.clone(), link.standing())).collect()
    }

    /// Whether every link has ended its first try to connect, one way or the other.
    pub fn is_settled(&self) -> bool {
        self.shared.links.iter().all(|link| link.is_settled())
    }

    /// Waits until [`is_settled`](Self::is_settled) or the moment has come; answers the former.
    pub fn settle(&self, until: Moment) -> bool {
        let waiter = Waiter::new(&self.shared.platform);
        self.subscribe(&waiter);
        while !self.is_settled() {
            if matches!(waiter.wait(until), Event::Deadline) {
                return self.is_settled();
            }
        }
        true
    }

    /// The key-exchange group of the first link that is up, as IANA names it (`X25519MLKEM768`).
    pub fn negotiated_group(&self) -> Option<String> {
        self.shared.links.iter().find_map(|link| link.key_exchange_group())
    }

    /// Ends all links and joins their threads; returns within about a second, whatever they are in the middle of.
    /// Outstanding requests end with a fault.
    pub fn close(&self) {
        self.shared.closing.store(true, Ordering::Release);
        for link in &self.shared.links {
            link.stop();
        }
        let threads = std::mem::take(&mut *self.threads.lock());
        let until = self.shared.platform.now().after_ms(CLOSE_MS);
        for thread in threads {
            if thread.end.wait(&*self.shared.platform, until) {
                thread.joiner.join();
            }
        }
    }
}

impl Drop for Links {
    fn drop(&mut self) {
        self.close();
    }
}

impl Seam for Links {
    fn submit(&self, waiter: &Arc<Waiter>, member: MemberId, request: &Outgoing, deadline: Moment) -> Tag {
        let tag = next_tag();
        let mut header = request.header.clone();
        header.tag = tag.0;
        if header.partition == 0 {
            header.partition = member.0;
        }
        if header.remaining_ms == 0 {
            let left = deadline.since(self.shared.platform.now()).as_millis();
            header.remaining_ms = u32::try_from(left).unwrap_or(u32::MAX);
        }
        let now = self.shared.platform.now();
        let sent = match self.shared.link_of(member) {
            Some(link) => link.submit(waiter, tag, &header, &request.body, (now, deadline)),
            None => false,
        };
        if !sent {
            waiter.deliver(Event::Fault(tag, Fault::NotSent));
        }
        tag
    }

    fn cancel(&self, member: MemberId, tag: Tag) {
        // The route may be another one by now than when the request was sent.
        let routed = self.shared.link_of(member);
        if !routed.is_some_and(|link| link.cancel(tag)) {
            let _ = self.shared.links.iter().any(|link| link.cancel(tag));
        }
    }

    fn standing(&self, member: MemberId) -> Standing {
        if let Some(link) = self.shared.link_of(member) {
            return link.standing_of(member);
        }
        let down: Vec<String> = self.shared.links.iter().filter_map(|link| link.why_down()).collect();
        let found = if down.is_empty() {
            "every server is connected and none offers it: assign it with `hsm client assignPartition`"
                .to_owned()
        } else {
            format!("of the servers, these are not connected: {}", down.join("; "))
        };
        Standing::Down { reason: format!("no connected server offers partition {member}; {found}") }
    }

    fn abandon(&self, member: MemberId, reason: &str) {
        if let Some(link) = self.shared.link_of(member) {
            link.abandon(reason);
        }
    }

    fn subscribe(&self, waiter: &Arc<Waiter>) {
        self.shared.subscribers.lock().push(Arc::downgrade(waiter));
    }
}

/// How long to wait before try number `attempt` (from 0): full jitter between 50 ms and a bound that doubles up to
/// 5 s (HA 4.5).
pub(crate) fn retry_delay(platform: &dyn Platform, attempt: u32) -> Duration {
    const LEAST_MS: u64 = 50;
    const MOST_MS: u64 = 5_000;
    let bound = LEAST_MS.saturating_mul(2u64.saturating_pow(attempt.min(16).saturating_add(1))).min(MOST_MS);
    let mut chance = [0; 8];
    platform.random(&mut chance);
    let span = bound.saturating_sub(LEAST_MS).saturating_add(1);
    let above = u64::from_be_bytes(chance).checked_rem(span).unwrap_or_default();
    Duration::from_millis(LEAST_MS.saturating_add(above))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::arithmetic_side_effects, clippy::indexing_slicing)]
mod tests {
    use super::*;
    use crate::platform::System;

    #[test]
    fn retries_stay_between_50_ms_and_5_s_and_spread() {
        for attempt in [0, 1, 5, 20, u32::MAX] {
            let delays: Vec<Duration> = (0..200).map(|_| retry_delay(&System, attempt)).collect();
            assert!(delays.iter().all(|delay| (50..=5_000).contains(&delay.as_millis())));
            assert!(delays.iter().any(|delay| delay != &delays[0]), "they differ");
        }
        let most = (0..200).map(|_| retry_delay(&System, 0)).max().unwrap();
        assert!(most <= Duration::from_millis(100), "the first try comes soon");
    }
}
