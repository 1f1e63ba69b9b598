//! The running server: listeners, links and the operator's socket, from start to graceful stop.
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::spawn_blocking;

use crate::admin::socket;
use crate::appliance::Appliance;
use crate::error::Error;
use crate::link::Shared;
use crate::listener::listen;
use crate::memory::Memory;
use crate::workers::Workers;

/// How long a stop waits for the thread that keeps step with peers.
const KEEPER: Duration = Duration::from_secs(3);

/// A server that listens.
pub struct Server {
    appliance: Arc<Appliance>,
    stop: watch::Sender<bool>,
    keeper: JoinHandle<()>,
}

impl Server {
    /// Listens on every configured address and on the operator's socket. Call it inside a runtime.
    ///
    /// # Errors
    /// When an address or the socket is not to be had.
    pub async fn start(appliance: Arc<Appliance>) -> Result<Server, Error> {
        let peers = appliance.peers.clone();
        // A panic in it is logged by its own report; the partitions are served as they are.
        let _ = spawn_blocking(move || peers.first_look()).await;
        let (stop, stopping) = watch::channel(false);
        let shared = Arc::new(Shared {
            registry: appliance.registry.clone(),
            lookup: appliance.partitions.clone(),
            workers: Workers::new(appliance.config.crypto_threads),
            limits: appliance.limits(),
            connections: appliance.connections.clone(),
            acceptor: appliance.acceptor.clone(),
            seen: appliance.seen.clone(),
            memory: Memory::new(appliance.config.bytes_max),
            stop: stopping.clone(),
        });
        let mut listeners = Vec::new();
        for address in &appliance.config.listen {
            listeners.push(bind(*address).await?);
        }
        let admin = socket::open(&appliance.config.admin_socket)?;
        let addresses: Vec<SocketAddr> =
            listeners.iter().filter_map(|listener| listener.local_addr().ok()).collect();
        for address in &addresses {
            tracing::info!(%address, "listening");
        }
        *appliance.listening.write() = addresses;
        for listener in listeners {
            tokio::spawn(listen(listener, shared.clone()));
        }
        tokio::spawn(socket::serve(admin, appliance.clone(), stopping));
        let keeper = appliance.peers.start().map_err(|error| {
            Error::environment(format!("the thread that keeps step with peers cannot be started: {error}"))
        })?;
        Ok(Server { appliance, stop, keeper })
    }

    /// The addresses that are listened on.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.appliance.listening.read().clone()
    }

    /// Takes no more links and lets those there are finish what runs, for `stop_seconds` at most.
    pub async fn stop(self) {
        self.stop.send_replace(true);
        self.appliance.peers.stop();
        let until = Instant::now() + Duration::from_secs(self.appliance.config.stop_seconds);
        while self.appliance.connections.count() > 0 && Instant::now() < until {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let keeper = self.keeper;
        let ended = spawn_blocking(move || keeper.join());
        // One that hangs in the resolution of a name is not waited for; it holds nothing that must be written.
        let _ = tokio::time::timeout(KEEPER, ended).await;
        // It is in our own folder or where the operator wanted it; a leftover is replaced by the next start.
        let _ = std::fs::remove_file(&self.appliance.config.admin_socket);
    }
}

async fn bind(address: SocketAddr) -> Result<TcpListener, Error> {
    TcpListener::bind(address).await.map_err(|error| {
        Error::environment(format!(
            "listen {address}: wanted a free address of this host, found: {error}; correct `listen` or stop what uses it"
        ))
    })
}
