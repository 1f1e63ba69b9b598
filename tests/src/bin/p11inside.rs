//! Runs the contract suite through the same C functions, linked into this program and over partitions of this process:
//! no network, no file, no other process.
use std::process::ExitCode;

use cryptoki_sys::{CK_FUNCTION_LIST, CK_INTERFACE, CK_RV, CK_ULONG};
use tests::contract::{Context, play};
use tests::inside::{Group, LABEL, PIN, SO_PIN};
use tests::p11::P11;

unsafe extern "C" {
    /// The library's own entry; the crate `hatoki` is linked into this program.
    fn C_GetFunctionList(list: *mut *mut CK_FUNCTION_LIST) -> CK_RV;
    /// As above.
    fn C_GetInterfaceList(list: *mut CK_INTERFACE, count: *mut CK_ULONG) -> CK_RV;
}

fn main() -> ExitCode {
    play(|| {
        let group = Group::new(2);
        hatoki::over(move || group.surroundings());
        let p11 = P11::of(C_GetFunctionList, Some(C_GetInterfaceList));
        Context::of(p11, LABEL.into(), PIN.into(), SO_PIN.into())
    })
}
