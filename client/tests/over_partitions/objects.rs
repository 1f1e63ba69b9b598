//! Objects: life, attributes, searches, handles (RULES 2.2 to 2.4).
use spec::{
    Attribute, AttributeType as A, HandleObject, KeyType, Mechanism, MechanismType as M, ObjectClass, Rv,
    Template,
};

use std::sync::Arc;

use client::{InitializeOptions, Module};
use ntls::platform::System;
use spec::UserType;
use spec::flags::session::{RW_SESSION, SERIAL_SESSION};

use crate::lab::{CO_PIN, Lab, SLOT, rv, secret_template};

fn label(text: &str) -> Attribute {
    Attribute::new(A::LABEL, text.as_bytes())
}

#[test]
fn a_token_object_lives_in_every_session_until_it_is_destroyed() {
    let lab = Lab::new();
    let session = lab.user();
    let object = lab.data(session, true, "a").unwrap();
    let other = lab.read_only_session();
    let values = lab.module.get_attributes(other, object, &[A::LABEL, A::MODULUS, A::VALUE]).unwrap();
    assert_eq!(values[0].as_deref().unwrap().as_slice(), b"a");
    assert_eq!(values[1].as_ref().unwrap_err(), &Rv::ATTRIBUTE_TYPE_INVALID);
    assert_eq!(values[2].as_deref().unwrap().as_slice(), b"content");
    assert_eq!(lab.find(other, vec![label("a")]), [object]);
    assert_eq!(rv(lab.module.destroy_object(other, object)), Rv::SESSION_READ_ONLY);
    lab.module.destroy_object(session, object).unwrap();
    assert_eq!(rv(lab.module.get_attributes(session, object, &[A::LABEL])), Rv::OBJECT_HANDLE_INVALID);
    assert_eq!(lab.find(other, vec![label("a")]), []);
    assert_eq!(rv(lab.module.destroy_object(session, object)), Rv::OBJECT_HANDLE_INVALID);
}

#[test]
fn a_session_object_is_seen_from_all_sessions_and_goes_with_its_own() {
    let lab = Lab::new();
    let session = lab.user();
    let owner = lab.read_only_session();
    let object = lab.data(owner, false, "mine").unwrap();
    assert_eq!(lab.find(session, vec![label("mine")]), [object]);
    assert_eq!(lab.find(session, vec![label("mine"), Attribute::bool(A::TOKEN, true)]), []);
    lab.module.close_session(owner).unwrap();
    assert_eq!(lab.find(session, vec![label("mine")]), []);
    assert_eq!(rv(lab.module.get_attributes(session, object, &[A::LABEL])), Rv::OBJECT_HANDLE_INVALID);
}

#[test]
fn a_read_only_session_makes_session_objects_only() {
    let lab = Lab::new();
    lab.user();
    let session = lab.read_only_session();
    let before = lab.seam.count_all();
    assert_eq!(rv(lab.data(session, true, "x")), Rv::SESSION_READ_ONLY);
    assert_eq!(lab.seam.count_all(), before);
    lab.data(session, false, "x").unwrap();
}

#[test]
fn a_changed_label_is_read_and_found_again() {
    let lab = Lab::new();
    let session = lab.user();
    for token in [true, false] {
        let object = lab.data(session, token, "old").unwrap();
        lab.module.set_attributes(session, object, Template::from(vec![label("new")])).unwrap();
        let values = lab.module.get_attributes(session, object, &[A::LABEL]).unwrap();
        assert_eq!(values[0].as_deref().unwrap().as_slice(), b"new");
        assert_eq!(lab.find(session, vec![label("new")]), [object]);
        assert_eq!(lab.find(session, vec![label("old")]), []);
        let class = Attribute::ulong(A::CLASS, 1);
        assert_eq!(
            rv(lab.module.set_attributes(session, object, Template::from(vec![class]))),
            Rv::ATTRIBUTE_READ_ONLY
        );
        lab.module.destroy_object(session, object).unwrap();
    }
}

#[test]
fn a_copy_is_an_object_of_its_own_across_the_token_border() {
    let lab = Lab::new();
    let session = lab.user();
    let object = lab.data(session, false, "one").unwrap();
    let to_token = Template::from(vec![Attribute::bool(A::TOKEN, true), label("two")]);
    let copy = lab.module.copy_object(session, object, to_token).unwrap();
    assert_ne!(copy, object);
    let read_only = lab.read_only_session();
    assert_eq!(rv(lab.module.copy_object(read_only, copy, Template::default())), Rv::SESSION_READ_ONLY);
    let back = Template::from(vec![Attribute::bool(A::TOKEN, false)]);
    let third = lab.module.copy_object(read_only, copy, back).unwrap();
    let values = lab.module.get_attributes(session, third, &[A::LABEL, A::VALUE, A::UNIQUE_ID]).unwrap();
    assert_eq!(values[0].as_deref().unwrap().as_slice(), b"two");
    assert_eq!(values[1].as_deref().unwrap().as_slice(), b"content");
    let unique = lab.module.get_attributes(session, copy, &[A::UNIQUE_ID]).unwrap();
    assert_ne!(unique[0].as_deref().unwrap().as_slice(), values[2].as_deref().unwrap().as_slice());
}

#[test]
fn sensitive_values_are_neither_read_nor_searched_for() {
    let lab = Lab::new();
    let session = lab.user();
    let key = lab.aes(session, false);
    let values = lab.module.get_attributes(session, key, &[A::VALUE, A::VALUE_LEN]).unwrap();
    assert_eq!(values[0].as_ref().unwrap_err(), &Rv::ATTRIBUTE_SENSITIVE);
    assert_eq!(values[1].as_deref().unwrap().as_slice(), 32_u64.to_le_bytes());
    let open = lab.module.create_object(session, secret_template(KeyType::AES, &[3; 16])).unwrap();
    let values = lab.module.get_attributes(session, open, &[A::VALUE]).unwrap();
    assert_eq!(values[0].as_deref().unwrap().as_slice(), [3; 16]);
}

#[test]
fn a_search_is_a_snapshot_told_in_pieces_and_only_one_runs_in_a_session() {
    let lab = Lab::new();
    let session = lab.user();
    let mut made: Vec<HandleObject> = (0..5).map(|_| lab.data(session, true, "many").unwrap()).collect();
    made.push(lab.data(session, false, "many").unwrap());
    lab.module.find_init(session, Template::from(vec![label("many")])).unwrap();
    assert_eq!(rv(lab.module.find_init(session, Template::default())), Rv::OPERATION_ACTIVE);
    lab.data(session, true, "many").unwrap();
    let mut found = Vec::new();
    loop {
        let page = lab.module.find(session, 2).unwrap();
        if page.is_empty() {
            break;
        }
        found.extend(page);
    }
    lab.module.find_final(session).unwrap();
    assert_eq!(rv(lab.module.find_final(session)), Rv::OPERATION_NOT_INITIALIZED);
    found.sort_unstable();
    made.sort_unstable();
    assert_eq!(found, made);
}

#[test]
fn handles_of_other_slots_and_none_at_all_are_invalid() {
    let lab = Lab::with(2, false, false);
    let session = lab.user();
    let object = lab.data(session, true, "x").unwrap();
    let elsewhere = lab.module.open_session(spec::SlotId(1), 6).unwrap();
    assert_eq!(rv(lab.module.get_attributes(elsewhere, object, &[A::CLASS])), Rv::OBJECT_HANDLE_INVALID);
    assert_eq!(
        rv(lab.module.get_attributes(session, HandleObject(0), &[A::CLASS])),
        Rv::OBJECT_HANDLE_INVALID
    );
    assert_eq!(
        rv(lab.module.sign_init(session, Some(Mechanism::plain(M::ECDSA)), HandleObject(77))),
        Rv::KEY_HANDLE_INVALID
    );
}

#[test]
fn generation_refuses_what_the_table_refuses_before_anything_is_sent() {
    let lab = Lab::new();
    let session = lab.user();
    let before = lab.seam.count_all();
    let wrong = Mechanism::plain(M::RSA_PKCS);
    assert_eq!(rv(lab.module.generate_key(session, wrong, Template::default())), Rv::MECHANISM_INVALID);
    let wrong = Mechanism::plain(M::DES3_KEY_GEN);
    assert_eq!(rv(lab.module.generate_key(session, wrong, Template::default())), Rv::MECHANISM_INVALID);
    assert_eq!(lab.seam.count_all(), before);
}

#[test]
fn making_private_objects_needs_a_login() {
    let lab = Lab::new();
    let session = lab.session();
    assert_eq!(rv(lab.data(session, true, "x")), Rv::USER_NOT_LOGGED_IN);
    let object = Template::from(vec![
        Attribute::ulong(A::CLASS, ObjectClass::DATA.0),
        Attribute::bool(A::PRIVATE, true),
        Attribute::bool(A::TOKEN, false),
    ]);
    assert_eq!(rv(lab.module.create_object(session, object)), Rv::USER_NOT_LOGGED_IN);
    lab.data(session, false, "public session object").unwrap();
}

#[test]
fn sizes_are_known_for_session_objects_and_unavailable_for_token_objects() {
    let lab = Lab::new();
    let session = lab.user();
    let here = lab.data(session, false, "x").unwrap();
    let there = lab.data(session, true, "x").unwrap();
    assert!(lab.module.object_size(session, here).unwrap() > 0);
    assert_eq!(lab.module.object_size(session, there).unwrap(), u64::MAX);
    assert_eq!(rv(lab.module.object_size(session, HandleObject(99))), Rv::OBJECT_HANDLE_INVALID);
}

/// The label as a read tells it.
fn label_of(module: &Module, session: spec::HandleSession, object: HandleObject) -> Vec<u8> {
    let values = module.get_attributes(session, object, &[A::LABEL]).unwrap();
    values[0].as_ref().unwrap().to_vec()
}

#[test]
fn ha_3_3_a_label_that_another_process_changed_is_seen_by_the_next_read() {
    let lab = Lab::new();
    let session = lab.user();
    let object = lab.data(session, true, "before").unwrap();
    assert_eq!(label_of(&lab.module, session, object), b"before");
    let other = Module::new();
    let options = InitializeOptions { may_create_threads: false };
    other.initialize_over(lab.seam.clone(), Arc::new(System), lab.configuration(), options).unwrap();
    let there = other.open_session(SLOT, SERIAL_SESSION | RW_SESSION).unwrap();
    other.login(there, UserType::USER, Some(CO_PIN)).unwrap();
    other.find_init(there, Template::from(vec![label("before")])).unwrap();
    let found = other.find(there, 2).unwrap();
    other.find_final(there).unwrap();
    for name in ["after", "and again"] {
        other.set_attributes(there, found[0], Template::from(vec![label(name)])).unwrap();
        assert_eq!(label_of(&lab.module, session, object), name.as_bytes());
        assert_eq!(lab.find(session, vec![label(name)]), [object]);
    }
}

#[test]
fn ha_3_4_what_a_process_has_written_it_reads_and_finds_whichever_member_answers() {
    let lab = Lab::new();
    let session = lab.user();
    let object = lab.data(session, true, "0").unwrap();
    let mut last = "0".to_owned();
    for (turn, away) in [0, 1, 2, 0, 1, 2].into_iter().enumerate() {
        lab.seam.set_down(lab.members[away], true);
        let name = (turn + 1).to_string();
        lab.module.set_attributes(session, object, Template::from(vec![label(&name)])).unwrap();
        lab.seam.set_down(lab.members[away], false);
        for gone in 0..3 {
            lab.seam.set_down(lab.members[gone], true);
            assert_eq!(label_of(&lab.module, session, object), name.as_bytes(), "without member {gone}");
            assert_eq!(lab.find(session, vec![label(&name)]), [object], "without member {gone}");
            assert_eq!(lab.find(session, vec![label(&last)]), [], "without member {gone}");
            lab.seam.set_down(lab.members[gone], false);
        }
        last = name;
    }
}
