//! Answers as people read them.
use std::fmt::Write;

use comfy_table::{Table, presets};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::admin::protocol::{
    CertificateShown, ClientShown, DomainShown, NtlsShown, PartitionShown, PeerShown, QuarantineShown, Shown,
    SysconfShown, Verb,
};
use crate::hex;

/// What an answer holds.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    Appliance,
    DomainFile,
    Domain,
    Domains,
    Partition,
    Partitions,
    Client,
    Clients,
    Ntls,
    Sysconf,
    Peer,
    Peers,
}

/// What the answer to a verb holds.
pub(super) fn kind(verb: &Verb) -> Kind {
    match verb {
        Verb::Init { .. } | Verb::Show => Kind::Appliance,
        Verb::DomainExportRequest { .. } | Verb::DomainExport { .. } => Kind::DomainFile,
        Verb::DomainImport { .. } => Kind::Domain,
        Verb::DomainFingerprint { .. } => Kind::Domains,
        Verb::PartitionCreate { .. } | Verb::PartitionShow { .. } | Verb::PartitionAdopt { .. } => {
            Kind::Partition
        }
        Verb::PartitionList => Kind::Partitions,
        Verb::ClientRegister { .. }
        | Verb::ClientAddCertificate { .. }
        | Verb::ClientRemoveCertificate { .. }
        | Verb::ClientAssignPartition { .. } => Kind::Client,
        Verb::ClientList => Kind::Clients,
        Verb::NtlsShow => Kind::Ntls,
        Verb::SysconfShow
        | Verb::SysconfRegenCert { .. }
        | Verb::SysconfRequestCert
        | Verb::SysconfActivateCert { .. } => Kind::Sysconf,
        Verb::PeerAdd { .. } => Kind::Peer,
        Verb::PeerList | Verb::PeerRemove { .. } => Kind::Peers,
    }
}

/// An answer as text, with a line end. One that is not as expected is shown as it came.
pub(super) fn answer(kind: Kind, value: Value) -> String {
    let raw = format!("{value:#}\n");
    let shown = match kind {
        Kind::Appliance => read(value).map(appliance),
        Kind::DomainFile => Some(domain_file(&value)),
        Kind::Domain => read(value).map(|domain| domains(&[domain])),
        Kind::Domains => read(value).map(|all: Vec<_>| domains(&all)),
        Kind::Partition => read(value).map(partition),
        Kind::Partitions => read(value).map(partitions),
        Kind::Client => read(value).map(client),
        Kind::Clients => read(value).map(clients),
        Kind::Ntls => read(value).map(ntls),
        Kind::Sysconf => read(value).map(sysconf),
        Kind::Peer => read(value).map(|peer| peers(vec![peer])),
        Kind::Peers => read(value).map(peers),
    };
    shown.unwrap_or(raw)
}

fn read<T: DeserializeOwned>(value: Value) -> Option<T> {
    serde_json::from_value(value).ok()
}

fn facts(facts: &[(&str, String)]) -> String {
    let width = facts.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    facts.iter().fold(String::new(), |mut text, (name, value)| {
        // Writing to a string does not fail.
        let _ = writeln!(text, "{:<width$}  {value}", format!("{name}:"), width = width + 1);
        text
    })
}

fn table(header: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_preset(presets::ASCII_HORIZONTAL_ONLY).set_header(header.to_vec());
    for row in rows {
        table.add_row(row);
    }
    format!("{table}\n")
}

fn fingerprint(text: &str) -> String {
    hex::decode(text).map_or_else(|| text.to_owned(), |bytes| hex::grouped(&bytes))
}

fn or_none(list: &[String]) -> String {
    if list.is_empty() { "none".to_owned() } else { list.join(", ") }
}

fn appliance(shown: Shown) -> String {
    let label =
        if shown.label.is_empty() { "none yet (run `hsm init -label NAME`)".into() } else { shown.label };
    let mut text = facts(&[
        ("Label", label),
        ("Software", shown.software),
        ("Up for", format!("{} s", shown.uptime_seconds)),
        ("Data folder", shown.data_dir),
        ("Partitions", shown.partitions.to_string()),
        ("Clients", shown.clients.to_string()),
        ("Links", shown.links.to_string()),
    ]);
    if !shown.domains.is_empty() {
        text += "\n";
        text += &domains(&shown.domains);
    }
    text
}

fn domain_file(value: &Value) -> String {
    let field = |name: &str| value.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let mut list = vec![
        ("Domain", field("domain")),
        ("File", field("file")),
        ("Fingerprint of the request", fingerprint(&field("requestFingerprint"))),
    ];
    if !field("fingerprint").is_empty() {
        list.push(("Fingerprint of the domain", fingerprint(&field("fingerprint"))));
    }
    facts(&list) + "Compare the fingerprints on both appliances.\n"
}

fn domains(all: &[DomainShown]) -> String {
    table(
        &["Domain", "Fingerprint"],
        all.iter().map(|domain| vec![domain.domain.clone(), fingerprint(&domain.fingerprint)]),
    )
}

fn partition(shown: PartitionShown) -> String {
    let members: Vec<String> = shown.members.iter().map(ToString::to_string).collect();
    let group = if shown.group_serial == 0 {
        "none".into()
    } else {
        format!("{} ({})", shown.group, shown.group_serial)
    };
    let standing = match (&shown.fault, shown.recovering) {
        (Some(fault), _) => format!("NOT SERVED: {fault}"),
        (None, true) => "recovering".to_owned(),
        (None, false) => "serving".to_owned(),
    };
    let quarantine = quarantine(&shown.quarantine);
    let facts = facts(&[
        ("Partition", shown.label),
        ("Serial number", shown.serial.to_string()),
        ("Standing", standing),
        ("Domain", shown.domain),
        ("Objects", shown.objects.to_string()),
        ("Group", group),
        ("Members", or_none(&members)),
        ("Home member", shown.home.to_string()),
        ("Clients", or_none(&shown.clients)),
        ("Failed tries (CO, SO)", format!("{}, {}", shown.failed_tries_user, shown.failed_tries_so)),
        ("In quarantine", shown.quarantined.to_string()),
        ("Digest", shown.root),
    ]);
    facts + &quarantine
}

/// The objects that share an ouid, a row each; nothing when there are none.
fn quarantine(shown: &[QuarantineShown]) -> String {
    if shown.is_empty() {
        return String::new();
    }
    let rows = shown.iter().flat_map(|one| {
        one.found.iter().map(|(class, maker, made_ms)| {
            vec![one.ouid.clone(), class.clone(), maker.to_string(), made_ms.to_string()]
        })
    });
    let text = "\nIn quarantine: different objects of one unique id. None is used until all are destroyed.\n";
    text.to_owned() + &table(&["CKA_UNIQUE_ID", "Class", "Made by", "Made at (ms since 1970)"], rows)
}

fn partitions(all: Vec<PartitionShown>) -> String {
    table(
        &["Serial number", "Label", "Domain", "Objects", "Group", "Standing"],
        all.into_iter().map(|shown| {
            let standing = match (shown.fault, shown.recovering) {
                (Some(_), _) => "NOT SERVED",
                (None, true) => "recovering",
                (None, false) => "serving",
            };
            let group = if shown.group_serial == 0 { String::new() } else { shown.group };
            let objects = shown.objects.to_string();
            vec![shown.serial.to_string(), shown.label, shown.domain, objects, group, standing.to_owned()]
        }),
    )
}

fn client(shown: ClientShown) -> String {
    let mut text = facts(&[
        ("Client", shown.client),
        ("Identity", shown.identity),
        ("Partitions", or_none(&shown.partitions)),
    ]);
    if !shown.certificates.is_empty() {
        text += "\nCertificates\n";
        text += &certificates(shown.certificates);
    }
    if !shown.authorities.is_empty() {
        text += "\nAuthorities that vouch for it\n";
        text += &certificates(shown.authorities);
    }
    text
}

fn clients(all: Vec<ClientShown>) -> String {
    table(
        &["Client", "Partitions", "Certificates until", "Certificates SHA-256", "Identity"],
        all.into_iter().map(|shown| {
            let partitions = or_none(&shown.partitions);
            let mut certificates = shown.certificates;
            certificates.extend(shown.authorities.into_iter().map(|authority| CertificateShown {
                fingerprint: format!("by authority {}", authority.fingerprint),
                ..authority
            }));
            let until: Vec<_> = certificates.iter().map(|one| one.until.clone()).collect();
            let fingerprints: Vec<_> = certificates.into_iter().map(|one| one.fingerprint).collect();
            vec![shown.client, partitions, until.join("\n"), fingerprints.join("\n"), shown.identity]
        }),
    )
}

fn ntls(shown: NtlsShown) -> String {
    let requests: Vec<String> =
        shown.requests.iter().map(|(name, count)| format!("{name} {count}")).collect();
    let warnings: String = shown.warnings.iter().map(|warning| format!("WARNING: {warning}\n")).collect();
    facts(&[
        ("Listening on", or_none(&shown.listen)),
        ("Certificate", shown.certificate),
        ("Certificate SHA-256", shown.fingerprint),
        ("Certificate until", shown.certificate_until),
        ("Links", format!("{} of at most {}", shown.links, shown.links_max)),
        ("Clients", shown.clients.to_string()),
        ("Requests", or_none(&requests)),
    ]) + &warnings
}

fn sysconf(shown: SysconfShown) -> String {
    let mut text = facts(&[
        ("Certificate", shown.certificate),
        ("Certificate SHA-256", shown.server.fingerprint.clone()),
        ("Certificate until", shown.server.until.clone()),
    ]);
    if let Some(next) = shown.next {
        text += "\nPrepared, not in service\n";
        text += &facts(&[
            ("Certificate", shown.next_certificate),
            ("Certificate SHA-256", next.fingerprint),
            ("Certificate until", next.until),
        ]);
        text += "Give this file to every client (`vtl addServer`) and peer (`hsm peer add`), then run `hsm sysconf \
                 activateCert`.\n";
    }
    if let Some(request) = shown.request {
        text += "\nAsked for, not in service\n";
        text += &facts(&[("Request", request)]);
        text += "Let an authority sign it, then run `hsm sysconf activateCert -cert FILE` with what it has issued. Clients that \
                 trust the authority (its certificate in ServerCAFile) need nothing.\n";
    }
    if !shown.others.is_empty() {
        text += "\nOthers\n";
        text += &certificates(shown.others.clone());
    }
    let warned = shown.others.into_iter().chain([shown.server]).filter(|one| !one.warning.is_empty());
    text + &warned.map(|one| format!("WARNING: {}\n", one.warning)).collect::<String>()
}

fn certificates(all: Vec<CertificateShown>) -> String {
    table(
        &["Of", "Days left", "Until", "SHA-256"],
        all.into_iter().map(|one| vec![one.of, one.days_left.to_string(), one.until, one.fingerprint]),
    )
}

fn peers(all: Vec<PeerShown>) -> String {
    table(
        &["Peer", "Address", "Domain", "Standing", "Certificates SHA-256"],
        all.into_iter().map(|shown| {
            let fingerprints: Vec<_> = shown.certificates.into_iter().map(|one| one.fingerprint).collect();
            let address = format!("{}:{}", shown.host, shown.port);
            vec![shown.peer, address, shown.domain, shown.standing, fingerprints.join("\n")]
        }),
    )
}
