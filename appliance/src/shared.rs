//! What all links share: the clients, the partitions, the lanes, the bounds.
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::handler::Handler;
use crate::listener::{Acceptor, Connections};
use crate::memory::Memory;
use crate::registry::Registry;
use crate::sightings::Sightings;
use crate::workers::Workers;

/// The least window that a link is granted, however many links there are.
const WINDOW_MIN: u32 = 4;

/// Finds what serves a partition.
pub trait Lookup: Send + Sync {
    /// The partition's handler, if it is here and open.
    fn handler(&self, serial: u64) -> Option<Arc<dyn Handler>>;
    /// The label under which links show it.
    fn label(&self, serial: u64) -> Option<String>;
    /// The appliance's label.
    fn appliance(&self) -> String;
}

/// The bounds of a link.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Most requests outstanding.
    pub window: u32,
    /// Most bytes of bodies that wait and replies that are not yet sent.
    pub link_bytes: usize,
    /// Silence after which it is closed; `None` for never.
    pub idle: Option<Duration>,
    /// For handshake and Hello, and for the rest of a frame that has begun.
    pub handshake: Duration,
}

/// What all links share.
pub struct Shared {
    /// The clients.
    pub registry: Arc<Registry>,
    /// The partitions.
    pub lookup: Arc<dyn Lookup>,
    /// The TLS of new connections.
    pub acceptor: Arc<Acceptor>,
    /// Where peers' members were last seen (HA 1.5).
    pub seen: Arc<Sightings>,
    /// The lanes.
    pub workers: Workers,
    /// The bounds.
    pub limits: Limits,
    /// The links and handshakes there are.
    pub connections: Connections,
    /// What all links together may hold.
    pub memory: Arc<Memory>,
    /// Turns true when the server stops.
    pub stop: watch::Receiver<bool>,
}

impl Shared {
    /// The window that a link is granted now (HA 4.5): its part of what the lanes take.
    pub(crate) fn window(&self) -> u32 {
        let part = self.workers.capacity() / self.connections.count().max(1);
        u32::try_from(part).unwrap_or(u32::MAX).max(WINDOW_MIN).min(self.limits.window)
    }
}
