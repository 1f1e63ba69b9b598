//! Contract: opening, closing and looking at sessions.

use std::ptr::null_mut;

use cryptoki_sys::*;

use super::{Context, answered, refused};
use crate::p11::{Outcome, Tmpl};

rows! {
    "v3.1, 5.6.1" => session_without_the_serial_flag_is_refused,
    "v3.1, 5.6.1" => handles_are_not_zero_and_differ,
    "v3.1, 5.6.4" => state_follows_login_and_kind_of_session,
    "v3.1, 5.6.4" => session_info_names_slot_and_flags,
    "v3.1, 5.6.2" => closed_session_is_refused_everywhere,
    "v3.1, 5.6.2" => closing_the_last_session_logs_out,
    "v3.1, 5.6.2" => closing_one_of_two_sessions_keeps_the_login,
    "v3.1, 5.6.3" => closing_all_sessions_ends_all_and_logs_out,
    "v3.1, 5.6.2" => session_objects_end_with_their_session,
    "v3.1, 5.6.2" => session_objects_are_usable_from_another_session,
    "v3.1, 5.6.1" => a_thousand_sessions_open_and_close,
    "v3.1, 5.6" => handle_of_no_session_is_refused,
}

fn session_without_the_serial_flag_is_refused(cx: &Context) -> Outcome<()> {
    let mut session = 0;
    let rv = raw!(cx, C_OpenSession(cx.slot, CKF_RW_SESSION, null_mut(), None, &mut session));
    answered(rv, &[CKR_SESSION_PARALLEL_NOT_SUPPORTED]);
    Ok(())
}

fn handles_are_not_zero_and_differ(cx: &Context) -> Outcome<()> {
    let (first, second) = (cx.open()?, cx.open()?);
    assert!(first != CK_INVALID_HANDLE && second != CK_INVALID_HANDLE && first != second);
    Ok(())
}

fn state_follows_login_and_kind_of_session(cx: &Context) -> Outcome<()> {
    let read_only = cx.p11.open(cx.slot, 0)?;
    let read_write = cx.open()?;
    let states = || Ok((cx.p11.session_info(read_only)?.state, cx.p11.session_info(read_write)?.state));
    assert_eq!(states()?, (CKS_RO_PUBLIC_SESSION, CKS_RW_PUBLIC_SESSION));
    cx.login(read_write)?;
    assert_eq!(states()?, (CKS_RO_USER_FUNCTIONS, CKS_RW_USER_FUNCTIONS));
    let later = cx.p11.open(cx.slot, 0)?;
    assert_eq!(cx.p11.session_info(later)?.state, CKS_RO_USER_FUNCTIONS, "a new session joins the login");
    cx.p11.logout(read_only)?;
    assert_eq!(states()?, (CKS_RO_PUBLIC_SESSION, CKS_RW_PUBLIC_SESSION));
    Ok(())
}

fn session_info_names_slot_and_flags(cx: &Context) -> Outcome<()> {
    let info = cx.p11.session_info(cx.open()?)?;
    assert_eq!((info.slotID, info.flags), (cx.slot, CKF_SERIAL_SESSION | CKF_RW_SESSION));
    let info = cx.p11.session_info(cx.p11.open(cx.slot, 0)?)?;
    assert_eq!((info.slotID, info.flags), (cx.slot, CKF_SERIAL_SESSION));
    Ok(())
}

fn closed_session_is_refused_everywhere(cx: &Context) -> Outcome<()> {
    let session = cx.open()?;
    cx.p11.close(session)?;
    every_call_refuses(cx, session);
    Ok(())
}

fn handle_of_no_session_is_refused(cx: &Context) -> Outcome<()> {
    cx.open()?;
    every_call_refuses(cx, CK_INVALID_HANDLE);
    every_call_refuses(cx, CK_SESSION_HANDLE::MAX);
    Ok(())
}

fn every_call_refuses(cx: &Context, session: CK_SESSION_HANDLE) {
    let unknown = &[CKR_SESSION_HANDLE_INVALID];
    refused(cx.p11.close(session), unknown);
    refused(cx.p11.session_info(session), unknown);
    refused(cx.login(session), unknown);
    refused(cx.p11.logout(session), unknown);
    refused(cx.p11.create_object(session, super::data_template(false, true, "none", b"none")), unknown);
    refused(cx.p11.destroy_object(session, 1), unknown);
    refused(cx.p11.attribute(session, 1, CKA_LABEL), unknown);
    refused(cx.p11.find_init(session, Tmpl::new()), unknown);
    refused(cx.p11.find_page(session, 1), unknown);
    refused(cx.p11.find_final(session), unknown);
    refused(cx.p11.sign_init(session, super::plain(CKM_SHA256_HMAC), 1), unknown);
    refused(cx.p11.sign(session, b"x"), unknown);
    refused(cx.p11.verify(session, b"x", b"y"), unknown);
    refused(cx.p11.encrypt(session, b"x"), unknown);
    refused(cx.p11.decrypt(session, b"x"), unknown);
    refused(cx.p11.digest(session, super::plain(CKM_SHA256), b"x"), unknown);
    refused(cx.p11.random(session, 8), unknown);
    let (public, private) = crate::p11::pair_templates(false, "none", 1);
    refused(cx.p11.generate_pair(session, super::plain(CKM_EC_KEY_PAIR_GEN), public, private), unknown);
}

fn closing_the_last_session_logs_out(cx: &Context) -> Outcome<()> {
    let session = cx.user()?;
    cx.p11.close(session)?;
    let session = cx.open()?;
    assert_eq!(cx.p11.session_info(session)?.state, CKS_RW_PUBLIC_SESSION);
    cx.login(session)
}

fn closing_one_of_two_sessions_keeps_the_login(cx: &Context) -> Outcome<()> {
    let (first, second) = (cx.user()?, cx.open()?);
    cx.p11.close(first)?;
    assert_eq!(cx.p11.session_info(second)?.state, CKS_RW_USER_FUNCTIONS);
    cx.mac(second).map(|_| ())
}

fn closing_all_sessions_ends_all_and_logs_out(cx: &Context) -> Outcome<()> {
    let (first, second) = (cx.user()?, cx.open()?);
    cx.p11.close_all(cx.slot)?;
    for session in [first, second] {
        refused(cx.p11.session_info(session), &[CKR_SESSION_HANDLE_INVALID]);
    }
    assert_eq!(cx.p11.session_info(cx.open()?)?.state, CKS_RW_PUBLIC_SESSION);
    Ok(())
}

fn session_objects_end_with_their_session(cx: &Context) -> Outcome<()> {
    let (owner, other) = (cx.user()?, cx.open()?);
    let gone = cx.mac(owner)?;
    let kept = cx.mac(other)?;
    cx.p11.close(owner)?;
    refused(cx.p11.attribute(other, gone, CKA_CLASS), &[CKR_OBJECT_HANDLE_INVALID]);
    refused(cx.p11.sign_init(other, super::plain(CKM_SHA256_HMAC), gone), cx.no_key());
    cx.p11.attribute(other, kept, CKA_CLASS).map(|_| ())
}

fn session_objects_are_usable_from_another_session(cx: &Context) -> Outcome<()> {
    let (owner, other) = (cx.user()?, cx.open()?);
    let key = cx.mac(owner)?;
    let there = cx.p11.sign_once(other, super::plain(CKM_SHA256_HMAC), key, b"data")?;
    assert_eq!(there, cx.p11.sign_once(owner, super::plain(CKM_SHA256_HMAC), key, b"data")?);
    Ok(())
}

fn a_thousand_sessions_open_and_close(cx: &Context) -> Outcome<()> {
    let before = cx.p11.token_info(cx.slot)?.ulSessionCount;
    let all = (0..1000).map(|_| cx.open()).collect::<Outcome<Vec<_>>>()?;
    for session in &all {
        cx.p11.close(*session)?;
    }
    assert_eq!(cx.p11.token_info(cx.slot)?.ulSessionCount, before);
    Ok(())
}
