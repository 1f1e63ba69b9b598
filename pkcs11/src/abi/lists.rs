//! The function lists of 2.40, 3.0 and 3.2 and the interfaces that name them. All are constant data: they work before
//! `C_Initialize`, after `C_Finalize`, and touch nothing.

use client::Error;
use cryptoki_sys::{CK_FLAGS, CK_FUNCTION_LIST, CK_INTERFACE, CK_ULONG, CK_UTF8CHAR, CK_VERSION};
use spec::Rv;

use super::convert::{ToC, wide};
use super::functions::{LIST_2_40, LIST_3_0, LIST_3_2};
use super::pointer::Caller;

/// The standard's name for its own interfaces, with its NUL.
const NAME: &std::ffi::CStr = c"PKCS 11";

/// What the interfaces promise. CKF_INTERFACE_FORK_SAFE is not among it until forks are tested as HA 6 demands.
const FLAGS: CK_FLAGS = 0;

/// One interface, and the version that its list begins with.
struct Interface {
    version: CK_VERSION,
    c: CK_INTERFACE,
}

// SAFETY: the pointers inside go to constants of this library, which is never unloaded; nothing is written through them.
unsafe impl Sync for Interface {}

/// An interface of the standard.
const fn interface<T: Sync>(version: CK_VERSION, list: &'static T) -> Interface {
    Interface {
        version,
        c: CK_INTERFACE {
            pInterfaceName: NAME.as_ptr().cast_mut().cast(),
            pFunctionList: (&raw const *list).cast_mut().cast(),
            flags: FLAGS,
        },
    }
}

/// Every interface, newest first; the first is the default.
static INTERFACES: [Interface; 3] = [
    interface(LIST_3_2.version, &LIST_3_2),
    interface(LIST_3_0.version, &LIST_3_0),
    interface(LIST_2_40.version, &LIST_2_40),
];

impl ToC<CK_INTERFACE> for &'static Interface {
    fn to_c(self) -> CK_INTERFACE {
        self.c
    }
}

impl ToC<*mut CK_INTERFACE> for &'static Interface {
    fn to_c(self) -> *mut CK_INTERFACE {
        (&raw const self.c).cast_mut()
    }
}

/// `C_GetFunctionList` (PKCS #11 v3.1, 5.4.4): the list of 2.40.
///
/// # Errors
/// `CKR_ARGUMENTS_BAD` for NULL.
pub(super) fn function_list(caller: &Caller, place: *mut *mut CK_FUNCTION_LIST) -> Result<(), Error> {
    caller.target(place)?.set((&raw const LIST_2_40).cast_mut());
    Ok(())
}

/// `C_GetInterfaceList` (PKCS #11 v3.1, 5.4.5).
///
/// # Errors
/// `CKR_ARGUMENTS_BAD`, `CKR_BUFFER_TOO_SMALL`.
pub(super) fn interface_list(
    caller: &Caller,
    place: *mut CK_INTERFACE,
    count: *mut CK_ULONG,
) -> Result<(), Error> {
    caller.list(place, count, || Ok(INTERFACES.iter().collect()))
}

/// `C_GetInterface` (PKCS #11 v3.1, 5.4.6): the first that has the name, the version and the flags asked for.
///
/// # Errors
/// `CKR_ARGUMENTS_BAD` without a place for the answer, `CKR_FUNCTION_FAILED` when there is none such.
pub(super) fn one_interface(
    caller: &Caller,
    name: *mut CK_UTF8CHAR,
    version: *mut CK_VERSION,
    place: *mut *mut CK_INTERFACE,
    flags: CK_FLAGS,
) -> Result<(), Error> {
    caller.fill(place, || {
        let named = name.is_null() || caller.text(name, 64)?.as_deref() == Some(NAME.to_bytes());
        let version = if version.is_null() { None } else { Some(caller.value(version)?) };
        INTERFACES
            .iter()
            .filter(|_| named)
            .filter(|interface| version.is_none_or(|asked| same(asked, interface.version)))
            .find(|interface| wide(flags) & !wide(interface.c.flags) == 0)
            .ok_or(Error::Rv(Rv::FUNCTION_FAILED))
    })
}

fn same(one: CK_VERSION, other: CK_VERSION) -> bool {
    (one.major, one.minor) == (other.major, other.minor)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::ptr::null_mut;

    fn caller() -> Caller {
        // SAFETY: each test passes pointers into buffers of its own, with their lengths.
        unsafe { Caller::promised() }
    }

    /// The version of the interface found, or the refusal.
    fn find(
        name: Option<&std::ffi::CStr>,
        version: Option<(u8, u8)>,
        flags: CK_FLAGS,
    ) -> Result<(u8, u8), Rv> {
        let name = name.map_or(null_mut(), |name| name.as_ptr().cast_mut().cast());
        let mut asked = version.map(|(major, minor)| CK_VERSION { major, minor });
        let asked = asked.as_mut().map_or(null_mut(), std::ptr::from_mut);
        let mut found = null_mut();
        one_interface(&caller(), name, asked, &raw mut found, flags).map_err(|error| error.rv())?;
        let index =
            INTERFACES.iter().position(|interface| std::ptr::eq(&raw const interface.c, found)).unwrap();
        Ok((INTERFACES[index].version.major, INTERFACES[index].version.minor))
    }

    #[test]
    fn interfaces_are_found_by_name_version_and_flags() {
        assert_eq!(find(None, None, 0), Ok((3, 2)));
        assert_eq!(find(Some(c"PKCS 11"), None, 0), Ok((3, 2)));
        assert_eq!(find(Some(c"PKCS 11"), Some((3, 0)), 0), Ok((3, 0)));
        assert_eq!(find(None, Some((2, 40)), 0), Ok((2, 40)));
        assert_eq!(find(None, Some((3, 1)), 0), Err(Rv::FUNCTION_FAILED));
        assert_eq!(find(Some(c"PKCS 1"), None, 0), Err(Rv::FUNCTION_FAILED));
        assert_eq!(find(Some(c"PKCS 11 of a vendor"), None, 0), Err(Rv::FUNCTION_FAILED));
        assert_eq!(find(None, None, 1 << 5), Err(Rv::FUNCTION_FAILED));
    }

    #[test]
    fn null_places_are_bad_arguments() {
        let rv = |result: Result<(), Error>| result.map_err(|error| error.rv());
        assert_eq!(rv(function_list(&caller(), null_mut())), Err(Rv::ARGUMENTS_BAD));
        assert_eq!(rv(interface_list(&caller(), null_mut(), null_mut())), Err(Rv::ARGUMENTS_BAD));
        let nothing = one_interface(&caller(), null_mut(), null_mut(), null_mut(), 0);
        assert_eq!(rv(nothing), Err(Rv::ARGUMENTS_BAD));
    }

    #[test]
    fn each_list_begins_with_its_version() {
        let versions =
            INTERFACES.each_ref().map(|interface| (interface.version.major, interface.version.minor));
        assert_eq!(versions, [(3, 2), (3, 0), (2, 40)]);
    }
}
