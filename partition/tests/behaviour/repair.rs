//! Compare, Export, Join (HA 1.2, 1.6, 1.7, 4.6).
use spec::messages::*;
use spec::{AttributeType as A, Ouid};

use crate::bench::*;

fn compared(bench: &Bench, buckets: Vec<u32>) -> CompareAnswer {
    match bench.ok(Call::Compare(Compare { buckets })) {
        Answer::Compare(answer) => answer,
        _ => unreachable!("a comparison is answered by a comparison"),
    }
}

/// Moves what differs from one member to another, as repair does.
fn repair(from: &Bench, to: &Bench) -> JoinAnswer {
    let (here, there) = (compared(from, vec![]), compared(to, vec![]));
    let differ = |bucket: &usize| here.buckets[bucket * 32..][..32] != there.buckets[bucket * 32..][..32];
    let buckets: Vec<u32> = (0..4096).filter(differ).map(|bucket| bucket as u32).collect();
    if buckets.is_empty() {
        return JoinAnswer::default();
    }
    let ouids = compared(from, buckets).records.into_iter().map(|record| record.ouid).collect();
    let Answer::Export(export) = from.ok(Call::Export(Export { ouids, credentials: true, manifest: true }))
    else {
        unreachable!("an export is answered by an export")
    };
    let join = Join {
        records: export.records,
        credentials: export.credentials,
        manifest: export.manifest,
        repaired: false,
    };
    match to.ok(Call::Join(join)) {
        Answer::Join(answer) => answer,
        _ => unreachable!("a join is answered by a join"),
    }
}

#[test]
fn members_that_differ_are_equal_after_repair_both_ways_and_deleted_wins() {
    let home = Bench::logged_in();
    let other = home.joined(1002);
    let shared = home.create(data(vec![token(), label("shared")])).remove(0);
    repair(&home, &other);
    assert_eq!(home.status().root, other.status().root);
    home.create(ec_pair(vec![token()], vec![token()]));
    other.create(data(vec![token(), label("there")]));
    home.ok(home.set(&shared, vec![label("renamed")]));
    other.ok(Call::Destroy(Destroy { object: Some(shared.clone()) }));
    assert_ne!(home.status().root, other.status().root);
    repair(&home, &other);
    repair(&other, &home);
    assert_eq!(home.status().root, other.status().root);
    assert_eq!((home.status().objects, other.status().objects), (3, 3));
    let read = GetAttributes { object: Some(shared), numbers: vec![A::LABEL.0] };
    assert_eq!(home.outcome(Call::GetAttributes(read)), Outcome::DESTROYED);
    let seq = home.store.seq().unwrap();
    assert_eq!(repair(&other, &home), JoinAnswer::default(), "nothing differs any more");
    assert_eq!(home.store.seq().unwrap(), seq);
}

#[test]
fn a_change_travels_as_the_sealed_record_of_its_answer() {
    let home = Bench::logged_in();
    let other = home.joined(1002);
    let object = home.create(data(vec![token(), label("a")])).remove(0);
    repair(&home, &other);
    let Answer::SetAttributes(answer) = home.ok(home.set(&object, vec![label("b")])) else {
        unreachable!("a change is answered by a change")
    };
    let record = prost::Message::decode(answer.record.as_slice()).unwrap();
    other.ok(Call::Join(Join { records: vec![record], ..Join::default() }));
    assert_eq!(other.attribute(&object, A::LABEL), Ok(b"b".to_vec()));
    assert_eq!(home.status().root, other.status().root);
}

#[test]
fn concurrent_changes_join_to_the_same_state_on_both_and_one_way_attributes_stay_safe() {
    let home = Bench::logged_in();
    let mut other = home.joined(1002);
    let key = home.key(vec![token(), no(A::SENSITIVE), yes(A::EXTRACTABLE)]);
    repair(&home, &other);
    home.ok(home.set(&key, vec![yes(A::SENSITIVE), label("home")]));
    other.now_ms += 5_000;
    other.ok(other.set(&key, vec![no(A::EXTRACTABLE), label("other")]));
    repair(&home, &other);
    repair(&other, &home);
    assert_eq!(home.status().root, other.status().root);
    for bench in [&home, &other] {
        assert_eq!(bench.attribute(&key, A::LABEL), Ok(b"other".to_vec()), "the greater stamp");
        assert_eq!(bench.attribute(&key, A::SENSITIVE), Ok(vec![1]));
        assert_eq!(bench.attribute(&key, A::EXTRACTABLE), Ok(vec![0]));
    }
}

#[test]
fn provisional_records_are_neither_compared_nor_exported() {
    let bench = Bench::logged_in();
    let make = data(vec![token()]);
    let tag = make.tag.clone();
    let made = bench.make(make);
    bench.ok(Call::Store(Store { batch: made.batch.clone(), tag, provisional: true }));
    let ouid = made.outputs[0].ouid.clone();
    let bucket = u32::from(Ouid::from_bytes(&ouid).unwrap().bucket());
    assert!(compared(&bench, vec![bucket]).records.is_empty());
    let Answer::Export(export) =
        bench.ok(Call::Export(Export { ouids: vec![ouid], credentials: false, manifest: false }))
    else {
        unreachable!("an export is answered by an export")
    };
    assert!(export.records.is_empty() && export.credentials.is_empty() && export.manifest.is_empty());
}

#[test]
fn rules_3_1_a_record_under_another_name_or_group_is_refused() {
    let home = Bench::logged_in();
    let other = home.joined(1002);
    let objects = [data(vec![token()]), data(vec![token()])].map(|make| home.create(make).remove(0));
    let ouids = objects.iter().map(|object| object.ouid.clone()).collect();
    let Answer::Export(export) = home.ok(Call::Export(Export { ouids, credentials: false, manifest: false }))
    else {
        unreachable!("an export is answered by an export")
    };
    let (one, two) = (&export.records[0], &export.records[1]);
    let join = |record: SealedRecord| Call::Join(Join { records: vec![record], ..Join::default() });
    for wrong in [
        SealedRecord { ouid: two.ouid.clone(), ..one.clone() },
        SealedRecord { maker: one.maker + 1, ..one.clone() },
        SealedRecord { envelope: two.envelope.clone(), ..one.clone() },
        SealedRecord { envelope: vec![], ..one.clone() },
    ] {
        assert_eq!(other.outcome(join(wrong)), Outcome::NOT_OPENED);
    }
    assert_eq!(Bench::logged_in().outcome(join(one.clone())), Outcome::NOT_OPENED, "another group");
    let twice = Join { records: vec![one.clone(), one.clone()], ..Join::default() };
    assert_eq!(other.outcome(Call::Join(twice)), Outcome::MALFORMED);
    assert_eq!(other.status().objects, 0, "all of a join or none");
    other.ok(join(one.clone()));
    assert_eq!(other.status().objects, 1);
}

#[test]
fn a_comparison_names_each_bucket_once() {
    let bench = Bench::logged_in();
    let compare = |buckets| Call::Compare(Compare { buckets });
    assert_eq!(bench.outcome(compare(vec![7, 8, 7])), Outcome::MALFORMED);
    assert_eq!(bench.outcome(compare(vec![4096])), Outcome::MALFORMED);
    assert_eq!(bench.outcome(compare((0..4096).collect())), Outcome::OK);
}

#[test]
fn one_holder_has_the_repair_lease_until_it_ends_or_is_given_back() {
    let mut bench = Bench::logged_in();
    let ask = |bench: &Bench, holder: u8, ms: u32| match bench
        .ok(Call::Lease(Lease { holder: vec![holder; 16], ms }))
    {
        Answer::Lease(answer) => (answer.granted, answer.left_ms),
        _ => unreachable!("a lease is answered by a lease"),
    };
    assert_eq!(ask(&bench, 1, 5_000), (true, 5_000));
    assert_eq!(ask(&bench, 2, 5_000), (false, 5_000));
    bench.now_ms += 3_000;
    assert_eq!(ask(&bench, 2, 5_000), (false, 2_000));
    assert_eq!(ask(&bench, 1, 5_000), (true, 5_000), "the holder renews");
    assert_eq!(ask(&bench, 2, 0), (false, 5_000), "only the holder gives it back");
    assert_eq!(ask(&bench, 1, 0), (false, 0));
    assert_eq!(ask(&bench, 2, 5_000), (true, 5_000));
    bench.now_ms += 5_000;
    assert_eq!(ask(&bench, 1, 60_000), (true, 60_000));
    bench.now_ms -= 3_600_000;
    assert_eq!(ask(&bench, 2, 1_000), (true, 1_000), "a clock that is set back frees the lease");
    // Another link may have read the clock a little earlier.
    bench.now_ms -= 5;
    assert_eq!(ask(&bench, 1, 1_000), (false, 1_005));
    bench.now_ms += 5;
    // By less than the longest lease, too: it would stand for a minute.
    assert_eq!(ask(&bench, 2, 15_000), (true, 15_000));
    bench.now_ms -= 44_000;
    assert_eq!(ask(&bench, 1, 1_000), (true, 1_000), "a clock that is set back by a little frees it as well");
    for wrong in [Lease { holder: vec![1; 15], ms: 1 }, Lease { holder: vec![1; 16], ms: 60_001 }] {
        assert_eq!(bench.outcome(Call::Lease(wrong)), Outcome::MALFORMED);
    }
    let stranger = Bench::new();
    assert_ne!(stranger.outcome(Call::Lease(Lease { holder: vec![1; 16], ms: 1 })), Outcome::OK);
}
