//! Tests of the registry.
#![allow(clippy::unwrap_used)]
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
        identity: [1; 32],
        certificates: vec![Kept::new(&der(&old))],
        authorities: vec![],
        partitions: vec![],
    };
    registry.clients.write().insert(row.identity, Arc::new(row));
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
    assert_eq!(registry.client(&client.identity).unwrap().partitions, [7]);
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

/// An authority's certificate, and one that it issues to this name for so many days from now.
fn issued(name: &str, from_day: i64, to_day: i64) -> (String, Vec<u8>) {
    issued_until(100 * 86_400, name, from_day, to_day)
}

/// As [`issued`], by an authority whose own certificate ends in so many seconds.
fn issued_until(end_s: i64, name: &str, from_day: i64, to_day: i64) -> (String, Vec<u8>) {
    let in_seconds = |seconds: i64| {
        let now_s = i64::try_from(now_ms() / 1_000).unwrap();
        let moment_s = u64::try_from(now_s + seconds).unwrap();
        rcgen::date_time_ymd(1970, 1, 1) + std::time::Duration::from_secs(moment_s)
    };
    let authority_key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(Vec::<String>::new()).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params.distinguished_name.push(rcgen::DnType::CommonName, "authority");
    params.not_after = in_seconds(end_s);
    let authority = params.self_signed(&authority_key).unwrap().pem();
    let issuer = rcgen::Issuer::new(params, authority_key);
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(Vec::<String>::new()).unwrap();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
    (params.not_before, params.not_after) = (in_seconds(from_day * 86_400), in_seconds(to_day * 86_400));
    (authority, params.signed_by(&key, &issuer).unwrap().der().to_vec())
}

#[test]
fn an_authority_vouches_for_its_certificates_of_the_clients_name_and_no_others() {
    let (place, registry) = registry();
    let (authority, leaf) = issued("app1", -1, 5);
    assert_eq!(registry.accept(&leaf), Err(Refusal::NotRegistered));
    let client = registry.register_by_authority("app1", &authority).unwrap();
    assert_eq!(registry.accept(&leaf).unwrap().id, client.identity);
    let (_, of_another_authority) = issued("app1", -1, 5);
    assert_eq!(registry.accept(&of_another_authority), Err(Refusal::NotRegistered));
    let self_signed = der(&pem("app1", now_ms()));
    assert_eq!(registry.accept(&self_signed), Err(Refusal::NotRegistered));
    let (other_authority, other_name) = issued("app2", -1, 5);
    registry.register_by_authority("app3", &other_authority).unwrap();
    assert_eq!(registry.accept(&other_name), Err(Refusal::NotRegistered), "another name");
    let error = registry.register_by_authority("app4", &pem("x", now_ms())).unwrap_err().to_string();
    assert!(error.contains("-cert"), "{error}");
    let (book, _) = Book::open(&place.path().join("appliance.sqlite")).unwrap();
    let again = Registry::load(Arc::new(book)).unwrap();
    assert_eq!(again.accept(&leaf).unwrap().id, client.identity, "a restart keeps authorities");
    let (late_authority, late) = issued("app5", -9, -2);
    registry.register_by_authority("app5", &late_authority).unwrap();
    assert_eq!(registry.accept(&late), Err(Refusal::OutOfTime), "expired, and said so");
}

#[test]
fn an_authority_that_expired_is_not_registered_and_vouches_for_nobody_any_more() {
    let (_place, registry) = registry();
    let (late, _) = issued_until(-5, "app1", -1, 5);
    let error = registry.register_by_authority("app1", &late).unwrap_err().to_string();
    assert!(error.contains("expired on") && error.contains("register its new one"), "{error}");
    let (short, leaf) = issued_until(6, "app1", -1, 5);
    registry.register_by_authority("app1", &short).unwrap();
    assert!(registry.accept(&leaf).is_ok());
    let begun = std::time::Instant::now();
    while registry.accept(&leaf).is_ok() {
        assert!(begun.elapsed().as_secs() < 60, "it is accepted after its authority's time");
        std::thread::sleep(std::time::Duration::from_millis(200));
    }
    assert_eq!(registry.accept(&leaf), Err(Refusal::NotRegistered));
}

#[test]
fn a_client_changes_its_certificate_with_overlap_and_keeps_its_identity() {
    let (_place, registry) = registry();
    let (old, new) = (pem("client1", now_ms()), pem("client1", now_ms()));
    let identity = registry.register("client1", &old).unwrap().identity;
    let entrant = registry.identify(&der(&old), &[]).unwrap();
    let mut changes = registry.changes();
    changes.mark_unchanged();
    registry.add_certificate("client1", &new).unwrap();
    assert!(changes.has_changed().unwrap());
    for certificate in [&old, &new] {
        assert_eq!(registry.accept(&der(certificate)).unwrap().id, identity);
    }
    assert_eq!(registry.renewed(&entrant), Some(entrant.clone()));
    let old_fingerprint = fingerprint_text(&entrant.certificate);
    registry.remove_certificate("client1", &old_fingerprint).unwrap();
    assert_eq!(registry.accept(&der(&old)), Err(Refusal::NotRegistered));
    assert_eq!(registry.accept(&der(&new)).unwrap().id, identity, "tickets and session objects stay valid");
    assert_eq!(registry.renewed(&entrant), None, "its links end");
    let error = registry.remove_certificate("client1", &old_fingerprint).unwrap_err().to_string();
    assert!(error.contains("addCertificate"), "the last one stays: {error}");
    assert!(registry.add_certificate("nobody", &old).is_err());
    // Another appliance, which has never seen the first certificate, is told the identity.
    let (_elsewhere, other) = self::registry();
    assert_eq!(other.register_as("client1", &new, Some(identity)).unwrap().identity, identity);
    assert!(other.register_as("client2", &old, Some(identity)).is_err(), "one client has it");
}

#[test]
fn a_peer_may_use_the_partitions_of_its_domain_and_its_certificates_overlap() {
    let (_place, registry) = registry();
    let (first, second) = (pem("hsm2", now_ms()), pem("hsm2", now_ms()));
    assert!(registry.add_peer("hsm2", "h", 1792, "other", &first).is_err(), "no such domain");
    assert!(registry.add_peer("hsm2", "", 1792, "d", &first).is_err(), "no host");
    registry.add_peer("hsm2", "h", 1792, "d", &first).unwrap();
    let entrant = registry.identify(&der(&first), &[]).unwrap();
    assert!(entrant.replicator);
    assert_eq!(entrant.partitions, [7]);
    assert!(registry.register("client1", &first).is_err(), "a peer is no client");
    registry.add_peer("hsm2", "elsewhere", 1793, "d", &second).unwrap();
    assert_eq!((registry.peers().len(), registry.peers()[0].port), (1, 1793));
    assert!(registry.identify(&der(&second), &[]).is_ok() && registry.renewed(&entrant).is_some());
    registry.remove_peer("hsm2", Some(&fingerprint_text(&entrant.certificate))).unwrap();
    assert!(registry.identify(&der(&first), &[]).is_err() && registry.renewed(&entrant).is_none());
    registry.remove_peer("hsm2", None).unwrap();
    assert!(registry.identify(&der(&second), &[]).is_err());
    assert!(registry.remove_peer("hsm2", None).is_err());
}
