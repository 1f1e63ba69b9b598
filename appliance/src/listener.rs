//! The listener: takes connections, shakes hands, starts a link for each; no connection's fault reaches another.
use std::collections::HashMap;
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

use crate::greeting::greet;
use crate::link::{Shared, serve, stopped};
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

/// One link, until dropped.
pub(crate) struct Counted(Arc<AtomicUsize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
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
/// which anybody may begin; so that nobody who is not registered can keep a client out.
#[derive(Clone)]
pub struct Connections {
    links: Arc<AtomicUsize>,
    links_max: usize,
    /// Handshakes in progress by source address; no entry is zero.
    shaking: Arc<Mutex<HashMap<IpAddr, usize>>>,
    handshakes_max: usize,
}

impl Connections {
    /// None yet; at most so many links, and so many handshakes in progress.
    pub fn new(links_max: usize, handshakes_max: usize) -> Self {
        Self { links: Arc::default(), links_max, shaking: Arc::default(), handshakes_max }
    }

    /// How many links there are.
    pub fn count(&self) -> usize {
        self.links.load(Ordering::Relaxed)
    }

    /// How many handshakes are in progress.
    pub fn handshakes(&self) -> usize {
        self.shaking.lock().values().sum()
    }

    /// One link more, from the moment that its client has proved itself.
    pub(crate) fn enter(&self) -> Option<Counted> {
        let counted = Counted(self.links.clone());
        if self.links.fetch_add(1, Ordering::Relaxed) < self.links_max { Some(counted) } else { None }
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
