//! Contract: slots, tokens, mechanisms and slot events.

use std::ptr::null_mut;

use cryptoki_sys::*;

use super::{Context, answered, refused};
use crate::p11::Outcome;

/// No slot has this number.
const NO_SLOT: CK_SLOT_ID = 0x7fff_fff0;

rows! {
    "v3.1, 5.5.1" => slot_list_without_room_answers_the_count,
    "v3.1, 5.5.1" => slot_list_with_too_little_room_answers_the_count,
    "v3.1, 5.5.1" => slot_list_with_more_room_answers_the_true_count,
    "v3.1, 5.5.1" => slots_with_a_token_are_among_all_slots,
    "v3.1, 5.5.2" => slot_info_shows_a_token_and_is_padded,
    "v3.1, 5.5.3" => token_info_shows_label_flags_and_limits,
    "v3.1, 5.5.3" => token_info_counts_sessions,
    "v3.1, 5.5" => unknown_slot_is_refused_everywhere,
    "v3.1, 5.5.4" => slot_event_without_waiting_answers_no_event,
    "v3.1, 5.5.5" => mechanism_list_answers_count_and_keeps_within_its_room,
    "v3.1, 5.5.5" => mechanisms_of_the_first_phase_are_listed,
    "v3.1, 5.5.6" => mechanism_info_names_uses_and_sizes,
    "v3.1, 5.5.6" => unknown_mechanism_has_no_info,
}

fn slot_list_without_room_answers_the_count(cx: &Context) -> Outcome<()> {
    let mut count = 77;
    answered(raw!(cx, C_GetSlotList(CK_TRUE, null_mut(), &mut count)), &[CKR_OK]);
    assert!((1..77).contains(&count));
    Ok(())
}

fn slot_list_with_too_little_room_answers_the_count(cx: &Context) -> Outcome<()> {
    let mut wanted = 0;
    answered(raw!(cx, C_GetSlotList(CK_TRUE, null_mut(), &mut wanted)), &[CKR_OK]);
    let (mut none, mut count) = ([0; 1], 0);
    answered(raw!(cx, C_GetSlotList(CK_TRUE, none.as_mut_ptr(), &mut count)), &[CKR_BUFFER_TOO_SMALL]);
    assert_eq!(count, wanted);
    Ok(())
}

fn slot_list_with_more_room_answers_the_true_count(cx: &Context) -> Outcome<()> {
    let (mut list, mut count) = ([NO_SLOT; 64], 64);
    answered(raw!(cx, C_GetSlotList(CK_TRUE, list.as_mut_ptr(), &mut count)), &[CKR_OK]);
    let count = usize::try_from(count).expect("a count fits");
    assert!(list[..count].contains(&cx.slot));
    assert!(list[count..].iter().all(|slot| *slot == NO_SLOT), "room behind the list is left alone");
    Ok(())
}

fn slots_with_a_token_are_among_all_slots(cx: &Context) -> Outcome<()> {
    let (mut list, mut count) = ([NO_SLOT; 64], 64);
    answered(raw!(cx, C_GetSlotList(CK_FALSE, list.as_mut_ptr(), &mut count)), &[CKR_OK]);
    for slot in cx.p11.slots()? {
        assert!(list.contains(&slot));
    }
    Ok(())
}

fn slot_info_shows_a_token_and_is_padded(cx: &Context) -> Outcome<()> {
    let info = cx.p11.slot_info(cx.slot)?;
    assert_ne!(info.flags & CKF_TOKEN_PRESENT, 0);
    assert!(!info.slotDescription.contains(&0) && !info.manufacturerID.contains(&0), "padded with blanks");
    Ok(())
}

fn token_info_shows_label_flags_and_limits(cx: &Context) -> Outcome<()> {
    let info = cx.p11.token_info(cx.slot)?;
    assert_eq!(String::from_utf8_lossy(&info.label).trim_end(), cx.label);
    for flag in [CKF_RNG, CKF_LOGIN_REQUIRED, CKF_USER_PIN_INITIALIZED, CKF_TOKEN_INITIALIZED] {
        assert_ne!(info.flags & flag, 0, "flag {flag:#x} is wanted in {:#x}", info.flags);
    }
    for flag in [CKF_WRITE_PROTECTED, CKF_USER_PIN_LOCKED, CKF_SO_PIN_LOCKED, CKF_USER_PIN_TO_BE_CHANGED] {
        assert_eq!(info.flags & flag, 0, "flag {flag:#x} is not wanted in {:#x}", info.flags);
    }
    assert!(info.ulMinPinLen <= info.ulMaxPinLen && info.ulMaxPinLen >= 64);
    for limit in [info.ulMaxSessionCount, info.ulMaxRwSessionCount] {
        assert_eq!(limit, CK_EFFECTIVELY_INFINITE, "SunPKCS11 and crypto11 size their pools by it");
    }
    assert!(!info.model.contains(&0) && !info.serialNumber.contains(&0), "padded with blanks");
    Ok(())
}

fn token_info_counts_sessions(cx: &Context) -> Outcome<()> {
    let count = || {
        let info = cx.p11.token_info(cx.slot)?;
        Ok((info.ulSessionCount, info.ulRwSessionCount))
    };
    let before = count()?;
    if before == (CK_UNAVAILABLE_INFORMATION, CK_UNAVAILABLE_INFORMATION) && !cx.hatoki {
        return Ok(());
    }
    assert_eq!(before, (0, 0));
    let read_only = cx.p11.open(cx.slot, 0)?;
    cx.open()?;
    assert_eq!(count()?, (2, 1));
    cx.p11.close(read_only)?;
    assert_eq!(count()?, (1, 1));
    Ok(())
}

fn unknown_slot_is_refused_everywhere(cx: &Context) -> Outcome<()> {
    let unknown = &[CKR_SLOT_ID_INVALID];
    refused(cx.p11.slot_info(NO_SLOT), unknown);
    refused(cx.p11.token_info(NO_SLOT), unknown);
    refused(cx.p11.mechanisms(NO_SLOT), unknown);
    refused(cx.p11.mechanism_info(NO_SLOT, CKM_RSA_PKCS), unknown);
    refused(cx.p11.open(NO_SLOT, CKF_RW_SESSION), unknown);
    refused(cx.p11.close_all(NO_SLOT), unknown);
    Ok(())
}

fn slot_event_without_waiting_answers_no_event(cx: &Context) -> Outcome<()> {
    let mut slot = 0;
    answered(raw!(cx, C_WaitForSlotEvent(CKF_DONT_BLOCK, &mut slot, null_mut())), &[CKR_NO_EVENT]);
    Ok(())
}

fn mechanism_list_answers_count_and_keeps_within_its_room(cx: &Context) -> Outcome<()> {
    let mut wanted = 0;
    answered(raw!(cx, C_GetMechanismList(cx.slot, null_mut(), &mut wanted)), &[CKR_OK]);
    assert!(wanted > 30);
    let (mut list, mut count) = (vec![0; 1024], wanted - 1);
    let rv = raw!(cx, C_GetMechanismList(cx.slot, list.as_mut_ptr(), &mut count));
    answered(rv, &[CKR_BUFFER_TOO_SMALL]);
    assert_eq!(count, wanted);
    count = 1024;
    answered(raw!(cx, C_GetMechanismList(cx.slot, list.as_mut_ptr(), &mut count)), &[CKR_OK]);
    assert_eq!(count, wanted);
    Ok(())
}

fn mechanisms_of_the_first_phase_are_listed(cx: &Context) -> Outcome<()> {
    let listed = cx.p11.mechanisms(cx.slot)?;
    let wanted = [
        CKM_RSA_PKCS_KEY_PAIR_GEN,
        CKM_RSA_PKCS,
        CKM_RSA_X_509,
        CKM_RSA_PKCS_OAEP,
        CKM_RSA_PKCS_PSS,
        CKM_SHA256_RSA_PKCS,
        CKM_SHA256_RSA_PKCS_PSS,
        CKM_EC_KEY_PAIR_GEN,
        CKM_ECDSA,
        CKM_ECDSA_SHA256,
        CKM_AES_KEY_GEN,
        CKM_AES_ECB,
        CKM_AES_CBC,
        CKM_AES_CBC_PAD,
        CKM_AES_GCM,
        CKM_GENERIC_SECRET_KEY_GEN,
        CKM_SHA256_HMAC,
        CKM_SHA_1,
        CKM_SHA224,
        CKM_SHA256,
        CKM_SHA384,
        CKM_SHA512,
    ];
    let missing: Vec<_> = wanted.iter().filter(|kind| !listed.contains(kind)).collect();
    assert!(missing.is_empty(), "missing mechanisms: {missing:#x?}");
    Ok(())
}

fn mechanism_info_names_uses_and_sizes(cx: &Context) -> Outcome<()> {
    let wanted = [
        (CKM_RSA_PKCS_KEY_PAIR_GEN, CKF_GENERATE_KEY_PAIR, 2048),
        (CKM_RSA_PKCS, CKF_SIGN | CKF_VERIFY | CKF_ENCRYPT | CKF_DECRYPT, 2048),
        (CKM_ECDSA, CKF_SIGN | CKF_VERIFY, 256),
        (CKM_AES_KEY_GEN, CKF_GENERATE, 32),
        (CKM_AES_GCM, CKF_ENCRYPT | CKF_DECRYPT, 32),
        (CKM_SHA256_HMAC, CKF_SIGN | CKF_VERIFY, 64),
    ];
    for (kind, flags, size) in wanted {
        let info = cx.p11.mechanism_info(cx.slot, kind)?;
        assert_eq!(info.flags & flags, flags, "mechanism {kind:#x}");
        assert!((info.ulMinKeySize..=info.ulMaxKeySize).contains(&size), "mechanism {kind:#x} takes {size}");
    }
    assert_ne!(cx.p11.mechanism_info(cx.slot, CKM_SHA256)?.flags & CKF_DIGEST, 0);
    for kind in cx.p11.mechanisms(cx.slot)? {
        cx.p11.mechanism_info(cx.slot, kind)?;
    }
    Ok(())
}

fn unknown_mechanism_has_no_info(cx: &Context) -> Outcome<()> {
    refused(cx.p11.mechanism_info(cx.slot, 0x7fff_ffff), &[CKR_MECHANISM_INVALID]);
    Ok(())
}
