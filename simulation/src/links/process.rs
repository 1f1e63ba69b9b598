//! An application process of the simulated links: its files, its settings, its links, whoever attends to them.
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use ntls::ServerAddress;
use ntls::instance::InstanceKey;
use ntls::links::{LinkSettings, Links};
use spec::platform::{Moment, Platform};
use spec::seam::{Event, MemberId, Seam as _, Waiter};

use super::desk::{Desk, Network};
use super::papers::Files;
use super::theme::Theme;
use crate::world::World;

/// The partition that every server offers.
const SHARED: u64 = 200;

/// The partitions of a server.
pub(crate) fn offers(server: usize, servers: usize) -> Vec<u64> {
    if servers == 1 { vec![100] } else { vec![100 + server as u64, SHARED] }
}

/// See the head of this file.
pub(crate) struct Process {
    pub(crate) number: usize,
    pub(crate) world: Arc<World>,
    pub(crate) network: Arc<Network>,
    pub(crate) desk: Arc<Desk>,
    pub(crate) platform: Arc<dyn Platform>,
    pub(crate) links: Arc<Links>,
    pub(crate) theme: Theme,
    files: Files,
    settings: Mutex<LinkSettings>,
    /// How often the settings have changed.
    changed: AtomicU64,
    /// When the links were closed; `u64::MAX` while they are not.
    closed_at: AtomicU64,
}

impl Process {
    /// A process whose links are made and not connected.
    pub(crate) fn start(network: &Arc<Network>, number: usize, theme: &Theme) -> Arc<Self> {
        let desk = Desk::new(network, number);
        let platform: Arc<dyn Platform> = desk.clone();
        let files = Files::new();
        let settings = LinkSettings {
            servers: servers(theme),
            certificate_file: files.path("client.pem"),
            key_file: files.path("clientKey.pem"),
            server_ca_file: files.path("CAFile.pem"),
            links_per_member: theme.links_per_member,
            may_spawn: theme.may_spawn,
            receive_timeout_ms: theme.receive_timeout_ms,
            tcp_keep_alive: true,
            software: "simulated".into(),
            instance: Arc::new(InstanceKey::generate()),
        };
        let links = Links::new(platform.clone(), settings.clone());
        desk.watch(&links);
        Arc::new(Self {
            number,
            world: network.world.clone(),
            network: network.clone(),
            desk,
            platform,
            links,
            theme: theme.clone(),
            files,
            settings: Mutex::new(settings),
            changed: AtomicU64::new(0),
            closed_at: AtomicU64::new(u64::MAX),
        })
    }

    /// The partitions that calls go to.
    pub(crate) fn members(&self) -> Vec<MemberId> {
        let mut all: Vec<u64> =
            (0..self.theme.servers).flat_map(|server| offers(server, self.theme.servers)).collect();
        all.sort_unstable();
        all.dedup();
        all.into_iter().map(MemberId).collect()
    }

    /// Does the background work whenever it waits, until the links are closed.
    pub(crate) fn attend(&self) {
        let _attendance = self.links.attend();
        let waiter = Waiter::new(&self.platform);
        self.links.subscribe(&waiter);
        while !self.is_closed() {
            let until = self.platform.now().after_ms(500);
            match self.links.wait(&waiter, until) {
                Event::Woken | Event::Deadline => {}
                _ => self.world.fail("a thread that has asked for nothing hears an answer".into()),
            }
        }
    }

    /// Whether the links are closed or being closed.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed_at() < u64::MAX
    }

    /// When they were.
    pub(crate) fn closed_at(&self) -> u64 {
        self.closed_at.load(Ordering::Relaxed)
    }

    /// Closes the links.
    pub(crate) fn close(&self) {
        self.closed_at.fetch_min(self.world.now(), Ordering::Relaxed);
        self.world.note(0, || format!("process {} closes its links", self.number));
        self.links.close();
    }

    /// Changes the settings, if they are to have changed more often than they have.
    pub(crate) fn follow(&self, wanted: u64) {
        if self.changed.fetch_max(wanted, Ordering::Relaxed) >= wanted {
            return;
        }
        let settings = self.changed_settings();
        self.world.note(wanted, || {
            let (servers, links) = (settings.servers.len(), settings.links_per_member);
            format!("process {} has {servers} servers and {links} links to each", self.number)
        });
        self.links.configure(settings);
    }

    fn changed_settings(&self) -> LinkSettings {
        let mut settings = self.settings.lock().unwrap_or_else(PoisonError::into_inner);
        let (links, certificate, remove) = self.world.chance(|chance| {
            (chance.place(4), chance.once_in(2).then(|| chance.place(2)), chance.once_in(4))
        });
        settings.links_per_member = 1 + links;
        if let Some(number) = certificate {
            self.files.show(number);
        }
        settings.servers = servers(&self.theme);
        if remove && !self.theme.is_strict {
            settings.servers.pop();
        }
        settings.clone()
    }

    /// The settings name all servers again.
    pub(crate) fn restore(&self) {
        let settings = {
            let mut settings = self.settings.lock().unwrap_or_else(PoisonError::into_inner);
            settings.servers = servers(&self.theme);
            settings.clone()
        };
        self.links.configure(settings);
    }

    /// The present, for those who only look.
    pub(crate) fn now(&self) -> Moment {
        Moment(self.world.now())
    }
}

fn servers(theme: &Theme) -> Vec<ServerAddress> {
    let host = |number| if theme.named { format!("hsm{number}.example") } else { format!("10.0.0.{number}") };
    (0..theme.servers).map(|number| ServerAddress { host: host(number), port: 1792 }).collect()
}
