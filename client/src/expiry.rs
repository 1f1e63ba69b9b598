//! Certificates that end soon: when that is said again and in which words; those in files of this client, which are its
//! own and those of authorities in `ServerCAFile`. Of the appliances' own their members tell (`meter`).
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use ntls::certificate::Certificate;

use crate::calendar::Iso;
use crate::conf::Configuration;

/// From so many days before its end a certificate is warned about, once a day.
const EXPIRY_DAYS: u64 = 30;
/// Milliseconds of a day.
pub(crate) const DAY_MS: u64 = 86_400_000;

/// Whether a certificate that ends then is to be told of now, once a day.
pub(crate) fn is_due(ends_ms: u64, now_ms: u64, told_ms: &AtomicU64) -> bool {
    let told = told_ms.load(Ordering::Relaxed);
    let due = ends_ms != 0
        && ends_ms < now_ms.saturating_add(EXPIRY_DAYS * DAY_MS)
        && (told == 0 || now_ms >= told.saturating_add(DAY_MS));
    due && told_ms.compare_exchange(told, now_ms, Ordering::Relaxed, Ordering::Relaxed).is_ok()
}

/// How long a certificate is valid still, in words.
pub(crate) fn left(ends_ms: u64, now_ms: u64) -> String {
    match ends_ms.checked_sub(now_ms) {
        Some(left_ms) => format!("ends on {}, in {} days", Iso(ends_ms), left_ms / DAY_MS),
        None => format!("ended on {}", Iso(ends_ms)),
    }
}

/// The files with certificates that a client goes by; looked at once a day, and when one of them has changed.
#[derive(Default)]
pub(crate) struct Files {
    /// When they are to be looked at next, in milliseconds since 1970.
    due_ms: AtomicU64,
}

impl Files {
    /// One of them has changed: the next look reads them.
    pub(crate) fn changed(&self) {
        self.due_ms.store(0, Ordering::Relaxed);
    }

    /// Warns of what ends soon when a look is due; gives the number of warnings. Files that cannot be read are the
    /// business of the links, which say so.
    pub(crate) fn look(&self, conf: &Configuration, now_ms: u64) -> usize {
        let due_ms = self.due_ms.load(Ordering::Relaxed);
        let next_ms = now_ms.saturating_add(DAY_MS);
        if now_ms < due_ms
            || self.due_ms.compare_exchange(due_ms, next_ms, Ordering::Relaxed, Ordering::Relaxed).is_err()
        {
            return 0;
        }
        let own = conf.client_certificate.as_deref();
        own.map_or(0, |file| warn_of_own(file, now_ms)) + warn_of_authorities(&conf.server_ca, now_ms)
    }
}

fn read(file: &Path) -> Vec<Certificate> {
    let pem = std::fs::read(file).unwrap_or_default();
    Certificate::all_from_pem(&pem, "").unwrap_or_default()
}

/// In words, if the certificate ends soon.
fn ending(certificate: &Certificate, now_ms: u64) -> Option<String> {
    let ends_ms = u64::try_from(certificate.not_after_s()).unwrap_or(0).saturating_mul(1000);
    is_due(ends_ms.max(1), now_ms, &AtomicU64::new(0)).then(|| left(ends_ms, now_ms))
}

/// The first certificate is the client's, those behind it are its chain.
fn warn_of_own(file: &Path, now_ms: u64) -> usize {
    let read = read(file);
    let ending = read.first().and_then(|own| Some((own, ending(own, now_ms)?)));
    ending.map_or(0, |(own, left)| {
        tracing::warn!(
            "the certificate of this client (CN {}) in {} {left}: make a new one with `vtl createCert`, add it on the \
             appliances with `hsm client addCertificate`, then `vtl useCert`",
            own.name(),
            file.display()
        );
        1
    })
}

fn warn_of_authorities(file: &Path, now_ms: u64) -> usize {
    let read = read(file);
    let ending = read
        .iter()
        .filter(|one| one.is_authority())
        .filter_map(|authority| Some((authority, ending(authority, now_ms)?)));
    let told = ending.map(|(authority, left)| {
        tracing::warn!(
            "the authority {:?} in ServerCAFile {} {left}: trust its successor too, with `vtl addServer` for each appliance",
            authority.name(),
            file.display()
        );
    });
    told.count()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::cast_possible_truncation)]
mod tests {
    use ntls::certificate::{Wanted, self_signed};

    use super::*;

    #[test]
    fn ends_are_told_in_days_and_as_dates() {
        let now_ms = 100 * DAY_MS;
        assert_eq!(left(now_ms + 3 * DAY_MS, now_ms), "ends on 1970-04-14T00:00:00.000Z, in 3 days");
        assert_eq!(left(now_ms - 1, now_ms), "ended on 1970-04-10T23:59:59.999Z");
    }

    #[test]
    fn a_clients_own_certificate_is_warned_about_once_a_day_and_when_it_has_changed() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("own.pem");
        let (files, now_ms) = (Files::default(), 1_800_000_000_000);
        let text = b"LunaSA Client = { ClientCertFile = own.pem; }";
        let conf = Configuration::from_bytes(text, &folder.path().join("Chrystoki.conf")).unwrap();
        assert_eq!(files.look(&conf, now_ms), 0, "no file is none of our business");
        let write = |days| {
            let wanted = Wanted { name: "own", hosts: &[], now_ms, days };
            std::fs::write(&file, self_signed(&wanted).unwrap().certificate_pem).unwrap();
        };
        write(31);
        assert_eq!(files.look(&conf, now_ms + DAY_MS - 1), 0);
        let looks: Vec<usize> = (1..5).map(|day| files.look(&conf, now_ms + day * DAY_MS)).collect();
        assert_eq!(looks, [0, 1, 1, 1], "from thirty days on");
        assert_eq!(files.look(&conf, now_ms + 4 * DAY_MS + 1), 0, "once a day");
        write(5);
        files.changed();
        assert_eq!(files.look(&conf, now_ms + 4 * DAY_MS + 2), 1);
    }
}
