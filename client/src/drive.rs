//! What the configuration means for links and groups: the one place where its values become theirs.
use std::sync::Arc;

use ha::{Group, GroupSettings, Minimum};
use ntls::ServerAddress;
use ntls::links::{LinkSettings, Links};
use spec::seam::{MemberId, Seam};

use crate::conf::{Configuration, Copies};
use crate::process::{Driver, Process};
use crate::slots::{Behind, Slot};

/// How long the first C_GetSlotList waits for servers to tell their partitions, in milliseconds.
const DISCOVERY_MS: u64 = 2_000;

/// The seam in use, and the links behind it when there are any.
pub(crate) struct Drive {
    pub(crate) seam: Arc<dyn Seam>,
    pub(crate) links: Option<Arc<Links>>,
}

/// Starts what carries requests; returns at once.
pub(crate) fn start(process: &Process) -> Drive {
    match (&process.driver, &process.configuration) {
        (Driver::Given(seam), _) => Drive { seam: seam.clone(), links: None },
        (Driver::Links(instance), conf) => {
            let settings = LinkSettings {
                servers: conf.iter().flat_map(servers).collect(),
                certificate_file: conf
                    .as_ref()
                    .and_then(|conf| conf.client_certificate.clone())
                    .unwrap_or_default(),
                key_file: conf.as_ref().and_then(|conf| conf.client_private_key.clone()).unwrap_or_default(),
                server_ca_file: conf.as_ref().map(|conf| conf.server_ca.clone()).unwrap_or_default(),
                receive_timeout_ms: conf.as_ref().map_or(20_000, |conf| u64::from(conf.receive_timeout_ms)),
                tcp_keep_alive: conf.as_ref().is_none_or(|conf| conf.tcp_keep_alive),
                software: concat!("libhatoki ", env!("CARGO_PKG_VERSION")).to_owned(),
                instance: instance.clone(),
            };
            let links = Links::new(process.platform.clone(), settings);
            Drive { seam: links.clone(), links: Some(links) }
        }
    }
}

fn servers(conf: &Configuration) -> Vec<ServerAddress> {
    let address =
        |server: &crate::conf::Server| ServerAddress { host: server.name.clone(), port: server.port };
    conf.servers.iter().map(address).collect()
}

/// The group behind a slot; a single partition is a group of one.
pub(crate) fn group(process: &Process, drive: &Drive, slot: &Slot) -> Arc<Group> {
    let mut settings = GroupSettings {
        members: slot.members().into_iter().map(MemberId).collect(),
        ..GroupSettings::default()
    };
    match &slot.behind {
        Behind::Group(group) => {
            settings.serial = Some(group.serial.0);
            settings.synchronize = group.synchronize;
        }
        Behind::Partition(..) => settings.minimum = Minimum::Count(1),
    }
    if let Some(conf) = &process.configuration {
        if let Behind::Group(_) = slot.behind {
            settings.minimum = minimum(conf.hatoki.minimum_copies);
        }
        settings.outage_wait_ms = u64::from(conf.hatoki.outage_wait_ms);
        settings.receive_timeout_ms = u64::from(conf.receive_timeout_ms);
        settings.call_ms_max = u64::from(conf.default_timeout_ms);
        settings.generate_ms_max = u64::from(conf.keypair_timeout_ms);
    }
    Group::new(process.platform.clone(), drive.seam.clone(), settings)
}

fn minimum(copies: Copies) -> Minimum {
    match copies {
        Copies::Available => Minimum::Available,
        Copies::Majority => Minimum::Majority,
        Copies::All => Minimum::All,
        Copies::Number(count) => Minimum::Count(usize::from(count)),
    }
}

/// The partitions that the servers offer: serial number and label, in ascending order. Waits a moment when the links
/// have only just been started.
pub(crate) fn partitions(process: &Process, drive: &Drive) -> Vec<(u64, String)> {
    let Some(links) = &drive.links else { return Vec::new() };
    links.settle(process.platform.now().after_ms(DISCOVERY_MS));
    let mut seen: Vec<(u64, String)> =
        links.partitions().into_iter().map(|seen| (seen.serial, seen.label)).collect();
    seen.sort_unstable();
    seen.dedup_by_key(|(serial, _)| *serial);
    seen
}
