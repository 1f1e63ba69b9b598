//! The running server: listeners, links and the operator's socket, from start to graceful stop.
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::ServerConfig;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

use crate::admin::socket;
use crate::appliance::Appliance;
use crate::error::Error;
use crate::link::Shared;
use crate::listener::listen;
use crate::memory::Memory;
use crate::workers::Workers;

/// A server that listens.
pub struct Server {
    appliance: Arc<Appliance>,
    stop: watch::Sender<bool>,
}

impl Server {
    /// Listens on every configured address and on the operator's socket. Call it inside a runtime.
    ///
    /// # Errors
    /// When an address or the socket is not to be had.
    pub async fn start(appliance: Arc<Appliance>) -> Result<Server, Error> {
        let (stop, stopping) = watch::channel(false);
        let acceptor = TlsAcceptor::from(Arc::new(tls(&appliance)?));
        let shared = Arc::new(Shared {
            registry: appliance.registry.clone(),
            lookup: appliance.partitions.clone(),
            workers: Workers::new(appliance.config.crypto_threads),
            limits: appliance.limits(),
            connections: appliance.connections.clone(),
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
            tokio::spawn(listen(listener, acceptor.clone(), shared.clone()));
        }
        tokio::spawn(socket::serve(admin, appliance.clone(), stopping));
        Ok(Server { appliance, stop })
    }

    /// The addresses that are listened on.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.appliance.listening.read().clone()
    }

    /// Takes no more links and lets those there are finish what runs, for `stop_seconds` at most.
    pub async fn stop(self) {
        self.stop.send_replace(true);
        let until = Instant::now() + Duration::from_secs(self.appliance.config.stop_seconds);
        while self.appliance.connections.count() > 0 && Instant::now() < until {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        // It is in our own folder or where the operator wanted it; a leftover is replaced by the next start.
        let _ = std::fs::remove_file(&self.appliance.config.admin_socket);
    }
}

fn tls(appliance: &Appliance) -> Result<ServerConfig, Error> {
    ntls::tls::server_config(&appliance.identity, appliance.registry.clone()).map_err(|error| {
        Error::environment(format!("the server's certificate and key cannot be used: {error}"))
    })
}

async fn bind(address: SocketAddr) -> Result<TcpListener, Error> {
    TcpListener::bind(address).await.map_err(|error| {
        Error::environment(format!(
            "listen {address}: wanted a free address of this host, found: {error}; correct `listen` or stop what uses it"
        ))
    })
}
