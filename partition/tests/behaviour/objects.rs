//! Templates, reading, searching, changing (PKCS #11 v3.1, 4 and 5.7; HA 1.3, 2.3; RULES 2.3, 2.4).
use spec::changes::Changes;
use spec::messages::*;
use spec::{
    Attribute, AttributeType as A, KeyType, Mechanism, MechanismType as M, ObjectClass, Rv, UserType,
};

use crate::bench::*;

fn bool_of(bench: &Bench, object: &ObjectRef, kind: A) -> Option<bool> {
    bench.attribute(object, kind).ok().and_then(|value| spec::value::as_bool(&value))
}

#[test]
fn a_generated_key_tells_its_history() {
    let bench = Bench::logged_in();
    let rows = [
        (vec![yes(A::SENSITIVE)], true, true),
        (vec![], false, true),
        (vec![yes(A::EXTRACTABLE)], false, false),
    ];
    for (template, always_sensitive, never_extractable) in rows {
        let key = bench.key([template, vec![token()]].concat());
        assert_eq!(bool_of(&bench, &key, A::LOCAL), Some(true));
        assert_eq!(bool_of(&bench, &key, A::ALWAYS_SENSITIVE), Some(always_sensitive));
        assert_eq!(bool_of(&bench, &key, A::NEVER_EXTRACTABLE), Some(never_extractable));
        let mechanism = bench.attribute(&key, A::KEY_GEN_MECHANISM).unwrap();
        assert_eq!(spec::value::as_ulong(&mechanism), Some(M::AES_KEY_GEN.0));
        assert_eq!(bench.attribute(&key, A::CHECK_VALUE).unwrap().len(), 3);
    }
}

#[test]
fn a_created_key_was_not_made_here() {
    let bench = Bench::logged_in();
    let key = bench.create(secret(KeyType::AES, &[7; 16], vec![token(), yes(A::SENSITIVE)])).remove(0);
    for kind in [A::LOCAL, A::ALWAYS_SENSITIVE, A::NEVER_EXTRACTABLE] {
        assert_eq!(bool_of(&bench, &key, kind), Some(false), "{kind}");
    }
    let mechanism = bench.attribute(&key, A::KEY_GEN_MECHANISM).unwrap();
    assert_eq!(mechanism, [0xFF; 8], "CK_UNAVAILABLE_INFORMATION");
    assert_eq!(spec::value::as_ulong(&bench.attribute(&key, A::VALUE_LEN).unwrap()), Some(16));
}

#[test]
fn rules_2_3_the_unique_id_is_the_hex_of_the_ouid_and_can_be_searched_for() {
    let bench = Bench::logged_in();
    let key = bench.key(vec![token()]);
    let id = bench.attribute(&key, A::UNIQUE_ID).unwrap();
    let hex: String = key.ouid.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(id, hex.as_bytes());
    let found = bench.find(vec![Attribute::new(A::UNIQUE_ID, id.clone())]);
    assert_eq!(found.len(), 1);
    let set = bench.set(&key, vec![Attribute::new(A::UNIQUE_ID, id.to_ascii_uppercase())]);
    assert_eq!(bench.rv(set), Rv::ATTRIBUTE_READ_ONLY);
}

#[test]
fn sensitive_values_never_leave_and_cannot_be_searched_for() {
    let bench = Bench::logged_in();
    let value = [0x42; 32];
    let sealed = [vec![yes(A::SENSITIVE), yes(A::EXTRACTABLE)], vec![no(A::SENSITIVE), no(A::EXTRACTABLE)]];
    for more in sealed {
        let key = bench.create(secret(KeyType::AES, &value, [more, vec![token()]].concat())).remove(0);
        assert_eq!(bench.attribute(&key, A::VALUE), Err(Rv::ATTRIBUTE_SENSITIVE));
    }
    assert!(bench.find(vec![Attribute::new(A::VALUE, value)]).is_empty());
    let open = vec![token(), yes(A::EXTRACTABLE), no(A::SENSITIVE)];
    let key = bench.create(secret(KeyType::AES, &value, open)).remove(0);
    assert_eq!(bench.attribute(&key, A::VALUE), Ok(value.to_vec()));
    assert_eq!(bench.find(vec![Attribute::new(A::VALUE, value)]).len(), 1);
}

#[test]
fn private_keys_give_away_their_public_numbers_only() {
    let bench = Bench::logged_in();
    let objects = bench.create(rsa_pair(vec![token()], vec![token(), yes(A::SENSITIVE)]));
    let (public, private) = (&objects[0], &objects[1]);
    for kind in [A::PRIVATE_EXPONENT, A::PRIME_1, A::PRIME_2, A::EXPONENT_1, A::EXPONENT_2, A::COEFFICIENT] {
        assert_eq!(bench.attribute(private, kind), Err(Rv::ATTRIBUTE_SENSITIVE), "{kind}");
    }
    for kind in [A::MODULUS, A::PUBLIC_EXPONENT, A::PUBLIC_KEY_INFO] {
        let value = bench.attribute(public, kind).unwrap();
        assert_eq!(bench.attribute(private, kind), Ok(value.clone()), "{kind}");
        assert!(!value.is_empty());
    }
    assert_eq!(bench.attribute(public, A::PRIVATE_EXPONENT), Err(Rv::ATTRIBUTE_TYPE_INVALID));
    assert_eq!(bench.attribute(public, A(0x8000_1234)), Err(Rv::ATTRIBUTE_TYPE_INVALID));
    let ec = bench.create(ec_pair(vec![token()], vec![token()]));
    assert_eq!(bench.attribute(&ec[1], A::VALUE), Err(Rv::ATTRIBUTE_SENSITIVE));
    assert_eq!(bench.attribute(&ec[0], A::EC_POINT).unwrap()[..3], [4, 65, 4]);
    let info = bench.attribute(&ec[0], A::PUBLIC_KEY_INFO).unwrap();
    assert_eq!(bench.attribute(&ec[1], A::PUBLIC_KEY_INFO).unwrap(), info);
}

#[test]
fn templates_are_refused_with_the_code_of_their_fault() {
    let bench = Bench::logged_in();
    let class = |class: ObjectClass| Attribute::ulong(A::CLASS, class.0);
    let aes = |more: Vec<Attribute>| secret(KeyType::AES, &[1; 16], more);
    let rows = [
        (create(vec![]), Rv::TEMPLATE_INCOMPLETE),
        (create(vec![class(ObjectClass::SECRET_KEY)]), Rv::TEMPLATE_INCOMPLETE),
        (create(vec![class(ObjectClass::HW_FEATURE)]), Rv::ATTRIBUTE_VALUE_INVALID),
        (create(vec![Attribute::new(A::CLASS, vec![0; 4])]), Rv::ATTRIBUTE_VALUE_INVALID),
        (aes(vec![Attribute::new(A::MODULUS, vec![1])]), Rv::ATTRIBUTE_TYPE_INVALID),
        (aes(vec![Attribute::new(A::TOKEN, vec![2])]), Rv::ATTRIBUTE_VALUE_INVALID),
        (aes(vec![label("a"), label("a")]), Rv::TEMPLATE_INCONSISTENT),
        (aes(vec![yes(A::LOCAL)]), Rv::TEMPLATE_INCONSISTENT),
        (aes(vec![Attribute::new(A::CHECK_VALUE, vec![1, 2, 3])]), Rv::ATTRIBUTE_VALUE_INVALID),
        (aes(vec![yes(A::TRUSTED)]), Rv::ATTRIBUTE_READ_ONLY),
        (secret(KeyType::AES, &[1; 17], vec![]), Rv::ATTRIBUTE_VALUE_INVALID),
        (secret(KeyType::DES3, &[1; 24], vec![]), Rv::ATTRIBUTE_VALUE_INVALID),
        (generate(M::AES_KEY_GEN, vec![Attribute::ulong(A::VALUE_LEN, 17)]), Rv::ATTRIBUTE_VALUE_INVALID),
        (generate(M::AES_KEY_GEN, vec![class(ObjectClass::PUBLIC_KEY)]), Rv::TEMPLATE_INCONSISTENT),
        (generate(M::AES_KEY_GEN, vec![Attribute::new(A::VALUE, vec![1; 32])]), Rv::TEMPLATE_INCONSISTENT),
        (generate(M::AES_CBC, vec![]), Rv::MECHANISM_INVALID),
        (generate(M::EC_KEY_PAIR_GEN, vec![]), Rv::MECHANISM_INVALID),
        (generate(M::DES3_KEY_GEN, vec![]), Rv::MECHANISM_INVALID),
    ];
    for (make, expected) in rows {
        let shown = format!("{:?}", make.templates);
        assert_eq!(bench.rv(Call::Make(make)), expected, "{shown}");
    }
}

#[test]
fn an_empty_check_value_does_without_and_the_right_one_is_taken() {
    let bench = Bench::logged_in();
    let make = |value: &[u8]| secret(KeyType::AES, &[0; 16], vec![Attribute::new(A::CHECK_VALUE, value)]);
    let key = bench.create(make(&[])).remove(0);
    assert_eq!(bench.attribute(&key, A::CHECK_VALUE), Ok(vec![]));
    let key = bench.create(make(&[0x66, 0xe9, 0x4b])).remove(0);
    assert_eq!(bench.attribute(&key, A::CHECK_VALUE), Ok(vec![0x66, 0xe9, 0x4b]));
}

#[test]
fn certificates_and_data_are_kept_as_given() {
    let bench = Bench::logged_in();
    let certificate = create(vec![
        Attribute::ulong(A::CLASS, ObjectClass::CERTIFICATE.0),
        Attribute::ulong(A::CERTIFICATE_TYPE, 0),
        Attribute::new(A::SUBJECT, b"subject"),
        Attribute::new(A::VALUE, b"certificate"),
        token(),
    ]);
    let certificate = bench.create(certificate).remove(0);
    assert_eq!(bench.attribute(&certificate, A::VALUE), Ok(b"certificate".to_vec()));
    assert_eq!(bench.attribute(&certificate, A::CHECK_VALUE).unwrap().len(), 3);
    let set = bench.set(&certificate, vec![Attribute::new(A::SUBJECT, b"other")]);
    assert_eq!(bench.rv(set), Rv::ATTRIBUTE_READ_ONLY);
    let object = bench.create(data(vec![token(), Attribute::new(A::VALUE, b"one")])).remove(0);
    bench.ok(bench.set(&object, vec![Attribute::new(A::VALUE, b"two")]));
    assert_eq!(bench.attribute(&object, A::VALUE), Ok(b"two".to_vec()));
}

#[test]
fn rules_2_4_private_objects_are_found_and_read_with_a_ticket_only() {
    let mut bench = Bench::logged_in();
    let private = bench.key(vec![token(), label("k")]);
    let public = bench.create(data(vec![token(), label("k")])).remove(0);
    assert_eq!(bench.find(vec![label("k")]).len(), 2);
    for ticket in [vec![], bench.login(UserType::SO, SO_PIN)] {
        bench.ticket = ticket;
        let found = bench.find(vec![label("k")]);
        assert_eq!(found.iter().map(|found| &found.ouid).collect::<Vec<_>>(), [&public.ouid]);
        let read = GetAttributes { object: Some(private.clone()), numbers: vec![A::LABEL.0] };
        assert_eq!(bench.rv(Call::GetAttributes(read)), Rv::OBJECT_HANDLE_INVALID);
    }
}

#[test]
fn searches_page_in_ouid_order_and_tell_what_was_deleted() {
    let bench = Bench::logged_in();
    let mut ouids: Vec<Vec<u8>> =
        (0..7).map(|_| bench.create(data(vec![token(), label("page")])).remove(0).ouid).collect();
    ouids.sort();
    let gone = ObjectRef { ouid: ouids.remove(3), ..ObjectRef::default() };
    bench.ok(Call::Destroy(Destroy { object: Some(gone.clone()) }));
    let (mut found, mut deleted, mut after) = (Vec::new(), Vec::new(), Vec::new());
    loop {
        let find = Find { template: Some(vec![label("page")].into()), after, limit: 2 };
        let Answer::Find(page) = bench.ok(Call::Find(find)) else { unreachable!("find answers find") };
        assert!(page.found.len() <= 2);
        found.extend(page.found.iter().map(|found| found.ouid.clone()));
        deleted.extend(page.deleted.clone());
        after = found.last().unwrap().clone();
        if !page.more {
            break;
        }
    }
    assert_eq!((found, deleted), (ouids, vec![gone.ouid]));
    assert!(bench.find(vec![label("nothing")]).is_empty());
}

#[test]
fn a_repeated_attribute_in_a_search_is_wanted_once_and_with_two_values_finds_nothing() {
    let bench = Bench::logged_in();
    bench.create(data(vec![token(), label("a")]));
    assert_eq!(bench.find(vec![label("a"), label("a")]).len(), 1);
    assert!(bench.find(vec![label("a"), label("b")]).is_empty());
    assert_eq!(bench.find(vec![label("a"); 128]).len(), 1);
}

#[test]
fn a_page_of_a_search_ends_after_so_many_objects_that_do_not_match() {
    let bench = Bench::logged_in();
    let mut ouids: Vec<Vec<u8>> =
        (0..2_050).map(|_| bench.create(data(vec![token()])).remove(0).ouid.clone()).collect();
    ouids.sort();
    let last = ObjectRef { ouid: ouids[2_049].clone(), ..ObjectRef::default() };
    bench.ok(bench.set(&last, vec![Attribute::new(A::APPLICATION, b"wanted".to_vec())]));
    let template = vec![Attribute::new(A::APPLICATION, b"wanted".to_vec())];
    let page = |after: &[u8]| {
        let find = Find { template: Some(template.clone().into()), after: after.to_vec(), limit: 10 };
        let Answer::Find(page) = bench.ok(Call::Find(find)) else { unreachable!("find answers find") };
        page.clone()
    };
    let first = page(&[]);
    assert_eq!((first.found.len(), first.more), (0, true));
    assert_eq!(first.looked, ouids[1_999], "2,000 have been looked at");
    let second = page(&first.looked);
    assert_eq!((second.found.len(), second.more, second.looked.len()), (1, false, 0));
    assert_eq!(second.found[0].ouid, ouids[2_049]);
}

#[test]
fn an_answer_holds_an_object_and_not_many_copies_of_its_biggest_value() {
    let bench = Bench::logged_in();
    let big = bench.create(data(vec![Attribute::new(A::VALUE, vec![7; 256 << 10])])).remove(0);
    let read = |times: usize| {
        bench.outcome(Call::GetAttributes(GetAttributes {
            object: Some(big.clone()),
            numbers: vec![A::VALUE.0; times],
        }))
    };
    assert_eq!(read(2), Outcome::OK);
    assert_eq!(read(256), Outcome::MALFORMED);
    let small = GetAttributes { object: Some(big.clone()), numbers: vec![A::TOKEN.0; 256] };
    assert_eq!(bench.outcome(Call::GetAttributes(small)), Outcome::OK);
}

#[test]
fn ha_1_3_one_way_attributes_go_one_way() {
    let bench = Bench::logged_in();
    let key = bench.key(vec![token(), no(A::SENSITIVE), yes(A::EXTRACTABLE)]);
    let steps =
        [(A::SENSITIVE, true), (A::WRAP_WITH_TRUSTED, true), (A::EXTRACTABLE, false), (A::COPYABLE, false)];
    for (kind, towards) in steps {
        bench.ok(bench.set(&key, vec![Attribute::bool(kind, towards)]));
        assert_eq!(bool_of(&bench, &key, kind), Some(towards));
        assert_eq!(bench.rv(bench.set(&key, vec![Attribute::bool(kind, !towards)])), Rv::ATTRIBUTE_READ_ONLY);
        bench.ok(bench.set(&key, vec![Attribute::bool(kind, towards)]));
    }
    assert_eq!(bench.attribute(&key, A::VALUE), Err(Rv::ATTRIBUTE_SENSITIVE));
    assert_eq!(bool_of(&bench, &key, A::ALWAYS_SENSITIVE), Some(false), "what was open once stays told");
}

#[test]
fn changes_obey_modifiable_rows_and_the_role() {
    let mut bench = Bench::logged_in();
    let frozen = bench.key(vec![token(), no(A::MODIFIABLE)]);
    assert_eq!(bench.rv(bench.set(&frozen, vec![label("x")])), Rv::ACTION_PROHIBITED);
    let key = bench.key(vec![token()]);
    let rows = [
        (yes(A::PRIVATE), Rv::OK),
        (no(A::PRIVATE), Rv::ATTRIBUTE_READ_ONLY),
        (no(A::TOKEN), Rv::ATTRIBUTE_READ_ONLY),
        (Attribute::ulong(A::KEY_TYPE, KeyType::RSA.0), Rv::ATTRIBUTE_READ_ONLY),
        (Attribute::new(A::MODULUS, vec![1]), Rv::ATTRIBUTE_TYPE_INVALID),
        (Attribute::new(A::SIGN, vec![5]), Rv::ATTRIBUTE_VALUE_INVALID),
        (yes(A::TRUSTED), Rv::ATTRIBUTE_READ_ONLY),
    ];
    for (attribute, expected) in rows {
        assert_eq!(bench.rv(bench.set(&key, vec![attribute.clone()])), expected, "{attribute:?}");
    }
    let object = bench.create(data(vec![token()])).remove(0);
    bench.ticket.clear();
    assert_eq!(bench.rv(bench.set(&object, vec![label("x")])), Rv::USER_NOT_LOGGED_IN);
    let destroy = Call::Destroy(Destroy { object: Some(object) });
    assert_eq!(bench.rv(destroy), Rv::USER_NOT_LOGGED_IN);
}

#[test]
fn only_the_security_officer_trusts_and_only_at_home() {
    let mut bench = Bench::logged_in();
    let pair = bench.create(ec_pair(vec![token()], vec![token()]));
    let officer = bench.ticket.clone();
    bench.ticket = bench.login(UserType::SO, SO_PIN);
    bench.ok(bench.set(&pair[0], vec![yes(A::TRUSTED)]));
    assert_eq!(bool_of(&bench, &pair[0], A::TRUSTED), Some(true));
    bench.ticket = officer;
    let mut other = bench.joined(1002);
    let object = other.create(data(vec![token()])).remove(0);
    other.ticket = other.login(UserType::SO, SO_PIN);
    let set = other.set(&object, vec![yes(A::TRUSTED)]);
    assert_eq!(other.outcome(set), Outcome::NOT_HOME);
    let public = || data(vec![no(A::PRIVATE), token()]);
    let point = bench.attribute(&pair[0], A::EC_POINT).unwrap();
    let trusted = |template: Vec<Attribute>| {
        let mut key = vec![
            Attribute::ulong(A::CLASS, ObjectClass::PUBLIC_KEY.0),
            Attribute::ulong(A::KEY_TYPE, KeyType::EC.0),
            Attribute::new(A::EC_PARAMS, P256),
            Attribute::new(A::EC_POINT, point.clone()),
            no(A::PRIVATE),
        ];
        key.extend(template);
        create(key)
    };
    let away = Call::Make(trusted(vec![token(), yes(A::TRUSTED)]));
    assert_eq!(other.outcome(away), Outcome::NOT_HOME, "HA 1.3: nor by making or copying");
    let plain = other.create(trusted(vec![token(), no(A::TRUSTED)])).remove(0);
    let templates = vec![vec![yes(A::TRUSTED)].into()];
    let copy = Make { kind: MakeKind::COPY.0, source: Some(plain), templates, ..public() };
    assert_eq!(other.outcome(Call::Make(copy)), Outcome::NOT_HOME);
    bench.ticket = bench.login(UserType::SO, SO_PIN);
    let home = bench.create(trusted(vec![token(), yes(A::TRUSTED)])).remove(0);
    assert_eq!(bool_of(&bench, &home, A::TRUSTED), Some(true));
}

#[test]
fn objects_that_may_not_be_destroyed_stay() {
    let bench = Bench::logged_in();
    let object = bench.create(data(vec![token(), no(A::DESTROYABLE)])).remove(0);
    assert_eq!(bench.rv(Call::Destroy(Destroy { object: Some(object) })), Rv::ACTION_PROHIBITED);
    assert_eq!(bench.status().objects, 1);
}

#[test]
fn ha_2_3_a_resent_change_yields_to_other_writers_and_a_first_one_does_not() {
    let mut bench = Bench::logged_in();
    let object = bench.create(data(vec![token(), label("old")])).remove(0);
    let seen = bench.attributes(&object, &[A::LABEL]).version;
    let change = |text: &str| {
        Call::SetAttributes(SetAttributes {
            object: Some(object.clone()),
            template: Some(vec![label(text)].into()),
            tag: tag(),
            seen,
        })
    };
    let (mine, theirs) = (change("mine"), change("theirs"));
    bench.ok(mine.clone());
    bench.ok(theirs);
    bench.attempt = 1;
    bench.ok(mine);
    assert_eq!(bench.attribute(&object, A::LABEL), Ok(b"theirs".to_vec()), "the resend leaves it");
    bench.attempt = 0;
    bench.ok(change("fresh"));
    assert_eq!(bench.attribute(&object, A::LABEL), Ok(b"fresh".to_vec()));
    bench.attempt = 1;
    let late_seen = bench.attributes(&object, &[A::LABEL]).version;
    let unexecuted = Call::SetAttributes(SetAttributes {
        object: Some(object.clone()),
        template: Some(vec![label("resent")].into()),
        tag: tag(),
        seen: late_seen,
    });
    bench.ok(unexecuted);
    assert_eq!(bench.attribute(&object, A::LABEL), Ok(b"resent".to_vec()), "nobody has stamped it since");
}

#[test]
fn ha_3_1_an_object_older_than_the_caller_knows_is_behind() {
    let bench = Bench::logged_in();
    let mut object = bench.create(data(vec![token()])).remove(0);
    object.least = bench.attributes(&object, &[A::LABEL]).version.map(|mut stamp| {
        stamp.ms += 1;
        stamp
    });
    let read = Call::GetAttributes(GetAttributes { object: Some(object), numbers: vec![] });
    assert_eq!(bench.outcome(read), Outcome::BEHIND);
}

const AES_ECB: Mechanism = Mechanism::plain(M::AES_ECB);

/// Moves what one member holds of an object to another.
fn moved(from: &Bench, to: &Bench, object: &ObjectRef) {
    let export = Export { ouids: vec![object.ouid.clone()], credentials: false, manifest: false };
    let Answer::Export(export) = from.ok(Call::Export(export)) else {
        unreachable!("an export is answered by an export")
    };
    to.ok(Call::Join(Join { records: export.records.clone(), ..Join::default() }));
}

#[test]
fn ha_3_1_a_later_change_of_another_attribute_does_not_hide_that_one_is_missing() {
    let one = Bench::logged_in();
    let other = one.joined(1002);
    let mut object = one.key(vec![token(), label("old")]);
    assert_eq!(one.attributes(&object, &[A::LABEL]).changed, None, "nothing was changed since it was made");
    moved(&one, &other, &object);
    one.ok(one.set(&object, vec![label("new")]));
    // The second of two changes has a later stamp than one change elsewhere, even within the same millisecond.
    other.ok(other.set(&object, vec![Attribute::bool(A::DERIVE, true)]));
    other.ok(other.set(&object, vec![Attribute::new(A::ID, vec![1])]));
    let seen = one.attributes(&object, &[A::LABEL]);
    object.least = seen.version;
    assert!(other.attributes(&object, &[A::LABEL]).version > seen.version, "its greatest stamp is later");
    let changed = seen.changed.clone().unwrap();
    assert_eq!(changed.all.iter().map(|one| one.number).collect::<Vec<_>>(), [A::LABEL.0]);
    object.changed = changed.encoded();
    let asks = |object: &ObjectRef| {
        [
            Call::GetAttributes(GetAttributes { object: Some(object.clone()), numbers: vec![A::LABEL.0] }),
            other.set(object, vec![label("newer")]),
            plan(KeyFunction::ENCRYPT, &AES_ECB, object),
            Call::Use(whole(KeyFunction::ENCRYPT, &AES_ECB, object, &[7; 16])),
        ]
    };
    for call in asks(&object) {
        assert_eq!(other.outcome(call), Outcome::BEHIND);
    }
    let found = other.find(vec![Attribute::new(A::ID, vec![1])]).remove(0);
    let numbers: Vec<u64> = found.changed.unwrap().all.iter().map(|one| one.number).collect();
    assert_eq!(numbers, [A::ID.0, A::DERIVE.0]);
    moved(&one, &other, &object);
    assert_eq!(other.attribute(&object, A::LABEL), Ok(b"new".to_vec()));
    for changed in [vec![7; 9], vec![0x0a, 0x7f], vec![0; Changes::BYTES_MAX + 1]] {
        for call in asks(&ObjectRef { changed: changed.clone(), ..object.clone() }) {
            assert_eq!(other.outcome(call), Outcome::MALFORMED, "{changed:?}");
        }
    }
    for call in asks(&object) {
        other.ok(call);
    }
}

/// Stores and destroys so many objects through peers' records, which is quicker than one by one.
fn tombstones(bench: &Bench, count: usize) {
    let sealer = bench.joined(1002);
    let mut ouids = Vec::new();
    for _ in 0..count {
        let object = sealer.create(data(vec![token()])).remove(0);
        ouids.push(object.ouid.clone());
        sealer.ok(Call::Destroy(Destroy { object: Some(object) }));
    }
    for ouids in ouids.chunks(1_000) {
        let export = Call::Export(Export { ouids: ouids.to_vec(), credentials: false, manifest: false });
        let Answer::Export(export) = sealer.ok(export) else {
            unreachable!("an export is answered by an export")
        };
        bench.ok(Call::Join(Join { records: export.records.clone(), ..Join::default() }));
    }
}

#[test]
fn pages_of_a_search_leave_out_no_tombstone_and_no_match() {
    let bench = Bench::logged_in();
    tombstones(&bench, 2_300);
    let mut kept: Vec<_> = (0..5).map(|_| bench.create(data(vec![token()])).remove(0).ouid.clone()).collect();
    kept.sort();
    for limit in [2, 1_000] {
        let (mut after, mut found, mut deleted, mut pages) = (Vec::new(), Vec::new(), Vec::new(), 0);
        loop {
            let Answer::Find(page) = bench.ok(Call::Find(Find { template: None, after, limit })) else {
                unreachable!("a search is answered by a search")
            };
            assert!(page.found.len() <= limit as usize && page.deleted.len() <= 1_000);
            found.extend(page.found.iter().map(|found| found.ouid.clone()));
            deleted.extend(page.deleted.clone());
            pages += 1;
            if !page.more {
                break;
            }
            let last = page.found.last().map(|found| &found.ouid).max(page.deleted.last());
            after = last.unwrap().clone();
        }
        assert_eq!(found, kept);
        assert_eq!(deleted.len(), 2_300);
        assert!(deleted.windows(2).all(|pair| pair[0] < pair[1]), "each once, in order");
        assert!(pages >= 3, "found {pages}");
    }
}
