//! What `hsm` and `hsmd` say to each other: one line of JSON each way.
//!
//! ```text
//! {"verb":"partitionShow","args":{"partition":"par0"}}
//! {"ok":{...}}  or  {"error":"wanted ..., found ...; do ..."}
//! ```
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

/// The longest line, in bytes.
pub const LINE_BYTES_MAX: usize = 1 << 20;

/// A PIN on its way to the server; wiped when dropped, never shown.
#[derive(Deserialize, Serialize)]
#[serde(from = "String")]
pub struct Pin(#[serde(serialize_with = "as_text")] Zeroizing<String>);

impl From<String> for Pin {
    fn from(text: String) -> Self {
        Self(Zeroizing::new(text))
    }
}

impl Pin {
    /// Its bytes.
    pub fn bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

fn as_text<S: serde::Serializer>(pin: &Zeroizing<String>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(pin)
}

/// What an operator can ask for.
#[derive(Deserialize, Serialize)]
#[serde(
    tag = "verb",
    content = "args",
    rename_all = "camelCase",
    rename_all_fields = "camelCase",
    deny_unknown_fields
)]
pub enum Verb {
    /// Names the appliance and makes its first domain.
    Init {
        /// The appliance's label.
        label: String,
        /// The domain to make; `None` for none.
        domain: Option<String>,
    },
    /// The appliance's standing.
    Show,
    /// Makes a request for a domain of another appliance.
    DomainExportRequest {
        /// The domain's name.
        domain: String,
    },
    /// Seals a domain to a request.
    DomainExport {
        /// The domain's name.
        domain: String,
        /// The text of the request file.
        request: String,
        /// The fingerprint that the request must have, if the operator has given one.
        fingerprint: Option<String>,
    },
    /// Takes a domain.
    DomainImport {
        /// The text of the export file.
        export: String,
    },
    /// Fingerprints of one domain or all.
    DomainFingerprint {
        /// The domain's name; `None` for all.
        domain: Option<String>,
    },
    /// Makes a partition.
    PartitionCreate {
        /// Its label.
        partition: String,
        /// Its domain.
        domain: String,
        /// The security officer's first PIN.
        so_pin: Pin,
        /// The Crypto Officer's first PIN.
        co_pin: Pin,
    },
    /// All partitions.
    PartitionList,
    /// One partition's standing.
    PartitionShow {
        /// Label or serial number.
        partition: String,
    },
    /// Lets a recovering partition serve as it is (HA 1.5).
    PartitionAdopt {
        /// Label or serial number.
        partition: String,
    },
    /// Registers a client by its certificate or by an authority and its name.
    ClientRegister {
        /// Its name.
        client: String,
        /// Its certificate, PEM.
        certificate: Option<String>,
        /// The certificate of an authority, PEM.
        authority: Option<String>,
        /// The identity that it has on other appliances, hexadecimal; with a certificate only.
        identity: Option<String>,
    },
    /// Adds a certificate to a client; the old ones hold as well.
    ClientAddCertificate {
        /// Its name.
        client: String,
        /// The certificate, PEM.
        certificate: String,
    },
    /// Takes a certificate from a client.
    ClientRemoveCertificate {
        /// Its name.
        client: String,
        /// SHA-256 of the certificate.
        fingerprint: String,
    },
    /// All clients.
    ClientList,
    /// Lets a client use a partition.
    ClientAssignPartition {
        /// The client's name.
        client: String,
        /// Label or serial number.
        partition: String,
    },
    /// The listener's standing.
    NtlsShow,
    /// Every certificate and when it ends.
    SysconfShow,
    /// Makes a new server certificate and key beside those in service.
    SysconfRegenCert {
        /// How many days it lives; ten years without it.
        days: Option<u32>,
        /// Whether it is put into service at once.
        activate: bool,
    },
    /// Makes a new server key beside the one in service and a request for its certificate.
    SysconfRequestCert,
    /// Puts the prepared server certificate into service.
    SysconfActivateCert {
        /// What an authority has issued for the prepared key, PEM with its chain; without it what was prepared here.
        certificate: Option<String>,
    },
    /// Registers a peer, moves it, or adds a certificate to it.
    PeerAdd {
        /// Its name here.
        peer: String,
        /// Where its hsmd listens.
        host: String,
        /// The port.
        port: u16,
        /// Its server certificate, PEM.
        certificate: String,
        /// The domain whose partitions it may repair.
        domain: String,
    },
    /// All peers.
    PeerList,
    /// Forgets a peer, or one of its certificates.
    PeerRemove {
        /// Its name.
        peer: String,
        /// SHA-256 of the one certificate to forget.
        fingerprint: Option<String>,
    },
}

/// The server's answer.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Answer {
    /// Done.
    Ok(serde_json::Value),
    /// Not done: wanted, found, what to do.
    Error(String),
}

/// The appliance as `init` and `show` tell it.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Shown {
    /// The label; empty before `hsm init`.
    pub label: String,
    /// Software and release.
    pub software: String,
    /// Seconds since the start.
    pub uptime_seconds: u64,
    /// The data folder.
    pub data_dir: String,
    /// The domains here.
    pub domains: Vec<DomainShown>,
    /// How many partitions there are.
    pub partitions: usize,
    /// How many clients are registered.
    pub clients: usize,
    /// How many links are up.
    pub links: usize,
}

/// A domain.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DomainShown {
    /// Its name.
    pub domain: String,
    /// The hash by which two appliances' secrets are compared, hexadecimal.
    pub fingerprint: String,
}

/// A file of the transfer of a domain.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DomainFile {
    /// The domain's name.
    pub domain: String,
    /// The file's text.
    pub text: String,
    /// The fingerprint of the request that both sides compare, hexadecimal.
    pub request_fingerprint: String,
    /// The fingerprint of the domain, hexadecimal; only in an export.
    pub fingerprint: Option<String>,
}

/// A partition.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PartitionShown {
    /// The serial number.
    pub serial: u64,
    /// The label.
    pub label: String,
    /// The name of its domain.
    pub domain: String,
    /// Why it cannot be served; `None` when it is.
    pub fault: Option<String>,
    /// Clients it is assigned to.
    pub clients: Vec<String>,
    /// Live token objects.
    pub objects: u64,
    /// The group's label.
    pub group: String,
    /// The group's serial number; 0 for a partition in no named group.
    pub group_serial: u64,
    /// Members of the group.
    pub members: Vec<u64>,
    /// Serial number of the group's home member.
    pub home: u64,
    /// Whether it waits for repair.
    pub recovering: bool,
    /// Records in quarantine.
    pub quarantined: u64,
    /// The first of them (HA 1.7).
    pub quarantine: Vec<QuarantineShown>,
    /// The root of the digest, hexadecimal.
    pub root: String,
    /// Failed tries of the Crypto Officer's PIN since its last success.
    pub failed_tries_user: u32,
    /// Failed tries of the security officer's PIN since its last success.
    pub failed_tries_so: u32,
}

/// Objects that were found under one ouid: neither is used, and all are kept until they are destroyed (HA 1.7).
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct QuarantineShown {
    /// `CKA_UNIQUE_ID`.
    pub ouid: String,
    /// Each object: `CKO_*`, the serial number of its maker, and when it was made, milliseconds since 1970.
    pub found: Vec<(String, u64, u64)>,
}

/// A client.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ClientShown {
    /// Its name.
    pub client: String,
    /// What tickets and seals are bound to, hexadecimal: the same on every appliance of a group.
    pub identity: String,
    /// SHA-256 of its latest certificate; empty when an authority vouches for it.
    pub fingerprint: String,
    /// The last moment of its latest certificate.
    pub certificate_until: String,
    /// All its certificates.
    pub certificates: Vec<CertificateShown>,
    /// The authorities that vouch for it.
    pub authorities: Vec<CertificateShown>,
    /// Labels of the partitions assigned to it.
    pub partitions: Vec<String>,
}

/// A certificate.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CertificateShown {
    /// Whose it is.
    pub of: String,
    /// SHA-256 of it.
    pub fingerprint: String,
    /// Its last moment.
    pub until: String,
    /// The same in milliseconds since 1970.
    pub ends_ms: u64,
    /// Whole days left; below zero when it has ended.
    pub days_left: i64,
    /// What to do about it; empty when there is time.
    pub warning: String,
}

/// The certificates of the appliance, its clients and its peers.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SysconfShown {
    /// The server certificate in service.
    pub server: CertificateShown,
    /// Where it is.
    pub certificate: String,
    /// The prepared one, if there is one.
    pub next: Option<CertificateShown>,
    /// Where a prepared one is.
    pub next_certificate: String,
    /// Where a request is that waits for the certificate which an authority issues.
    pub request: Option<String>,
    /// Those of clients, authorities and peers.
    pub others: Vec<CertificateShown>,
}

/// A peer.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PeerShown {
    /// Its name here.
    pub peer: String,
    /// Where its hsmd listens.
    pub host: String,
    /// The port.
    pub port: u16,
    /// The domain whose partitions it may repair.
    pub domain: String,
    /// Its certificates.
    pub certificates: Vec<CertificateShown>,
    /// Whether this appliance is connected to it, or why not.
    pub standing: String,
}

/// The listener.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NtlsShown {
    /// Addresses that are listened on.
    pub listen: Vec<String>,
    /// Where the certificate is that clients need.
    pub certificate: String,
    /// SHA-256 of that certificate.
    pub fingerprint: String,
    /// The last moment of that certificate.
    pub certificate_until: String,
    /// Certificates, of whomever, that end soon: what to do about each.
    pub warnings: Vec<String>,
    /// Links that are up.
    pub links: usize,
    /// Most links at once.
    pub links_max: usize,
    /// Clients that are registered.
    pub clients: usize,
    /// Requests run since the start, by the call's name.
    pub requests: std::collections::BTreeMap<String, u64>,
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn verbs_survive_the_round_trip() {
        let verb = Verb::PartitionCreate {
            partition: "par0".into(),
            domain: "default".into(),
            so_pin: "so \"quoted\"".to_owned().into(),
            co_pin: "co".to_owned().into(),
        };
        let text = serde_json::to_string(&verb).unwrap();
        assert!(text.starts_with("{\"verb\":\"partitionCreate\",\"args\":{\"partition\":\"par0\""), "{text}");
        match serde_json::from_str(&text).unwrap() {
            Verb::PartitionCreate { so_pin, .. } => assert_eq!(so_pin.bytes(), b"so \"quoted\""),
            _ => panic!("another verb"),
        }
        assert!(matches!(serde_json::from_str("{\"verb\":\"show\"}").unwrap(), Verb::Show));
    }

    #[test]
    fn unknown_verbs_and_arguments_are_refused() {
        for text in ["{\"verb\":\"erase\"}", "{}", "[]", "{\"verb\":\"partitionShow\",\"args\":{\"x\":1}}"] {
            assert!(serde_json::from_str::<Verb>(text).is_err(), "{text}");
        }
    }
}
