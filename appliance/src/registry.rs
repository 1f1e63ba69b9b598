//! The clients of the appliance: certificates pinned by fingerprint, and the partitions each may use.
use std::collections::HashMap;
use std::sync::Arc;

use ntls::certificate::{Certificate, Validity, fingerprint_text};
use ntls::{ClientRegistry, Refusal, RegisteredClient};
use parking_lot::RwLock;
use tokio::sync::watch;

use crate::book::{Book, ClientRow};
use crate::error::Error;
use crate::handler::now_ms;

const NAME_BYTES_MAX: usize = 64;

/// The registered clients, in memory and in the book.
pub struct Registry {
    book: Arc<Book>,
    clients: RwLock<HashMap<[u8; 32], Arc<ClientRow>>>,
    changed: watch::Sender<u64>,
}

impl Registry {
    /// The clients that the book knows.
    ///
    /// # Errors
    /// Those of the database.
    pub fn load(book: Arc<Book>) -> Result<Registry, Error> {
        let clients =
            book.clients()?.into_iter().map(|client| (client.fingerprint, Arc::new(client))).collect();
        Ok(Registry { book, clients: RwLock::new(clients), changed: watch::Sender::new(0) })
    }

    /// Registers a client by its certificate, PEM.
    ///
    /// # Errors
    /// When the name or the certificate is malformed, out of its time or registered.
    pub fn register(&self, name: &str, certificate_pem: &str) -> Result<Arc<ClientRow>, Error> {
        let good = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.chars().all(good) {
            return Err(Error::refused(format!(
                "client name: wanted 1 to {NAME_BYTES_MAX} letters, digits, dots, dashes or underscores, found {:?}",
                name.chars().take(NAME_BYTES_MAX).collect::<String>()
            )));
        }
        let all = Certificate::all_from_pem(certificate_pem.as_bytes(), "the certificate")
            .map_err(|error| Error::refused(error.to_string()))?;
        let certificate = all.first().expect("all_from_pem gives at least one certificate");
        if certificate.validity(now_ms()) == Validity::Expired {
            return Err(Error::refused(format!(
                "the certificate of {:?} expired on {}: make a new one with `vtl createCert` and register that",
                certificate.name(),
                certificate.not_after_text()
            )));
        }
        let client = Arc::new(ClientRow {
            name: name.to_owned(),
            certificate: certificate.der().to_vec(),
            fingerprint: certificate.fingerprint(),
            partitions: Vec::new(),
        });
        self.book.add_client(&client)?;
        self.clients.write().insert(client.fingerprint, client.clone());
        Ok(client)
    }

    /// Lets a client use a partition.
    ///
    /// # Errors
    /// When the client is not known, or may use it already.
    pub fn assign(&self, name: &str, serial: u64) -> Result<(), Error> {
        let mut clients = self.clients.write();
        let client = clients.values_mut().find(|client| client.name == name).ok_or_else(|| {
            Error::refused(format!(
                "client {name:?}: wanted a registered client, found none; see `hsm client list`"
            ))
        })?;
        if !self.book.assign(name, serial)? {
            return Err(Error::refused(format!(
                "client {name}: partition {serial} is assigned to it already"
            )));
        }
        let mut row = ClientRow::clone(client);
        row.partitions.push(serial);
        row.partitions.sort_unstable();
        *client = Arc::new(row);
        drop(clients);
        self.changed.send_modify(|version| *version += 1);
        Ok(())
    }

    /// The client with this certificate.
    pub fn client(&self, fingerprint: &[u8; 32]) -> Option<Arc<ClientRow>> {
        self.clients.read().get(fingerprint).cloned()
    }

    /// All clients, by name.
    pub fn list(&self) -> Vec<Arc<ClientRow>> {
        let mut clients: Vec<_> = self.clients.read().values().cloned().collect();
        clients.sort_by(|a, b| a.name.cmp(&b.name));
        clients
    }

    /// Tells whenever assignments have changed.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// One line that says why a certificate is not accepted and what to do.
    fn log_unknown(&self, certificate: &Certificate) {
        let (name, found) = (certificate.name(), certificate.fingerprint_text());
        match self.clients.read().values().find(|client| client.name == name) {
            Some(client) => tracing::warn!(
                client = name,
                sha256 = found,
                registered = fingerprint_text(&client.fingerprint),
                "a certificate with the name of a registered client was refused: another certificate is registered \
                 under it; if the client has a new one, register it under a new name"
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
        let Ok(certificate) = Certificate::from_der(certificate_der) else {
            tracing::warn!("a client certificate that is no X.509 certificate was refused");
            return Err(Refusal::NotRegistered);
        };
        let Some(client) = self.client(&certificate.fingerprint()) else {
            self.log_unknown(&certificate);
            return Err(Refusal::NotRegistered);
        };
        match certificate.validity(now_ms()) {
            Validity::Valid => Ok(RegisteredClient { name: client.name.clone(), id: client.fingerprint }),
            Validity::Expired => {
                tracing::warn!(
                    client = client.name,
                    expired = certificate.not_after_text(),
                    "the expired certificate of a registered client was refused; make a new one with `vtl createCert` \
                     and register it under a new name"
                );
                Err(Refusal::OutOfTime)
            }
            Validity::NotYet => {
                tracing::warn!(
                    client = client.name,
                    begins = certificate.not_before_text(),
                    "the certificate of a registered client was refused: its time has not come; compare the clocks"
                );
                Err(Refusal::OutOfTime)
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use ntls::certificate::{Wanted, self_signed};

    use super::*;
    use crate::book::{DomainRow, PartitionRow};

    fn pem(name: &str, now_ms: u64) -> String {
        self_signed(&Wanted { name, hosts: &[], now_ms, days: 10 }).unwrap().certificate_pem
    }

    fn der(pem: &str) -> Vec<u8> {
        Certificate::all_from_pem(pem.as_bytes(), "test").unwrap()[0].der().to_vec()
    }

    fn registry() -> (tempfile::TempDir, Registry) {
        let place = tempfile::tempdir().unwrap();
        let (book, _) = Book::open(&place.path().join("appliance.sqlite")).unwrap();
        book.add_domain(&DomainRow { name: "d".into(), wrapped: vec![1], fingerprint: vec![2] }).unwrap();
        book.add_partition(&PartitionRow { serial: 7, label: "par0".into(), domain: "d".into() }).unwrap();
        (place, Registry::load(Arc::new(book)).unwrap())
    }

    #[test]
    fn exactly_the_registered_certificate_is_accepted() {
        let (place, registry) = registry();
        let (mine, same_name) = (pem("client1", now_ms()), pem("client1", now_ms()));
        assert_eq!(registry.accept(&der(&mine)), Err(Refusal::NotRegistered));
        registry.register("client1", &mine).unwrap();
        assert_eq!(registry.accept(&der(&mine)).unwrap().name, "client1");
        assert_eq!(registry.accept(&der(&same_name)), Err(Refusal::NotRegistered));
        assert_eq!(registry.accept(b"no certificate"), Err(Refusal::NotRegistered));
        assert!(registry.register("client1", &same_name).is_err(), "a name is registered once");
        assert!(registry.register("client2", &mine).is_err(), "a certificate is registered once");
        let (book, _) = Book::open(&place.path().join("appliance.sqlite")).unwrap();
        let again = Registry::load(Arc::new(book)).unwrap();
        assert!(again.accept(&der(&mine)).is_ok(), "a restart keeps clients");
    }

    #[test]
    fn certificates_out_of_their_time_are_refused() {
        let (_place, registry) = registry();
        let day = 86_400_000;
        let old = pem("old", now_ms() - 20 * day);
        let error = registry.register("old", &old).unwrap_err().to_string();
        assert!(error.contains("vtl createCert"), "{error}");
        let early = pem("early", now_ms() + 2 * day);
        registry.register("early", &early).unwrap();
        assert_eq!(registry.accept(&der(&early)), Err(Refusal::OutOfTime));
        let row = ClientRow {
            name: "late".into(),
            certificate: der(&old),
            fingerprint: ntls::certificate::fingerprint(&der(&old)),
            partitions: vec![],
        };
        registry.clients.write().insert(row.fingerprint, Arc::new(row));
        assert_eq!(registry.accept(&der(&old)), Err(Refusal::OutOfTime), "it expired after its registration");
    }

    #[test]
    fn assignments_take_effect_at_once_and_are_told() {
        let (_place, registry) = registry();
        let client = registry.register("client1", &pem("client1", now_ms())).unwrap();
        let mut changes = registry.changes();
        changes.mark_unchanged();
        registry.assign("client1", 7).unwrap();
        assert!(changes.has_changed().unwrap());
        assert_eq!(registry.client(&client.fingerprint).unwrap().partitions, [7]);
        assert!(registry.assign("client1", 7).is_err());
        assert!(registry.assign("nobody", 7).is_err());
        assert!(registry.assign("client1", 8).is_err(), "no such partition");
    }

    #[test]
    fn malformed_names_and_certificates_are_refused() {
        let (_place, registry) = registry();
        let good = pem("c", now_ms());
        for name in ["", "a b", "../x", &"x".repeat(65)] {
            assert!(registry.register(name, &good).is_err(), "{name:?}");
        }
        assert!(registry.register("c", "").is_err());
        assert!(registry.register("c", &good.replace("MII", "MIJ")).is_err());
    }
}
