//! The background work of links: connecting, reconnecting, watching idle sockets. It has no thread of its own: of those
//! who wait through the seam one does it (HA 5), chosen as the leader of a link is.
//!
//! ```text
//! an attendant (the client's tender) --> does it whenever it waits; nobody else does
//! no attendant (threads forbidden, tools) --> whoever waits while some link is down, or waits for news alone
//! ```
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use spec::platform::{Lock, Moment, Park, SocketAddr, Stream, Watched};
use spec::seam::Waiter;

use crate::certificate::Identity;
use crate::dial::{Dial, Opening};
use crate::lead::Lead;
use crate::link::{Link, Turn};
use crate::links::Shared;
use crate::server::Server;
use crate::tls::ServerTrust;

/// How long a connection attempt may take, the resolution of names apart.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// How long the handshake may take at most.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// A link that nobody has used for so long is watched by the attendant, in milliseconds.
pub(crate) const IDLE_MS: u64 = 250;

/// Where the work lies while nobody does it.
pub(crate) struct Seat(Lock<Inside>);

struct Inside {
    lead: Lead<Arc<Waiter>>,
    work: Option<Box<Duty>>,
}

/// The work, in the hands of the thread that does it.
#[derive(Default)]
pub(crate) struct Duty {
    dials: Vec<(Arc<Server>, Arc<Link>, Dial)>,
    idle: Vec<(Arc<Link>, Arc<dyn Stream>)>,
}

impl Seat {
    pub(crate) fn new() -> Self {
        Self(Lock::new(Inside { lead: Lead::new(), work: Some(Box::default()) }))
    }

    /// The waiter is there to do it, if it still may; the work, if it falls to it.
    pub(crate) fn enter(&self, waiter: &Arc<Waiter>, may: impl Fn() -> bool) -> Option<Box<Duty>> {
        let mut inside = self.0.lock();
        if !may() {
            return None;
        }
        let (leads, is_new) = inside.lead.enter(waiter);
        if is_new {
            waiter.listed().fetch_add(1, Ordering::AcqRel);
        }
        inside.work.take_if(|_| leads)
    }

    /// The waiter is not there any more; what it had in hand goes on to the next.
    pub(crate) fn leave(&self, waiter: &Arc<Waiter>, work: Option<Box<Duty>>) {
        let left = {
            let mut inside = self.0.lock();
            if work.is_some() {
                inside.work = work;
            }
            inside.lead.leave(waiter)
        };
        if left.was_there {
            waiter.listed().fetch_sub(1, Ordering::AcqRel);
        }
        if let Some(next) = left.token {
            next.park().unpark();
        }
    }

    /// Whoever was there to do it is there no more, with the token that it was given; one who has it in hand goes on until it
    /// leaves. For a change of those who may: one who may not any more would sleep on its token.
    pub(crate) fn clear(&self) {
        let mut inside = self.0.lock();
        let has_taken = inside.work.is_none();
        for waiter in inside.lead.clear(has_taken) {
            waiter.listed().fetch_sub(1, Ordering::AcqRel);
        }
    }

    /// Whether nobody waits for it in vain (HA 5 (2)).
    pub(crate) fn is_sound(&self) -> bool {
        self.0.lock().lead.is_sound()
    }

    /// Whether the thread that waits in this place has the work in its hands.
    pub(crate) fn is_held_from(&self, place: &dyn Park) -> bool {
        let inside = self.0.lock();
        let leader = inside.lead.leader().filter(|_| inside.work.is_none());
        leader.is_some_and(|leader| std::ptr::addr_eq(leader.park(), place))
    }

    /// Something is to be done: whoever does it looks again.
    pub(crate) fn stir(&self) {
        let leader = self.0.lock().lead.leader().cloned();
        if let Some(leader) = leader {
            leader.park().unpark();
        }
    }
}

impl Duty {
    /// Begins what is due; answers when something will be.
    pub(crate) fn begin(&mut self, shared: &Arc<Shared>, now: Moment, watches: bool) -> Moment {
        if shared.is_closing() {
            self.break_off();
            return Moment::NEVER;
        }
        self.dials.retain(|(_, link, dial)| {
            let is_wanted = !link.is_retired();
            if !is_wanted {
                dial.give_up();
                link.stop_dial();
            }
            is_wanted
        });
        // Cleared first: who finds a link down from here on sets it again.
        shared.wants.store(false, Ordering::SeqCst);
        let mut next = Moment::NEVER;
        let mut some_are_down = !self.dials.is_empty();
        for server in shared.servers.load().iter() {
            // One handshake at a time per process and member (HA 4.5).
            let mut is_dialled = self.dials.iter().any(|(dialled, ..)| Arc::ptr_eq(dialled, server));
            for link in server.links.load().iter() {
                let Some(due) = link.next_try() else { continue };
                some_are_down = true;
                if is_dialled {
                    continue;
                }
                if due > now {
                    next = next.min(due);
                    continue;
                }
                is_dialled = self.dial(shared, server, link);
                // Whoever looks up the name tells when it is done; until then there is nothing to look for.
                if !is_dialled {
                    next = next.min(link.next_try().unwrap_or(Moment::NEVER));
                }
            }
        }
        if some_are_down {
            shared.wants.store(true, Ordering::SeqCst);
        }
        if watches {
            next = next.min(self.watch(shared, now));
        } else {
            // Those of who had the work before: this thread may lead one of them by now, and a glance would end that.
            self.idle.clear();
        }
        self.dials.iter().map(|(.., dial)| dial.until()).fold(next, Moment::min)
    }

    /// Begins an attempt; whether it is under way, the lookup of the name included.
    fn dial(&mut self, shared: &Arc<Shared>, server: &Arc<Server>, link: &Arc<Link>) -> bool {
        let (weak, may_spawn) = (Arc::downgrade(shared), shared.settings.load().may_spawn);
        let tell = move || {
            if let Some(shared) = weak.upgrade() {
                shared.stir();
            }
        };
        let Some(found) = server.names.take(&shared.platform, server.address(), may_spawn, tell) else {
            return true;
        };
        if !link.begin_dial() {
            return false;
        }
        match found.and_then(|addresses| dial(shared, server, addresses)) {
            Ok(dial) => {
                self.dials.push((server.clone(), link.clone(), dial));
                true
            }
            Err(reason) => {
                link.refused(shared, reason);
                false
            }
        }
    }

    /// The idle sockets, so that the end of one is seen at once; answers when to look for more.
    fn watch(&mut self, shared: &Arc<Shared>, now: Moment) -> Moment {
        self.idle.clear();
        let idle = Moment(now.0.saturating_sub(Moment(0).after_ms(IDLE_MS).0));
        let mut next = Moment::NEVER;
        for link in shared.all_links() {
            if link.is_retired() {
                link.tick(shared);
            }
            match link.watch(idle) {
                Some(stream) => {
                    if link.is_blocked() {
                        link.tick(shared);
                        next = now.after_ms(IDLE_MS);
                    }
                    self.idle.push((link, stream));
                }
                None if link.is_up() => {
                    // Nobody may be waiting for what is outstanding there.
                    if !link.is_led() {
                        link.tick(shared);
                    }
                    next = now.after_ms(IDLE_MS);
                }
                None => {}
            }
        }
        next
    }

    /// What to poll for it, behind what is there already.
    pub(crate) fn watched(&self, all: &mut Vec<Watched>) {
        all.extend(self.dials.iter().map(|(.., dial)| dial.watched()));
        all.extend(self.idle.iter().map(|(link, stream)| Watched::new(stream.clone(), link.is_blocked())));
    }

    /// Goes on with what is ready, in the order of [`watched`](Self::watched).
    pub(crate) fn turn(&mut self, shared: &Arc<Shared>, waiter: &Arc<Waiter>, found: &[Watched]) {
        let now = shared.platform.now();
        let mut found = found.iter();
        let instance = shared.settings.load().instance.clone();
        for (server, link, mut dial) in std::mem::take(&mut self.dials) {
            let is_ready = found.next().is_some_and(|one| one.readable || one.writable);
            if !is_ready && now < dial.until() {
                self.dials.push((server, link, dial));
                continue;
            }
            match dial.turn(&instance) {
                Ok(None) => self.dials.push((server, link, dial)),
                Ok(Some(_)) if shared.is_closing() || link.is_retired() => {
                    dial.give_up();
                    link.stop_dial();
                }
                Ok(Some(hello)) => shared.link_up(&server, &link, dial.into_opened(hello)),
                Err(reason) => link.refused(shared, reason),
            }
        }
        for ((link, _), one) in self.idle.iter().zip(found) {
            if one.writable {
                link.flush(shared);
            }
            if one.readable {
                glance(shared, link, waiter);
            }
        }
    }

    /// The links are closing.
    pub(crate) fn break_off(&mut self) {
        for (_, link, dial) in self.dials.drain(..) {
            dial.give_up();
            link.stop_dial();
        }
        self.idle.clear();
    }
}

/// Reads once what has come on a link that nobody leads.
pub(crate) fn glance(shared: &Shared, link: &Arc<Link>, waiter: &Arc<Waiter>) {
    match link.enter(waiter) {
        Some(mut held) => match held.read(shared) {
            Turn::Led => held.step_down(shared, waiter),
            Turn::Gone => {}
        },
        None => link.leave(waiter),
    }
}

fn dial(shared: &Arc<Shared>, server: &Arc<Server>, addresses: Vec<SocketAddr>) -> Result<Dial, String> {
    let settings = shared.settings.load();
    let identity = Identity::load(&settings.certificate_file, &settings.key_file).map_err(|error| {
        format!("no client certificate: {error}; make one with `vtl createCert` and register it")
    })?;
    let trust = Arc::new(ServerTrust::load(&settings.server_ca_file).map_err(|error| error.0)?);
    Dial::begin(Opening {
        platform: &shared.platform,
        server: server.address(),
        addresses,
        identity: &identity,
        trust: &trust,
        software: &settings.software,
        keep_alive: settings.tcp_keep_alive,
        connect_timeout: CONNECT_TIMEOUT,
        handshake_timeout: HANDSHAKE_TIMEOUT.min(Duration::from_millis(settings.receive_timeout_ms)),
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::net::TcpListener;
    use std::path::PathBuf;

    use spec::platform::Platform as _;

    use super::*;
    use crate::channel::ServerAddress;
    use crate::instance::InstanceKey;
    use crate::links::{LinkSettings, Links};
    use crate::platform::System;

    #[test]
    fn a_token_given_to_one_who_may_not_work_any_more_does_not_keep_the_attendant_from_it() {
        let seat = Seat::new();
        let [first, second, attendant] = [(); 3].map(|()| Waiter::new(&System::shared()));
        let work = seat.enter(&first, || true);
        assert!(work.is_some() && seat.enter(&second, || true).is_none());
        // The second one has the token, and looks for it no more once there is an attendant.
        seat.leave(&first, work);
        seat.clear();
        assert!(seat.enter(&second, || false).is_none());
        assert!(seat.enter(&attendant, || true).is_some());
        assert_eq!(second.listed().load(Ordering::Acquire), 0);
    }

    fn links() -> Arc<Links> {
        let settings = LinkSettings {
            servers: Vec::new(),
            certificate_file: PathBuf::new(),
            key_file: PathBuf::new(),
            server_ca_file: PathBuf::new(),
            links_per_member: 1,
            may_spawn: false,
            receive_timeout_ms: 20_000,
            tcp_keep_alive: false,
            software: String::new(),
            instance: Arc::new(InstanceKey::generate()),
        };
        Links::new(System::shared(), settings)
    }

    /// HA 5 (1), (2): a leader that glanced at its own link would give the leadership away and keep the right to read.
    #[test]
    fn who_takes_the_work_over_and_does_not_watch_looks_at_no_idle_socket() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = System.connect(listener.local_addr().unwrap(), false).unwrap();
        let (links, address) = (links(), ServerAddress { host: "hsm".to_owned(), port: 1792 });
        let link = Arc::new(Link::new(0, Server::new(address, false).public.clone()));
        let mut work = Duty { dials: Vec::new(), idle: vec![(link, stream)] };
        let mut watched = Vec::new();
        work.watched(&mut watched);
        assert_eq!(watched.len(), 1);
        watched.clear();
        work.begin(&links.shared, System.now(), false);
        work.watched(&mut watched);
        assert!(watched.is_empty());
    }

    #[test]
    fn who_has_the_work_in_hand_goes_on_with_it_until_it_leaves() {
        let seat = Seat::new();
        let [first, attendant] = [(); 2].map(|()| Waiter::new(&System::shared()));
        let work = seat.enter(&first, || true);
        seat.clear();
        assert!(seat.enter(&attendant, || true).is_none());
        seat.leave(&first, work);
        assert!(seat.enter(&attendant, || true).is_some());
    }
}
