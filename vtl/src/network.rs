//! The real network: NTLS connections by the configuration's certificates.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use client::conf::{Configuration, Serial, Server};
use ntls::ServerAddress;
use ntls::certificate::Identity;
use ntls::exchange::{ExchangeError, Session, Target};
use ntls::instance::InstanceKey;
use ntls::links::{LinkSettings, Links};
use ntls::platform::System;
use ntls::tls::ServerTrust;
use spec::messages::{Call, PartitionName, ReplyBody, ReplyHeader};

use crate::answer::Failure;
use crate::census::{Appliance, Network, Opened};
use crate::place::{ADD_SERVER, CREATE_CERT};

/// This software, for the appliances' logs.
const SOFTWARE: &str = concat!("vtl ", env!("CARGO_PKG_VERSION"));
/// Longest wait for a sign of life: a person waits in front of the tool. `ReceiveTimeout` may make it shorter.
const PATIENCE_MS_MAX: u64 = 10_000;
/// How often a request that the appliance was too busy for is sent.
const TRIES_MAX: usize = 5;
/// Longest pause before it is sent again.
const PAUSE_MS_MAX: u32 = 2000;

/// Connections of one run of the tool. All present one instance key, so that a ticket from one member serves on the
/// others (RULES 2.6).
pub(crate) struct Ntls {
    /// None when there is no server to connect to.
    credentials: Option<(Identity, Arc<ServerTrust>)>,
    instance: Arc<InstanceKey>,
    timeout_ms: u64,
}

impl Ntls {
    /// Reads the client's key and certificate and the trusted certificates. Errs when one is missing or unreadable.
    pub(crate) fn new(configuration: &Configuration) -> Result<Ntls, Failure> {
        let credentials = match configuration.servers.as_slice() {
            [] => None,
            _ => Some((identity(configuration)?, trust(configuration)?)),
        };
        Ok(Ntls::with(configuration, credentials))
    }

    /// The same, presenting another certificate than the one that the configuration names.
    pub(crate) fn presenting(configuration: &Configuration, identity: Identity) -> Result<Ntls, Failure> {
        let credentials = match configuration.servers.as_slice() {
            [] => None,
            _ => Some((identity, trust(configuration)?)),
        };
        Ok(Ntls::with(configuration, credentials))
    }

    fn with(configuration: &Configuration, credentials: Option<(Identity, Arc<ServerTrust>)>) -> Ntls {
        let timeout_ms = u64::from(configuration.receive_timeout_ms).min(PATIENCE_MS_MAX);
        Ntls { credentials, instance: Arc::new(InstanceKey::generate()), timeout_ms }
    }
}

/// The client's certificate and key as the configuration names them. Errs when there are none or they are unreadable.
pub(crate) fn identity(configuration: &Configuration) -> Result<Identity, Failure> {
    let named = (&configuration.client_certificate, &configuration.client_private_key);
    let (Some(certificate), Some(key)) = named else {
        let wanted = format!("ClientCertFile and ClientPrivKeyFile in {}", configuration.file.display());
        return Err(Failure::new(wanted, "none", CREATE_CERT));
    };
    Identity::load(certificate, key).map_err(|error| Failure(format!("{error}; {CREATE_CERT}")))
}

fn trust(configuration: &Configuration) -> Result<Arc<ServerTrust>, Failure> {
    ServerTrust::load(&configuration.server_ca)
        .map(Arc::new)
        .map_err(|error| Failure(format!("{error}; {ADD_SERVER}")))
}

impl Network for Ntls {
    fn open(&self, server: &Server) -> Result<Box<dyn Appliance>, String> {
        let (identity, trust) =
            self.credentials.as_ref().ok_or("the configuration named no server at first")?;
        let target = Target {
            server: ServerAddress { host: server.name.clone(), port: server.port },
            identity,
            trust,
            instance: &self.instance,
            software: SOFTWARE,
            timeout_ms: self.timeout_ms,
        };
        match Session::open(&target) {
            Ok(session) => Ok(Box::new(Link(session))),
            Err(error) => Err(error.to_string()),
        }
    }

    fn tag(&self) -> Vec<u8> {
        let mut tag = vec![0; 16];
        System::shared().random(&mut tag);
        tag
    }

    fn now_ms(&self) -> u64 {
        System::shared().wall_ms()
    }

    fn links(&self, configuration: &Configuration) -> Result<Opened, String> {
        let named = (&configuration.client_certificate, &configuration.client_private_key);
        let (Some(certificate), Some(key)) = named else {
            return Err("the configuration names no client certificate".to_owned());
        };
        let address = |server: &Server| ServerAddress { host: server.name.clone(), port: server.port };
        let settings = LinkSettings {
            may_spawn: true,
            servers: configuration.servers.iter().map(address).collect(),
            certificate_file: certificate.clone(),
            key_file: key.clone(),
            server_ca_file: configuration.server_ca.clone(),
            links_per_member: 1,
            receive_timeout_ms: configuration.receive_timeout_ms.into(),
            tcp_keep_alive: configuration.tcp_keep_alive,
            software: SOFTWARE.to_owned(),
            instance: self.instance.clone(),
        };
        let platform = System::shared();
        let links = Links::new(platform.clone(), settings);
        links.settle(platform.now().after_ms(self.timeout_ms));
        Ok(Opened { platform, seam: links.clone(), close: Box::new(move || links.close()) })
    }
}

struct Link(Session);

impl Appliance for Link {
    fn partitions(&self) -> Vec<PartitionName> {
        self.0.hello().partitions.clone()
    }

    fn call(
        &mut self,
        partition: Serial,
        ticket: &[u8],
        call: Call,
    ) -> Result<(ReplyHeader, ReplyBody), String> {
        let mut tries = 1;
        loop {
            match self.0.call(partition.0, call.clone(), ticket) {
                Ok(reply) => return Ok((self.0.last_header().clone(), reply)),
                Err(ExchangeError::Busy { after_ms }) if tries < TRIES_MAX => {
                    tries += 1;
                    thread::sleep(Duration::from_millis(u64::from(after_ms.min(PAUSE_MS_MAX))));
                }
                Err(error) => return Err(error.to_string()),
            }
        }
    }
}
