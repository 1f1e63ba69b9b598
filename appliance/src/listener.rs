//! The listener: takes connections, shakes hands, starts a link for each; no connection's fault reaches another.
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustix::net::sockopt;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout_at;
use tokio_rustls::TlsAcceptor;

use crate::link::{Shared, serve, stopped};

/// A silent peer's host is asked after so many seconds whether it lives.
const KEEP_ALIVE: Duration = Duration::from_secs(60);
/// After a failed accept (no descriptors, mostly) the listener rests for so long.
const REST: Duration = Duration::from_millis(100);

/// Counts connections from their first byte on, so that the bound holds for handshakes too.
struct Counted(Arc<AtomicUsize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The connections of all listeners together and their bound.
#[derive(Clone)]
pub struct Connections {
    count: Arc<AtomicUsize>,
    max: usize,
}

impl Connections {
    /// None yet, and at most `max`.
    pub fn new(max: usize) -> Self {
        Self { count: Arc::new(AtomicUsize::new(0)), max }
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    fn enter(&self) -> Option<Counted> {
        let counted = Counted(self.count.clone());
        if self.count.fetch_add(1, Ordering::Relaxed) < self.max { Some(counted) } else { None }
    }
}

/// Takes connections until the server stops.
pub async fn listen(
    listener: TcpListener,
    acceptor: TlsAcceptor,
    shared: Arc<Shared>,
    connections: Connections,
) {
    let mut stop = shared.stop.clone();
    loop {
        let accepted = tokio::select! {
            () = stopped(&mut stop) => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => match connections.enter() {
                Some(counted) => {
                    let (acceptor, shared) = (acceptor.clone(), shared.clone());
                    tokio::spawn(async move {
                        connection(stream, peer, acceptor, shared).await;
                        drop(counted);
                    });
                }
                None => {
                    tracing::warn!(%peer, max = connections.max, "too many links: refused one; raise links_max")
                }
            },
            Err(error) => {
                tracing::warn!(%error, "no connection could be accepted; raise the limit of open files if that is it");
                tokio::time::sleep(REST).await;
            }
        }
    }
}

async fn connection(stream: TcpStream, peer: SocketAddr, acceptor: TlsAcceptor, shared: Arc<Shared>) {
    let deadline = Instant::now() + shared.limits.handshake;
    // Both make a link better and neither is needed.
    let _ = stream.set_nodelay(true);
    let _ = sockopt::set_socket_keepalive(&stream, true);
    let _ = sockopt::set_tcp_keepidle(&stream, KEEP_ALIVE);
    let mut stop = shared.stop.clone();
    let accepted = tokio::select! {
        () = stopped(&mut stop) => return,
        accepted = timeout_at(deadline.into(), acceptor.accept(stream)) => accepted,
    };
    let stream = match accepted {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return tracing::warn!(%peer, %error, "a TLS handshake failed"),
        Err(_) => return tracing::warn!(%peer, "a TLS handshake took too long"),
    };
    match serve(stream, shared, deadline).await {
        Ok(()) => tracing::info!(%peer, "a link was closed"),
        Err(reason) => tracing::warn!(%peer, reason, "a link ended"),
    }
}
