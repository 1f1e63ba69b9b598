//! The listener: takes connections, shakes hands, starts a link for each; no connection's fault reaches another.
use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock};
use rustix::net::sockopt;
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout_at;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::drive::{serve, stopped};
use crate::greeting::greet;
use crate::link::Shared;
use crate::log;

/// A silent peer's host is asked after so many seconds whether it lives.
const KEEP_ALIVE: Duration = Duration::from_secs(60);
/// After a failed accept (no descriptors, mostly) the listener rests for so long.
const REST: Duration = Duration::from_millis(100);

/// Handshakes in progress that one source address may have.
const HANDSHAKES_PER_ADDRESS: usize = 64;

/// The TLS of new connections; it may change while links are up.
pub struct Acceptor(RwLock<(TlsAcceptor, u64)>);

impl Acceptor {
    /// TLS with a certificate that ends at this moment, in milliseconds since 1970.
    pub fn new(config: ServerConfig, ends_ms: u64) -> Self {
        Self(RwLock::new((TlsAcceptor::from(Arc::new(config)), ends_ms)))
    }

    /// New connections get this from now on; links that are up go on as they are.
    pub fn replace(&self, config: ServerConfig, ends_ms: u64) {
        *self.0.write() = (TlsAcceptor::from(Arc::new(config)), ends_ms);
    }

    /// When the certificate that new connections get ends, in milliseconds since 1970.
    pub fn ends_ms(&self) -> u64 {
        self.0.read().1
    }

    fn tls(&self) -> TlsAcceptor {
        self.0.read().0.clone()
    }
}

/// The links that there are.
#[derive(Default)]
struct Links {
    /// All of them; changed under the lock, read without it.
    count: AtomicUsize,
    /// By the client's identity; no entry is zero.
    by_client: Mutex<HashMap<[u8; 32], usize>>,
}

/// One link, until dropped.
pub(crate) struct Counted {
    links: Arc<Links>,
    client: [u8; 32],
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut by_client = self.links.by_client.lock();
        if let Some(count) = by_client.get_mut(&self.client) {
            *count -= 1;
            if *count == 0 {
                by_client.remove(&self.client);
            }
        }
        self.links.count.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Why a client gets no further link; the text is for both operators.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum TooMany {
    /// All clients together have as many as there may be.
    All {
        /// `links_max`.
        most: usize,
    },
    /// This client has its share: as many as it leaves free for others, or `links_per_client_max`.
    OfClient {
        /// How many it has.
        found: usize,
        /// How many are free for others.
        free: usize,
    },
}

impl fmt::Display for TooMany {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All { most } => write!(
                f,
                "the appliance has {most} links, as many as it may; try again later, or let its operator raise links_max"
            ),
            Self::OfClient { found, free } => write!(
                f,
                "this client has {found} links and {free} are left for others: no client may have more than it leaves \
                 free, nor more than links_per_client_max; close some, or let the appliance's operator raise links_max \
                 or links_per_client_max"
            ),
        }
    }
}

/// One handshake in progress, until dropped.
struct Shaking {
    connections: Connections,
    address: IpAddr,
}

impl Drop for Shaking {
    fn drop(&mut self) {
        let mut shaking = self.connections.shaking.lock();
        if let Some(count) = shaking.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                shaking.remove(&self.address);
            }
        }
    }
}

/// The connections of all listeners together and their bounds: links, which registered clients have, and handshakes,
/// which anybody may begin; so that nobody who is not registered can keep a client out. Nor can one client the others (HA
/// 4.5): it may have as many links as it leaves free, so one alone has half of them at most, two a third each. One link is
/// everybody's right while one is free.
#[derive(Clone)]
pub struct Connections {
    links: Arc<Links>,
    links_max: usize,
    links_per_client_max: usize,
    /// Handshakes in progress by source address; no entry is zero.
    shaking: Arc<Mutex<HashMap<IpAddr, usize>>>,
    handshakes_max: usize,
}

impl Connections {
    /// None yet; at most so many links, so many of them of one client, and so many handshakes in progress.
    pub fn new(links_max: usize, links_per_client_max: usize, handshakes_max: usize) -> Self {
        Self {
            links: Arc::default(),
            links_max,
            links_per_client_max,
            shaking: Arc::default(),
            handshakes_max,
        }
    }

    /// How many links there are.
    pub fn count(&self) -> usize {
        self.links.count.load(Ordering::Relaxed)
    }

    /// How many handshakes are in progress.
    pub fn handshakes(&self) -> usize {
        self.shaking.lock().values().sum()
    }

    /// One link more for this client, from the moment that it has proved itself.
    pub(crate) fn enter(&self, client: [u8; 32]) -> Result<Counted, TooMany> {
        let mut by_client = self.links.by_client.lock();
        let count = self.count();
        if count >= self.links_max {
            return Err(TooMany::All { most: self.links_max });
        }
        let (found, free) = (by_client.get(&client).copied().unwrap_or(0), self.links_max - count);
        if found > 0 && (found >= self.links_per_client_max || found + 1 > free - 1) {
            return Err(TooMany::OfClient { found, free });
        }
        by_client.insert(client, found + 1);
        self.links.count.store(count + 1, Ordering::Relaxed);
        Ok(Counted { links: self.links.clone(), client })
    }

    /// One handshake more; the error is the reason against it.
    fn begin(&self, address: IpAddr) -> Result<Shaking, &'static str> {
        let mut shaking = self.shaking.lock();
        if shaking.values().sum::<usize>() >= self.handshakes_max {
            return Err(
                "too many handshakes in progress: refused one; raise handshakes_max if they are clients",
            );
        }
        let count = shaking.entry(address).or_insert(0);
        if *count >= HANDSHAKES_PER_ADDRESS {
            return Err("too many handshakes in progress with this address: refused one");
        }
        *count += 1;
        Ok(Shaking { connections: self.clone(), address })
    }
}

/// Takes connections until the server stops.
pub async fn listen(listener: TcpListener, shared: Arc<Shared>) {
    let mut stop = shared.stop.clone();
    loop {
        let accepted = tokio::select! {
            () = stopped(&mut stop) => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => match shared.connections.begin(peer.ip().to_canonical()) {
                Ok(shaking) => {
                    tokio::spawn(connection(stream, peer, shared.clone(), shaking));
                }
                Err(reason) => told(&peer, 1, || tracing::warn!(%peer, "{reason}")),
            },
            Err(error) => {
                tracing::warn!(%error, "no connection could be accepted; raise the limit of open files if that is it");
                tokio::time::sleep(REST).await;
            }
        }
    }
}

async fn connection(stream: TcpStream, peer: SocketAddr, shared: Arc<Shared>, shaking: Shaking) {
    let deadline = Instant::now() + shared.limits.handshake;
    // Both make a link better and neither is needed.
    let _ = stream.set_nodelay(true);
    let _ = sockopt::set_socket_keepalive(&stream, true);
    let _ = sockopt::set_tcp_keepidle(&stream, KEEP_ALIVE);
    let mut stop = shared.stop.clone();
    let accepted = tokio::select! {
        () = stopped(&mut stop) => return,
        accepted = timeout_at(deadline.into(), shared.acceptor.tls().accept(stream)) => accepted,
    };
    let stream = match accepted {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            return told(&peer, 2, || tracing::warn!(%peer, %error, "a TLS handshake failed"));
        }
        Err(_) => return told(&peer, 3, || tracing::warn!(%peer, "a TLS handshake took too long")),
    };
    match shake_and_serve(stream, shared, deadline, shaking).await {
        Ok(()) => told(&peer, 4, || tracing::info!(%peer, "a link was closed")),
        Err(reason) => told(&peer, 5, || tracing::warn!(%peer, reason, "a link ended")),
    }
}

/// Writes a line that anybody at this address can cause, at the rate that such lines have.
fn told(peer: &SocketAddr, kind: u64, line: impl FnOnce()) {
    if log::allow(&peer.ip().to_canonical().to_string(), ("connections", kind)) {
        line();
    }
}

/// The handshake counts until the Hello has been answered, the link from then on.
async fn shake_and_serve(
    mut stream: TlsStream<TcpStream>,
    shared: Arc<Shared>,
    deadline: Instant,
    shaking: Shaking,
) -> Result<(), String> {
    let mut stop = shared.stop.clone();
    let greeted = tokio::select! {
        () = stopped(&mut stop) => return Ok(()),
        greeted = greet(&mut stream, &shared, deadline) => greeted?,
    };
    drop(shaking);
    serve(stream, shared, greeted).await
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// Takes links for a client until one is refused.
    fn greedy(connections: &Connections, client: u8) -> (Vec<Counted>, TooMany) {
        let mut taken = Vec::new();
        loop {
            match connections.enter([client; 32]) {
                Ok(counted) => taken.push(counted),
                Err(refusal) => return (taken, refusal),
            }
        }
    }

    #[test]
    fn ha_4_5_no_client_takes_the_links_of_the_others() {
        let connections = Connections::new(100, 100, 1);
        let (first, refusal) = greedy(&connections, 1);
        assert_eq!((first.len(), refusal), (50, TooMany::OfClient { found: 50, free: 50 }));
        let (second, _) = greedy(&connections, 2);
        assert_eq!(second.len(), 25, "it leaves as many free as it has");
        let others: Vec<Vec<Counted>> = (3..8).map(|client| greedy(&connections, client).0).collect();
        assert!(others.iter().all(|links| !links.is_empty()), "every client comes in while one is free");
        assert!((95..=100).contains(&connections.count()), "{}", connections.count());
        drop((first, second, others));
        assert_eq!((connections.count(), connections.links.by_client.lock().len()), (0, 0));
        assert_eq!(greedy(&connections, 1).0.len(), 50);
    }

    #[test]
    fn a_client_has_no_more_links_than_it_may_and_all_no_more_than_there_are() {
        let connections = Connections::new(20, 3, 1);
        let (three, refusal) = greedy(&connections, 1);
        assert_eq!((three.len(), refusal), (3, TooMany::OfClient { found: 3, free: 17 }));
        let full = Connections::new(2, 2, 1);
        let held = [full.enter([1; 32]).unwrap(), full.enter([2; 32]).unwrap()];
        assert_eq!(full.enter([3; 32]).err(), Some(TooMany::All { most: 2 }));
        drop(held);
        assert!(full.enter([3; 32]).is_ok());
    }
}
