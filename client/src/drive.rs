//! What the configuration means for links and groups: the one place where its values become theirs.
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ha::{Group, GroupSettings, Minimum, Policy};
use ntls::ServerAddress;
use ntls::instance::InstanceKey;
use ntls::links::{LINKS_PER_MEMBER, LinkSettings, Links};
use spec::platform::Moment;
use spec::seam::{MemberId, Seam};

use crate::conf::{self, Attempts, Configuration, Copies};
use crate::meter::GroupMeter;
use crate::process::{Driver, Process};
use crate::slots::{Behind, Slot};

/// How long the first C_GetSlotList of a world waits for servers to tell their partitions, in milliseconds.
const DISCOVERY_MS: u64 = 2_000;

/// The seam in use, and the links behind it when there are any.
pub(crate) struct Drive {
    pub(crate) seam: Arc<dyn Seam>,
    pub(crate) links: Option<Arc<Links>>,
    discovery: Discovery,
}

impl Drive {
    fn over(seam: Arc<dyn Seam>, links: Option<Arc<Links>>) -> Drive {
        Drive { seam, links, discovery: Discovery::default() }
    }
}

/// Until when servers are waited for to tell their partitions: two seconds from the first question, and no more after
/// that, so that a server that is out of reach holds nobody up again.
#[derive(Default)]
struct Discovery(AtomicU64);

impl Discovery {
    fn ends(&self, now: Moment) -> Moment {
        let ends = now.after_ms(DISCOVERY_MS).0;
        let first = self.0.compare_exchange(0, ends, Ordering::AcqRel, Ordering::Acquire);
        Moment(first.map_or_else(|before| before, |_| ends))
    }
}

/// Starts what carries requests; returns at once.
pub(crate) fn start(process: &Process) -> Drive {
    match &process.driver {
        Driver::Given(seam) => Drive::over(seam.clone(), None),
        Driver::Links(instance) => {
            let links = links(process, instance);
            Drive::over(links.clone(), Some(links))
        }
        Driver::LinksThrough(instance, through) => {
            let links = links(process, instance);
            Drive::over(through(&links), Some(links))
        }
    }
}

fn links(process: &Process, instance: &Arc<InstanceKey>) -> Arc<Links> {
    Links::new(process.platform.clone(), link_settings(process, instance))
}

/// What a configuration means for the links.
pub(crate) fn link_settings(process: &Process, instance: &Arc<InstanceKey>) -> LinkSettings {
    let conf = process.configuration();
    let conf = conf.as_deref();
    LinkSettings {
        may_spawn: process.may_create_threads,
        servers: conf.into_iter().flat_map(servers).collect(),
        certificate_file: conf.and_then(|conf| conf.client_certificate.clone()).unwrap_or_default(),
        key_file: conf.and_then(|conf| conf.client_private_key.clone()).unwrap_or_default(),
        server_ca_file: conf.map(|conf| conf.server_ca.clone()).unwrap_or_default(),
        links_per_member: conf.map_or(LINKS_PER_MEMBER, |conf| usize::from(conf.hatoki.links_per_member)),
        receive_timeout_ms: conf.map_or(20_000, |conf| u64::from(conf.receive_timeout_ms)),
        tcp_keep_alive: conf.is_none_or(|conf| conf.tcp_keep_alive),
        software: concat!("libhatoki ", env!("CARGO_PKG_VERSION")).to_owned(),
        instance: instance.clone(),
    }
}

fn servers(conf: &Configuration) -> Vec<ServerAddress> {
    let address =
        |server: &crate::conf::Server| ServerAddress { host: server.name.clone(), port: server.port };
    conf.servers.iter().map(address).collect()
}

/// The group behind a slot; a single partition is a group of one.
pub(crate) fn group(process: &Process, drive: &Drive, slot: &Slot, meter: &Arc<GroupMeter>) -> Arc<Group> {
    let settings = group_settings(process.configuration().as_deref(), slot, meter);
    Group::new(process.platform.clone(), drive.seam.clone(), settings)
}

/// What a configuration means for the group behind a slot.
pub(crate) fn group_settings(
    conf: Option<&Configuration>,
    slot: &Slot,
    meter: &Arc<GroupMeter>,
) -> GroupSettings {
    let mut settings = GroupSettings {
        members: slot.members().into_iter().map(MemberId).collect(),
        meter: meter.clone(),
        ..GroupSettings::default()
    };
    match &slot.behind {
        Behind::Group(group) => {
            settings.serial = Some(slot.serial);
            let group = group.load();
            settings.synchronize = group.synchronize;
            settings.standby = group.standby.iter().map(|serial| MemberId(serial.0)).collect();
        }
        Behind::Partition(..) => settings.minimum = Minimum::Count(1),
    }
    if let Some(conf) = conf {
        if let Behind::Group(_) = slot.behind {
            settings.minimum = minimum(conf.hatoki.minimum_copies);
        }
        settings.policy = match conf.hatoki.policy {
            conf::Policy::LeastBusy => Policy::LeastBusy,
            conf::Policy::RoundRobin => Policy::RoundRobin,
            conf::Policy::PrimaryFirst => Policy::PrimaryFirst,
        };
        settings.recovery = conf.recovery.attempts != Attempts::None;
        settings.probe_ms = u64::from(conf.probe_timeout_ms);
        settings.outage_wait_ms = u64::from(conf.hatoki.outage_wait_ms);
        settings.receive_timeout_ms = u64::from(conf.receive_timeout_ms);
        settings.call_ms_max = u64::from(conf.default_timeout_ms);
        settings.generate_ms_max = u64::from(conf.keypair_timeout_ms);
    }
    settings
}

fn minimum(copies: Copies) -> Minimum {
    match copies {
        Copies::Available => Minimum::Available,
        Copies::Majority => Minimum::Majority,
        Copies::All => Minimum::All,
        Copies::Number(count) => Minimum::Count(usize::from(count)),
    }
}

/// The partitions that the servers offer: serial number and label, in ascending order. Waits a moment when it is asked
/// for the first time.
pub(crate) fn partitions(process: &Process, drive: &Drive) -> Vec<(u64, String)> {
    let Some(links) = &drive.links else { return Vec::new() };
    links.settle(drive.discovery.ends(process.platform.now()));
    let mut seen: Vec<(u64, String)> =
        links.partitions().into_iter().map(|seen| (seen.serial, seen.label)).collect();
    seen.sort_unstable();
    seen.dedup_by_key(|(serial, _)| *serial);
    seen
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_waited_for_once() {
        let discovery = Discovery::default();
        let first = discovery.ends(Moment(5));
        assert_eq!(first, Moment(5).after_ms(DISCOVERY_MS));
        assert_eq!(discovery.ends(Moment(6)), first);
        assert_eq!(discovery.ends(Moment(0).after_ms(60_000)), first);
    }
}
