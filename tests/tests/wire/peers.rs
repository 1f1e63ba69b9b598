//! What only the home does, and what a member takes from another (HA 1.3, 2.6, 2.7; RULES 3.1, 3.3).
use spec::messages::{
    Adopt, Answer, Call, ChangeManifest, Export, ExportAnswer, Join, Outcome, SealedRecord, SetAttributes,
    SetPin,
};
use spec::record::{Manifest, ManifestMember};
use spec::value::{Attribute, Template};
use spec::{AttributeType, ObjectClass};
use tests::lab::Lab;
use tests::wire::{Client, Wire, create, tag};

use crate::{officer, outcome};

/// The member that is not the home, with the Crypto Officer logged in.
fn away(client: &Client, lab: &Lab) -> Wire {
    let mut wire = Wire::open_at(client, 1);
    assert_ne!(wire.manifest().home, wire.serial, "the first member of the laboratory is the home");
    wire.login(lab.value("P11_PIN"));
    wire
}

fn exported(wire: &mut Wire, ouids: Vec<Vec<u8>>) -> ExportAnswer {
    let reply = wire.call(Call::Export(Export { ouids, credentials: true, manifest: true }));
    match &reply.answer {
        Some(Answer::Export(export)) => export.clone(),
        _ => panic!("wanted an export: {}", reply.text),
    }
}

/// A data object of its own.
fn data() -> spec::messages::Make {
    create(vec![
        Attribute::ulong(AttributeType::CLASS, ObjectClass::DATA.0),
        Attribute::bool(AttributeType::TOKEN, true),
    ])
}

/// RULES 3.1: a record joins under its own name, maker and group only, once, and a join is all or nothing.
pub(crate) fn records_under_another_name(client: &Client, lab: &Lab) {
    let (mut home, mut other) = (officer(client, lab), away(client, lab));
    let ouids = [data(), data()].map(|make| home.stored(make).remove(0).ouid).to_vec();
    let export = exported(&mut home, ouids);
    let (one, two) = (&export.records[0], &export.records[1]);
    let before = other.status().objects;
    let mut bent = one.clone();
    let middle = bent.envelope.len() / 2;
    bent.envelope[middle] ^= 1;
    for (what, wrong) in [
        ("another ouid", SealedRecord { ouid: two.ouid.clone(), ..one.clone() }),
        ("another maker", SealedRecord { maker: one.maker + 1, ..one.clone() }),
        ("another envelope", SealedRecord { envelope: two.envelope.clone(), ..one.clone() }),
        ("no envelope", SealedRecord { envelope: Vec::new(), ..one.clone() }),
        ("credentials", SealedRecord { envelope: export.credentials.clone(), ..one.clone() }),
        ("a ticket", SealedRecord { envelope: other.ticket.clone(), ..one.clone() }),
        ("a bent envelope", bent),
    ] {
        let join = Join { records: vec![two.clone(), wrong], ..Join::default() };
        assert_eq!(outcome(&other.call(Call::Join(join))), Outcome::NOT_OPENED, "{what}");
    }
    let twice = Join { records: vec![one.clone(), one.clone()], ..Join::default() };
    assert_eq!(outcome(&other.call(Call::Join(twice))), Outcome::MALFORMED);
    for (what, join) in [
        ("a forged manifest", Join { manifest: b"forged".to_vec(), ..Join::default() }),
        ("credentials as a manifest", Join { manifest: export.credentials.clone(), ..Join::default() }),
        ("forged credentials", Join { credentials: b"forged".to_vec(), ..Join::default() }),
        ("a manifest as credentials", Join { credentials: export.manifest.clone(), ..Join::default() }),
    ] {
        assert_eq!(outcome(&other.call(Call::Join(join))), Outcome::NOT_OPENED, "{what}");
    }
    assert_eq!(other.status().objects, before, "nothing of all that was taken");
    let join = Join { records: vec![one.clone(), two.clone()], ..Join::default() };
    assert_eq!(outcome(&other.call(Call::Join(join))), Outcome::OK);
    assert_eq!(other.status().objects, before + 2);
}

/// HA 1.3, 2.6, 2.7: PINs, manifest and trust change at the home, whoever asks.
pub(crate) fn only_the_home(client: &Client, lab: &Lab) {
    let mut other = away(client, lab);
    let home = other.manifest().home.to_string();
    let pin = lab.value("P11_PIN").as_bytes();
    let change = SetPin { user: 1, old: pin.to_vec(), new: b"another pin".to_vec(), tag: tag() };
    let reply = other.call(Call::SetPin(change));
    assert_eq!(outcome(&reply), Outcome::NOT_HOME);
    assert!(reply.text.contains(&home), "{}", reply.text);
    let manifest = other.manifest();
    let change =
        ChangeManifest { expected_epoch: manifest.epoch, manifest: Some(manifest.clone()), tag: tag() };
    assert_eq!(outcome(&other.call(Call::ChangeManifest(change))), Outcome::NOT_HOME);
    let (public, _) = other.pair(Vec::new());
    other.login_as(0, lab.value("P11_SO_PIN"));
    let trusted = Template::from(vec![Attribute::bool(AttributeType::TRUSTED, true)]);
    let change = SetAttributes { object: Some(public), template: Some(trusted), tag: tag(), seen: None };
    assert_eq!(outcome(&other.call(Call::SetAttributes(change))), Outcome::NOT_HOME);
}

/// HA 2.6, RULES 3.2: compare-and-set, what no manifest may be, and adoption by what is not empty.
pub(crate) fn manifests_that_cannot_be(client: &Client, lab: &Lab) {
    let mut home = officer(client, lab);
    let manifest = home.manifest();
    let change = |expected_epoch, manifest: Manifest| {
        Call::ChangeManifest(ChangeManifest { expected_epoch, manifest: Some(manifest), tag: tag() })
    };
    let stale = home.call(change(manifest.epoch - 1, manifest.clone()));
    assert_eq!(outcome(&stale), Outcome::EPOCH_CHANGED);
    let member = |serial, role, weight| ManifestMember { serial, role, weight };
    let of = |members| Manifest { members, ..manifest.clone() };
    let (one, two) = (manifest.home, manifest.members[1].serial);
    for (at, wrong) in [
        Manifest { group: vec![1; 16], ..manifest.clone() },
        Manifest { generation: manifest.generation + 1, ..manifest.clone() },
        Manifest { label: "x".repeat(33), ..manifest.clone() },
        Manifest { home: 7, ..manifest.clone() },
        of(Vec::new()),
        of(vec![member(one, 0, 100), member(one, 0, 100)]),
        of(vec![member(one, 0, 100), member(0, 0, 100)]),
        of(vec![member(one, 0, 100), member(two, 7, 100)]),
        of(vec![member(one, 0, 0), member(two, 0, 100)]),
        of((one..one + 65).map(|serial| member(serial, 0, 100)).collect()),
    ]
    .into_iter()
    .enumerate()
    {
        assert_eq!(outcome(&home.call(change(manifest.epoch, wrong))), Outcome::MALFORMED, "row {at}");
    }
    assert_eq!(home.manifest().epoch, manifest.epoch, "nothing of all that was taken");
    home.stored(data());
    let sealed = exported(&mut home, Vec::new());
    let adopt = Adopt {
        group: manifest.group.clone(),
        generation: manifest.generation,
        manifest: sealed.manifest.clone(),
        credentials: sealed.credentials.clone(),
    };
    for (what, wrong) in [
        ("another generation", Adopt { generation: adopt.generation + 1, ..adopt.clone() }),
        ("another group", Adopt { group: vec![1; 16], ..adopt.clone() }),
        ("credentials as a manifest", Adopt { manifest: adopt.credentials.clone(), ..adopt.clone() }),
    ] {
        assert_eq!(outcome(&home.call(Call::Adopt(wrong))), Outcome::NOT_OPENED, "{what}");
    }
    assert!(home.status().objects > 0);
}
