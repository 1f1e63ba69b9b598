//! Make, then store: every order of Store, Commit, Discard and Destroy (HA 1.2, 2.1, 2.2).
use partition::{Caller, Partition, Settings};
use spec::messages::*;
use spec::{Attribute, AttributeType as A, Rv, UserType};

use crate::bench::*;

/// A made pair: its batch, tag and ouids.
struct Made {
    batch: Vec<u8>,
    tag: Vec<u8>,
    ouids: Vec<Vec<u8>>,
}

fn made(bench: &Bench) -> Made {
    let make = ec_pair(vec![token()], vec![token()]);
    let tag = make.tag.clone();
    let answer = bench.make(make);
    Made {
        batch: answer.batch.clone(),
        tag,
        ouids: answer.outputs.iter().map(|made| made.ouid.clone()).collect(),
    }
}

impl Made {
    fn store(&self, provisional: bool) -> Call {
        Call::Store(Store { batch: self.batch.clone(), tag: self.tag.clone(), provisional })
    }
    fn commit(&self) -> Call {
        Call::Commit(Commit { ouids: self.ouids.clone(), tag: self.tag.clone() })
    }
    fn discard(&self) -> Call {
        Call::Discard(Discard { ouids: self.ouids.clone(), tag: self.tag.clone() })
    }
    fn object(&self) -> ObjectRef {
        ObjectRef { ouid: self.ouids[1].clone(), ..ObjectRef::default() }
    }
    fn destroy(&self) -> Call {
        Call::Destroy(Destroy { object: Some(self.object()) })
    }
    fn read(&self) -> Call {
        Call::GetAttributes(GetAttributes { object: Some(self.object()), numbers: vec![A::LABEL.0] })
    }
}

#[test]
fn ha_2_1_make_stores_nothing() {
    let bench = Bench::logged_in();
    let made = made(&bench);
    assert_eq!(bench.status().objects, 0);
    assert_eq!(bench.outcome(made.read()), Outcome::UNKNOWN);
}

#[test]
fn ha_2_2_a_provisional_batch_is_invisible_and_unusable_until_commit() {
    let bench = Bench::logged_in();
    let (made, root) = (made(&bench), bench.status().root);
    bench.ok(made.store(true));
    assert_eq!((bench.status().objects, bench.find(vec![]).len()), (0, 0));
    assert_eq!(bench.outcome(made.read()), Outcome::UNKNOWN);
    assert_eq!(bench.status().root, root, "HA 1.6: digests cover committed and deleted objects only");
    bench.ok(made.commit());
    assert_eq!((bench.status().objects, bench.find(vec![]).len()), (2, 2));
    assert_eq!(bench.outcome(made.read()), Outcome::OK);
    assert_ne!(bench.status().root, root);
}

#[test]
fn store_and_commit_repeated_change_nothing() {
    let bench = Bench::logged_in();
    let made = made(&bench);
    bench.ok(made.store(true));
    bench.ok(made.commit());
    let (root, seq) = (bench.status().root, bench.store.seq().unwrap());
    for call in [made.store(true), made.commit(), made.store(false), made.store(true)] {
        bench.ok(call);
    }
    assert_eq!((bench.status().root, bench.store.seq().unwrap()), (root, seq));
}

#[test]
fn ha_2_2_commit_of_what_is_not_held_is_unknown() {
    let bench = Bench::logged_in();
    let made = made(&bench);
    assert_eq!(bench.outcome(made.commit()), Outcome::UNKNOWN);
    bench.ok(made.store(true));
    let mut more = made.ouids.clone();
    more.push(vec![0xEE; 16]);
    assert_eq!(bench.outcome(Call::Commit(Commit { ouids: more, tag: tag() })), Outcome::UNKNOWN);
    assert_eq!(bench.status().objects, 0, "all of it or none");
}

#[test]
fn ha_2_2_a_discarded_batch_stays_dead_whatever_comes_late() {
    let bench = Bench::logged_in();
    let made = made(&bench);
    assert_eq!(bench.outcome(made.discard()), Outcome::UNKNOWN, "HA 2.8: a tombstone needs the record");
    bench.ok(made.store(true));
    bench.ok(made.discard());
    bench.ok(made.discard());
    for late in [made.store(true), made.store(false), made.commit()] {
        assert_eq!(bench.outcome(late), Outcome::DESTROYED);
    }
    assert_eq!(bench.outcome(made.read()), Outcome::DESTROYED);
    assert_eq!(bench.status().objects, 0);
}

/// Another process found the pair on a member that had its Commit, and destroyed one half while the Commit was on its
/// way here: the other half is acknowledged by this answer, so it has to be here.
#[test]
fn ha_2_2_a_destroyed_object_takes_nothing_from_the_rest_of_its_batch() {
    for early in [true, false] {
        let bench = Bench::logged_in();
        let made = made(&bench);
        if early {
            bench.ok(made.store(true));
            bench.ok(made.destroy());
        } else {
            let donor = bench.joined(7);
            donor.ok(made.store(false));
            donor.ok(made.destroy());
            let export = Export { ouids: vec![made.ouids[1].clone()], ..Export::default() };
            let Answer::Export(exported) = donor.ok(Call::Export(export)) else { panic!("no export") };
            bench.ok(Call::Join(Join { records: exported.records, ..Join::default() }));
            bench.ok(made.store(true));
        }
        bench.ok(made.commit());
        let other = ObjectRef { ouid: made.ouids[0].clone(), ..ObjectRef::default() };
        assert!(bench.attribute(&other, A::CLASS).is_ok());
        assert_eq!((bench.status().objects, bench.outcome(made.read())), (1, Outcome::DESTROYED));
    }
}

#[test]
fn ha_2_2_what_is_committed_is_never_discarded() {
    let bench = Bench::logged_in();
    let made = made(&bench);
    bench.ok(made.store(false));
    assert_eq!(bench.rv(made.discard()), Rv::ACTION_PROHIBITED);
    assert_eq!(bench.outcome(made.read()), Outcome::OK);
}

#[test]
fn ha_1_2_destroy_is_terminal_and_idempotent_also_for_provisional_records() {
    let bench = Bench::logged_in();
    let made = made(&bench);
    assert_eq!(bench.outcome(made.destroy()), Outcome::UNKNOWN);
    bench.ok(made.store(true));
    bench.ok(made.destroy());
    bench.ok(made.destroy());
    for late in [made.commit(), made.store(false), made.store(true)] {
        bench.ok(late);
        assert_eq!((bench.status().objects, bench.outcome(made.read())), (1, Outcome::DESTROYED));
    }
    let other = ObjectRef { ouid: made.ouids[0].clone(), ..ObjectRef::default() };
    bench.ok(Call::Destroy(Destroy { object: Some(other) }));
    assert_eq!(bench.outcome(made.commit()), Outcome::DESTROYED, "nothing of the batch is left");
    assert_eq!(bench.outcome(made.store(false)), Outcome::DESTROYED);
    assert_eq!(bench.outcome(made.read()), Outcome::DESTROYED);
}

#[test]
fn rules_3_3_only_the_maker_s_client_and_tag_store_a_batch() {
    let mut bench = Bench::logged_in();
    let made = made(&bench);
    let wrong_tag = Call::Store(Store { batch: made.batch.clone(), tag: tag(), provisional: false });
    assert_eq!(bench.outcome(wrong_tag), Outcome::NOT_OPENED);
    bench.caller = Caller { client: [7; 32], ..CALLER };
    bench.ticket = bench.login(UserType::USER, CO_PIN);
    assert_eq!(bench.outcome(made.store(false)), Outcome::NOT_OPENED);
    assert_eq!(bench.status().objects, 0);
}

#[test]
fn ha_2_8_without_the_role_nothing_is_made_stored_committed_or_destroyed() {
    let mut bench = Bench::logged_in();
    let made = made(&bench);
    let ticket = std::mem::take(&mut bench.ticket);
    let not_logged_in = |bench: &Bench| {
        assert_eq!(bench.rv(Call::Make(ec_pair(vec![token()], vec![token()]))), Rv::USER_NOT_LOGGED_IN);
        assert_eq!(bench.rv(Call::Make(data(vec![token()]))), Rv::USER_NOT_LOGGED_IN);
        assert_eq!(bench.rv(made.store(true)), Rv::USER_NOT_LOGGED_IN);
    };
    not_logged_in(&bench);
    bench.ticket.clone_from(&ticket);
    bench.ok(made.store(true));
    bench.ticket.clear();
    assert_eq!(bench.rv(made.commit()), Rv::USER_NOT_LOGGED_IN);
    assert_eq!(bench.rv(made.discard()), Rv::USER_NOT_LOGGED_IN);
    assert_eq!(bench.rv(made.destroy()), Rv::OBJECT_HANDLE_INVALID);
    bench.ticket = ticket;
    bench.ok(made.commit());
}

#[test]
fn the_security_officer_makes_public_token_objects_and_no_private_ones() {
    let mut bench = Bench::new();
    bench.ticket = bench.login(UserType::SO, SO_PIN);
    bench.create(data(vec![token(), label("public")]));
    assert_eq!(bench.rv(Call::Make(data(vec![token(), yes(A::PRIVATE)]))), Rv::USER_NOT_LOGGED_IN);
    assert_eq!(bench.rv(Call::Make(data(vec![yes(A::PRIVATE)]))), Rv::USER_NOT_LOGGED_IN);
}

#[test]
fn a_partition_that_is_full_takes_no_more_objects_but_what_repair_brings() {
    let settings = partition::Settings { objects_max: 2, ..partition::Settings::for_tests() };
    let mut bench = Bench::with(1001, settings);
    bench.ticket = bench.login(UserType::USER, CO_PIN);
    let late = data(vec![token()]);
    let late_tag = late.tag.clone();
    let late = Store { batch: bench.make(late).batch.clone(), tag: late_tag, provisional: true };
    let first = bench.create(data(vec![token()])).remove(0);
    let second = data(vec![token()]);
    let store = Store { tag: second.tag.clone(), batch: bench.make(second).batch.clone(), provisional: true };
    bench.ok(Call::Store(store.clone()));
    assert_eq!(bench.rv(Call::Make(data(vec![token()]))), Rv::DEVICE_MEMORY);
    assert_eq!(bench.rv(Call::Store(late.clone())), Rv::DEVICE_MEMORY, "made before it was full");
    assert_eq!(bench.rv(Call::Make(data(vec![]))), Rv::OK, "session objects are not kept");
    bench.ok(Call::Store(Store { provisional: false, ..store }));
    bench.ok(bench.set(&first, vec![label("longer than before")]));
    let other = bench.joined(1002);
    let object = other.create(data(vec![token()])).remove(0);
    let export =
        Call::Export(Export { ouids: vec![object.ouid.clone()], credentials: false, manifest: false });
    let Answer::Export(export) = other.ok(export) else { unreachable!("an export is answered by an export") };
    bench.ok(Call::Join(Join { records: export.records.clone(), ..Join::default() }));
    assert_eq!(bench.status().objects, 3);
    for object in [first, object] {
        bench.ok(Call::Destroy(Destroy { object: Some(object) }));
    }
    bench.ok(Call::Store(late));
    assert_eq!(bench.status().objects, 1);
}

#[test]
fn a_partition_takes_so_many_bytes_and_no_more() {
    let settings = partition::Settings { bytes_max: 10_000, ..partition::Settings::for_tests() };
    let mut bench = Bench::with(1001, settings);
    bench.ticket = bench.login(UserType::USER, CO_PIN);
    let sized = |bytes: usize| data(vec![token(), Attribute::new(A::VALUE, vec![7; bytes])]);
    assert_eq!(bench.rv(Call::Make(sized(10_000))), Rv::DEVICE_MEMORY);
    let object = bench.create(sized(8_000)).remove(0);
    assert_eq!(bench.rv(Call::Make(sized(2_000))), Rv::DEVICE_MEMORY);
    let longer = bench.set(&object, vec![label(&"x".repeat(2_000))]);
    assert_eq!(bench.rv(longer), Rv::DEVICE_MEMORY, "a change that makes it longer");
    bench.ok(bench.set(&object, vec![label("x")]));
    bench.ok(Call::Destroy(Destroy { object: Some(object) }));
    bench.create(sized(8_000));
}

#[test]
fn ha_2_2_provisional_batches_are_forgotten_after_a_day_and_committed_ones_never() {
    let bench = Bench::logged_in();
    let (kept, lost) = (made(&bench), made(&bench));
    bench.ok(kept.store(false));
    bench.ok(lost.store(true));
    let day_ms = 24 * 60 * 60 * 1_000;
    assert_eq!(bench.partition.forget_provisional(NOW_MS + day_ms).unwrap(), 0);
    assert_eq!(bench.partition.forget_provisional(NOW_MS + day_ms + 1).unwrap(), 2);
    assert_eq!(bench.outcome(lost.commit()), Outcome::UNKNOWN, "forgotten, not tombstoned");
    assert_eq!(bench.status().objects, 2);
    bench.ok(lost.store(true));
    bench.ok(lost.commit());
}

#[test]
fn ha_2_2_a_batch_stored_again_is_kept_for_another_day_from_then_on() {
    let mut bench = Bench::logged_in();
    let (touched, left) = (made(&bench), made(&bench));
    let day_ms = 24 * 60 * 60 * 1_000;
    bench.ok(touched.store(true));
    bench.ok(left.store(true));
    bench.now_ms = NOW_MS + day_ms - 1_000;
    bench.ok(touched.store(true));
    assert_eq!(bench.partition.forget_provisional(NOW_MS + day_ms + 1).unwrap(), 2, "the other pair");
    assert_eq!(bench.outcome(left.commit()), Outcome::UNKNOWN);
    assert_eq!(bench.partition.forget_provisional(NOW_MS + 2 * day_ms - 1_000).unwrap(), 0);
    assert_eq!(bench.partition.forget_provisional(NOW_MS + 2 * day_ms - 999).unwrap(), 2);
    assert_eq!(bench.outcome(touched.commit()), Outcome::UNKNOWN);
}

#[test]
fn ha_2_2_after_a_restart_the_day_begins_anew() {
    let bench = Bench::logged_in();
    let batch = made(&bench);
    bench.ok(batch.store(true));
    let later = Partition::open(bench.store.clone(), domain(), 1001, Settings::for_tests()).unwrap();
    let day_ms = 24 * 60 * 60 * 1_000;
    let first_look = NOW_MS + 3 * day_ms;
    assert_eq!(later.forget_provisional(first_look).unwrap(), 0);
    assert_eq!(later.forget_provisional(first_look + day_ms).unwrap(), 0);
    assert_eq!(later.forget_provisional(first_look + day_ms + 1).unwrap(), 2);
}

#[test]
fn ha_1_6_a_batch_that_names_an_object_twice_is_refused_and_the_store_opens_again() {
    let bench = Bench::logged_in();
    let mut batches = [made(&bench), made(&bench)];
    for batch in &mut batches {
        bench.ok(batch.store(true));
        batch.ouids = vec![batch.ouids[0].clone(), batch.ouids[1].clone(), batch.ouids[0].clone()];
    }
    let seq = bench.store.seq().unwrap();
    for twice in [batches[0].commit(), batches[1].discard()] {
        assert_eq!(bench.outcome(twice), Outcome::MALFORMED);
    }
    assert_eq!(bench.store.seq().unwrap(), seq, "nothing was written");
    batches.iter_mut().for_each(|batch| batch.ouids.truncate(2));
    bench.ok(batches[0].commit());
    bench.ok(batches[1].discard());
    let root = bench.status().root;
    let bench = crate::restart::reopened(bench);
    assert_eq!((bench.status().root, bench.status().objects), (root, 2));
}
