//! Who may connect: clients by pinned certificates or by an authority and their name, peers by pinned certificates; and
//! the partitions that each may use.
use std::collections::HashMap;
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use ntls::certificate::{Certificate, Validity, fingerprint_text};
use ntls::{ClientRegistry, Refusal, RegisteredClient};
use parking_lot::RwLock;
use rustls::RootCertStore;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use tokio::sync::watch;

use crate::book::{Book, ClientRow, Kept, Kind, PeerRow};
use crate::error::Error;
use crate::handler::now_ms;
use crate::hex;
use crate::log;

const NAME_BYTES_MAX: usize = 64;

/// Who is on a link: proved by its certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entrant {
    /// The name of its registration.
    pub name: String,
    /// What tickets and seals are bound to.
    pub identity: [u8; 32],
    /// Whether it is a peer (HA 4.7).
    pub replicator: bool,
    /// Serial numbers of the partitions it may use, ascending.
    pub partitions: Vec<u64>,
    /// The fingerprint of its certificate.
    pub certificate: [u8; 32],
    /// When that one ends, milliseconds since 1970.
    pub certificate_ends_ms: u64,
    /// Whether an authority vouches for it.
    by_authority: bool,
}

/// The registered clients and peers, in memory and in the book.
pub struct Registry {
    book: Arc<Book>,
    clients: RwLock<HashMap<[u8; 32], Arc<ClientRow>>>,
    peers: RwLock<Vec<Arc<PeerRow>>>,
    changed: watch::Sender<u64>,
}

impl Registry {
    /// The clients and peers that the book knows.
    ///
    /// # Errors
    /// Those of the database.
    pub fn load(book: Arc<Book>) -> Result<Registry, Error> {
        let clients = book.clients()?.into_iter().map(|client| (client.identity, Arc::new(client))).collect();
        let peers = book.peers()?.into_iter().map(Arc::new).collect();
        let (clients, peers) = (RwLock::new(clients), RwLock::new(peers));
        Ok(Registry { book, clients, peers, changed: watch::Sender::new(0) })
    }

    /// Registers a client by its certificate, PEM.
    ///
    /// # Errors
    /// When the name or the certificate is malformed, out of its time or registered.
    pub fn register(&self, name: &str, certificate_pem: &str) -> Result<Arc<ClientRow>, Error> {
        self.register_as(name, certificate_pem, None)
    }

    /// As [`register`](Self::register), under an identity that the client has on another appliance already: its first
    /// certificate there was another one than this.
    ///
    /// # Errors
    /// As for `register`; also when the identity is another client's here.
    pub fn register_as(
        &self,
        name: &str,
        certificate_pem: &str,
        identity: Option<[u8; 32]>,
    ) -> Result<Arc<ClientRow>, Error> {
        check_name(name)?;
        let kept = own_certificate(certificate_pem)?;
        self.add(ClientRow {
            name: name.to_owned(),
            identity: identity.unwrap_or(kept.fingerprint),
            certificates: vec![kept],
            authorities: Vec::new(),
            partitions: Vec::new(),
        })
    }

    /// Registers a client by its name and an authority, PEM: every certificate of this common name that the authority has
    /// issued is its own.
    ///
    /// # Errors
    /// When the name is malformed or registered, or the certificate is no authority's.
    pub fn register_by_authority(&self, name: &str, authority_pem: &str) -> Result<Arc<ClientRow>, Error> {
        check_name(name)?;
        let authorities = authorities(authority_pem)?;
        self.add(ClientRow {
            name: name.to_owned(),
            identity: identity_of_name(name),
            certificates: Vec::new(),
            authorities,
            partitions: Vec::new(),
        })
    }

    fn add(&self, client: ClientRow) -> Result<Arc<ClientRow>, Error> {
        let client = Arc::new(client);
        self.book.add_client(&client)?;
        self.clients.write().insert(client.identity, client.clone());
        Ok(client)
    }

    /// Adds a certificate to a client: both hold from now on, so that the client can change over when it likes.
    ///
    /// # Errors
    /// When the client is not known, or the certificate is malformed, out of its time or registered.
    pub fn add_certificate(&self, name: &str, certificate_pem: &str) -> Result<Arc<ClientRow>, Error> {
        let kept = own_certificate(certificate_pem)?;
        self.change(name, |client| {
            if !self.book.add_certificate(Kind::Client, name, &kept)? {
                return Err(Error::refused(format!(
                    "client {name}: wanted a certificate that is not registered, found one that is; see `hsm client list`"
                )));
            }
            client.certificates.push(kept);
            Ok(())
        })
    }

    /// Takes a certificate from a client: links made with it end, once what runs on them has ended.
    ///
    /// # Errors
    /// When the client or the certificate is not known, or it is the client's only one.
    pub fn remove_certificate(&self, name: &str, fingerprint: &str) -> Result<Arc<ClientRow>, Error> {
        let wanted = fingerprint_of(fingerprint)?;
        self.change(name, |client| {
            if client.certificates.len() == 1 && client.authorities.is_empty() {
                return Err(Error::refused(format!(
                    "client {name}: wanted to keep one certificate at least, found this one to be the only one; add the \
                     new one first (`hsm client addCertificate`)"
                )));
            }
            if !self.book.remove_certificate(Kind::Client, name, &wanted)? {
                return Err(Error::refused(format!(
                    "client {name}: wanted the fingerprint of one of its certificates, found another; see `hsm client \
                     list`"
                )));
            }
            client.certificates.retain(|kept| kept.fingerprint != wanted);
            Ok(())
        })
    }

    /// Lets a client use a partition.
    ///
    /// # Errors
    /// When the client is not known, or may use it already.
    pub fn assign(&self, name: &str, serial: u64) -> Result<(), Error> {
        self.change(name, |client| {
            if !self.book.assign(name, serial)? {
                return Err(Error::refused(format!(
                    "client {name}: partition {serial} is assigned to it already"
                )));
            }
            client.partitions.push(serial);
            client.partitions.sort_unstable();
            Ok(())
        })
        .map(drop)
    }

    /// Changes one client in the book and in memory, and tells the links.
    fn change(
        &self,
        name: &str,
        change: impl FnOnce(&mut ClientRow) -> Result<(), Error>,
    ) -> Result<Arc<ClientRow>, Error> {
        let mut clients = self.clients.write();
        let client = clients.values_mut().find(|client| client.name == name).ok_or_else(|| {
            Error::refused(format!(
                "client {name:?}: wanted a registered client, found none; see `hsm client list`"
            ))
        })?;
        let mut row = ClientRow::clone(client);
        change(&mut row)?;
        *client = Arc::new(row);
        let client = client.clone();
        drop(clients);
        self.tell_changed();
        Ok(client)
    }

    /// Registers a peer, or changes where it is; a further certificate of one that is known holds beside the others.
    ///
    /// # Errors
    /// When something is malformed, the domain is not known here, or the certificate is another's.
    pub fn add_peer(
        &self,
        name: &str,
        host: &str,
        port: u16,
        domain: &str,
        certificate_pem: &str,
    ) -> Result<Arc<PeerRow>, Error> {
        check_name(name)?;
        if host.is_empty() || host.len() > 253 || host.chars().any(|c| c.is_control() || c.is_whitespace()) {
            return Err(Error::refused("peer: wanted a host name or address, found something else"));
        }
        if !self.book.domains()?.iter().any(|row| row.name == domain) {
            return Err(Error::refused(format!(
                "peer {name}: wanted a domain of this appliance, found {domain:?}; see `hsm domain fingerprint`"
            )));
        }
        let kept = own_certificate(certificate_pem)?;
        let mut peers = self.peers.write();
        let known = peers.iter().find(|peer| peer.name == name);
        let mut certificates = known.map(|peer| peer.certificates.clone()).unwrap_or_default();
        if !certificates.contains(&kept) {
            certificates.push(kept);
        }
        let (host, domain) = (host.to_owned(), domain.to_owned());
        let peer = Arc::new(PeerRow { name: name.to_owned(), host, port, domain, certificates });
        self.book.put_peer(&peer)?;
        peers.retain(|other| other.name != name);
        peers.push(peer.clone());
        drop(peers);
        self.tell_changed();
        Ok(peer)
    }

    /// Forgets a peer, or one of its certificates when a fingerprint is given. Its links end.
    ///
    /// # Errors
    /// When there is none, or it is the only certificate of the peer.
    pub fn remove_peer(&self, name: &str, fingerprint: Option<&str>) -> Result<(), Error> {
        let wanted = fingerprint.map(fingerprint_of).transpose()?;
        let mut peers = self.peers.write();
        let at = peers.iter().position(|peer| peer.name == name).ok_or_else(|| {
            Error::refused(format!(
                "peer {name:?}: wanted a registered peer, found none; see `hsm peer list`"
            ))
        })?;
        match wanted {
            None => {
                self.book.remove_peer(name)?;
                peers.remove(at);
            }
            Some(wanted) => {
                let mut peer = PeerRow::clone(&peers[at]);
                peer.certificates.retain(|kept| kept.fingerprint != wanted);
                if peer.certificates.is_empty() || peer.certificates.len() == peers[at].certificates.len() {
                    return Err(Error::refused(format!(
                        "peer {name}: wanted the fingerprint of one of several certificates, found otherwise; see `hsm \
                         peer list`"
                    )));
                }
                self.book.remove_certificate(Kind::Peer, name, &wanted)?;
                peers[at] = Arc::new(peer);
            }
        }
        drop(peers);
        self.tell_changed();
        Ok(())
    }

    /// All peers, by name.
    pub fn peers(&self) -> Vec<Arc<PeerRow>> {
        let mut peers = self.peers.read().clone();
        peers.sort_by(|a, b| a.name.cmp(&b.name));
        peers
    }

    /// Who shows this certificate, with what it sent along to lead to an authority.
    ///
    /// # Errors
    /// The refusal; the log says why.
    pub fn identify(&self, der: &[u8], intermediates: &[CertificateDer<'_>]) -> Result<Entrant, Refusal> {
        let Ok(certificate) = Certificate::from_der(der) else {
            if log::allow("", ("unknown certificates", 0)) {
                tracing::warn!("a client certificate that is no X.509 certificate was refused");
            }
            return Err(Refusal::NotRegistered);
        };
        let Some(entrant) = self.find(&certificate, intermediates) else {
            if log::allow("", ("unknown certificates", 1)) {
                self.log_unknown(&certificate);
            }
            return Err(Refusal::NotRegistered);
        };
        match certificate.validity(now_ms()) {
            Validity::Valid => Ok(entrant),
            Validity::Expired | Validity::NotYet
                if !log::allow(&entrant.name, ("certificates out of time", 0)) =>
            {
                Err(Refusal::OutOfTime)
            }
            Validity::Expired => {
                tracing::warn!(
                    client = entrant.name,
                    expired = certificate.not_after_text(),
                    "the expired certificate of a registered client was refused; make a new one with `vtl createCert` \
                     and add it with `hsm client addCertificate`"
                );
                Err(Refusal::OutOfTime)
            }
            Validity::NotYet => {
                tracing::warn!(
                    client = entrant.name,
                    begins = certificate.not_before_text(),
                    "the certificate of a registered client is not valid yet; compare the clocks"
                );
                Err(Refusal::OutOfTime)
            }
        }
    }

    fn find(&self, certificate: &Certificate, intermediates: &[CertificateDer<'_>]) -> Option<Entrant> {
        let shown = certificate.fingerprint();
        let has = |kept: &[Kept]| kept.iter().any(|kept| kept.fingerprint == shown);
        let entrant = |name: &str, identity, replicator, partitions, by_authority| Entrant {
            name: name.to_owned(),
            identity,
            replicator,
            partitions,
            certificate: shown,
            certificate_ends_ms: ends_ms(certificate),
            by_authority,
        };
        let clients = self.clients.read();
        if let Some(client) = clients.values().find(|client| has(&client.certificates)) {
            return Some(entrant(&client.name, client.identity, false, client.partitions.clone(), false));
        }
        if let Some(peer) = self.peers.read().iter().find(|peer| has(&peer.certificates)) {
            return Some(entrant(
                &peer.name,
                identity_of_peer(&peer.name),
                true,
                self.of_domain(&peer.domain),
                false,
            ));
        }
        let named = clients.values().find(|client| {
            client.name == certificate.name()
                && is_vouched_for(&client.authorities, certificate, intermediates)
        })?;
        Some(entrant(&named.name, named.identity, false, named.partitions.clone(), true))
    }

    /// The partitions of a domain, ascending.
    fn of_domain(&self, domain: &str) -> Vec<u64> {
        let rows = self.book.partitions().unwrap_or_default();
        rows.into_iter().filter(|row| row.domain == domain).map(|row| row.serial).collect()
    }

    /// What a link's entrant may use now; none when its certificate is no longer registered.
    pub fn renewed(&self, entrant: &Entrant) -> Option<Entrant> {
        let has = |kept: &[Kept]| kept.iter().any(|kept| kept.fingerprint == entrant.certificate);
        if entrant.replicator {
            let peers = self.peers.read();
            let peer = peers.iter().find(|peer| has(&peer.certificates))?;
            return Some(Entrant { partitions: self.of_domain(&peer.domain), ..entrant.clone() });
        }
        let client = self.client(&entrant.identity)?;
        let known =
            if entrant.by_authority { !client.authorities.is_empty() } else { has(&client.certificates) };
        known.then(|| Entrant { partitions: client.partitions.clone(), ..entrant.clone() })
    }

    /// The client of this identity.
    pub fn client(&self, identity: &[u8; 32]) -> Option<Arc<ClientRow>> {
        self.clients.read().get(identity).cloned()
    }

    /// All clients, by name.
    pub fn list(&self) -> Vec<Arc<ClientRow>> {
        let mut clients: Vec<_> = self.clients.read().values().cloned().collect();
        clients.sort_by(|a, b| a.name.cmp(&b.name));
        clients
    }

    /// Tells whenever certificates, assignments or peers have changed.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Something that links go by has changed: a registration, or the partitions of a domain.
    pub fn tell_changed(&self) {
        self.changed.send_modify(|version| *version += 1);
    }

    /// One line that says why a certificate is not accepted and what to do.
    fn log_unknown(&self, certificate: &Certificate) {
        let (name, found) = (certificate.name(), certificate.fingerprint_text());
        match self.clients.read().values().find(|client| client.name == name) {
            Some(client) => tracing::warn!(
                client = name,
                sha256 = found,
                registered = client.certificates.first().map(|kept| fingerprint_text(&kept.fingerprint)),
                "a certificate with the name of a registered client was refused: it is not registered, and no authority \
                 of that client whose own time is now has issued it; if the client has a new one, run `hsm client \
                 addCertificate`"
            ),
            None => tracing::warn!(
                name,
                sha256 = found,
                "an unregistered client certificate was refused; to admit it run `hsm client register -client NAME \
                 -cert FILE` with the certificate of this fingerprint"
            ),
        }
    }
}

impl ClientRegistry for Registry {
    fn accept(&self, certificate_der: &[u8]) -> Result<RegisteredClient, Refusal> {
        self.accept_chain(certificate_der, &[])
    }

    fn accept_chain(
        &self,
        certificate_der: &[u8],
        intermediates: &[CertificateDer<'_>],
    ) -> Result<RegisteredClient, Refusal> {
        let entrant = self.identify(certificate_der, intermediates)?;
        Ok(RegisteredClient { name: entrant.name, id: entrant.identity })
    }
}

/// When a certificate ends, milliseconds since 1970.
pub fn ends_ms(certificate: &Certificate) -> u64 {
    u64::try_from(certificate.not_after_s()).unwrap_or(0).saturating_mul(1_000)
}

fn check_name(name: &str) -> Result<(), Error> {
    let good = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    if !name.is_empty() && name.len() <= NAME_BYTES_MAX && name.chars().all(good) {
        return Ok(());
    }
    Err(Error::refused(format!(
        "name: wanted 1 to {NAME_BYTES_MAX} letters, digits, dots, dashes or underscores, found {:?}",
        name.chars().take(NAME_BYTES_MAX).collect::<String>()
    )))
}

/// The first certificate of a PEM text, which must not have ended.
fn own_certificate(pem: &str) -> Result<Kept, Error> {
    let all = Certificate::all_from_pem(pem.as_bytes(), "the certificate")
        .map_err(|error| Error::refused(error.to_string()))?;
    let certificate = all.first().expect("all_from_pem gives at least one certificate");
    if certificate.validity(now_ms()) == Validity::Expired {
        return Err(Error::refused(format!(
            "the certificate of {:?} expired on {}: make a new one with `vtl createCert` and register that",
            certificate.name(),
            certificate.not_after_text()
        )));
    }
    Ok(Kept::new(certificate.der()))
}

/// The certificates of a PEM text, every one an authority's.
fn authorities(pem: &str) -> Result<Vec<Kept>, Error> {
    let all = Certificate::all_from_pem(pem.as_bytes(), "the authority")
        .map_err(|error| Error::refused(error.to_string()))?;
    if let Some(late) = all.iter().find(|certificate| certificate.validity(now_ms()) == Validity::Expired) {
        return Err(Error::refused(format!(
            "the certificate of the authority {:?} expired on {}: register its new one",
            late.name(),
            late.not_after_text()
        )));
    }
    match all.iter().find(|certificate| !certificate.is_authority()) {
        None => Ok(all.iter().map(|certificate| Kept::new(certificate.der())).collect()),
        Some(other) => Err(Error::refused(format!(
            "wanted the certificate of an authority (basic constraints CA), found that of {:?}; give a client's own \
             certificate with -cert",
            other.name()
        ))),
    }
}

/// Whether one of the authorities has issued the certificate, for a client's use, and its own time has not ended. The time of
/// the certificate is looked at elsewhere, so that an expired one is refused as such.
fn is_vouched_for(authorities: &[Kept], found: &Certificate, intermediates: &[CertificateDer<'_>]) -> bool {
    let mut roots = RootCertStore::empty();
    for authority in authorities {
        // webpki asks no anchor for its time.
        let is_of_now = |read: Certificate| read.validity(now_ms()) == Validity::Valid;
        if !Certificate::from_der(&authority.der).is_ok_and(is_of_now) {
            continue;
        }
        // One that webpki cannot read vouches for nobody.
        let _ = roots.add(CertificateDer::from(authority.der.as_slice()).into_owned());
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let Ok(verifier) = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build() else {
        return false;
    };
    let last_second = u64::try_from(found.not_after_s()).unwrap_or(0).min(now_ms() / 1_000);
    let moment = UnixTime::since_unix_epoch(std::time::Duration::from_secs(last_second));
    verifier.verify_client_cert(&CertificateDer::from(found.der()), intermediates, moment).is_ok()
}

/// The identity of a client whom an authority vouches for: the same on every appliance.
fn identity_of_name(name: &str) -> [u8; 32] {
    labelled(b"hatoki client name 1\0", name)
}

fn identity_of_peer(name: &str) -> [u8; 32] {
    labelled(b"hatoki peer name 1\0", name)
}

fn labelled(label: &[u8], name: &str) -> [u8; 32] {
    let hash = digest(&SHA256, &[label, name.as_bytes()].concat());
    hash.as_ref().try_into().expect("SHA-256 gives 32 bytes")
}

/// 32 bytes in hexadecimal, with or without colons.
///
/// # Errors
/// When it is something else.
pub fn fingerprint_of(text: &str) -> Result<[u8; 32], Error> {
    hex::decode(text).and_then(|bytes| bytes.try_into().ok()).ok_or_else(|| {
        Error::refused(
            "wanted 64 hexadecimal digits, with or without colons, as lists show them; found something else",
        )
    })
}

#[cfg(test)]
#[path = "registry_tests.rs"]
mod tests;
