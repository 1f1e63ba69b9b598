//! Contract: what ends an operation and what does not (RULES 1.3).

use std::ptr::null_mut;

use cryptoki_sys::*;

use super::{Context, answered, plain, refused};
use crate::p11::{Mech, Outcome, p256_pair};

rows! {
    "v3.1, 5.13.2" => use_without_init_is_refused_everywhere,
    "v3.1, 5.13.1" => second_init_of_the_same_kind_is_refused_and_the_first_goes_on,
    "RULES 1.3" => sign_that_failed_is_gone,
    "RULES 1.3" => verify_that_failed_is_gone,
    "RULES 1.3" => decrypt_that_failed_is_gone,
    "RULES 1.3" => encrypt_final_that_failed_is_gone,
    "v3.1, 5.13.1" => init_that_failed_begins_nothing,
    "v3.1, 5.12.2, 5.13.2" => single_call_after_parts_is_refused_and_ends_the_operation,
    "v3.1, 5.13.4" => final_without_parts_is_the_operation_over_nothing,
    "v3.1, 5.13.2" => operation_ends_with_its_output,
    "v3.1, 5.13.1" => operations_of_two_sessions_do_not_meet,
    "v3.1, 5.13.1" => operations_of_two_kinds_do_not_meet,
    "v3.1, 5.6.2" => operation_ends_with_its_session,
    "v3.1, 5.13.1" => init_without_a_mechanism_cancels,
    "v3.1, 5.7.3; RULES 1.1" => sign_after_its_key_was_destroyed_fails,
    "RULES 1.11" => raw_signatures_in_parts_are_buffered,
    "v3.1, 5.6.10" => logout_ends_operations_with_private_keys,
}

fn use_without_init_is_refused_everywhere(cx: &Context) -> Outcome<()> {
    let session = cx.user()?;
    let none = &[CKR_OPERATION_NOT_INITIALIZED];
    refused(cx.p11.sign(session, b"x"), none);
    refused(cx.p11.sign_update(session, b"x"), none);
    refused(cx.p11.sign_final(session), none);
    refused(cx.p11.verify(session, b"x", b"y"), none);
    refused(cx.p11.verify_update(session, b"x"), none);
    refused(cx.p11.verify_final(session, b"y"), none);
    refused(cx.p11.encrypt(session, b"x"), none);
    refused(cx.p11.encrypt_update(session, b"x"), none);
    refused(cx.p11.encrypt_final(session), none);
    refused(cx.p11.decrypt(session, b"x"), none);
    refused(cx.p11.decrypt_update(session, b"x"), none);
    refused(cx.p11.decrypt_final(session), none);
    refused(cx.p11.digest_update(session, b"x"), none);
    refused(cx.p11.digest_final(session), none);
    Ok(())
}

fn second_init_of_the_same_kind_is_refused_and_the_first_goes_on(cx: &Context) -> Outcome<()> {
    let session = cx.user()?;
    let (mac, aes) = (cx.mac(session)?, cx.aes(session)?);
    let active = &[CKR_OPERATION_ACTIVE];
    cx.p11.sign_init(session, plain(CKM_SHA256_HMAC), mac)?;
    refused(cx.p11.sign_init(session, plain(CKM_SHA512_HMAC), mac), active);
    assert_eq!(cx.p11.sign(session, b"data")?.len(), 32, "the first one is still there");
    cx.p11.encrypt_init(session, plain(CKM_AES_ECB), aes)?;
    refused(cx.p11.encrypt_init(session, plain(CKM_AES_ECB), aes), active);
    assert_eq!(cx.p11.encrypt(session, &[1; 16])?.len(), 16);
    cx.p11.digest_init(session, plain(CKM_SHA256))?;
    refused(cx.p11.digest_init(session, plain(CKM_SHA512)), active);
    assert_eq!(cx.p11.digest_final(session)?.len(), 32);
    Ok(())
}

fn sign_that_failed_is_gone(cx: &Context) -> Outcome<()> {
    let session = cx.user()?;
    let (_, private) = cx.rsa(session)?;
    assert!(cx.p11.sign_once(session, plain(CKM_RSA_PKCS), private, &[1; 250]).is_err());
    refused(cx.p11.sign(session, b"x"), &[CKR_OPERATION_NOT_INITIALIZED]);
    cx.p11.sign_once(session, plain(CKM_RSA_PKCS), private, b"x").map(|_| ())
}

fn verify_that_failed_is_gone(cx: &Context) -> Outcome<()> {
    let session = cx.user()?;
    let (public, private) = cx.rsa(session)?;
    let signature = cx.p11.sign_once(session, plain(CKM_SHA256_RSA_PKCS), private, b"data")?;
    let verify =
        |data: &[u8]| cx.p11.verify_once(session, plain(CKM_SHA256_RSA_PKCS), public, data, &signature);
    refused(verify(b"other"), &[CKR_SIGNATURE_INVALID]);
    refused(cx.p11.verify(session, b"data", &signature), &[CKR_OPERATION_NOT_INITIALIZED]);
    verify(b"data")?;
    cx.p11.verify_init(session, plain(CKM_SHA256_RSA_PKCS), public)?;
    cx.p11.verify_update(session, b"other")?;
    refused(cx.p11.verify_final(session, &signature), &[CKR_SIGNATURE_INVALID]);
    refused(cx.p11.verify_final(session, &signature), &[CKR_OPERATION_NOT_INITIALIZED]);
    Ok(())
}

fn decrypt_that_failed_is_gone(cx: &Context) -> Outcome<()> {
    let session = cx.user()?;
    let aes = cx.aes(session)?;
    cx.p11.decrypt_init(session, Mech::iv(CKM_AES_CBC_PAD, &[0; 16]), aes)?;
    refused(cx.p11.decrypt(session, &[1; 17]), &[CKR_ENCRYPTED_DATA_LEN_RANGE]);
    refused(cx.p11.decrypt(session, &[1; 16]), &[CKR_OPERATION_NOT_INITIALIZED]);
    cx.p11.decrypt_init(session, plain(CKM_AES_ECB), aes)
}

fn encrypt_final_that_failed_is_gone(cx: &Context) -> Outcome<()> {
    let session = cx.user()?;
    let aes = cx.aes(session)?;
    cx.p11.encrypt_init(session, plain(CKM_AES_ECB), aes)?;
    cx.p11.encrypt_update(session, &[1; 5])?;
    refused(cx.p11.encrypt_final(session), &[CKR_DATA_LEN_RANGE]);
    refused(cx.p11.encrypt_final(session), &[CKR_OPERATION_NOT_INITIALIZED]);
    Ok(())
}

fn init_that_failed_begins_nothing(cx: &Context) -> Outcome<()> {
    let session = cx.user()?;
    let (_, private) = cx.rsa(session)?;
    refused(cx.p11.sign_init(session, plain(CKM_SHA256), private), &[CKR_MECHANISM_INVALID]);
    refused(cx.p11.sign(session, b"x"), &[CKR_OPERATION_NOT_INITIALIZED]);
    cx.p11.sign_init(session, plain(CKM_RSA_PKCS), private)
}

fn single_call_after_parts_is_refused_and_ends_the_operation(cx: &Context) -> Outcome<()> {
    let session = cx.user()?;
    let mac = cx.mac(session)?;
    cx.p11.sign_init(session, plain(CKM_SHA256_HMAC), mac)?;
    cx.p11.sign_update(session, b"part")?;
    refused(cx.p11.sign(session, b"whole"), &[CKR_OPERATION_NOT_INITIALIZED, CKR_OPERATION_ACTIVE]);
    refused(cx.p11.sign_final(session), &[CKR_OPERATION_NOT_INITIALIZED]);
    let session = cx.open()?;
    cx.p11.digest_init(session, plain(CKM_SHA256))?;
    cx.p11.digest_update(session, b"part")?;
    let (mut room, mut length) = ([0; 64], 64);
    let data = b"x".as_ptr().cast_mut();
    let rv = raw!(cx, C_Digest(session, data, 1, room.as_mut_ptr(), &mut length));
    answered(rv, &[CKR_OPERATION_NOT_INITIALIZED, CKR_OPERATION_ACTIVE]);
    refused(cx.p11.digest_final(session), &[CKR_OPERATION_NOT_INITIALIZED]);
    Ok(())
}

fn final_without_parts_is_the_operation_over_nothing(cx: &Context) -> Outcome<()> {
    let session = cx.user()?;
    let mac = cx.mac(session)?;
    let whole = cx.p11.sign_once(session, plain(CKM_SHA256_HMAC), mac, &[])?;
    cx.p11.sign_init(session, plain(CKM_SHA256_HMAC), mac)?;
    assert_eq!(cx.p11.sign_final(session)?, whole);
    Ok(())
}

fn operation_ends_with_its_output(cx: &Context) -> Outcome<()> {
    let session = cx.user()?;
    let (mac, aes) = (cx.mac(session)?, cx.aes(session)?);
    let none = &[CKR_OPERATION_NOT_INITIALIZED];
    cx.p11.sign_once(session, plain(CKM_SHA256_HMAC), mac, b"data")?;
    refused(cx.p11.sign(session, b"data"), none);
    cx.p11.encrypt_init(session, plain(CKM_AES_ECB), aes)?;
    cx.p11.encrypt(session, &[1; 16])?;
    refused(cx.p11.encrypt(session, &[1; 16]), none);
    cx.p11.decrypt_init(session, plain(CKM_AES_ECB), aes)?;
    cx.p11.decrypt_update(session, &[1; 16])?;
    cx.p11.decrypt_final(session)?;
    refused(cx.p11.decrypt_update(session, &[1; 16]), none);
    cx.p11.digest(session, plain(CKM_SHA256), b"data")?;
    refused(cx.p11.digest_update(session, b"data"), none);
    Ok(())
}

fn operations_of_two_sessions_do_not_meet(cx: &Context) -> Outcome<()> {
    let (first, second) = (cx.user()?, cx.open()?);
    let mac = cx.mac(first)?;
    let of = |data| cx.p11.sign_once(first, plain(CKM_SHA256_HMAC), mac, data);
    let (one, two) = (of(b"one")?, of(b"two")?);
    cx.p11.sign_init(first, plain(CKM_SHA256_HMAC), mac)?;
    cx.p11.sign_init(second, plain(CKM_SHA256_HMAC), mac)?;
    cx.p11.sign_update(first, b"o")?;
    cx.p11.sign_update(second, b"t")?;
    cx.p11.sign_update(first, b"ne")?;
    cx.p11.sign_update(second, b"wo")?;
    assert_eq!(cx.p11.sign_final(first)?, one);
    assert_eq!(cx.p11.sign_final(second)?, two);
    Ok(())
}

fn operations_of_two_kinds_do_not_meet(cx: &Context) -> Outcome<()> {
    let session = cx.user()?;
    let (mac, data) = (cx.mac(session)?, b"data");
    cx.p11.find_init(session, crate::p11::Tmpl::new())?;
    let signed = cx.p11.sign_once(session, plain(CKM_SHA256_HMAC), mac, data)?;
    assert_eq!(signed.len(), 32);
    assert_eq!(cx.p11.find_page(session, 1)?.len(), 1);
    cx.p11.find_final(session)
}

fn operation_ends_with_its_session(cx: &Context) -> Outcome<()> {
    let (first, second) = (cx.user()?, cx.open()?);
    let mac = cx.mac(second)?;
    cx.p11.sign_init(first, plain(CKM_SHA256_HMAC), mac)?;
    cx.p11.close(first)?;
    refused(cx.p11.sign(first, b"data"), &[CKR_SESSION_HANDLE_INVALID]);
    refused(cx.p11.sign(second, b"data"), &[CKR_OPERATION_NOT_INITIALIZED]);
    Ok(())
}

fn init_without_a_mechanism_cancels(cx: &Context) -> Outcome<()> {
    let session = cx.user()?;
    let (mac, aes) = (cx.mac(session)?, cx.aes(session)?);
    let none = &[CKR_OPERATION_NOT_INITIALIZED];
    cx.p11.sign_init(session, plain(CKM_SHA256_HMAC), mac)?;
    cx.p11.cancel_sign(session)?;
    refused(cx.p11.sign(session, b"data"), none);
    cx.p11.encrypt_init(session, plain(CKM_AES_ECB), aes)?;
    answered(raw!(cx, C_EncryptInit(session, null_mut(), 0)), &[CKR_OK]);
    refused(cx.p11.encrypt(session, &[1; 16]), none);
    cx.p11.digest_init(session, plain(CKM_SHA256))?;
    answered(raw!(cx, C_DigestInit(session, null_mut())), &[CKR_OK]);
    refused(cx.p11.digest_final(session), none);
    Ok(())
}

fn sign_after_its_key_was_destroyed_fails(cx: &Context) -> Outcome<()> {
    let (session, other) = (cx.user()?, cx.open()?);
    let (public, private) = p256_pair(&cx.p11, session, true, "destroyed meanwhile", 1)?;
    cx.p11.sign_init(session, plain(CKM_ECDSA), private)?;
    cx.p11.destroy_object(other, private)?;
    cx.p11.destroy_object(other, public)?;
    let outcome = cx.p11.sign(session, &[1; 32]);
    if cx.hatoki {
        refused(outcome, &[CKR_KEY_HANDLE_INVALID]);
    } else if let Err(failed) = outcome {
        refused::<()>(Err(failed), &[CKR_KEY_HANDLE_INVALID, CKR_GENERAL_ERROR, CKR_FUNCTION_FAILED]);
    }
    refused(cx.p11.sign_init(session, plain(CKM_ECDSA), private), cx.no_key());
    Ok(())
}

fn raw_signatures_in_parts_are_buffered(cx: &Context) -> Outcome<()> {
    let session = cx.user()?;
    let (public, private) = cx.rsa(session)?;
    cx.p11.sign_init(session, plain(CKM_RSA_PKCS), private)?;
    cx.p11.sign_update(session, b"in ")?;
    cx.p11.sign_update(session, b"parts")?;
    let signature = cx.p11.sign_final(session)?;
    cx.p11.verify_once(session, plain(CKM_RSA_PKCS), public, b"in parts", &signature)?;
    cx.p11.verify_init(session, plain(CKM_RSA_PKCS), public)?;
    cx.p11.verify_update(session, b"in parts")?;
    cx.p11.verify_final(session, &signature)
}

fn logout_ends_operations_with_private_keys(cx: &Context) -> Outcome<()> {
    let session = cx.user()?;
    let (_, private) = cx.rsa(session)?;
    cx.p11.sign_init(session, plain(CKM_RSA_PKCS), private)?;
    cx.p11.logout(session)?;
    refused(
        cx.p11.sign(session, b"data"),
        &[CKR_OPERATION_NOT_INITIALIZED, CKR_USER_NOT_LOGGED_IN, CKR_KEY_HANDLE_INVALID],
    );
    Ok(())
}
