//! Contract: C_Initialize, C_Finalize and what works around them.

use std::ffi::c_void;
use std::ptr::null_mut;

use cryptoki_sys::*;

use super::{Context, answered, refused};
use crate::p11::{Outcome, Tmpl};

rows! {
    "v3.1, 5.4.1" => initialize_twice_is_refused,
    "v3.1, 5.4.1" => initialize_without_arguments_succeeds,
    "v3.1, 5.4.1" => initialize_with_half_of_the_mutex_functions_is_refused,
    "v3.1, 5.4.1" => initialize_with_mutex_functions_and_os_locking_succeeds,
    "v3.1, 5.4.1; ADR 0006, 3" => initialize_with_the_reserved_pointer_answers_as_documented,
    "v3.1, 5.4.2" => finalize_twice_is_refused,
    "v3.1, 5.4.2" => finalize_with_the_reserved_pointer_is_refused,
    "v3.1, 5.4.2" => calls_before_initialize_are_refused,
    "v3.1, 5.4.2" => sessions_and_logins_end_with_finalize,
    "v3.1, 5.4.2" => token_objects_outlive_finalize_and_session_objects_do_not,
    "v3.1, 5.4.3" => info_is_padded_and_versioned,
    "v3.1, 5.4.4" => function_list_needs_no_initialize,
    "v3.1, 5.4.5" => interfaces_name_the_standard_and_its_versions,
    "v3.1, 5.20" => parallel_functions_are_refused,
}

fn arguments() -> CK_C_INITIALIZE_ARGS {
    CK_C_INITIALIZE_ARGS {
        CreateMutex: None,
        DestroyMutex: None,
        LockMutex: None,
        UnlockMutex: None,
        flags: 0,
        pReserved: null_mut(),
    }
}

/// C_Initialize with these arguments on a finalised library.
fn initialize_with(cx: &Context, mut arguments: CK_C_INITIALIZE_ARGS) -> Outcome<CK_RV> {
    cx.p11.finalize()?;
    Ok(raw!(cx, C_Initialize((&raw mut arguments).cast::<c_void>())))
}

fn initialize_twice_is_refused(cx: &Context) -> Outcome<()> {
    refused(cx.p11.initialize(), &[CKR_CRYPTOKI_ALREADY_INITIALIZED]);
    cx.p11.info().map(|_| ())
}

fn initialize_without_arguments_succeeds(cx: &Context) -> Outcome<()> {
    cx.p11.finalize()?;
    answered(raw!(cx, C_Initialize(null_mut())), &[CKR_OK]);
    cx.user().map(|_| ())
}

unsafe extern "C" fn create(mutex: *mut *mut c_void) -> CK_RV {
    // SAFETY: the module passes a place for one pointer.
    unsafe { *mutex = std::ptr::without_provenance_mut(8) };
    CKR_OK
}

unsafe extern "C" fn touch(_: *mut c_void) -> CK_RV {
    CKR_OK
}

fn initialize_with_half_of_the_mutex_functions_is_refused(cx: &Context) -> Outcome<()> {
    let half = CK_C_INITIALIZE_ARGS { CreateMutex: Some(create), LockMutex: Some(touch), ..arguments() };
    answered(initialize_with(cx, half)?, &[CKR_ARGUMENTS_BAD]);
    cx.p11.initialize()
}

fn initialize_with_mutex_functions_and_os_locking_succeeds(cx: &Context) -> Outcome<()> {
    let all = CK_C_INITIALIZE_ARGS {
        CreateMutex: Some(create),
        DestroyMutex: Some(touch),
        LockMutex: Some(touch),
        UnlockMutex: Some(touch),
        flags: CKF_OS_LOCKING_OK,
        pReserved: null_mut(),
    };
    answered(initialize_with(cx, all)?, &[CKR_OK]);
    // The functions do not lock: back to the usual locks before anything else runs.
    cx.p11.finalize()?;
    cx.p11.initialize()
}

fn initialize_with_the_reserved_pointer_answers_as_documented(cx: &Context) -> Outcome<()> {
    let mut text = *b"configdir='/nowhere'\0";
    let reserved = CK_C_INITIALIZE_ARGS {
        flags: CKF_OS_LOCKING_OK,
        pReserved: text.as_mut_ptr().cast::<c_void>(),
        ..arguments()
    };
    let rv = initialize_with(cx, reserved)?;
    if cx.hatoki {
        answered(rv, &[CKR_OK]);
        cx.user().map(|_| ())
    } else {
        answered(rv, &[CKR_ARGUMENTS_BAD]);
        cx.p11.initialize()
    }
}

fn finalize_twice_is_refused(cx: &Context) -> Outcome<()> {
    cx.p11.finalize()?;
    refused(cx.p11.finalize(), &[CKR_CRYPTOKI_NOT_INITIALIZED]);
    cx.p11.initialize()
}

fn finalize_with_the_reserved_pointer_is_refused(cx: &Context) -> Outcome<()> {
    let mut word = 0u64;
    answered(raw!(cx, C_Finalize((&raw mut word).cast::<c_void>())), &[CKR_ARGUMENTS_BAD]);
    cx.p11.info().map(|_| ())
}

fn calls_before_initialize_are_refused(cx: &Context) -> Outcome<()> {
    let session = cx.user()?;
    cx.p11.finalize()?;
    let closed = &[CKR_CRYPTOKI_NOT_INITIALIZED];
    refused(cx.p11.info(), closed);
    refused(cx.p11.slots(), closed);
    refused(cx.p11.slot_info(cx.slot), closed);
    refused(cx.p11.token_info(cx.slot), closed);
    refused(cx.p11.mechanisms(cx.slot), closed);
    refused(cx.open(), closed);
    refused(cx.p11.close(session), closed);
    refused(cx.p11.session_info(session), closed);
    refused(cx.login(session), closed);
    refused(cx.p11.logout(session), closed);
    refused(cx.p11.find_init(session, Tmpl::new()), closed);
    refused(cx.p11.sign(session, b"x"), closed);
    refused(cx.p11.random(session, 8), closed);
    cx.p11.initialize()
}

fn sessions_and_logins_end_with_finalize(cx: &Context) -> Outcome<()> {
    let old = cx.user()?;
    cx.p11.finalize()?;
    cx.p11.initialize()?;
    refused(cx.p11.session_info(old), &[CKR_SESSION_HANDLE_INVALID]);
    let session = cx.open()?;
    assert_eq!(cx.p11.session_info(session)?.state, CKS_RW_PUBLIC_SESSION);
    Ok(())
}

fn token_objects_outlive_finalize_and_session_objects_do_not(cx: &Context) -> Outcome<()> {
    let make = |session, token| {
        let tmpl = super::data_template(token, true, "outlives", b"value");
        cx.p11.create_object(session, tmpl)
    };
    let session = cx.user()?;
    make(session, true)?;
    make(session, false)?;
    let all = || Tmpl::new().bytes(CKA_LABEL, b"outlives");
    assert_eq!(cx.p11.find(session, all())?.len(), 2);
    cx.p11.finalize()?;
    cx.p11.initialize()?;
    let session = cx.user()?;
    let left = cx.p11.find(session, all())?;
    assert_eq!(left.len(), 1);
    assert_eq!(cx.p11.attribute(session, left[0], CKA_TOKEN)?, [CK_TRUE]);
    cx.p11.destroy_object(session, left[0])
}

fn info_is_padded_and_versioned(cx: &Context) -> Outcome<()> {
    let info = cx.p11.info()?;
    assert!((2..=3).contains(&info.cryptokiVersion.major), "version {}", info.cryptokiVersion.major);
    assert_eq!(info.flags, 0);
    assert!(!info.manufacturerID.contains(&0), "text is padded with blanks, without a terminator");
    assert!(!info.libraryDescription.contains(&0), "text is padded with blanks, without a terminator");
    Ok(())
}

fn function_list_needs_no_initialize(cx: &Context) -> Outcome<()> {
    cx.p11.finalize()?;
    let mut list = null_mut();
    answered(raw!(cx, C_GetFunctionList(&mut list)), &[CKR_OK]);
    assert!(std::ptr::eq(list, cx.p11.list()), "the list is one constant");
    answered(raw!(cx, C_GetFunctionList(null_mut())), &[CKR_ARGUMENTS_BAD]);
    assert_eq!(cx.p11.list().version.major, 2, "C_GetFunctionList answers the 2.40 list");
    cx.p11.initialize()
}

fn interfaces_name_the_standard_and_its_versions(cx: &Context) -> Outcome<()> {
    let interfaces = cx.p11.interfaces()?.unwrap_or_else(|| panic!("C_GetInterfaceList is not exported"));
    let of = |major| interfaces.iter().any(|(name, version)| name == "PKCS 11" && version.major == major);
    assert!(of(2) && of(3), "interfaces of version 2 and 3 are wanted");
    Ok(())
}

fn parallel_functions_are_refused(cx: &Context) -> Outcome<()> {
    let session = cx.open()?;
    answered(raw!(cx, C_GetFunctionStatus(session)), &[CKR_FUNCTION_NOT_PARALLEL]);
    answered(raw!(cx, C_CancelFunction(session)), &[CKR_FUNCTION_NOT_PARALLEL]);
    Ok(())
}
