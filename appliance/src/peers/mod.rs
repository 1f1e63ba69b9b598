//! Keeping step with other appliances without any client (HA 4.7): the repair of `ha` over links to peers and the
//! partitions of this house, with the replicator identity instead of a ticket.
//!
//! ```text
//! registrations -> links (one for each peer, with this server's own certificate) -> HouseSeam
//! partitions    -> one Group for each group that has a member here --------------^
//! each round: Group::tend (compare, repair, spread manifest and credentials), then note where members are,
//!             then hear where peers have seen the members here: gone back or cloned -> another incarnation (HA 1.5)
//! ```
//! One thread does it all, and none runs while no peer is registered.
mod seam;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ha::{Group, GroupSettings, Minimum};
use ntls::ServerAddress;
use ntls::instance::InstanceKey;
use ntls::links::{LinkSettings, Links};
use ntls::platform::System;
use parking_lot::Mutex;
use spec::messages::StatusAnswer;
use spec::platform::{Moment, Platform};
use spec::record::Manifest;
use spec::seam::{MemberId, Seam as _, Standing, Waiter};

use crate::book::PeerRow;
use crate::config::PeerSettings;
use crate::data_dir::replace;
use crate::greeting::SOFTWARE;
use crate::link::Lookup;
use crate::log;
use crate::partitions::Partitions;
use crate::pem;
use crate::registry::Registry;
use crate::server_identity::ServerIdentity;
use crate::sightings::{Sightings, log_contradiction};
use seam::HouseSeam;

/// A link to a peer on which requests wait and nothing arrives for so many milliseconds is given up.
const RECEIVE_MS: u64 = 10_000;
/// How often what was seen is written down.
const SAVE: Duration = Duration::from_secs(10);
/// The longest pause between two rounds, in milliseconds.
const ROUND_MS: u64 = 1_000;

/// The peers of an appliance and what is done with them.
pub struct Peers {
    platform: Arc<dyn Platform>,
    registry: Arc<Registry>,
    house: Arc<Partitions>,
    seen: Arc<Sightings>,
    identity: Arc<ServerIdentity>,
    settings: PeerSettings,
    /// The file of the peers' certificates, for the links.
    trust_path: PathBuf,
    instance: Arc<InstanceKey>,
    seam: Arc<HouseSeam>,
    state: Mutex<State>,
    stopped: AtomicBool,
    /// Where the thread waits between two rounds, driving the links meanwhile (HA 5).
    waiter: Arc<Waiter>,
}

#[derive(Default)]
struct State {
    /// The peers that the links were made for.
    known: Vec<Arc<PeerRow>>,
    /// By the group's id.
    groups: BTreeMap<Vec<u8>, Arc<Group>>,
}

impl Peers {
    /// Nothing is connected yet.
    pub fn new(
        registry: Arc<Registry>,
        house: Arc<Partitions>,
        seen: Arc<Sightings>,
        identity: Arc<ServerIdentity>,
        settings: PeerSettings,
        trust_path: PathBuf,
    ) -> Peers {
        let platform = System::shared();
        let seam = Arc::new(HouseSeam::new(platform.clone(), house.clone()));
        let (instance, state) = (Arc::new(InstanceKey::generate()), Mutex::default());
        let waiter = Waiter::new(&platform);
        Peers {
            platform,
            registry,
            house,
            seen,
            identity,
            settings,
            trust_path,
            instance,
            seam,
            state,
            stopped: AtomicBool::new(false),
            waiter,
        }
    }

    /// Hears from the peers that answer soon whether the stores here went back or were cloned (HA 1.5): before anybody is
    /// served. May take as long as the settings say, and a second more.
    pub fn first_look(&self) {
        if self.registry.peers().is_empty() {
            return;
        }
        self.follow_registrations();
        if let Some(links) = self.seam.links() {
            links.settle(self.platform.now().after_ms(self.settings.start_wait_ms));
        }
        for group in self.groups() {
            group.refresh();
            self.follow_strangers();
            self.listen_to(&group);
        }
    }

    /// Starts the thread that keeps step.
    ///
    /// # Errors
    /// When the system refuses one.
    pub fn start(self: &Arc<Self>) -> std::io::Result<JoinHandle<()>> {
        let peers = self.clone();
        std::thread::Builder::new().name("hsmd-peers".into()).spawn(move || peers.keep_step())
    }

    /// Ends the thread of `start` within about a second.
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::Release);
        self.waiter.wake();
        self.state.lock().groups.values().for_each(|group| group.close());
    }

    /// Whether a peer is connected, or why not.
    pub fn standing(&self, peer: &PeerRow) -> String {
        let servers = self.seam.links().map(|links| links.servers()).unwrap_or_default();
        let found =
            servers.into_iter().find(|(server, _)| server.host == peer.host && server.port == peer.port);
        match found {
            Some((_, Standing::Up { .. })) => "connected".to_owned(),
            Some((_, Standing::Down { reason })) => reason,
            None => "not tried yet".to_owned(),
        }
    }

    fn keep_step(&self) {
        let mut saved = Instant::now();
        while !self.is_stopped() {
            self.follow_registrations();
            self.follow_strangers();
            let mut next = self.platform.now().after_ms(ROUND_MS);
            for group in self.groups() {
                // The link is the proof: an empty ticket, anew each time, for a member that refuses it once may have
                // been told of this peer by now.
                group.set_repair_ticket(Some(&[]));
                next = next.min(group.tend());
                self.listen_to(&group);
            }
            if saved.elapsed() >= SAVE {
                self.save();
                saved = Instant::now();
            }
            self.pause(next);
        }
        self.save();
        self.seam.set_links(None);
    }

    fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }

    fn pause(&self, until: Moment) {
        while !self.is_stopped() && self.platform.now() < until {
            self.seam.wait(&self.waiter, until);
        }
    }

    fn save(&self) {
        if let Err(error) = self.seen.save() {
            tracing::warn!(%error, "where members were seen could not be written down");
        }
    }

    fn groups(&self) -> Vec<Arc<Group>> {
        self.state.lock().groups.values().cloned().collect()
    }

    /// Links to the peers there are now, and a group for each that has a member here.
    fn follow_registrations(&self) {
        let peers = self.registry.peers();
        let mut state = self.state.lock();
        if state.known != peers {
            let addresses = |peers: &[Arc<PeerRow>]| -> Vec<ServerAddress> {
                let address =
                    |peer: &Arc<PeerRow>| ServerAddress { host: peer.host.clone(), port: peer.port };
                peers.iter().map(address).collect()
            };
            match self.write_trust(&peers) {
                Ok(()) => {
                    // Certificates are read at each try to connect; only other addresses need other links.
                    if addresses(&state.known) != addresses(&peers) {
                        self.seam.set_links(self.connect(addresses(&peers)));
                    }
                    state.known = peers;
                }
                Err(error) => {
                    tracing::warn!(%error, "the certificates of peers cannot be written for the links")
                }
            }
        }
        let wanted = if state.known.is_empty() { BTreeMap::new() } else { self.manifests() };
        state.groups.retain(|id, group| {
            let kept = wanted.contains_key(id);
            if !kept {
                group.close();
            }
            kept
        });
        for (id, manifest) in wanted {
            state.groups.entry(id).or_insert_with(|| self.group(&manifest));
        }
    }

    /// The groups of more than one member that have a member here.
    fn manifests(&self) -> BTreeMap<Vec<u8>, Manifest> {
        let handlers = self.house.list().into_iter().filter_map(|slot| slot.handler.ok());
        let manifests = handlers.filter_map(|handler| handler.partition().map(|here| here.manifest()));
        manifests.filter(|manifest| manifest.members.len() > 1).map(|one| (one.group.clone(), one)).collect()
    }

    fn group(&self, manifest: &Manifest) -> Arc<Group> {
        let settings = GroupSettings {
            members: manifest.members.iter().map(|member| MemberId(member.serial)).collect(),
            serial: Some(manifest.serial),
            minimum: Minimum::Available,
            ..GroupSettings::default()
        };
        tracing::info!(
            group = manifest.serial,
            label = manifest.label,
            "this appliance keeps step with peers"
        );
        Group::new(self.platform.clone(), self.seam.clone(), settings)
    }

    fn connect(&self, servers: Vec<ServerAddress>) -> Option<Arc<Links>> {
        if servers.is_empty() {
            return None;
        }
        Some(Links::new(
            self.platform.clone(),
            LinkSettings {
                may_spawn: true,
                servers,
                certificate_file: self.identity.certificate_path(),
                key_file: self.identity.key_path(),
                server_ca_file: self.trust_path.clone(),
                links_per_member: 1,
                receive_timeout_ms: RECEIVE_MS,
                tcp_keep_alive: true,
                software: SOFTWARE.to_owned(),
                instance: self.instance.clone(),
            },
        ))
    }

    fn write_trust(&self, peers: &[Arc<PeerRow>]) -> Result<(), crate::error::Error> {
        let certificates = peers.iter().flat_map(|peer| &peer.certificates);
        let pem: String = certificates.map(|kept| pem::certificate(&kept.der)).collect();
        replace(&self.trust_path, pem.as_bytes(), 0o600)
    }

    /// Serials of members of the groups here that a peer of another domain offers: they are not asked, for whoever has not
    /// the domain's secret is no member, whatever he says.
    fn follow_strangers(&self) {
        let offers = self.seam.links().map(|links| links.partitions()).unwrap_or_default();
        let peers = self.registry.peers();
        let domain_of = |host: &str, port: u16| {
            peers.iter().find(|peer| peer.host == host && peer.port == port).map(|peer| peer.domain.as_str())
        };
        let mut strangers = BTreeSet::new();
        for slot in self.house.list() {
            let Ok(handler) = &slot.handler else { continue };
            let Some(here) = handler.partition() else { continue };
            let members: BTreeSet<u64> = here.manifest().members.iter().map(|member| member.serial).collect();
            for offer in offers.iter().filter(|offer| members.contains(&offer.serial)) {
                let own = domain_of(&offer.server.host, offer.server.port) == Some(slot.row.domain.as_str());
                if !own && strangers.insert(offer.serial) && log::allow(&offer.server.host, ("strangers", 0))
                {
                    tracing::warn!(
                        serial = offer.serial,
                        peer = %offer.server.host,
                        "a peer of another domain offers a member of a group here: the member is not asked until the peer                          takes it back or is removed with `hsm peer remove`"
                    );
                }
            }
        }
        self.seam.set_strangers(strangers);
    }

    /// Notes where members on other appliances are, and hears where they have seen those here. Only a member's own word
    /// about members of its own group counts, by the manifest that is held here.
    fn listen_to(&self, group: &Group) {
        let Some(of) = group.status().manifest else { return };
        let manifests = self.manifests();
        let Some(manifest) = manifests.get(&of.group) else { return };
        let told =
            group.status().members.into_iter().filter_map(|member| Some((member.id.0, member.report?)));
        for report in
            told.filter(|(asked, report)| is_own_word(manifest, *asked, report)).map(|(_, report)| report)
        {
            if self.house.handler(report.serial).is_none() {
                self.seen.note(&report);
            }
            for seen in report.seen.iter().filter(|seen| is_member(manifest, seen.serial)) {
                let Some(handler) = self.house.handler(seen.serial) else { continue };
                let Some(here) = handler.partition().filter(|here| here.contradicts(seen)) else { continue };
                tracing::warn!(
                    serial = seen.serial,
                    told_by = report.serial,
                    "a peer has seen another store"
                );
                if let Err(error) = here.yield_to(seen) {
                    tracing::error!(serial = seen.serial, %error, "the new incarnation could not be written");
                }
            }
        }
        // Also of what a member here has heard by the requests of this very group.
        for handler in manifest.members.iter().filter_map(|member| self.house.handler(member.serial)) {
            handler.partition().map(log_contradiction);
        }
    }
}

fn is_member(manifest: &Manifest, serial: u64) -> bool {
    manifest.members.iter().any(|member| member.serial == serial)
}

/// Whether a report is that of the member that was asked, and that one of the group.
fn is_own_word(manifest: &Manifest, asked: u64, report: &StatusAnswer) -> bool {
    report.serial == asked && is_member(manifest, asked)
}

#[cfg(test)]
mod tests {
    use spec::record::ManifestMember;

    use super::*;

    #[test]
    fn ha_1_5_only_a_member_of_the_group_speaks_and_for_itself_alone() {
        let members = [7, 8].map(|serial| ManifestMember { serial, role: 0, weight: 100 }).to_vec();
        let manifest = Manifest { members, ..Manifest::default() };
        for (asked, told, counts) in [(7, 7, true), (8, 7, false), (9, 9, false), (7, 9, false)] {
            let report = StatusAnswer { serial: told, ..StatusAnswer::default() };
            assert_eq!(is_own_word(&manifest, asked, &report), counts, "{told} by {asked}");
        }
    }
}
