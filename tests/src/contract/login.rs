//! Contract: roles, PINs and what a login opens.

use std::ptr::null_mut;

use cryptoki_sys::*;

use super::{Context, answered, data_template, plain, refused};
use crate::p11::{Outcome, Tmpl};

rows! {
    "v3.1, 5.6.8" => login_twice_is_refused,
    "v3.1, 5.6.8" => the_other_role_while_one_is_logged_in_is_refused,
    "v3.1, 5.6.8" => wrong_pin_is_refused_and_the_right_one_still_works,
    "v3.1, 5.6.8" => unknown_user_type_is_refused,
    "v3.1, 5.6.8" => context_login_without_an_operation_is_refused,
    "v3.1, 5.6.8" => security_officer_beside_a_read_only_session_is_refused,
    "v3.1, 5.6.1" => read_only_session_beside_a_security_officer_is_refused,
    "v3.1, 5.6.8" => security_officer_session_has_its_state_and_sees_no_private_objects,
    "v3.1, 5.6.10" => logout_without_a_login_is_refused,
    "v3.1, 5.6.10" => logout_ends_handles_of_private_objects,
    "v3.1, 5.6.10" => logout_ends_private_session_objects,
    "v3.1, 5.6.8" => private_objects_are_invisible_without_a_login,
    "v3.1, 5.6.8" => private_objects_cannot_be_made_without_a_login,
    "v3.1, 5.5.9" => set_pin_changes_the_pin,
    "v3.1, 5.5.9" => set_pin_with_a_wrong_old_pin_is_refused,
    "v3.1, 5.5.9" => set_pin_with_a_bad_length_is_refused,
    "v3.1, 5.5.9" => set_pin_in_a_read_only_session_is_refused,
    "v3.1, 5.6.8" => login_in_two_sessions_is_one_login,
}

fn login_twice_is_refused(cx: &Context) -> Outcome<()> {
    let session = cx.user()?;
    refused(cx.login(session), &[CKR_USER_ALREADY_LOGGED_IN]);
    Ok(())
}

fn login_in_two_sessions_is_one_login(cx: &Context) -> Outcome<()> {
    cx.user()?;
    let second = cx.open()?;
    refused(cx.login(second), &[CKR_USER_ALREADY_LOGGED_IN]);
    Ok(())
}

fn the_other_role_while_one_is_logged_in_is_refused(cx: &Context) -> Outcome<()> {
    let session = cx.user()?;
    refused(cx.login_so(session), &[CKR_USER_ANOTHER_ALREADY_LOGGED_IN]);
    cx.p11.logout(session)?;
    cx.login_so(session)?;
    refused(cx.login(session), &[CKR_USER_ANOTHER_ALREADY_LOGGED_IN]);
    refused(cx.login_so(session), &[CKR_USER_ALREADY_LOGGED_IN]);
    cx.p11.logout(session)
}

/// A PIN may have to wait after a failed one (docs/adr/0006-deviations.md, 5): the right one works within a while.
fn login_when_let(cx: &Context, session: CK_SESSION_HANDLE) -> Outcome<()> {
    for _ in 0..100 {
        match cx.login(session) {
            Err(failed) if failed.rv == CKR_PIN_LOCKED && cx.hatoki => {
                std::thread::sleep(std::time::Duration::from_millis(100));
            }
            outcome => return outcome,
        }
    }
    cx.login(session)
}

fn wrong_pin_is_refused_and_the_right_one_still_works(cx: &Context) -> Outcome<()> {
    let session = cx.open()?;
    refused(cx.p11.login(session, CKU_USER, &mut b"not the PIN".to_vec()), &[CKR_PIN_INCORRECT]);
    assert_eq!(cx.p11.session_info(session)?.state, CKS_RW_PUBLIC_SESSION);
    login_when_let(cx, session)
}

fn unknown_user_type_is_refused(cx: &Context) -> Outcome<()> {
    let session = cx.open()?;
    let mut pin = cx.pin.clone().into_bytes();
    refused(cx.p11.login(session, 77, &mut pin), &[CKR_USER_TYPE_INVALID]);
    Ok(())
}

fn context_login_without_an_operation_is_refused(cx: &Context) -> Outcome<()> {
    let session = cx.user()?;
    let mut pin = cx.pin.clone().into_bytes();
    refused(cx.p11.login(session, CKU_CONTEXT_SPECIFIC, &mut pin), &[CKR_OPERATION_NOT_INITIALIZED]);
    Ok(())
}

fn security_officer_beside_a_read_only_session_is_refused(cx: &Context) -> Outcome<()> {
    let session = cx.open()?;
    cx.p11.open(cx.slot, 0)?;
    refused(cx.login_so(session), &[CKR_SESSION_READ_ONLY_EXISTS]);
    Ok(())
}

fn read_only_session_beside_a_security_officer_is_refused(cx: &Context) -> Outcome<()> {
    cx.login_so(cx.open()?)?;
    refused(cx.p11.open(cx.slot, 0), &[CKR_SESSION_READ_WRITE_SO_EXISTS]);
    Ok(())
}

fn security_officer_session_has_its_state_and_sees_no_private_objects(cx: &Context) -> Outcome<()> {
    let session = cx.user()?;
    let (_, private) = cx.rsa(session)?;
    cx.p11.logout(session)?;
    cx.login_so(session)?;
    assert_eq!(cx.p11.session_info(session)?.state, CKS_RW_SO_FUNCTIONS);
    assert!(cx.p11.find(session, Tmpl::new().bool(CKA_PRIVATE, true))?.is_empty());
    refused(cx.p11.attribute(session, private, CKA_CLASS), &[CKR_OBJECT_HANDLE_INVALID]);
    Ok(())
}

fn logout_without_a_login_is_refused(cx: &Context) -> Outcome<()> {
    let session = cx.open()?;
    refused(cx.p11.logout(session), &[CKR_USER_NOT_LOGGED_IN]);
    Ok(())
}

fn logout_ends_handles_of_private_objects(cx: &Context) -> Outcome<()> {
    let session = cx.user()?;
    let (public, private) = cx.rsa(session)?;
    cx.p11.logout(session)?;
    refused(cx.p11.attribute(session, private, CKA_CLASS), &[CKR_OBJECT_HANDLE_INVALID]);
    cx.p11.attribute(session, public, CKA_CLASS)?;
    cx.login(session)?;
    refused(cx.p11.attribute(session, private, CKA_CLASS), &[CKR_OBJECT_HANDLE_INVALID]);
    let (_, again) = cx.rsa(session)?;
    cx.p11.attribute(session, again, CKA_CLASS).map(|_| ())
}

fn logout_ends_private_session_objects(cx: &Context) -> Outcome<()> {
    let session = cx.user()?;
    cx.p11.create_object(session, data_template(false, true, "private until logout", b"value"))?;
    let all = || Tmpl::new().bytes(CKA_LABEL, b"private until logout");
    assert_eq!(cx.p11.find(session, all())?.len(), 1);
    cx.p11.logout(session)?;
    cx.login(session)?;
    assert!(cx.p11.find(session, all())?.is_empty());
    Ok(())
}

fn private_objects_are_invisible_without_a_login(cx: &Context) -> Outcome<()> {
    let session = cx.user()?;
    cx.rsa(session)?;
    let label = || Tmpl::new().bytes(CKA_LABEL, b"contract rsa");
    assert_eq!(cx.p11.find(session, label())?.len(), 2);
    cx.p11.logout(session)?;
    let seen = cx.p11.find(session, label())?;
    assert_eq!(seen.len(), 1, "the public key is seen, the private one is not");
    assert_eq!(super::ulong(&cx.p11.attribute(session, seen[0], CKA_CLASS)?), CKO_PUBLIC_KEY);
    Ok(())
}

fn private_objects_cannot_be_made_without_a_login(cx: &Context) -> Outcome<()> {
    let session = cx.open()?;
    for token in [false, true] {
        let tmpl = data_template(token, true, "never", b"value");
        refused(cx.p11.create_object(session, tmpl), &[CKR_USER_NOT_LOGGED_IN]);
    }
    let tmpl = Tmpl::new().ulong(CKA_VALUE_LEN, 16).bool(CKA_PRIVATE, true).bool(CKA_TOKEN, false);
    refused(cx.p11.generate_key(session, plain(CKM_AES_KEY_GEN), tmpl), &[CKR_USER_NOT_LOGGED_IN]);
    Ok(())
}

fn set_pin_changes_the_pin(cx: &Context) -> Outcome<()> {
    const NEW: &str = "another PIN of 2026";
    let session = cx.user()?;
    cx.p11.set_pin(session, &cx.pin, NEW)?;
    cx.p11.logout(session)?;
    let old = cx.login(session);
    // Put the old PIN back before anything is judged: every later row wants it.
    let mut back = cx.p11.login(session, CKU_USER, &mut NEW.as_bytes().to_vec());
    for _ in 0..100 {
        if !matches!(back, Err(failed) if failed.rv == CKR_PIN_LOCKED && cx.hatoki) {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(100));
        back = cx.p11.login(session, CKU_USER, &mut NEW.as_bytes().to_vec());
    }
    let restored = cx.p11.set_pin(session, NEW, &cx.pin);
    refused(old, &[CKR_PIN_INCORRECT]);
    back?;
    restored?;
    cx.p11.logout(session)?;
    cx.login(session)
}

fn set_pin_with_a_wrong_old_pin_is_refused(cx: &Context) -> Outcome<()> {
    let session = cx.user()?;
    refused(cx.p11.set_pin(session, "not the PIN", "another PIN"), &[CKR_PIN_INCORRECT]);
    cx.p11.logout(session)?;
    login_when_let(cx, session)
}

fn set_pin_with_a_bad_length_is_refused(cx: &Context) -> Outcome<()> {
    let session = cx.user()?;
    refused(cx.p11.set_pin(session, &cx.pin, "abc"), &[CKR_PIN_LEN_RANGE]);
    refused(cx.p11.set_pin(session, &cx.pin, &"x".repeat(300)), &[CKR_PIN_LEN_RANGE]);
    let mut old = cx.pin.clone().into_bytes();
    let length = CK_ULONG::try_from(old.len()).expect("a PIN is short");
    let rv = raw!(cx, C_SetPIN(session, old.as_mut_ptr(), length, null_mut(), 4));
    answered(rv, &[CKR_ARGUMENTS_BAD]);
    cx.p11.logout(session)?;
    cx.login(session)
}

fn set_pin_in_a_read_only_session_is_refused(cx: &Context) -> Outcome<()> {
    let session = cx.p11.open(cx.slot, 0)?;
    cx.login(session)?;
    refused(cx.p11.set_pin(session, &cx.pin, "another PIN"), &[CKR_SESSION_READ_ONLY]);
    Ok(())
}
