//! What survives a restart: everything acknowledged, and nothing else (HA 1.5, 1.6).
use std::sync::Arc;

use partition::store::{Key, MemoryStore, Put, Transaction};
use partition::{DomainSecret, Error, Partition, Settings, SystemRandom};
use spec::messages::*;
use spec::{AttributeType as A, Mechanism, MechanismType as M, Ouid, UserType};
use zeroize::Zeroizing;

use crate::bench::*;

pub fn reopened(bench: Bench) -> Bench {
    let Bench { partition, store, .. } = bench;
    drop(partition);
    let partition = Partition::open(store.clone(), domain(), 1001, Settings::for_tests()).unwrap();
    Bench { partition, store, ..bench }
}

#[test]
fn keys_tickets_session_objects_and_running_streams_survive_a_restart() {
    let bench = Bench::logged_in();
    let pair = bench.create(ec_pair(vec![token()], vec![token(), label("kept")]));
    let session = bench.key(vec![label("session")]);
    let hmac = Mechanism::plain(M::SHA256_HMAC);
    let secret = bench.create(secret(spec::KeyType::GENERIC_SECRET, b"secret", vec![])).remove(0);
    let zero = changed!(whole(KeyFunction::SIGN, &hmac, &secret, b"one "); how: How::STREAM.0);
    let state = bench.used(zero.clone()).state.clone();
    let (root, header) =
        (bench.status().root, bench.partition.handle(&CALLER, &bench.header(), b"", NOW_MS).0);
    let bench = reopened(bench);
    assert_eq!(bench.status().root, root);
    assert_eq!(
        bench.partition.handle(&CALLER, &bench.header(), b"", NOW_MS).0,
        header,
        "same incarnation and seq"
    );
    bench.used(whole(KeyFunction::SIGN, &Mechanism::plain(M::ECDSA_SHA256), &pair[1], b"m"));
    assert_eq!(bench.attribute(&session, A::LABEL), Ok(b"session".to_vec()));
    let last = changed!(zero; part: 1, last: true, state: state, data: b"two".to_vec());
    let mac = bench.used(last).output.clone();
    assert_eq!(mac, bench.used(whole(KeyFunction::SIGN, &hmac, &secret, b"one two")).output);
    assert_eq!(bench.find(vec![label("kept")]).len(), 1);
    bench.login(UserType::USER, CO_PIN);
}

#[test]
fn failed_tries_and_the_recovering_state_survive_a_restart() {
    let bench = Bench::logged_in();
    assert_eq!(bench.rv(login(UserType::USER, b"wrong")), spec::Rv::PIN_INCORRECT);
    bench.partition.reincarnate(true).unwrap();
    let bench = reopened(bench);
    assert_eq!(bench.status().failed_tries_user, 1);
    assert!(bench.status().recovering);
}

#[test]
fn another_domain_serial_or_an_empty_store_does_not_open() {
    let bench = Bench::new();
    let open =
        |domain, serial| Partition::open(bench.store.clone(), domain, serial, Settings::for_tests()).err();
    let other = DomainSecret::new(Zeroizing::new([8; 32]));
    assert!(matches!(open(other, 1001), Some(Error::Domain)));
    assert!(matches!(open(domain(), 1002), Some(Error::Store(_))));
    let empty = Arc::new(MemoryStore::new());
    assert!(matches!(
        Partition::open(empty, domain(), 1001, Settings::for_tests()).err(),
        Some(Error::Store(_))
    ));
    let create = |serial, label: &str, pin: &[u8], store| {
        let settings = Settings::for_tests();
        Partition::create(store, domain(), serial, label, pin, CO_PIN, settings, NOW_MS, &SystemRandom).err()
    };
    assert!(matches!(create(1001, "again", SO_PIN, bench.store.clone()), Some(Error::Store(_))));
    let fresh = || Arc::new(MemoryStore::new());
    assert!(matches!(create(0, "x", SO_PIN, fresh()), Some(Error::Argument(_))));
    assert!(matches!(create(1, "", SO_PIN, fresh()), Some(Error::Argument(_))));
    assert!(matches!(create(1, "x", b"123", fresh()), Some(Error::Argument(_))));
}

#[test]
fn a_store_changed_from_outside_does_not_open() {
    let mut bench = Bench::logged_in();
    bench.audit.store = None;
    let objects = [data(vec![token()]), data(vec![token()])].map(|make| bench.create(make).remove(0));
    let key = |object: &ObjectRef| Key::Record(Ouid::from_bytes(&object.ouid).unwrap());
    let entry = bench.store.read(&[key(&objects[0])], partition::store::Seq(0)).unwrap().remove(0).unwrap();
    let open = || Partition::open(bench.store.clone(), domain(), 1001, Settings::for_tests()).err();
    let apply = |transaction: &Transaction| bench.store.apply(transaction).unwrap();
    apply(&Transaction { removes: vec![key(&objects[0])], ..Transaction::default() });
    assert!(matches!(open(), Some(Error::Damaged(_))), "a record is missing");
    let put = |key: Key| Put { key, value: entry.value.clone(), state: entry.state };
    apply(&Transaction { puts: vec![put(key(&objects[0]))], ..Transaction::default() });
    assert!(open().is_none(), "it is back");
    apply(&Transaction { puts: vec![put(key(&objects[1]))], ..Transaction::default() });
    assert!(open().is_some(), "one record in the place of another");
}
