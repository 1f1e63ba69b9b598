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

/// A longer request is one that others would wait behind, in bytes: it fills more than one record of TLS.
pub(crate) const SHORT_BYTES_MAX: usize = 16 << 10;

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
        // In this order: who has read that it is down asks nobody here any more.
        self.since.store(state.since.map_or(DOWN, |since| since.0), Ordering::Release);
        self.face.store(Arc::new(state.face()));
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
    /// Whether all short requests share one link. What is written together is encrypted, sent and read together, on both sides;
    /// and where threads cannot run at once, several links give nothing for it.
    together: bool,
}

impl Server {
    pub(crate) fn new(address: ServerAddress, together: bool) -> Self {
        Self {
            public: Arc::new(Public::new(address)),
            links: ArcSwap::default(),
            names: Names::default(),
            together,
        }
    }

    pub(crate) fn address(&self) -> &ServerAddress {
        &self.public.address
    }

    /// The link for a request of so many bytes now, of those that take requests, a newer one before an older one: that with
    /// the fewest outstanding. Short ones together: the first on which nothing long is outstanding, while its socket takes
    /// bytes.
    pub(crate) fn pick(&self, bytes: usize) -> Option<Arc<Link>> {
        let links = self.links.load();
        let open = || links.iter().filter(|link| link.is_open());
        if !self.together || bytes > SHORT_BYTES_MAX {
            return open().min_by_key(|link| (link.is_retired(), link.load())).cloned();
        }
        // Of equal ones the first is the least.
        open().min_by_key(|link| (link.is_retired(), link.is_blocked() || link.has_long())).cloned()
    }

    /// A link has come up or gone, or takes no more requests: where the server stands is worked out anew. `reason` says
    /// why, when no other link is left. Whether anything has changed.
    pub(crate) fn publish(&self, now: Moment, reason: Option<&str>) -> bool {
        let mut state = self.public.state.lock();
        // Under the lock: of two whose links go at once, the one that looked first must not have the last word.
        let is_up = self.links.load().iter().any(|link| link.is_open());
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// A server whose links, numbered from 0, have so many requests outstanding.
    fn server(together: bool, loads: &[u32]) -> Server {
        let server = Server::new(ServerAddress { host: "hsm".to_owned(), port: 1792 }, together);
        let links = (0..).zip(loads).map(|(number, load)| {
            let link = Link::new(number, server.public.clone());
            link.pretend(*load, 0, false);
            Arc::new(link)
        });
        let links: Vec<Arc<Link>> = links.collect();
        server.links.store(Arc::new(links));
        server
    }

    fn link(server: &Server, place: usize) -> Arc<Link> {
        server.links.load().get(place).unwrap().clone()
    }

    /// The links for a short request and for a long one.
    fn picked(server: &Server) -> [u32; 2] {
        [SHORT_BYTES_MAX, SHORT_BYTES_MAX + 1].map(|bytes| server.pick(bytes).unwrap().number)
    }

    #[test]
    fn requests_are_spread_over_the_links_where_threads_run_at_once() {
        assert_eq!(picked(&server(false, &[3, 2, 2])), [1, 1]);
    }

    #[test]
    fn short_requests_go_together_and_behind_no_long_one_nor_a_socket_that_is_full() {
        let server = server(true, &[30, 2, 1]);
        assert_eq!(picked(&server), [0, 2]);
        link(&server, 0).pretend(30, 1, false);
        assert_eq!(picked(&server), [1, 2]);
        link(&server, 1).pretend(2, 0, true);
        assert_eq!(picked(&server), [2, 2]);
        link(&server, 2).pretend(1, 1, false);
        assert_eq!(picked(&server), [0, 2], "when all have something long, together again");
    }

    /// Two threads find at once that the links of a server have gone, one each: the one that looked first has not the last word.
    #[test]
    fn a_server_whose_links_go_at_once_is_down() {
        let server = server(false, &[0, 0]);
        server.publish(Moment(1), None);
        assert!(server.is_up());
        link(&server, 0).pretend_gone();
        let mut state = server.public.state.lock();
        std::thread::scope(|scope| {
            scope.spawn(|| server.publish(Moment(2), Some("it has gone")));
            // It stands before the lock, or will: until then the other link goes, and who finds that publishes it.
            std::thread::sleep(std::time::Duration::from_millis(50));
            link(&server, 1).pretend_gone();
            state.since = None;
            server.public.publish(&state);
            drop(state);
        });
        assert!(!server.is_up());
    }

    #[test]
    fn what_goes_together_leaves_a_link_that_is_retired() {
        let server = server(true, &[0, 9, 9]);
        link(&server, 0).retire();
        assert_eq!(picked(&server), [1, 1]);
        link(&server, 1).retire();
        link(&server, 2).pretend(9, 1, true);
        assert_eq!(picked(&server), [2, 2], "even behind a long one");
    }
}
