//! `C_Initialize` and `C_GetInfo`: what the application says about threads, and what the library says about itself.

use std::os::raw::c_void;

use client::{Error, InitializeOptions, LIBRARY_DESCRIPTION, LIBRARY_VERSION, MANUFACTURER};
use cryptoki_sys::{CK_C_INITIALIZE_ARGS, CK_INFO, CK_VERSION};
use spec::Rv;
use spec::flags::initialize::{LIBRARY_CANT_CREATE_OS_THREADS, OS_LOCKING_OK};

use super::convert::{ToC, padded, wide};
use super::fork;
use super::pointer::Caller;
use super::trampoline::MODULE;
use crate::Surroundings;

/// The version of the standard that the library follows.
pub(super) const CRYPTOKI_VERSION: CK_VERSION = CK_VERSION { major: 3, minor: 2 };

/// `C_Initialize` (PKCS #11 v3.1, 5.4.1).
///
/// # Errors
/// `CKR_ARGUMENTS_BAD` for some locking callbacks but not all, `CKR_CANT_LOCK` for callbacks that must be used,
/// `CKR_HOST_MEMORY`, and those of the module.
pub(super) fn initialize(caller: &Caller, arguments: *mut c_void) -> Result<(), Error> {
    let options = if arguments.is_null() {
        InitializeOptions { may_create_threads: true }
    } else {
        options(&caller.value(arguments.cast())?)?
    };
    fork::register()?;
    client::enter(super::signals::host());
    #[cfg(unix)]
    MODULE.map_pages_with(&super::mapping::SharedFiles);
    match crate::over::given() {
        Some(Surroundings { seam, platform, configuration }) => {
            MODULE.initialize_over(seam, platform, configuration, options)
        }
        None => MODULE.initialize(options),
    }
}

/// The locking rules (PKCS #11 v3.1, 5.4.1, cases 1 to 4): we use the locks of the system or none of the application's.
///
/// DEVIATION: docs/adr/0006-deviations.md, item 3: a `pReserved` that is not NULL is accepted and never looked at, where
/// the standard demands CKR_ARGUMENTS_BAD: NSS and OpenSSL pass a configuration string there.
fn options(arguments: &CK_C_INITIALIZE_ARGS) -> Result<InitializeOptions, Rv> {
    let callbacks = [
        arguments.CreateMutex.is_some(),
        arguments.DestroyMutex.is_some(),
        arguments.LockMutex.is_some(),
        arguments.UnlockMutex.is_some(),
    ];
    let flags = wide(arguments.flags);
    match callbacks.iter().filter(|given| **given).count() {
        0 => {}
        4 if flags & OS_LOCKING_OK != 0 => {}
        4 => return Err(Rv::CANT_LOCK),
        _ => return Err(Rv::ARGUMENTS_BAD),
    }
    Ok(InitializeOptions { may_create_threads: flags & LIBRARY_CANT_CREATE_OS_THREADS == 0 })
}

/// `C_Finalize` (PKCS #11 v3.1, 5.4.2).
///
/// # Errors
/// `CKR_ARGUMENTS_BAD` for an argument, and those of the module.
pub(super) fn finalize(reserved: *mut c_void) -> Result<(), Error> {
    if reserved.is_null() { MODULE.finalize() } else { Err(Rv::ARGUMENTS_BAD.into()) }
}

/// `C_GetInfo` (PKCS #11 v3.1, 5.4.3).
pub(super) fn info() -> CK_INFO {
    CK_INFO {
        cryptokiVersion: CRYPTOKI_VERSION,
        manufacturerID: padded(MANUFACTURER),
        flags: 0,
        libraryDescription: padded(LIBRARY_DESCRIPTION),
        libraryVersion: LIBRARY_VERSION.to_c(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::abi::convert::ulong;
    use cryptoki_sys::{CK_FLAGS, CK_RV};

    unsafe extern "C" fn create(_: *mut *mut c_void) -> CK_RV {
        cryptoki_sys::CKR_OK
    }

    unsafe extern "C" fn other(_: *mut c_void) -> CK_RV {
        cryptoki_sys::CKR_OK
    }

    fn arguments(callbacks: usize, flags: u64) -> CK_C_INITIALIZE_ARGS {
        CK_C_INITIALIZE_ARGS {
            CreateMutex: (callbacks > 0).then_some(create),
            DestroyMutex: (callbacks > 1).then_some(other),
            LockMutex: (callbacks > 2).then_some(other),
            UnlockMutex: (callbacks > 3).then_some(other),
            flags: ulong::<u64>(flags) as CK_FLAGS,
            pReserved: std::ptr::null_mut(),
        }
    }

    #[test]
    fn locking_callbacks_are_all_or_none_and_never_needed() {
        let answer = |callbacks, flags| options(&arguments(callbacks, flags)).map(|_| ());
        for partial in 1..=3 {
            assert_eq!(answer(partial, 0), Err(Rv::ARGUMENTS_BAD));
            assert_eq!(answer(partial, OS_LOCKING_OK), Err(Rv::ARGUMENTS_BAD));
        }
        assert_eq!(answer(0, 0), Ok(()));
        assert_eq!(answer(0, OS_LOCKING_OK), Ok(()));
        assert_eq!(answer(4, OS_LOCKING_OK), Ok(()));
        assert_eq!(answer(4, 0), Err(Rv::CANT_LOCK));
    }

    #[test]
    fn the_wish_for_no_threads_reaches_the_module() {
        assert!(options(&arguments(0, OS_LOCKING_OK)).unwrap().may_create_threads);
        assert!(!options(&arguments(0, LIBRARY_CANT_CREATE_OS_THREADS)).unwrap().may_create_threads);
    }

    #[test]
    fn a_reserved_argument_is_accepted_unread() {
        let mut given = arguments(0, OS_LOCKING_OK);
        given.pReserved = std::ptr::dangling_mut::<c_void>();
        assert!(options(&given).is_ok());
        assert_eq!(finalize(std::ptr::dangling_mut()).map_err(|error| error.rv()), Err(Rv::ARGUMENTS_BAD));
    }

    #[test]
    fn the_texts_fit_their_fields() {
        assert!(MANUFACTURER.len() <= 32 && LIBRARY_DESCRIPTION.len() <= 32);
        assert_eq!(&info().manufacturerID[..6], b"Hatoki");
    }
}
