//! Contract: creating, copying and destroying objects, and the rules of templates.

use cryptoki_sys::*;

use super::{Context, data_template, plain, refused, secret_template, ulong};
use crate::p11::{Outcome, P256_PARAMS, Tmpl};

rows! {
    "v3.1, 5.7.1" => data_object_keeps_its_attributes,
    "v3.1, 5.7.1" => empty_value_is_kept_as_empty,
    "v3.1, 5.7.1" => large_value_is_kept,
    "v3.1, 4.6.3" => certificate_keeps_its_attributes,
    "v3.1, 4.9" => imported_secret_key_is_not_local,
    "v3.1, 6.3.3" => imported_ec_public_key_verifies,
    "v3.1, 6.1.2" => imported_rsa_public_key_verifies,
    "v3.1, 5.7.1" => template_without_a_class_is_incomplete,
    "v3.1, 5.7.1" => key_without_its_type_is_incomplete,
    "v3.1, 5.7.1" => secret_key_without_a_value_is_incomplete,
    "v3.1, 4.1.1" => attribute_named_twice_is_inconsistent,
    "v3.1, 4.1.1" => attribute_of_another_class_is_refused,
    "v3.1, 4.1.1" => attribute_of_bad_length_is_refused,
    "v3.1, 4.1.1" => unknown_attribute_is_refused,
    "v3.1, 5.7.1" => attributes_that_the_token_sets_cannot_be_given,
    "v3.1, 5.7.1" => aes_key_of_a_bad_size_is_refused,
    "v3.1, 5.7.1" => token_object_in_a_read_only_session_is_refused,
    "v3.1, 5.7.1" => session_object_in_a_read_only_session_is_made,
    "v3.1, 5.7.1; ADR 0006, 4" => public_token_object_without_login_answers_as_documented,
    "v3.1, 5.7.2" => copy_takes_the_attributes_and_the_changes,
    "v3.1, 5.7.2" => copy_may_go_from_session_to_token,
    "v3.1, 5.7.2" => copy_never_weakens,
    "v3.1, 5.7.2" => object_that_is_not_copyable_is_not_copied,
    "v3.1, 5.7.3" => destroyed_object_is_gone,
    "v3.1, 5.7.3" => object_that_is_not_destroyable_stays,
    "v3.1, 5.7.3" => token_object_in_a_read_only_session_is_not_destroyed,
    "v3.1, 5.7.4" => object_has_a_size,
}

fn data_object_keeps_its_attributes(cx: &Context) -> Outcome<()> {
    let session = cx.user()?;
    for token in [false, true] {
        let tmpl = data_template(token, true, "a label", b"a value")
            .bytes(CKA_APPLICATION, b"an application")
            .bytes(CKA_OBJECT_ID, &[0x06, 0x01, 0x2a]);
        let object = cx.p11.create_object(session, tmpl)?;
        let is = |kind| cx.p11.attribute(session, object, kind);
        assert_eq!(is(CKA_LABEL)?, b"a label");
        assert_eq!(is(CKA_VALUE)?, b"a value");
        assert_eq!(is(CKA_APPLICATION)?, b"an application");
        assert_eq!(is(CKA_OBJECT_ID)?, [0x06, 0x01, 0x2a]);
        assert_eq!(is(CKA_TOKEN)?, [u8::from(token)]);
        assert_eq!(is(CKA_PRIVATE)?, [CK_TRUE]);
        assert_eq!(is(CKA_MODIFIABLE)?, [CK_TRUE]);
        assert_eq!(ulong(&is(CKA_CLASS)?), CKO_DATA);
        cx.p11.destroy_object(session, object)?;
    }
    Ok(())
}

fn empty_value_is_kept_as_empty(cx: &Context) -> Outcome<()> {
    let session = cx.user()?;
    let object = cx.p11.create_object(session, data_template(false, true, "", b""))?;
    assert_eq!(cx.p11.attribute(session, object, CKA_VALUE)?, b"");
    assert_eq!(cx.p11.attribute(session, object, CKA_LABEL)?, b"");
    Ok(())
}

fn large_value_is_kept(cx: &Context) -> Outcome<()> {
    let session = cx.user()?;
    let value: Vec<u8> = (0..16 * 1024u32).map(|at| at.to_le_bytes()[0]).collect();
    let object = cx.p11.create_object(session, data_template(false, true, "large", &value))?;
    assert_eq!(cx.p11.attribute(session, object, CKA_VALUE)?, value);
    Ok(())
}

fn certificate_keeps_its_attributes(cx: &Context) -> Outcome<()> {
    let session = cx.user()?;
    let subject = [
        0x30, 0x0f, 0x31, 0x0d, 0x30, 0x0b, 0x06, 0x03, 0x55, 0x04, 0x03, 0x0c, 0x04, 0x74, 0x65, 0x73, 0x74,
    ];
    let tmpl = Tmpl::new()
        .ulong(CKA_CLASS, CKO_CERTIFICATE)
        .ulong(CKA_CERTIFICATE_TYPE, CKC_X_509)
        .bool(CKA_TOKEN, false)
        .bool(CKA_PRIVATE, false)
        .bytes(CKA_SUBJECT, &subject)
        .bytes(CKA_ID, &[1, 2])
        .bytes(CKA_VALUE, &[0x30, 0x00]);
    let object = cx.p11.create_object(session, tmpl)?;
    assert_eq!(cx.p11.attribute(session, object, CKA_SUBJECT)?, subject);
    assert_eq!(cx.p11.attribute(session, object, CKA_VALUE)?, [0x30, 0x00]);
    assert_eq!(cx.p11.attribute(session, object, CKA_ID)?, [1, 2]);
    assert_eq!(cx.p11.attribute(session, object, CKA_TRUSTED)?, [CK_FALSE]);
    let found = Tmpl::new().ulong(CKA_CLASS, CKO_CERTIFICATE).bytes(CKA_SUBJECT, &subject);
    assert_eq!(cx.p11.find(session, found)?, [object]);
    Ok(())
}

fn imported_secret_key_is_not_local(cx: &Context) -> Outcome<()> {
    let session = cx.user()?;
    let key = cx.aes(session)?;
    let is = |kind| cx.p11.attribute(session, key, kind);
    assert_eq!(is(CKA_LOCAL)?, [CK_FALSE]);
    assert_eq!(is(CKA_ALWAYS_SENSITIVE)?, [CK_FALSE]);
    assert_eq!(is(CKA_NEVER_EXTRACTABLE)?, [CK_FALSE]);
    assert_eq!(ulong(&is(CKA_KEY_GEN_MECHANISM)?), CK_UNAVAILABLE_INFORMATION);
    assert_eq!(ulong(&is(CKA_VALUE_LEN)?), 16);
    assert_eq!(is(CKA_VALUE)?, [0x5a; 16]);
    Ok(())
}

fn imported_ec_public_key_verifies(cx: &Context) -> Outcome<()> {
    let session = cx.user()?;
    let (public, private) = crate::p11::p256_pair(&cx.p11, session, false, "import", 1)?;
    let tmpl = Tmpl::new()
        .ulong(CKA_CLASS, CKO_PUBLIC_KEY)
        .ulong(CKA_KEY_TYPE, CKK_EC)
        .bool(CKA_TOKEN, false)
        .bool(CKA_VERIFY, true)
        .bytes(CKA_EC_PARAMS, P256_PARAMS)
        .bytes(CKA_EC_POINT, &cx.p11.attribute(session, public, CKA_EC_POINT)?);
    let imported = cx.p11.create_object(session, tmpl)?;
    let signature = cx.p11.sign_once(session, plain(CKM_ECDSA), private, &[7; 32])?;
    cx.p11.verify_once(session, plain(CKM_ECDSA), imported, &[7; 32], &signature)?;
    refused(
        cx.p11.verify_once(session, plain(CKM_ECDSA), imported, &[8; 32], &signature),
        &[CKR_SIGNATURE_INVALID],
    );
    Ok(())
}

fn imported_rsa_public_key_verifies(cx: &Context) -> Outcome<()> {
    let session = cx.user()?;
    let (public, private) = cx.rsa(session)?;
    let tmpl = Tmpl::new()
        .ulong(CKA_CLASS, CKO_PUBLIC_KEY)
        .ulong(CKA_KEY_TYPE, CKK_RSA)
        .bool(CKA_TOKEN, false)
        .bool(CKA_VERIFY, true)
        .bytes(CKA_MODULUS, &cx.p11.attribute(session, public, CKA_MODULUS)?)
        .bytes(CKA_PUBLIC_EXPONENT, &cx.p11.attribute(session, public, CKA_PUBLIC_EXPONENT)?);
    let imported = cx.p11.create_object(session, tmpl)?;
    let signature = cx.p11.sign_once(session, plain(CKM_SHA256_RSA_PKCS), private, b"data")?;
    cx.p11.verify_once(session, plain(CKM_SHA256_RSA_PKCS), imported, b"data", &signature)?;
    assert_eq!(ulong(&cx.p11.attribute(session, imported, CKA_MODULUS_BITS)?), 2048);
    Ok(())
}

fn template_without_a_class_is_incomplete(cx: &Context) -> Outcome<()> {
    let session = cx.user()?;
    let tmpl = Tmpl::new().bool(CKA_TOKEN, false).bytes(CKA_VALUE, b"x");
    refused(cx.p11.create_object(session, tmpl), &[CKR_TEMPLATE_INCOMPLETE]);
    refused(cx.p11.create_object(session, Tmpl::new()), &[CKR_TEMPLATE_INCOMPLETE]);
    Ok(())
}

fn key_without_its_type_is_incomplete(cx: &Context) -> Outcome<()> {
    let session = cx.user()?;
    let tmpl = Tmpl::new().ulong(CKA_CLASS, CKO_SECRET_KEY).bytes(CKA_VALUE, &[1; 16]);
    refused(cx.p11.create_object(session, tmpl), &[CKR_TEMPLATE_INCOMPLETE]);
    Ok(())
}

fn secret_key_without_a_value_is_incomplete(cx: &Context) -> Outcome<()> {
    let session = cx.user()?;
    let tmpl = Tmpl::new()
        .ulong(CKA_CLASS, CKO_SECRET_KEY)
        .ulong(CKA_KEY_TYPE, CKK_AES)
        .bool(CKA_TOKEN, false)
        .bool(CKA_ENCRYPT, true);
    refused(cx.p11.create_object(session, tmpl), &[CKR_TEMPLATE_INCOMPLETE]);
    Ok(())
}

fn attribute_named_twice_is_inconsistent(cx: &Context) -> Outcome<()> {
    let session = cx.user()?;
    let tmpl = data_template(false, true, "one", b"value").bytes(CKA_LABEL, b"two");
    refused(cx.p11.create_object(session, tmpl), &[CKR_TEMPLATE_INCONSISTENT]);
    Ok(())
}

fn attribute_of_another_class_is_refused(cx: &Context) -> Outcome<()> {
    let session = cx.user()?;
    let wanted = &[CKR_ATTRIBUTE_TYPE_INVALID, CKR_TEMPLATE_INCONSISTENT];
    let tmpl = data_template(false, true, "data", b"value").bytes(CKA_MODULUS, &[1; 256]);
    refused(cx.p11.create_object(session, tmpl), wanted);
    let tmpl = secret_template(CKK_AES, &[1; 16]).bytes(CKA_EC_PARAMS, P256_PARAMS);
    refused(cx.p11.create_object(session, tmpl), wanted);
    Ok(())
}

fn attribute_of_bad_length_is_refused(cx: &Context) -> Outcome<()> {
    let session = cx.user()?;
    let base = || Tmpl::new().ulong(CKA_CLASS, CKO_DATA).bytes(CKA_VALUE, b"x");
    let bad = &[CKR_ATTRIBUTE_VALUE_INVALID];
    refused(cx.p11.create_object(session, base().bytes(CKA_TOKEN, &[0, 0])), bad);
    refused(cx.p11.create_object(session, base().bytes(CKA_PRIVATE, &[])), bad);
    let bad = &[CKR_ATTRIBUTE_VALUE_INVALID, CKR_TEMPLATE_INCOMPLETE];
    refused(cx.p11.create_object(session, Tmpl::new().bytes(CKA_CLASS, &[0])), bad);
    Ok(())
}

fn unknown_attribute_is_refused(cx: &Context) -> Outcome<()> {
    let session = cx.user()?;
    let tmpl = data_template(false, true, "data", b"value").bytes(0x7fff_fff0, b"x");
    refused(cx.p11.create_object(session, tmpl), &[CKR_ATTRIBUTE_TYPE_INVALID]);
    Ok(())
}

fn attributes_that_the_token_sets_cannot_be_given(cx: &Context) -> Outcome<()> {
    let session = cx.user()?;
    let wanted = &[CKR_ATTRIBUTE_READ_ONLY, CKR_TEMPLATE_INCONSISTENT, CKR_ATTRIBUTE_TYPE_INVALID];
    for kind in [CKA_LOCAL, CKA_ALWAYS_SENSITIVE, CKA_NEVER_EXTRACTABLE] {
        let tmpl = secret_template(CKK_AES, &[1; 16]).bool(kind, true);
        refused(cx.p11.create_object(session, tmpl), wanted);
    }
    Ok(())
}

fn aes_key_of_a_bad_size_is_refused(cx: &Context) -> Outcome<()> {
    let session = cx.user()?;
    let wanted = &[CKR_ATTRIBUTE_VALUE_INVALID, CKR_KEY_SIZE_RANGE];
    for bytes in [0, 15, 17, 33] {
        refused(cx.secret(session, CKK_AES, &vec![1; bytes]), wanted);
    }
    Ok(())
}

fn token_object_in_a_read_only_session_is_refused(cx: &Context) -> Outcome<()> {
    let session = cx.p11.open(cx.slot, 0)?;
    cx.login(session)?;
    let tmpl = data_template(true, true, "never", b"value");
    refused(cx.p11.create_object(session, tmpl), &[CKR_SESSION_READ_ONLY]);
    let tmpl = Tmpl::new().bool(CKA_TOKEN, true).ulong(CKA_VALUE_LEN, 16);
    refused(cx.p11.generate_key(session, plain(CKM_AES_KEY_GEN), tmpl), &[CKR_SESSION_READ_ONLY]);
    Ok(())
}

fn session_object_in_a_read_only_session_is_made(cx: &Context) -> Outcome<()> {
    let session = cx.p11.open(cx.slot, 0)?;
    cx.login(session)?;
    let object = cx.p11.create_object(session, data_template(false, true, "made", b"value"))?;
    cx.p11.destroy_object(session, object)
}

fn public_token_object_without_login_answers_as_documented(cx: &Context) -> Outcome<()> {
    let session = cx.open()?;
    let made = cx.p11.create_object(session, data_template(true, false, "public", b"value"));
    if cx.hatoki {
        refused(made, &[CKR_USER_NOT_LOGGED_IN]);
        return Ok(());
    }
    cx.p11.destroy_object(session, made?)
}

fn copy_takes_the_attributes_and_the_changes(cx: &Context) -> Outcome<()> {
    let session = cx.user()?;
    let original = cx.aes(session)?;
    let copy = cx.p11.copy_object(session, original, Tmpl::new().bytes(CKA_LABEL, b"the copy"))?;
    assert_ne!(copy, original);
    assert_eq!(cx.p11.attribute(session, copy, CKA_LABEL)?, b"the copy");
    assert_eq!(cx.p11.attribute(session, copy, CKA_VALUE)?, [0x5a; 16]);
    cx.p11.destroy_object(session, original)?;
    cx.p11.encrypt_init(session, plain(CKM_AES_ECB), copy)
}

fn copy_may_go_from_session_to_token(cx: &Context) -> Outcome<()> {
    let session = cx.user()?;
    let original = cx.p11.create_object(session, data_template(false, true, "to token", b"value"))?;
    let copy = cx.p11.copy_object(session, original, Tmpl::new().bool(CKA_TOKEN, true))?;
    assert_eq!(cx.p11.attribute(session, copy, CKA_TOKEN)?, [CK_TRUE]);
    assert_eq!(cx.p11.attribute(session, copy, CKA_VALUE)?, b"value");
    cx.p11.destroy_object(session, copy)
}

fn copy_never_weakens(cx: &Context) -> Outcome<()> {
    let session = cx.user()?;
    let tmpl = Tmpl::new()
        .ulong(CKA_VALUE_LEN, 16)
        .bool(CKA_TOKEN, false)
        .bool(CKA_SENSITIVE, true)
        .bool(CKA_EXTRACTABLE, false);
    let key = cx.p11.generate_key(session, plain(CKM_AES_KEY_GEN), tmpl)?;
    let wanted = &[CKR_ATTRIBUTE_READ_ONLY, CKR_TEMPLATE_INCONSISTENT];
    refused(cx.p11.copy_object(session, key, Tmpl::new().bool(CKA_SENSITIVE, false)), wanted);
    refused(cx.p11.copy_object(session, key, Tmpl::new().bool(CKA_EXTRACTABLE, true)), wanted);
    refused(cx.p11.copy_object(session, key, Tmpl::new().ulong(CKA_CLASS, CKO_DATA)), wanted);
    refused(cx.p11.copy_object(session, key, Tmpl::new().bytes(CKA_VALUE, &[1; 16])), wanted);
    Ok(())
}

fn object_that_is_not_copyable_is_not_copied(cx: &Context) -> Outcome<()> {
    let session = cx.user()?;
    let tmpl = data_template(false, true, "fixed", b"value").bool(CKA_COPYABLE, false);
    let object = cx.p11.create_object(session, tmpl)?;
    refused(cx.p11.copy_object(session, object, Tmpl::new()), &[CKR_ACTION_PROHIBITED]);
    Ok(())
}

fn destroyed_object_is_gone(cx: &Context) -> Outcome<()> {
    let session = cx.user()?;
    for token in [false, true] {
        let object = cx.p11.create_object(session, data_template(token, true, "to destroy", b"value"))?;
        cx.p11.destroy_object(session, object)?;
        refused(cx.p11.destroy_object(session, object), &[CKR_OBJECT_HANDLE_INVALID]);
        refused(cx.p11.attribute(session, object, CKA_LABEL), &[CKR_OBJECT_HANDLE_INVALID]);
        assert!(cx.p11.find(session, Tmpl::new().bytes(CKA_LABEL, b"to destroy"))?.is_empty());
    }
    Ok(())
}

fn object_that_is_not_destroyable_stays(cx: &Context) -> Outcome<()> {
    let session = cx.user()?;
    let tmpl = data_template(false, true, "stays", b"value").bool(CKA_DESTROYABLE, false);
    let object = cx.p11.create_object(session, tmpl)?;
    refused(cx.p11.destroy_object(session, object), &[CKR_ACTION_PROHIBITED]);
    cx.p11.attribute(session, object, CKA_VALUE).map(|_| ())
}

fn token_object_in_a_read_only_session_is_not_destroyed(cx: &Context) -> Outcome<()> {
    let session = cx.user()?;
    let object = cx.p11.create_object(session, data_template(true, true, "kept", b"value"))?;
    let read_only = cx.p11.open(cx.slot, 0)?;
    let outcome = cx.p11.destroy_object(read_only, object);
    let changed = cx.p11.set_attributes(read_only, object, Tmpl::new().bytes(CKA_LABEL, b"new"));
    refused(outcome, &[CKR_SESSION_READ_ONLY]);
    refused(changed, &[CKR_SESSION_READ_ONLY]);
    cx.p11.destroy_object(session, object)
}

fn object_has_a_size(cx: &Context) -> Outcome<()> {
    let session = cx.user()?;
    let object = cx.p11.create_object(session, data_template(false, true, "sized", &[1; 100]))?;
    let bytes = cx.p11.object_size(session, object)?;
    assert!(bytes >= 100, "{bytes} bytes for a value of 100");
    Ok(())
}
