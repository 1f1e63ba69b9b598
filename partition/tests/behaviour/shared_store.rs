//! A member is a store, not a process (HA 7): two partitions over one store are one member.
use std::sync::Arc;
use std::sync::atomic::Ordering;

use partition::store::MemoryStore;
use partition::{Partition, Settings};
use spec::messages::{Store as Store_, *};
use spec::{AttributeType as A, Mechanism, MechanismType as M, Rv, UserType};

use crate::bench::*;
use crate::stores::Altered;

/// The same member in another process, that hears hints or not.
fn beside(bench: &Bench, hears: bool) -> Bench {
    beside_of(bench, hears, 1001)
}

fn beside_of(bench: &Bench, hears: bool, serial: u64) -> Bench {
    let store: Arc<dyn partition::store::Store> =
        Arc::new(Altered { deaf: !hears, ..Altered::over(bench.store.clone()) });
    let partition = Partition::open(store.clone(), domain(), serial, Settings::for_tests()).unwrap();
    Bench { partition, store, ticket: bench.ticket.clone(), ..Bench::new() }
}

fn logged_in() -> Bench {
    let mut bench = Bench::over(Arc::new(MemoryStore::new()), 1001, Settings::for_tests());
    bench.ticket = bench.login(UserType::USER, CO_PIN);
    bench
}

fn assert_same(one: &Bench, other: &Bench) {
    assert_eq!(one.status().root, other.status().root);
    let header = |bench: &Bench| bench.partition.handle(&CALLER, &bench.header(), b"", NOW_MS).0;
    assert_eq!(header(one), header(other), "one incarnation, seq and epoch");
}

#[test]
fn ha_7_what_one_process_has_made_changed_or_destroyed_the_other_knows_by_a_hint() {
    let one = logged_in();
    let other = beside(&one, true);
    let pair = one.create(ec_pair(vec![token()], vec![token(), label("shared")]));
    let sign = || whole(KeyFunction::SIGN, &Mechanism::plain(M::ECDSA_SHA256), &pair[1], b"m");
    other.used(sign());
    assert_eq!(other.find(vec![label("shared")]).len(), 1);
    other.ok(other.set(&pair[1], vec![label("renamed")]));
    assert_eq!(one.attribute(&pair[1], A::LABEL), Ok(b"renamed".to_vec()));
    assert_eq!(one.find(vec![label("shared")]).len(), 0);
    one.ok(Call::Destroy(Destroy { object: Some(pair[1].clone()) }));
    assert_eq!(other.outcome(Call::Use(sign())), Outcome::DESTROYED);
    assert_same(&one, &other);
}

#[test]
fn ha_7_without_hints_a_write_finds_out_what_others_have_committed_and_is_carried_out() {
    let one = logged_in();
    let other = beside(&one, false);
    let key = one.create(data(vec![token(), label("first")])).remove(0);
    // Behind, and nobody has told it: the change of an object that it does not know yet.
    assert_eq!(other.outcome(other.set(&key, vec![label("second")])), Outcome::UNKNOWN);
    other.create(data(vec![token()]));
    assert_eq!(other.attribute(&key, A::LABEL), Ok(b"first".to_vec()), "a gap in seq was caught up with");
    one.ok(one.set(&key, vec![label("second")]));
    // A conflict: the version of the label has gone on.
    other.ok(other.set(&key, vec![label("third")]));
    assert_eq!(one.attribute(&key, A::LABEL), Ok(b"third".to_vec()));
    assert_same(&one, &other);
}

#[test]
fn ha_7_without_hints_a_request_that_names_a_later_commit_is_answered_from_it() {
    let one = logged_in();
    let other = beside(&one, false);
    let key = one.create(data(vec![token(), label("new")])).remove(0);
    let seen = one.partition.header();
    let get = Call::GetAttributes(GetAttributes { object: Some(key), numbers: vec![A::LABEL.0] });
    let header = changed!(other.header(); incarnation: seen.incarnation, at_least: seen.seq);
    assert!(
        other.partition.lacks(&header) && !one.partition.lacks(&header),
        "one of them has to look at the store"
    );
    let (_, reply) = other.partition.handle(&other.caller, &header, &other.body(get), NOW_MS);
    let reply = <ReplyBody as prost::Message>::decode(reply.as_slice()).unwrap();
    assert_eq!(Outcome(reply.outcome), Outcome::OK);
    assert!(!other.partition.lacks(&header), "once");
    let header = changed!(header; at_least: seen.seq + 1);
    assert!(
        !other.partition.lacks(&changed!(header.clone(); incarnation: seen.incarnation + 1)),
        "of another store"
    );
    let (_, reply) =
        other.partition.handle(&other.caller, &header, &other.body(login(UserType::USER, CO_PIN)), NOW_MS);
    let reply = <ReplyBody as prost::Message>::decode(reply.as_slice()).unwrap();
    assert_eq!(Outcome(reply.outcome), Outcome::BEHIND, "what no process has committed is not there");
}

#[test]
fn ha_7_a_pin_and_a_manifest_that_another_process_changed_are_known() {
    let one = logged_in();
    let other = beside(&one, true);
    let mut manifest = one.partition.manifest();
    manifest.label = "renamed".into();
    let expected_epoch = manifest.epoch;
    one.ok(Call::ChangeManifest(ChangeManifest { expected_epoch, manifest: Some(manifest), tag: tag() }));
    other.create(data(vec![token()]));
    assert_eq!(other.partition.manifest().label, "renamed");
    assert_eq!(other.rv(login(UserType::USER, b"wrong pin")), Rv::PIN_INCORRECT);
    assert_eq!(one.status().failed_tries_user, 1, "tries are the store's");
    assert_same(&one, &other);
}

#[test]
fn ha_7_a_process_that_has_not_heard_of_another_group_stores_nothing_under_the_old_one() {
    let group = Bench::logged_in();
    let mut one = Bench::with(1002, Settings::for_tests());
    let mut other = beside_of(&one, false, 1002);
    other.ticket = other.login(UserType::USER, CO_PIN);
    let make = data(vec![token()]);
    let tag = make.tag.clone();
    let made = other.make(make);
    group.join(&mut one, 1002);
    // For the process that heard nothing all is as before; the store knows better.
    let store = Call::Store(Store_ { batch: made.batch.clone(), tag, provisional: false });
    assert_ne!(other.outcome(store), Outcome::OK);
    one.create(data(vec![token(), label("new")]));
    let again = beside_of(&one, true, 1002);
    assert_eq!(
        again.find(vec![label("new")]).len(),
        1,
        "the store opens, and holds what belongs to its group"
    );
    assert_same(&one, &again);
}

#[test]
fn ha_7_racing_processes_over_one_store_lose_nothing() {
    for hears in [true, false] {
        let one = logged_in();
        let other = beside(&one, hears);
        let shared = one.create(data(vec![token(), label("0")])).remove(0);
        other.create(data(vec![token()]));
        std::thread::scope(|scope| {
            for bench in [&one, &other] {
                let shared = &shared;
                scope.spawn(move || {
                    for round in 0..60 {
                        bench.create(data(vec![token(), label("made")]));
                        bench.ok(bench.set(shared, vec![label(&round.to_string())]));
                    }
                });
            }
        });
        one.create(data(vec![token()]));
        other.create(data(vec![token()]));
        one.create(data(vec![token()]));
        assert_eq!(one.find(vec![label("made")]).len(), 120);
        assert_eq!(one.attribute(&shared, A::LABEL), Ok(b"59".to_vec()));
        let again = beside(&one, hears);
        assert_same(&one, &again);
    }
}

#[test]
fn a_store_that_was_put_back_under_a_running_member_is_told_and_nothing_is_acknowledged() {
    let store = Arc::new(Altered::default());
    let mut bench = Bench::over(store.clone(), 1001, Settings::for_tests());
    bench.ticket = bench.login(UserType::USER, CO_PIN);
    let key = bench.create(data(vec![token(), label("kept")])).remove(0);
    store.put_back.store(true, Ordering::Relaxed);
    let reply = bench.send(bench.set(&key, vec![label("other")]));
    assert_eq!(Outcome(reply.outcome), Outcome::FAILED);
    assert!(
        reply.text.contains("it was put back under a running member; restart the member"),
        "{}",
        reply.text
    );
}

#[test]
fn ha_1_5_a_process_that_has_not_heard_of_the_last_commit_of_its_store_takes_nobody_for_a_clone() {
    let one = logged_in();
    drop(one.joined(1002));
    let other = beside(&one, false);
    one.create(data(vec![token()]));
    let seen = vec![one.status().own_word()];
    other.ok(Call::Status(Status { mechanisms: false, seen }));
    assert!(!other.partition.is_recovering() && !one.partition.is_recovering());
    assert_same(&one, &other);
}

#[test]
fn ha_7_a_store_that_others_write_to_is_opened_once_they_pause_and_refused_while_they_never_do() {
    let one = logged_in();
    let opened = |looks: u64| {
        let store = Altered::over(one.store.clone());
        store.restless.store(looks, Ordering::Relaxed);
        Partition::open(Arc::new(store), domain(), 1001, Settings::for_tests())
    };
    assert!(opened(12).is_ok());
    let error = opened(u64::MAX / 2).err().map(|error| error.to_string()).unwrap_or_default();
    assert!(error.contains("no other process writes"), "{error}");
}
