//! Session objects as sealed blobs (RULES 2.2).
use partition::{Caller, Settings};
use spec::messages::*;
use spec::{Attribute, AttributeType as A, Mechanism, MechanismType as M, Parameters, Rv, UserType};

use crate::bench::*;

fn gcm() -> Mechanism {
    let parameters = Parameters::Gcm { iv: vec![1; 12], aad: vec![], tag_bits: 128 };
    Mechanism { mechanism_type: M::AES_GCM, parameters }
}

fn read(object: &ObjectRef) -> Call {
    Call::GetAttributes(GetAttributes { object: Some(object.clone()), numbers: vec![A::LABEL.0] })
}

/// The reference without its blob: what a client sends first.
fn by_hash(object: &ObjectRef) -> ObjectRef {
    ObjectRef { blob: vec![], ..object.clone() }
}

#[test]
fn a_session_object_is_asked_for_once_and_then_cached() {
    let bench = Bench::logged_in();
    let key = bench.key(vec![label("session")]);
    assert_eq!(bench.status().objects, 0, "nothing is stored");
    let reply = bench.send(read(&by_hash(&key)));
    assert_eq!((Outcome(reply.outcome), &reply.object), (Outcome::NEED_BLOB, &key.ouid));
    assert_eq!(bench.outcome(read(&key)), Outcome::OK);
    assert_eq!(bench.outcome(read(&by_hash(&key))), Outcome::OK);
    assert!(bench.find(vec![label("session")]).is_empty());
}

#[test]
fn a_session_key_works_on_every_member_of_the_group() {
    let home = Bench::logged_in();
    let other = home.joined(1002);
    let key = home.key(vec![]);
    let sealed = home.used(whole(KeyFunction::ENCRYPT, &gcm(), &key, b"text")).output.clone();
    assert_eq!(
        other.outcome(Call::Use(whole(KeyFunction::DECRYPT, &gcm(), &by_hash(&key), &sealed))),
        Outcome::NEED_BLOB
    );
    assert_eq!(other.used(whole(KeyFunction::DECRYPT, &gcm(), &key, &sealed)).output, b"text");
}

#[test]
fn rules_2_2_a_blob_opens_for_its_instance_and_login_only_cached_or_not() {
    for cached in [false, true] {
        let mut bench = Bench::logged_in();
        let private = bench.key(vec![]);
        let public = bench.create(data(vec![label("public")])).remove(0);
        if cached {
            [&private, &public]
                .iter()
                .for_each(|object| assert_eq!(bench.outcome(read(object)), Outcome::OK));
        }
        let ticket = bench.ticket.clone();
        bench.ticket = bench.login(UserType::USER, CO_PIN);
        assert_eq!(bench.outcome(read(&private)), Outcome::NOT_OPENED, "of another login");
        assert_eq!(bench.outcome(read(&public)), Outcome::OK);
        bench.ticket.clear();
        assert_eq!(bench.rv(read(&private)), Rv::OBJECT_HANDLE_INVALID);
        let sign = whole(KeyFunction::ENCRYPT, &gcm(), &private, b"");
        assert_eq!(bench.rv(Call::Use(sign)), Rv::USER_NOT_LOGGED_IN);
        for caller in [Caller { client: [7; 32], ..CALLER }, Caller { instance: [7; 32], ..CALLER }] {
            bench.caller = caller;
            assert_eq!(bench.outcome(read(&public)), Outcome::NOT_OPENED);
        }
        bench.caller = CALLER;
        bench.ticket = ticket;
        assert_eq!(bench.outcome(read(&private)), Outcome::OK);
    }
}

#[test]
fn damaged_and_mislabelled_blobs_are_refused() {
    let bench = Bench::logged_in();
    let key = bench.key(vec![]);
    let other = bench.key(vec![]);
    let mut wrong_hash = key.clone();
    wrong_hash.blob_hash = other.blob_hash.clone();
    assert_eq!(bench.outcome(read(&wrong_hash)), Outcome::MALFORMED);
    let with = |blob: Vec<u8>, ouid: &[u8]| ObjectRef {
        ouid: ouid.to_vec(),
        blob_hash: digests::digest(digests::Hash::Sha256, &blob).to_vec(),
        blob,
        ..ObjectRef::default()
    };
    for at in [0, 1, 30, key.blob.len() - 1] {
        let mut blob = key.blob.clone();
        blob[at] ^= 1;
        assert_eq!(bench.outcome(read(&with(blob, &key.ouid))), Outcome::NOT_OPENED, "byte {at}");
    }
    assert_eq!(bench.outcome(read(&with(key.blob.clone(), &other.ouid))), Outcome::NOT_OPENED);
    assert_eq!(bench.outcome(read(&with(vec![9], &key.ouid))), Outcome::NOT_OPENED);
}

#[test]
fn a_changed_session_object_is_a_new_blob_of_the_same_ouid() {
    let bench = Bench::logged_in();
    let key = bench.key(vec![label("before")]);
    let Answer::SetAttributes(answer) = bench.ok(bench.set(&key, vec![label("after"), no(A::SIGN)])) else {
        unreachable!("a change is answered by a change")
    };
    let blob_hash = digests::digest(digests::Hash::Sha256, &answer.blob).to_vec();
    let changed =
        ObjectRef { ouid: key.ouid.clone(), blob_hash, blob: answer.blob.clone(), ..ObjectRef::default() };
    assert_eq!(bench.attribute(&changed, A::LABEL), Ok(b"after".to_vec()));
    let readable = answer.readable.as_ref().unwrap();
    assert_eq!(readable.get(A::LABEL), Some(&b"after"[..]));
    assert_eq!(readable.get(A::VALUE), None, "key material is not readable");
    assert_eq!(bench.rv(bench.set(&key, vec![yes(A::EXTRACTABLE)])), Rv::ATTRIBUTE_READ_ONLY);
}

#[test]
fn public_session_objects_need_no_login_and_private_ones_do() {
    let bench = Bench::new();
    let public = bench.create(generate(M::AES_KEY_GEN, vec![no(A::PRIVATE)])).remove(0);
    bench.used(whole(KeyFunction::ENCRYPT, &gcm(), &public, b"text"));
    assert_eq!(bench.rv(Call::Make(generate(M::AES_KEY_GEN, vec![]))), Rv::USER_NOT_LOGGED_IN);
}

#[test]
fn a_blob_of_another_group_of_the_domain_is_refused() {
    let bench = Bench::logged_in();
    let mut other = Bench::with(1002, Settings::for_tests());
    other.ticket = other.login(UserType::USER, CO_PIN);
    let object = bench.create(data(vec![Attribute::new(A::VALUE, b"x")])).remove(0);
    assert_eq!(other.outcome(read(&object)), Outcome::NOT_OPENED);
}
