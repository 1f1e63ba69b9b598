//! Links: the seam (HA 4.1) over the network. One link per server, each with one lock and one reader thread that
//! also connects and, with full jitter from 50 ms to 5 s, reconnects for ever (HA 4.5).
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use spec::platform::{Joiner, Lock, Moment, Platform};
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
    /// Which link leads to a partition; the last server that offered it.
    routes: Lock<HashMap<MemberId, Arc<Link>>>,
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
        for serial in serials {
            let other = self.routes.lock().get(&MemberId(serial)).cloned();
            if other.is_none_or(|other| !other.is_up()) {
                self.routes.lock().insert(MemberId(serial), link.clone());
            }
        }
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
    links: Vec<Arc<Link>>,
    threads: Lock<Vec<Box<dyn Joiner>>>,
}

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
            routes: Lock::default(),
            subscribers: Lock::default(),
        });
        let mut threads = Vec::new();
        for (index, link) in links.iter().enumerate() {
            let (work_link, work_shared) = (link.clone(), shared.clone());
            let work = Box::new(move || Link::serve(&work_link, &work_shared));
            match shared.platform.spawn(&format!("hatoki-link-{index}"), work) {
                Ok(thread) => threads.push(thread),
                Err(error) => link.fail(&shared, format!("no thread for the link can be started: {error}")),
            }
        }
        Arc::new(Self { shared, links, threads: Lock::new(threads) })
    }

    /// The partitions that the servers offer, or offered while they were last connected.
    pub fn partitions(&self) -> Vec<Seen> {
        let mut all = Vec::new();
        for link in &self.links {
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
        self.links.iter().map(|link| (link.server.clone(), link.standing())).collect()
    }

    /// Whether every link has ended its first try to connect, one way or the other.
    pub fn is_settled(&self) -> bool {
        self.links.iter().all(|link| link.is_settled())
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
        self.links.iter().find_map(|link| link.key_exchange_group())
    }

    /// Ends all links and joins their threads. Outstanding requests end with a fault.
    pub fn close(&self) {
        self.shared.closing.store(true, Ordering::Release);
        for link in &self.links {
            link.stop();
        }
        let threads = std::mem::take(&mut *self.threads.lock());
        for thread in threads {
            thread.join();
        }
    }

    fn link_of(&self, member: MemberId) -> Option<Arc<Link>> {
        self.shared.routes.lock().get(&member).cloned()
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
        let sent = match self.link_of(member) {
            Some(link) => link.submit(waiter, tag, &header, &request.body, (now, deadline)),
            None => false,
        };
        if !sent {
            waiter.deliver(Event::Fault(tag, Fault::NotSent));
        }
        tag
    }

    fn cancel(&self, member: MemberId, tag: Tag) {
        if let Some(link) = self.link_of(member) {
            link.cancel(tag);
        }
    }

    fn standing(&self, member: MemberId) -> Standing {
        if let Some(link) = self.link_of(member) {
            return link.standing_of(member);
        }
        let down: Vec<String> = self.links.iter().filter_map(|link| link.why_down()).collect();
        let found = if down.is_empty() {
            "every server is connected and none offers it: assign it with `hsm client assignPartition`"
                .to_owned()
        } else {
            format!("of the servers, these are not connected: {}", down.join("; "))
        };
        Standing::Down { reason: format!("no connected server offers partition {member}; {found}") }
    }

    fn abandon(&self, member: MemberId, reason: &str) {
        if let Some(link) = self.link_of(member) {
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
