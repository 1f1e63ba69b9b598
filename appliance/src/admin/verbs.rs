//! What each verb of the operator does.
use std::sync::Arc;

use partition::{LinkFacts, Reading};
use prost::Message;
use serde::Serialize;
use spec::messages::{self, Call, ReplyBody, RequestBody, RequestHeader, StatusAnswer};
use zeroize::Zeroizing;

use super::certificates;
use super::protocol::{
    ClientShown, DomainFile, DomainShown, NtlsShown, PartitionShown, QuarantineShown, Shown, Verb,
};
use crate::appliance::Appliance;
use crate::book::{ClientRow, Kept};
use crate::error::Error;
use crate::expiry;
use crate::greeting::SOFTWARE;
use crate::handler::{Asker, Handler, now_ms};
use crate::hex;
use crate::partitions::Slot;
use crate::registry::fingerprint_of;

const LABEL_BYTES_MAX: usize = 32;

/// Carries out a verb. It may take long: call it where blocking is allowed.
///
/// # Errors
/// When what is asked cannot be done.
pub fn carry_out(appliance: &Appliance, verb: Verb) -> Result<serde_json::Value, Error> {
    match verb {
        Verb::Init { label, domain } => value(&init(appliance, &label, domain.as_deref())?),
        Verb::Show => value(&show(appliance)?),
        Verb::DomainExportRequest { domain } => value(&export_request(appliance, domain)?),
        Verb::DomainExport { domain, request, fingerprint } => {
            value(&export(appliance, &domain, &request, fingerprint.as_deref())?)
        }
        Verb::DomainImport { export } => {
            let (domain, fingerprint) = appliance.domains.import(&export)?;
            tracing::info!(domain, "a domain was imported");
            value(&DomainShown { domain, fingerprint: hex::encode(&fingerprint) })
        }
        Verb::DomainFingerprint { domain } => value(&fingerprints(appliance, domain.as_deref())?),
        Verb::PartitionCreate { partition, domain, so_pin, co_pin } => {
            let row = appliance.partitions.create(&partition, &domain, so_pin.bytes(), co_pin.bytes())?;
            tracing::info!(serial = row.serial, label = row.label, domain, "a partition was created");
            // Peers of the domain may use it.
            appliance.registry.tell_changed();
            value(&partition_shown(appliance, &appliance.partitions.find(&row.serial.to_string())?))
        }
        Verb::PartitionList => {
            let slots = appliance.partitions.list();
            value(&slots.iter().map(|slot| partition_shown(appliance, slot)).collect::<Vec<_>>())
        }
        Verb::PartitionShow { partition } => {
            value(&partition_shown(appliance, &appliance.partitions.find(&partition)?))
        }
        Verb::PartitionAdopt { partition } => value(&adopt(appliance, &partition)?),
        Verb::ClientRegister { client, certificate, authority, identity } => {
            let row = register(appliance, &client, certificate, authority, identity)?;
            tracing::info!(client, "a client was registered");
            value(&client_shown(appliance, &row))
        }
        Verb::ClientAddCertificate { client, certificate } => {
            let row = appliance.registry.add_certificate(&client, &certificate)?;
            tracing::info!(client, "a certificate was added to a client");
            value(&client_shown(appliance, &row))
        }
        Verb::ClientRemoveCertificate { client, fingerprint } => {
            let row = appliance.registry.remove_certificate(&client, &fingerprint)?;
            tracing::info!(client, fingerprint, "a certificate was taken from a client");
            value(&client_shown(appliance, &row))
        }
        Verb::ClientList => {
            let clients = appliance.registry.list();
            value(&clients.iter().map(|client| client_shown(appliance, client)).collect::<Vec<_>>())
        }
        Verb::ClientAssignPartition { client, partition } => value(&assign(appliance, &client, &partition)?),
        Verb::NtlsShow => value(&ntls_show(appliance)),
        Verb::SysconfShow => value(&certificates::shown(appliance)),
        Verb::SysconfRegenCert { days, activate } => {
            value(&certificates::regenerate(appliance, days, activate)?)
        }
        Verb::SysconfRequestCert => value(&certificates::ask(appliance)?),
        Verb::SysconfActivateCert { certificate } => value(&certificates::activate(appliance, certificate)?),
        Verb::PeerAdd { peer, host, port, certificate, domain } => {
            let row = appliance.registry.add_peer(&peer, &host, port, &domain, &certificate)?;
            tracing::info!(peer, host, port, domain, "a peer was registered");
            value(&certificates::peer(appliance, &row))
        }
        Verb::PeerList => value(&certificates::peers(appliance)),
        Verb::PeerRemove { peer, fingerprint } => {
            appliance.registry.remove_peer(&peer, fingerprint.as_deref())?;
            tracing::info!(peer, fingerprint, "a peer or one of its certificates was removed");
            value(&certificates::peers(appliance))
        }
    }
}

fn export_request(appliance: &Appliance, domain: String) -> Result<DomainFile, Error> {
    let written = appliance.domains.export_request(&domain)?;
    let request_fingerprint = hex::encode(&written.request);
    Ok(DomainFile { domain, text: written.text, request_fingerprint, fingerprint: None })
}

fn assign(appliance: &Appliance, client: &str, partition: &str) -> Result<Option<ClientShown>, Error> {
    let slot = appliance.partitions.find(partition)?;
    appliance.registry.assign(client, slot.row.serial)?;
    tracing::info!(client, serial = slot.row.serial, "a partition was assigned");
    let row = appliance.registry.list().into_iter().find(|row| row.name == client);
    Ok(row.map(|row| client_shown(appliance, &row)))
}

fn register(
    appliance: &Appliance,
    client: &str,
    certificate: Option<String>,
    authority: Option<String>,
    identity: Option<String>,
) -> Result<Arc<ClientRow>, Error> {
    let identity = identity.map(|text| fingerprint_of(&text)).transpose()?;
    match (certificate, authority) {
        (Some(certificate), None) => appliance.registry.register_as(client, &certificate, identity),
        (None, Some(authority)) if identity.is_none() => {
            appliance.registry.register_by_authority(client, &authority)
        }
        _ => Err(Error::refused(
            "wanted either a client's certificate (-cert), with or without -identity, or an authority's (-ca); found \
             otherwise",
        )),
    }
}

/// An operator overrules the recovering state: what peers may have and this store lacks is not waited for (HA 1.5).
fn adopt(appliance: &Appliance, name: &str) -> Result<PartitionShown, Error> {
    let slot = appliance.partitions.find(name)?;
    let handler = slot.handler.clone().map_err(Error::refused)?;
    let partition = handler.partition().ok_or_else(|| Error::refused("there is no partition behind it"))?;
    let was = partition.adopt_as_it_is().map_err(|error| Error::environment(error.to_string()))?;
    if !was {
        return Err(Error::refused(format!(
            "partition {}: wanted one that is recovering, found it serving; there is nothing to adopt",
            slot.row.label
        )));
    }
    tracing::warn!(serial = slot.row.serial, "an operator has made a recovering partition serve as it is");
    Ok(partition_shown(appliance, &slot))
}

fn value<T: Serialize>(answer: &T) -> Result<serde_json::Value, Error> {
    Ok(serde_json::to_value(answer).expect("answers are strings, numbers and lists"))
}

fn init(appliance: &Appliance, label: &str, domain: Option<&str>) -> Result<Shown, Error> {
    if let Some(label) = appliance.book.label()? {
        return Err(Error::refused(format!(
            "wanted an appliance without a label, found it initialised as {label:?}"
        )));
    }
    if label.is_empty() || label.len() > LABEL_BYTES_MAX || label.chars().any(char::is_control) {
        return Err(Error::refused(format!(
            "label: wanted 1 to {LABEL_BYTES_MAX} bytes without control characters, found {} bytes",
            label.len()
        )));
    }
    if let Some(domain) = domain {
        appliance.domains.create(domain)?;
    }
    appliance.book.set_fact("label", label.as_bytes())?;
    tracing::info!(label, domain, "the appliance was initialised");
    show(appliance)
}

fn show(appliance: &Appliance) -> Result<Shown, Error> {
    Ok(Shown {
        label: appliance.book.label()?.unwrap_or_default(),
        software: SOFTWARE.to_owned(),
        uptime_seconds: appliance.started.elapsed().as_secs(),
        data_dir: appliance.config.data_dir.display().to_string(),
        domains: fingerprints(appliance, None)?,
        partitions: appliance.partitions.list().len(),
        clients: appliance.registry.list().len(),
        links: appliance.connections.count(),
    })
}

fn export(
    appliance: &Appliance,
    domain: &str,
    request: &str,
    fingerprint: Option<&str>,
) -> Result<DomainFile, Error> {
    let written = appliance.domains.export(domain, request)?;
    if let Some(wanted) = fingerprint
        && hex::decode(wanted).as_deref() != Some(written.request.as_slice())
    {
        return Err(Error::refused(format!(
            "wanted a request with fingerprint {wanted}, found one with {}; nothing was exported",
            hex::grouped(&written.request)
        )));
    }
    tracing::info!(domain, request = hex::encode(&written.request), "a domain was exported");
    Ok(DomainFile {
        fingerprint: fingerprints(appliance, Some(domain))?.pop().map(|shown| shown.fingerprint),
        domain: domain.to_owned(),
        text: written.text,
        request_fingerprint: hex::encode(&written.request),
    })
}

fn fingerprints(appliance: &Appliance, domain: Option<&str>) -> Result<Vec<DomainShown>, Error> {
    let all = appliance.domains.list()?.into_iter();
    let shown: Vec<_> = all
        .filter(|row| domain.is_none_or(|name| row.name == name))
        .map(|row| DomainShown { domain: row.name, fingerprint: hex::encode(&row.fingerprint) })
        .collect();
    match domain {
        Some(name) if shown.is_empty() => Err(Error::refused(format!(
            "domain {name:?}: wanted a domain of this appliance, found none of that name"
        ))),
        _ => Ok(shown),
    }
}

fn partition_shown(appliance: &Appliance, slot: &Slot) -> PartitionShown {
    let serial = slot.row.serial;
    let status = slot.handler.as_ref().map_err(Clone::clone).and_then(|handler| status(&**handler, serial));
    let clients = appliance.registry.list();
    let assigned = clients.iter().filter(|client| client.partitions.contains(&serial));
    let (fault, status) = match status {
        Ok(status) => (None, status),
        Err(fault) => (Some(fault), StatusAnswer::default()),
    };
    let manifest = status.manifest.unwrap_or_default();
    PartitionShown {
        serial,
        label: slot.row.label.clone(),
        domain: slot.row.domain.clone(),
        fault,
        clients: assigned.map(|client| client.name.clone()).collect(),
        objects: status.objects,
        group: manifest.label,
        group_serial: manifest.serial,
        members: manifest.members.iter().map(|member| member.serial).collect(),
        home: manifest.home,
        recovering: status.recovering,
        quarantined: status.quarantined,
        quarantine: slot.handler.as_ref().map(|handler| quarantine(&**handler)).unwrap_or_default(),
        root: hex::encode(&status.root),
        failed_tries_user: status.failed_tries_user,
        failed_tries_so: status.failed_tries_so,
    }
}

/// The first records in quarantine.
fn quarantine(handler: &dyn Handler) -> Vec<QuarantineShown> {
    const SHOWN: usize = 100;
    let all = handler.partition().map(|partition| partition.quarantine(SHOWN)).unwrap_or_default();
    let found = |found: &partition::Found| (found.class.to_string(), found.maker, found.made_ms);
    let shown = |one: &partition::Quarantined| QuarantineShown {
        ouid: one.ouid.hex(),
        found: one.found.iter().map(found).collect(),
    };
    all.iter().map(shown).collect()
}

/// Asks the partition as a link would, for what anybody assigned may know.
fn status(handler: &dyn Handler, serial: u64) -> Result<StatusAnswer, String> {
    let body =
        RequestBody { call: Some(Call::Status(messages::Status::default())), ..RequestBody::default() };
    let header = RequestHeader { partition: serial, remaining_ms: u32::MAX, ..RequestHeader::default() };
    let asker = Asker { name: "hsm".into(), client: [0; 32], instance: [0; 32], link: LinkFacts::default() };
    let (body, mut reply) = (body.encode_to_vec(), Zeroizing::default());
    handler.handle(&asker, &header, &Reading::of(&body), now_ms(), &mut reply);
    match ReplyBody::decode(reply.as_slice()) {
        Ok(ReplyBody { answer: Some(messages::Answer::Status(status)), .. }) => Ok(status),
        Ok(reply) => {
            Err(format!("it does not tell its standing: {} (outcome {})", reply.text, reply.outcome))
        }
        Err(error) => Err(format!("its standing cannot be read: {error}")),
    }
}

fn client_shown(appliance: &Appliance, client: &ClientRow) -> ClientShown {
    let all =
        |kept: &[Kept]| kept.iter().map(|kept| expiry::shown(&client.name, &kept.der)).collect::<Vec<_>>();
    let (certificates, authorities) = (all(&client.certificates), all(&client.authorities));
    let latest = certificates.last().map(|last| (last.fingerprint.clone(), last.until.clone()));
    let (fingerprint, certificate_until) = latest.unwrap_or_default();
    let slots = appliance.partitions.list();
    let label = |serial: &u64| {
        let slot = slots.iter().find(|slot| slot.row.serial == *serial);
        slot.map_or_else(|| serial.to_string(), |slot| slot.row.label.clone())
    };
    ClientShown {
        client: client.name.clone(),
        identity: hex::encode(&client.identity),
        fingerprint,
        certificate_until,
        certificates,
        authorities,
        partitions: client.partitions.iter().map(label).collect(),
    }
}

fn ntls_show(appliance: &Appliance) -> NtlsShown {
    let identity = appliance.identity.current();
    let certificate = identity.certificate();
    NtlsShown {
        listen: appliance.listening.read().iter().map(ToString::to_string).collect(),
        certificate: appliance.identity.certificate_path().display().to_string(),
        fingerprint: certificate.fingerprint_text(),
        certificate_until: certificate.not_after_text(),
        warnings: certificates::warnings(appliance),
        links: appliance.connections.count(),
        links_max: appliance.config.links_max,
        clients: appliance.registry.list().len(),
        requests: appliance.partitions.requests(),
    }
}
