//! All appliances of the configuration asked at once: who can be reached, with which partitions, and why not.

use std::sync::Arc;
use std::thread;

use client::conf::{Configuration, Serial, Server};
use spec::messages::{Call, PartitionName, ReplyBody, ReplyHeader};
use spec::platform::Platform;
use spec::seam::Seam;

use crate::answer::Failure;

/// Opens connections to appliances; the network, or a stand-in in tests.
pub(crate) trait Network: Sync {
    /// Connects and greets. Errs with the reason, a sentence for the operator.
    fn open(&self, server: &Server) -> Result<Box<dyn Appliance>, String>;
    /// 16 random bytes, to tell a resent change from a new one.
    fn tag(&self) -> Vec<u8>;
    /// The wall clock, milliseconds since 1970.
    fn now_ms(&self) -> u64;
    /// Links to all servers, for the code of `ha`. They present the same application instance as the connections of
    /// [`Network::open`], so that a ticket serves on both (RULES 2.6). Errs with the reason.
    fn links(&self, configuration: &Configuration) -> Result<Opened, String>;
}

/// Links that are up as far as they can be, closed when this is dropped.
pub(crate) struct Opened {
    /// The clock and chance of the links.
    pub(crate) platform: Arc<dyn Platform>,
    /// The links.
    pub(crate) seam: Arc<dyn Seam>,
    /// What ends them.
    pub(crate) close: Box<dyn Fn()>,
}

impl Drop for Opened {
    fn drop(&mut self) {
        (self.close)();
    }
}

/// A connection to one appliance.
pub(crate) trait Appliance: Send {
    /// The partitions that this client may use.
    fn partitions(&self) -> Vec<PartitionName>;
    /// One call to one partition; the ticket is empty when there is none. Errs with the reason when no answer came.
    fn call(
        &mut self,
        partition: Serial,
        ticket: &[u8],
        call: Call,
    ) -> Result<(ReplyHeader, ReplyBody), String>;
}

/// Who answered.
pub(crate) struct Census {
    /// Connections, in the order of the configuration.
    pub(crate) reached: Vec<Reached>,
    /// Appliances without one.
    pub(crate) unreachable: Vec<Unreachable>,
}

/// An appliance that answered.
pub(crate) struct Reached {
    pub(crate) server: Server,
    pub(crate) partitions: Vec<PartitionName>,
    pub(crate) appliance: Box<dyn Appliance>,
}

/// An appliance that did not.
#[derive(Debug)]
pub(crate) struct Unreachable {
    pub(crate) server: Server,
    pub(crate) reason: String,
}

impl Unreachable {
    /// The sentence for people; the reason often begins with the address itself.
    pub(crate) fn complaint(&self) -> String {
        let address = address(&self.server);
        let reason =
            self.reason.strip_prefix(&address).unwrap_or(&self.reason).trim_start_matches([':', ' ']);
        format!("server {address} cannot be reached: {reason}")
    }
}

impl Census {
    /// Connects to every appliance at the same time, so that dead ones cost their time-out once.
    pub(crate) fn take(network: &dyn Network, configuration: &Configuration) -> Census {
        let servers = &configuration.servers;
        let opened: Vec<_> = thread::scope(|scope| {
            let threads: Vec<_> =
                servers.iter().map(|server| scope.spawn(move || network.open(server))).collect();
            threads.into_iter().map(|thread| thread.join()).collect()
        });
        let mut census = Census { reached: Vec::new(), unreachable: Vec::new() };
        for (server, opened) in servers.iter().cloned().zip(opened) {
            match opened.unwrap_or_else(|_| Err("the connection failed in an unforeseen way".to_owned())) {
                Ok(appliance) => {
                    census.reached.push(Reached { server, partitions: appliance.partitions(), appliance });
                }
                Err(reason) => census.unreachable.push(Unreachable { server, reason }),
            }
        }
        census
    }

    /// The partitions of all appliances that answered, in the order of the configuration.
    pub(crate) fn offered(&self) -> impl Iterator<Item = &PartitionName> {
        self.reached.iter().flat_map(|reached| &reached.partitions)
    }

    /// The connection to the appliance that holds a partition.
    pub(crate) fn holder(&mut self, serial: Serial) -> Option<&mut Reached> {
        self.reached.iter_mut().find(|reached| reached.partitions.iter().any(|name| name.serial == serial.0))
    }

    /// Like [`Census::holder`]. Errs with the partitions that were seen and the servers that were not.
    pub(crate) fn needed(&mut self, serial: Serial) -> Result<&mut Reached, Failure> {
        if self.holder(serial).is_none() {
            return Err(self.missing(serial));
        }
        self.holder(serial).ok_or_else(|| Failure("the partition was there a moment ago".to_owned()))
    }

    fn missing(&self, serial: Serial) -> Failure {
        let seen: Vec<String> = self
            .reached
            .iter()
            .flat_map(|reached| reached.partitions.iter().map(|name| name.serial.to_string()))
            .collect();
        let mut found = match seen.as_slice() {
            [] => "no partition at all".to_owned(),
            seen => format!("the partitions {}", seen.join(", ")),
        };
        for unreachable in &self.unreachable {
            found.push_str(" and ");
            found.push_str(&unreachable.complaint());
        }
        let action =
            "assign it with hsm client assignPartition, or see that its server runs, and run vtl verify";
        Failure::new(format!("the partition {serial} on one of the servers"), found, action)
    }
}

/// Host, and port unless it is the usual one.
pub(crate) fn address(server: &Server) -> String {
    match server.port {
        1792 => server.name.clone(),
        port if server.name.contains(':') => format!("[{}]:{port}", server.name),
        port => format!("{}:{port}", server.name),
    }
}
