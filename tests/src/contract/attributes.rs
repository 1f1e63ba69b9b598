//! Contract: reading and changing attributes.

use std::ffi::c_void;
use std::ptr::null_mut;

use cryptoki_sys::*;

use super::{Context, answered, data_template, plain, refused};
use crate::p11::{Outcome, Tmpl, p256_pair};

rows! {
    "v3.1, 5.7.5" => attributes_known_and_unknown_are_answered_each_by_itself,
    "v3.1, 5.7.5" => short_attribute_buffer_is_told_and_the_others_are_filled,
    "v3.1, 5.7.5" => exact_attribute_buffer_is_filled_and_the_byte_behind_is_left,
    "v3.1, 5.7.5" => sensitive_value_is_never_read,
    "v3.1, 5.7.5" => unextractable_value_is_never_read,
    "v3.1, 5.7.5" => private_parts_of_an_ec_key_are_never_read,
    "v3.1, 5.7.5" => private_parts_of_an_rsa_key_are_never_read,
    "v3.1, 5.7.5" => rsa_attributes_of_an_ec_key_do_not_exist,
    "v3.1, 5.7.5" => empty_template_reads_nothing,
    "v3.1, 5.7.6" => label_and_id_may_change,
    "v3.1, 5.7.6" => change_is_seen_in_other_sessions_and_by_search,
    "v3.1, 5.7.6" => sensitive_goes_one_way,
    "v3.1, 5.7.6" => extractable_goes_one_way,
    "v3.1, 5.7.6" => what_an_object_is_never_changes,
    "v3.1, 5.7.6" => object_that_is_not_modifiable_stays_as_it_is,
    "v3.1, 5.7.6" => bad_change_changes_nothing,
    "v3.1, 5.7.6" => usage_may_be_taken_away,
}

fn attribute(kind: CK_ATTRIBUTE_TYPE, room: &mut [u8]) -> CK_ATTRIBUTE {
    CK_ATTRIBUTE {
        type_: kind,
        pValue: room.as_mut_ptr().cast::<c_void>(),
        ulValueLen: CK_ULONG::try_from(room.len()).expect("rooms are small"),
    }
}

fn attributes_known_and_unknown_are_answered_each_by_itself(cx: &Context) -> Outcome<()> {
    let session = cx.user()?;
    let object = cx.p11.create_object(session, data_template(false, true, "label", b"value"))?;
    let (mut label, mut modulus, mut value) = ([0; 16], [0; 16], [0; 16]);
    let mut all = [
        attribute(CKA_LABEL, &mut label),
        attribute(CKA_MODULUS, &mut modulus),
        attribute(CKA_VALUE, &mut value),
    ];
    let rv = raw!(cx, C_GetAttributeValue(session, object, all.as_mut_ptr(), 3));
    answered(rv, &[CKR_ATTRIBUTE_TYPE_INVALID]);
    let lengths = all.map(|one| one.ulValueLen);
    assert_eq!(lengths, [5, CK_UNAVAILABLE_INFORMATION, 5]);
    assert_eq!((&label[..5], &value[..5]), (&b"label"[..], &b"value"[..]));
    Ok(())
}

fn short_attribute_buffer_is_told_and_the_others_are_filled(cx: &Context) -> Outcome<()> {
    let session = cx.user()?;
    let object = cx.p11.create_object(session, data_template(false, true, "label", b"value"))?;
    let (mut label, mut value) = ([0; 4], [0; 16]);
    let mut all = [attribute(CKA_LABEL, &mut label), attribute(CKA_VALUE, &mut value)];
    let rv = raw!(cx, C_GetAttributeValue(session, object, all.as_mut_ptr(), 2));
    answered(rv, &[CKR_BUFFER_TOO_SMALL]);
    assert_eq!(all.map(|one| one.ulValueLen), [CK_UNAVAILABLE_INFORMATION, 5]);
    assert_eq!(&value[..5], b"value");
    Ok(())
}

fn exact_attribute_buffer_is_filled_and_the_byte_behind_is_left(cx: &Context) -> Outcome<()> {
    let session = cx.user()?;
    let object = cx.p11.create_object(session, data_template(false, true, "label", b"value"))?;
    let mut room = [0xee; 6];
    let mut one = attribute(CKA_LABEL, &mut room[..5]);
    answered(raw!(cx, C_GetAttributeValue(session, object, &mut one, 1)), &[CKR_OK]);
    assert_eq!(&room, b"label\xee");
    Ok(())
}

fn secret(
    cx: &Context,
    session: super::Session,
    sensitive: bool,
    extractable: bool,
) -> Outcome<super::Object> {
    let tmpl = Tmpl::new()
        .ulong(CKA_VALUE_LEN, 16)
        .bool(CKA_TOKEN, false)
        .bool(CKA_SENSITIVE, sensitive)
        .bool(CKA_EXTRACTABLE, extractable)
        .bool(CKA_ENCRYPT, true);
    cx.p11.generate_key(session, plain(CKM_AES_KEY_GEN), tmpl)
}

/// A secret attribute is told to be sensitive, its length included, and its buffer is not written.
#[track_caller]
fn is_hidden(cx: &Context, session: super::Session, object: super::Object, kind: CK_ATTRIBUTE_TYPE) {
    let mut room = [0xee; 512];
    let mut one = attribute(kind, &mut room);
    answered(raw!(cx, C_GetAttributeValue(session, object, &mut one, 1)), &[CKR_ATTRIBUTE_SENSITIVE]);
    assert_eq!(one.ulValueLen, CK_UNAVAILABLE_INFORMATION);
    assert_eq!(room, [0xee; 512], "nothing is written");
}

fn sensitive_value_is_never_read(cx: &Context) -> Outcome<()> {
    let session = cx.user()?;
    let key = secret(cx, session, true, true)?;
    is_hidden(cx, session, key, CKA_VALUE);
    Ok(())
}

fn unextractable_value_is_never_read(cx: &Context) -> Outcome<()> {
    let session = cx.user()?;
    let key = secret(cx, session, false, false)?;
    is_hidden(cx, session, key, CKA_VALUE);
    Ok(())
}

fn private_parts_of_an_ec_key_are_never_read(cx: &Context) -> Outcome<()> {
    let session = cx.user()?;
    let (_, private) = p256_pair(&cx.p11, session, false, "hidden", 1)?;
    is_hidden(cx, session, private, CKA_VALUE);
    Ok(())
}

fn private_parts_of_an_rsa_key_are_never_read(cx: &Context) -> Outcome<()> {
    let session = cx.user()?;
    let (_, private) = cx.rsa(session)?;
    for kind in
        [CKA_PRIVATE_EXPONENT, CKA_PRIME_1, CKA_PRIME_2, CKA_EXPONENT_1, CKA_EXPONENT_2, CKA_COEFFICIENT]
    {
        is_hidden(cx, session, private, kind);
    }
    assert_eq!(cx.p11.attribute(session, private, CKA_MODULUS)?.len(), 256);
    Ok(())
}

fn rsa_attributes_of_an_ec_key_do_not_exist(cx: &Context) -> Outcome<()> {
    let session = cx.user()?;
    let (public, private) = p256_pair(&cx.p11, session, false, "no modulus", 1)?;
    for key in [public, private] {
        refused(cx.p11.attribute(session, key, CKA_MODULUS), &[CKR_ATTRIBUTE_TYPE_INVALID]);
        refused(cx.p11.attribute(session, key, CKA_PUBLIC_EXPONENT), &[CKR_ATTRIBUTE_TYPE_INVALID]);
    }
    Ok(())
}

fn empty_template_reads_nothing(cx: &Context) -> Outcome<()> {
    let session = cx.user()?;
    let object = cx.p11.create_object(session, data_template(false, true, "label", b"value"))?;
    let rv = raw!(cx, C_GetAttributeValue(session, object, null_mut(), 0));
    answered(rv, &[CKR_OK, CKR_ARGUMENTS_BAD]);
    Ok(())
}

fn label_and_id_may_change(cx: &Context) -> Outcome<()> {
    let session = cx.user()?;
    for token in [false, true] {
        let (public, private) = p256_pair(&cx.p11, session, token, "before", 1)?;
        for key in [public, private] {
            cx.p11.set_attributes(
                session,
                key,
                Tmpl::new().bytes(CKA_LABEL, b"after").bytes(CKA_ID, b"id"),
            )?;
            assert_eq!(cx.p11.attribute(session, key, CKA_LABEL)?, b"after");
            assert_eq!(cx.p11.attribute(session, key, CKA_ID)?, b"id");
            cx.p11.destroy_object(session, key)?;
        }
    }
    Ok(())
}

fn change_is_seen_in_other_sessions_and_by_search(cx: &Context) -> Outcome<()> {
    let (session, other) = (cx.user()?, cx.open()?);
    let object = cx.p11.create_object(session, data_template(false, true, "old name", b"value"))?;
    cx.p11.set_attributes(session, object, Tmpl::new().bytes(CKA_LABEL, b"new name"))?;
    assert_eq!(cx.p11.attribute(other, object, CKA_LABEL)?, b"new name");
    assert!(cx.p11.find(other, Tmpl::new().bytes(CKA_LABEL, b"old name"))?.is_empty());
    assert_eq!(cx.p11.find(other, Tmpl::new().bytes(CKA_LABEL, b"new name"))?, [object]);
    Ok(())
}

fn sensitive_goes_one_way(cx: &Context) -> Outcome<()> {
    let session = cx.user()?;
    let key = secret(cx, session, false, true)?;
    assert_eq!(cx.p11.attribute(session, key, CKA_VALUE)?.len(), 16);
    cx.p11.set_attributes(session, key, Tmpl::new().bool(CKA_SENSITIVE, true))?;
    is_hidden(cx, session, key, CKA_VALUE);
    refused(
        cx.p11.set_attributes(session, key, Tmpl::new().bool(CKA_SENSITIVE, false)),
        &[CKR_ATTRIBUTE_READ_ONLY],
    );
    assert_eq!(cx.p11.attribute(session, key, CKA_ALWAYS_SENSITIVE)?, [CK_FALSE]);
    Ok(())
}

fn extractable_goes_one_way(cx: &Context) -> Outcome<()> {
    let session = cx.user()?;
    let key = secret(cx, session, false, true)?;
    cx.p11.set_attributes(session, key, Tmpl::new().bool(CKA_EXTRACTABLE, false))?;
    is_hidden(cx, session, key, CKA_VALUE);
    refused(
        cx.p11.set_attributes(session, key, Tmpl::new().bool(CKA_EXTRACTABLE, true)),
        &[CKR_ATTRIBUTE_READ_ONLY],
    );
    assert_eq!(cx.p11.attribute(session, key, CKA_NEVER_EXTRACTABLE)?, [CK_FALSE]);
    Ok(())
}

fn what_an_object_is_never_changes(cx: &Context) -> Outcome<()> {
    let session = cx.user()?;
    let key = secret(cx, session, false, true)?;
    let changes = [
        Tmpl::new().ulong(CKA_CLASS, CKO_DATA),
        Tmpl::new().ulong(CKA_KEY_TYPE, CKK_DES3),
        Tmpl::new().bytes(CKA_VALUE, &[1; 16]),
        Tmpl::new().bool(CKA_TOKEN, true),
        Tmpl::new().bool(CKA_PRIVATE, false),
        Tmpl::new().bool(CKA_LOCAL, false),
        Tmpl::new().bool(CKA_MODIFIABLE, false),
    ];
    for change in changes {
        refused(cx.p11.set_attributes(session, key, change), &[CKR_ATTRIBUTE_READ_ONLY]);
    }
    Ok(())
}

fn object_that_is_not_modifiable_stays_as_it_is(cx: &Context) -> Outcome<()> {
    let session = cx.user()?;
    let tmpl = data_template(false, true, "fixed", b"value").bool(CKA_MODIFIABLE, false);
    let object = cx.p11.create_object(session, tmpl)?;
    refused(
        cx.p11.set_attributes(session, object, Tmpl::new().bytes(CKA_LABEL, b"changed")),
        &[CKR_ACTION_PROHIBITED, CKR_ATTRIBUTE_READ_ONLY],
    );
    assert_eq!(cx.p11.attribute(session, object, CKA_LABEL)?, b"fixed");
    Ok(())
}

fn bad_change_changes_nothing(cx: &Context) -> Outcome<()> {
    let session = cx.user()?;
    let key = secret(cx, session, true, false)?;
    cx.p11.set_attributes(session, key, Tmpl::new().bytes(CKA_LABEL, b"kept"))?;
    let change = Tmpl::new().bytes(CKA_LABEL, b"lost").bool(CKA_SENSITIVE, false);
    refused(cx.p11.set_attributes(session, key, change), &[CKR_ATTRIBUTE_READ_ONLY]);
    assert_eq!(cx.p11.attribute(session, key, CKA_LABEL)?, b"kept", "all of a template holds or none");
    Ok(())
}

fn usage_may_be_taken_away(cx: &Context) -> Outcome<()> {
    let session = cx.user()?;
    let key = cx.mac(session)?;
    cx.p11.sign_once(session, plain(CKM_SHA256_HMAC), key, b"data")?;
    cx.p11.set_attributes(session, key, Tmpl::new().bool(CKA_SIGN, false))?;
    refused(cx.p11.sign_init(session, plain(CKM_SHA256_HMAC), key), &[CKR_KEY_FUNCTION_NOT_PERMITTED]);
    Ok(())
}
