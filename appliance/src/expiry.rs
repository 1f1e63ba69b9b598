//! Certificates that end soon: said in the log 30, 7 and 1 days before, daily within the last week, and shown by `hsm`.
use std::collections::HashMap;
use std::sync::Arc;

use ntls::certificate::{Certificate, fingerprint_text};

use crate::admin::protocol::CertificateShown;
use crate::appliance::Appliance;
use crate::handler::now_ms;
use crate::registry::ends_ms;

const DAY_MS: u64 = 86_400_000;
/// A certificate that ends within so many days is warned about.
const WARN_DAYS: i64 = 30;
/// From so many days on it is said every day.
const DAILY_DAYS: i64 = 7;

/// Whole days until a moment; below zero once it has passed.
fn days_left(ends_ms: u64, now_ms: u64) -> i64 {
    let days = |ms: u64| i64::try_from(ms / DAY_MS).unwrap_or(i64::MAX);
    if ends_ms >= now_ms { days(ends_ms - now_ms) } else { -1 - days(now_ms - ends_ms) }
}

/// A certificate in DER as it is shown; one that cannot be read is shown as such.
pub fn shown(of: &str, der: &[u8]) -> CertificateShown {
    shown_at(of, der, "", now_ms())
}

fn shown_at(of: &str, der: &[u8], advice: &str, now_ms: u64) -> CertificateShown {
    let fingerprint = fingerprint_text(&ntls::certificate::fingerprint(der));
    match Certificate::from_der(der) {
        Err(error) => CertificateShown {
            of: of.to_owned(),
            fingerprint,
            until: error.to_string(),
            ends_ms: 0,
            days_left: 0,
            warning: format!("the certificate of {of} cannot be read: {error}"),
        },
        Ok(certificate) => {
            let ends_ms = ends_ms(&certificate);
            let (left, until) = (days_left(ends_ms, now_ms), certificate.not_after_text());
            let warning = match left {
                ..0 => format!("the certificate of {of} ended on {until}{advice}"),
                0..=WARN_DAYS => format!("the certificate of {of} ends on {until}, in {left} days{advice}"),
                _ => String::new(),
            };
            CertificateShown { of: of.to_owned(), fingerprint, until, ends_ms, days_left: left, warning }
        }
    }
}

/// Every certificate that the appliance goes by: the server's first.
pub fn all(appliance: &Appliance) -> Vec<CertificateShown> {
    let now_ms = now_ms();
    let server = appliance.identity.current();
    let renew = ": run `hsm sysconf regenCert`";
    let of = format!("this server ({})", appliance.identity.certificate_path().display());
    let mut all = vec![shown_at(&of, server.certificate().der(), renew, now_ms)];
    for client in appliance.registry.list() {
        let renew = ": make a new one with `vtl createCert` and add it with `hsm client addCertificate`";
        // One that ends is no matter when a later one is there.
        let of = format!("client {}", client.name);
        let mut own: Vec<_> =
            client.certificates.iter().map(|kept| shown_at(&of, &kept.der, renew, now_ms)).collect();
        spare(&mut own);
        all.extend(own);
        let of = format!("the authority of client {}", client.name);
        all.extend(client.authorities.iter().map(|kept| shown_at(&of, &kept.der, "", now_ms)));
    }
    for peer in appliance.registry.peers() {
        let of = format!("peer {}", peer.name);
        let renew = ": run `hsm sysconf regenCert` there and `hsm peer add` here";
        let mut own: Vec<_> =
            peer.certificates.iter().map(|kept| shown_at(&of, &kept.der, renew, now_ms)).collect();
        spare(&mut own);
        all.extend(own);
    }
    all
}

/// Of several certificates of one owner only the one that ends last is warned about.
fn spare(own: &mut [CertificateShown]) {
    let last_ms = own.iter().map(|one| one.ends_ms).max().unwrap_or(0);
    own.iter_mut().filter(|one| one.ends_ms < last_ms).for_each(|one| one.warning.clear());
}

/// What has been said in the log, so that it is said once for each step.
#[derive(Default)]
pub struct Told(HashMap<String, i64>);

impl Told {
    /// The warnings to be said now.
    pub fn due(&mut self, all: &[CertificateShown]) -> Vec<CertificateShown> {
        self.0.retain(|fingerprint, _| all.iter().any(|one| one.fingerprint == *fingerprint));
        let warned = all.iter().filter(|one| !one.warning.is_empty());
        warned
            .filter(|one| {
                self.0.insert(one.fingerprint.clone(), step(one.days_left)) != Some(step(one.days_left))
            })
            .cloned()
            .collect()
    }
}

/// Days to which a warning belongs: the month's once, each of the last week's by itself.
fn step(days_left: i64) -> i64 {
    if days_left > DAILY_DAYS { WARN_DAYS } else { days_left }
}

/// Says in the log what is due.
pub fn warn(appliance: &Arc<Appliance>, told: &mut Told) {
    for one in told.due(&all(appliance)) {
        let (of, sha256, days_left) = (one.of.as_str(), one.fingerprint.as_str(), one.days_left);
        if days_left <= 1 {
            tracing::error!(of, sha256, days_left, "{}", one.warning);
        } else {
            tracing::warn!(of, sha256, days_left, "{}", one.warning);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use ntls::certificate::{Wanted, self_signed};

    use super::*;

    const NOW_MS: u64 = 1_800_000_000_000;

    fn ending_in(days: u32) -> Vec<u8> {
        let made = self_signed(&Wanted { name: "x", hosts: &[], now_ms: NOW_MS, days }).unwrap();
        Certificate::all_from_pem(made.certificate_pem.as_bytes(), "x").unwrap()[0].der().to_vec()
    }

    #[test]
    fn a_certificate_is_warned_about_thirty_seven_and_one_days_before_and_daily_in_the_last_week() {
        let der = ending_in(40);
        let mut told = Told::default();
        let said: Vec<i64> = (0..45_u64)
            .filter_map(|day| {
                // A minute into each day, and looked at several times.
                let now_ms = NOW_MS + day * DAY_MS - 60_000;
                let shown = [shown_at("x", &der, "", now_ms)];
                let first = told.due(&shown);
                assert!(told.due(&shown).is_empty(), "once for each step");
                first.first().map(|one| one.days_left)
            })
            .collect();
        assert_eq!(said, [30, 7, 6, 5, 4, 3, 2, 1, 0, -1, -2, -3, -4]);
    }

    #[test]
    fn the_one_that_ends_last_counts() {
        let mut own: Vec<_> = [3, 900].map(|days| shown_at("x", &ending_in(days), "", NOW_MS)).into();
        assert!(!own[0].warning.is_empty());
        spare(&mut own);
        assert!(own.iter().all(|one| one.warning.is_empty()));
        assert!(shown_at("x", b"no certificate", "", NOW_MS).warning.contains("cannot be read"));
    }
}
