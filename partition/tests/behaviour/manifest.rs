//! The manifest: birth, compare-and-set, adoption (HA 2.6, RULES 3.2, 3.3).
use partition::Settings;
use spec::messages::*;
use spec::record::{Manifest, ManifestMember};
use spec::{AttributeType as A, UserType};

use crate::bench::*;

fn change(expected_epoch: u64, manifest: Manifest) -> ChangeManifest {
    ChangeManifest { expected_epoch, manifest: Some(manifest), tag: tag() }
}

fn named(bench: &Bench) -> Manifest {
    Manifest { label: "group".into(), serial: 11_001, ..bench.partition.manifest() }
}

#[test]
fn a_partition_is_a_group_of_one_from_birth() {
    let bench = Bench::new();
    let manifest = bench.status().manifest.clone().unwrap();
    assert_eq!((manifest.serial, manifest.epoch, manifest.generation, manifest.home), (0, 1, 1, 1001));
    assert_eq!(manifest.members, [ManifestMember { serial: 1001, role: 0, weight: 100 }]);
    assert_ne!(manifest.group, Bench::new().partition.manifest().group);
}

#[test]
fn ha_2_6_the_manifest_changes_by_compare_and_set_and_a_resend_is_ok() {
    let bench = Bench::logged_in();
    let first = change(1, named(&bench));
    bench.ok(Call::ChangeManifest(first.clone()));
    assert_eq!(bench.partition.manifest().epoch, 2);
    bench.ok(Call::ChangeManifest(first));
    assert_eq!(bench.partition.manifest().epoch, 2, "the resend was executed once");
    assert_eq!(bench.outcome(Call::ChangeManifest(change(1, named(&bench)))), Outcome::EPOCH_CHANGED);
    assert_eq!(bench.status().manifest.as_ref().unwrap().label, "group");
}

#[test]
fn manifests_that_cannot_be_are_refused() {
    let bench = Bench::logged_in();
    let member = |serial, role, weight| ManifestMember { serial, role, weight };
    let with = |members| Manifest { members, ..named(&bench) };
    let wrong = [
        Manifest { group: vec![1; 16], ..named(&bench) },
        Manifest { generation: 2, ..named(&bench) },
        Manifest { label: "x".repeat(33), ..named(&bench) },
        Manifest { home: 1002, ..named(&bench) },
        with(vec![]),
        with(vec![member(1001, 0, 100), member(1001, 0, 100)]),
        with(vec![member(1001, 0, 100), member(0, 0, 100)]),
        with(vec![member(1001, 7, 100)]),
        with(vec![member(1001, 0, 0)]),
        with((1001..1066).map(|serial| member(serial, 0, 100)).collect()),
    ];
    for (at, manifest) in wrong.into_iter().enumerate() {
        assert_eq!(bench.outcome(Call::ChangeManifest(change(1, manifest))), Outcome::MALFORMED, "{at}");
    }
}

#[test]
fn an_adopted_partition_shares_group_credentials_and_tickets() {
    let home = Bench::logged_in();
    home.ok(Call::SetPin(SetPin {
        user: UserType::USER.0,
        old: CO_PIN.to_vec(),
        new: b"group pin".to_vec(),
        tag: tag(),
    }));
    let other = home.joined(1002);
    assert_eq!(other.partition.manifest(), home.partition.manifest());
    other.login(UserType::USER, b"group pin");
    assert_eq!(other.outcome(Call::Find(Find::default())), Outcome::OK, "the ticket of home opens here");
    assert_eq!(other.status().root, home.status().root);
}

#[test]
fn adoption_is_for_empty_partitions_that_the_manifest_names_and_can_be_resent() {
    let home = Bench::logged_in();
    let adopt = |home: &Bench| {
        let Answer::Export(export) =
            home.ok(Call::Export(Export { ouids: vec![], credentials: true, manifest: true }))
        else {
            unreachable!("an export is answered by an export")
        };
        let Manifest { group, generation, .. } = home.partition.manifest();
        Adopt { group, generation, manifest: export.manifest, credentials: export.credentials }
    };
    let mut other = Bench::with(1002, Settings::for_tests());
    other.ticket = other.login(UserType::USER, CO_PIN);
    assert_eq!(other.outcome(Call::Adopt(adopt(&home))), Outcome::MALFORMED, "not named");
    let mut manifest = home.partition.manifest();
    manifest.members.push(ManifestMember { serial: 1002, role: 0, weight: 100 });
    home.ok(Call::ChangeManifest(change(1, manifest)));
    let adoption = adopt(&home);
    for wrong in [
        Adopt { generation: 2, ..adoption.clone() },
        Adopt { group: vec![1; 16], ..adoption.clone() },
        Adopt { manifest: adoption.credentials.clone(), ..adoption.clone() },
        Adopt { credentials: adoption.manifest.clone(), ..adoption.clone() },
    ] {
        assert_eq!(other.outcome(Call::Adopt(wrong)), Outcome::NOT_OPENED);
    }
    let object = other.create(data(vec![token()])).remove(0);
    assert_eq!(other.outcome(Call::Adopt(adoption.clone())), Outcome::FAILED, "not empty");
    other.ok(Call::Destroy(Destroy { object: Some(object.clone()) }));
    let body = RequestBody {
        ticket: other.ticket.clone(),
        call: Some(Call::Adopt(adoption)),
        ..RequestBody::default()
    };
    let body = prost::Message::encode_to_vec(&body);
    assert_eq!(Outcome(other.raw(&body).outcome), Outcome::OK);
    assert_eq!(Outcome(other.raw(&body).outcome), Outcome::OK, "resent: its ticket died with the old group");
    assert_eq!(other.outcome(Call::Find(Find::default())), Outcome::TICKET_DEAD);
    other.ticket.clone_from(&home.ticket);
    let read = GetAttributes { object: Some(object), numbers: vec![A::LABEL.0] };
    assert_eq!(
        other.outcome(Call::GetAttributes(read)),
        Outcome::DESTROYED,
        "a tombstone goes along, into whatever group (HA 1.2)"
    );
}

fn exported(bench: &Bench, ouids: Vec<Vec<u8>>) -> ExportAnswer {
    let export = Call::Export(Export { ouids, credentials: true, manifest: true });
    let Answer::Export(export) = bench.ok(export) else { unreachable!("an export is answered by an export") };
    export.clone()
}

fn adoption(of: &Manifest, sealed: &ExportAnswer) -> Call {
    Call::Adopt(Adopt {
        group: of.group.clone(),
        generation: of.generation,
        manifest: sealed.manifest.clone(),
        credentials: sealed.credentials.clone(),
    })
}

/// Names a partition in the manifest of a home.
fn name(home: &Bench, serial: u64) {
    let mut manifest = home.partition.manifest();
    if !manifest.members.iter().any(|member| member.serial == serial) {
        manifest.members.push(ManifestMember { serial, role: 0, weight: 100 });
    }
    home.ok(Call::ChangeManifest(change(home.partition.manifest().epoch, manifest)));
}

#[test]
fn ha_2_7_a_member_adopts_nothing_of_the_group_that_it_is_in() {
    let home = Bench::logged_in();
    let member = home.joined(1002);
    let old = exported(&home, vec![]);
    set_pin(&home, CO_PIN, b"new co pin");
    pull(&home, &member);
    // A greater manifest epoch with the credentials of before: once, this brought the old PIN back.
    name(&home, 1002);
    let newer = ExportAnswer { credentials: old.credentials, ..exported(&home, vec![]) };
    assert_eq!(member.outcome(adoption(&home.partition.manifest(), &newer)), Outcome::FAILED);
    let old_pin = Login { user: UserType::USER.0, pin: CO_PIN.to_vec(), tag: tag() };
    assert_eq!(member.rv(Call::Login(old_pin)), spec::Rv::PIN_INCORRECT);
    member.login(UserType::USER, b"new co pin");
}

#[test]
fn ha_1_2_a_member_that_leaves_its_group_and_comes_back_brings_no_destroyed_key_and_no_old_pin() {
    let home = Bench::logged_in();
    let mut member = home.joined(1002);
    let key = member.key(vec![token(), label("doomed")]);
    let doomed = exported(&member, vec![key.ouid.clone()]);
    member.ok(Call::Destroy(Destroy { object: Some(key.clone()) }));
    set_pin(&home, CO_PIN, b"new co pin");
    pull(&home, &member);
    // Away, into another group, whose officer its officer is too...
    let mut elsewhere = Bench::with(1003, Settings::for_tests());
    elsewhere.ticket = elsewhere.login(UserType::USER, CO_PIN);
    name(&elsewhere, 1002);
    member.ok(adoption(&elsewhere.partition.manifest(), &exported(&elsewhere, vec![])));
    member.ticket = member.login(UserType::USER, CO_PIN);
    assert_eq!(
        member.outcome(Call::GetAttributes(GetAttributes { object: Some(key.clone()), numbers: vec![3] })),
        Outcome::DESTROYED
    );
    // ... and back, with what the group once was.
    assert_eq!(
        member.outcome(adoption(&home.partition.manifest(), &doomed)),
        Outcome::EPOCH_CHANGED,
        "an old PIN"
    );
    let mixed = ExportAnswer { credentials: doomed.credentials.clone(), ..exported(&home, vec![]) };
    assert_eq!(member.outcome(adoption(&home.partition.manifest(), &mixed)), Outcome::EPOCH_CHANGED);
    member.ok(adoption(&home.partition.manifest(), &exported(&home, vec![])));
    member.ticket = member.login(UserType::USER, b"new co pin");
    member.ok(Call::Join(Join { records: doomed.records, ..Join::default() }));
    assert!(member.find(vec![label("doomed")]).is_empty());
    assert_eq!(member.status().objects, 0);
}

#[test]
fn ha_2_7_a_joiner_takes_no_credentials_older_than_the_manifest_that_names_it() {
    let home = Bench::logged_in();
    let old = exported(&home, vec![]);
    set_pin(&home, CO_PIN, b"new co pin");
    name(&home, 1002);
    assert_eq!(home.partition.manifest().credential_epoch, 2);
    let mut joiner = Bench::with(1002, Settings::for_tests());
    joiner.ticket = joiner.login(UserType::USER, CO_PIN);
    let mixed = ExportAnswer { credentials: old.credentials, ..exported(&home, vec![]) };
    let manifest = home.partition.manifest();
    assert_eq!(joiner.outcome(adoption(&manifest, &mixed)), Outcome::EPOCH_CHANGED);
    joiner.ok(adoption(&manifest, &exported(&home, vec![])));
}

#[test]
fn ha_2_7_of_two_credentials_of_one_epoch_all_members_end_with_the_same() {
    let first = Bench::logged_in();
    let second = first.joined(1002);
    pull(&first, &second);
    assert_eq!(first.status().credentials, second.status().credentials);
    assert_eq!(first.status().credentials.len(), 32);
    // Cut apart, the second makes itself the home; back together for the first's promotion, and apart again: both count
    // their own changes from the same epoch.
    let held = second.partition.manifest();
    second.ok(Call::ChangeManifest(change(held.epoch, Manifest { home: 1002, ..held.clone() })));
    let third = Bench::new();
    assert_ne!(third.status().credentials, first.status().credentials);
    let term = exported(&second, vec![]).credentials;
    first.ok(Call::Join(Join { credentials: term, ..Join::default() }));
    set_pin(&first, CO_PIN, b"pin of first");
    set_pin(&second, CO_PIN, b"pin of second");
    let credential_epoch = |bench: &Bench| bench.partition.header().credential_epoch;
    assert_eq!(credential_epoch(&first), credential_epoch(&second), "a tie");
    assert_ne!(first.status().credentials, second.status().credentials, "which Status shows");
    let (of_first, of_second) = (exported(&first, vec![]), exported(&second, vec![]));
    let join = |sealed: &ExportAnswer| {
        Call::Join(Join { credentials: sealed.credentials.clone(), ..Join::default() })
    };
    first.ok(join(&of_second));
    second.ok(join(&of_first));
    assert_eq!(first.status().credentials, second.status().credentials, "both ways end alike");
    let works = |bench: &Bench, pin: &[u8]| {
        let call = Login { user: UserType::USER.0, pin: pin.to_vec(), tag: tag() };
        bench.rv(Call::Login(call)) == spec::Rv::OK
    };
    let winner = [&b"pin of first"[..], b"pin of second"].map(|pin| works(&first, pin));
    assert_eq!(winner.iter().filter(|works| **works).count(), 1);
    assert_eq!([&b"pin of first"[..], b"pin of second"].map(|pin| works(&second, pin)), winner);
}

#[test]
fn ha_2_6_a_joined_manifest_of_a_greater_epoch_wins_and_others_do_not_change_it() {
    let home = Bench::logged_in();
    let other = home.joined(1002);
    let Answer::ChangeManifest(changed) = home.ok(Call::ChangeManifest(change(
        2,
        Manifest { label: "renamed".into(), ..home.partition.manifest() },
    ))) else {
        unreachable!("a change is answered by a change")
    };
    let join = |manifest: &[u8]| Call::Join(Join { manifest: manifest.to_vec(), ..Join::default() });
    other.ok(join(&changed.sealed));
    assert_eq!((other.partition.manifest().label, other.partition.manifest().epoch), ("renamed".into(), 3));
    let call = Call::ChangeManifest(change(3, other.partition.manifest()));
    assert_eq!(other.outcome(call), Outcome::NOT_HOME);
    assert_eq!(other.outcome(join(b"forged")), Outcome::NOT_OPENED);
}

/// Takes over what another member exports, as repair does.
fn pull(from: &Bench, to: &Bench) {
    let export = Call::Export(Export { ouids: vec![], credentials: true, manifest: true });
    let Answer::Export(export) = from.ok(export) else { unreachable!("an export is answered by an export") };
    to.ok(Call::Join(Join { credentials: export.credentials, manifest: export.manifest, ..Join::default() }));
}

fn set_pin(bench: &Bench, old: &[u8], new: &[u8]) {
    let set = SetPin { user: UserType::USER.0, old: old.to_vec(), new: new.to_vec(), tag: tag() };
    bench.ok(Call::SetPin(set));
}

#[test]
fn ha_2_7_a_member_makes_itself_the_home_and_nothing_else() {
    let home = Bench::logged_in();
    let other = home.joined(1002);
    pull(&home, &other);
    let held = other.partition.manifest();
    for more in [
        Manifest { home: 1002, label: "renamed".into(), ..held.clone() },
        Manifest { home: 1002, members: held.members[1..].to_vec(), ..held.clone() },
        Manifest { label: "renamed".into(), ..held.clone() },
    ] {
        assert_eq!(other.outcome(Call::ChangeManifest(change(held.epoch, more))), Outcome::NOT_HOME);
    }
    let promotion = change(held.epoch, Manifest { home: 1002, ..held.clone() });
    let early = ChangeManifest { expected_epoch: held.epoch - 1, ..promotion.clone() };
    assert_eq!(other.outcome(Call::ChangeManifest(early)), Outcome::EPOCH_CHANGED);
    other.ok(Call::ChangeManifest(promotion.clone()));
    other.ok(Call::ChangeManifest(promotion));
    let manifest = other.partition.manifest();
    assert_eq!((manifest.home, manifest.epoch), (1002, 1 << 32), "the resend was executed once");
    let stranger = Bench::new();
    let own = change(1, stranger.partition.manifest());
    assert_ne!(stranger.outcome(Call::ChangeManifest(own)), Outcome::OK, "nobody is logged in");
}

#[test]
fn ha_2_7_what_a_lost_home_decides_yields_to_the_promoted_one() {
    let old = Bench::logged_in();
    let new = old.joined(1002);
    pull(&old, &new);
    let held = new.partition.manifest();
    // Cut apart: both decide, the old home more often.
    new.ok(Call::ChangeManifest(change(held.epoch, Manifest { home: 1002, ..held.clone() })));
    set_pin(&old, CO_PIN, b"old home 1");
    set_pin(&old, b"old home 1", b"old home 2");
    for more in 0..3 {
        let relabelled = Manifest { label: format!("old {more}"), ..held.clone() };
        old.ok(Call::ChangeManifest(change(held.epoch + more, relabelled)));
    }
    // Healed: repair carries both ways, and both end with the manifest and the credentials of the promoted home.
    pull(&old, &new);
    pull(&new, &old);
    assert_eq!(old.partition.manifest(), new.partition.manifest());
    assert_eq!(old.partition.manifest().home, 1002);
    for bench in [&old, &new] {
        assert!(!bench.login(UserType::USER, CO_PIN).is_empty(), "the promoted home's PIN holds");
        let wrong = Login { user: UserType::USER.0, pin: b"old home 2".to_vec(), tag: tag() };
        assert_eq!(bench.rv(Call::Login(wrong)), spec::Rv::PIN_INCORRECT);
    }
}

#[test]
fn ha_2_7_of_two_homes_promoted_at_one_time_one_decides_everything_on_both() {
    let lost = Bench::logged_in();
    let (one, other) = (lost.joined(1002), lost.joined(1003));
    [&one, &other].into_iter().for_each(|bench| pull(&lost, bench));
    let held = one.partition.manifest();
    for (bench, home, pin) in [(&one, 1002, b"of 1002"), (&other, 1003, b"of 1003")] {
        bench.ok(Call::ChangeManifest(change(held.epoch, Manifest { home, ..held.clone() })));
        set_pin(bench, CO_PIN, pin);
    }
    let epoch =
        |bench: &Bench| (bench.partition.header().credential_epoch, bench.partition.header().manifest_epoch);
    assert_eq!(epoch(&one), epoch(&other), "nothing but the tags tells them apart");
    pull(&one, &other);
    pull(&other, &one);
    assert_eq!(one.partition.manifest(), other.partition.manifest());
    let takes = |bench: &Bench, pin: &[u8]| {
        let login = Login { user: UserType::USER.0, pin: pin.to_vec(), tag: tag() };
        Outcome(bench.send(Call::Login(login)).outcome) == Outcome::OK
    };
    let [on_one, on_other] = [&one, &other].map(|bench| (takes(bench, b"of 1002"), takes(bench, b"of 1003")));
    assert_eq!(on_one, on_other);
    assert!(on_one.0 != on_one.1, "one of the two PINs holds: {on_one:?}");
}
