//! The library as an application meets it: loaded by path, called through its tables, forked, loaded again.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]

use std::path::PathBuf;
use std::process::Command;
use std::ptr::null_mut;

use cryptoki_sys::*;
use libloading::Library;
use spec::functions::{ROWS, Status};

/// Any function of the standard, called as C would call it through a wrong prototype: more arguments than it takes, all
/// of them zero.
type Any =
    unsafe extern "C" fn(usize, usize, usize, usize, usize, usize, usize, usize, usize, usize) -> CK_RV;

fn path() -> PathBuf {
    let folder = std::env::current_exe().unwrap().parent().unwrap().to_path_buf();
    let found =
        [folder.join("libhatoki.so"), folder.join("../libhatoki.so")].into_iter().find(|path| path.exists());
    found.expect("cargo builds libhatoki.so before the tests of its crate")
}

fn load() -> Library {
    // SAFETY: the library has no constructors of its own; loading it runs the C runtime's only.
    unsafe { Library::new(path()).unwrap() }
}

/// The functions of the 3.2 list, beside their rows.
fn functions(library: &Library) -> Vec<(&'static str, Any)> {
    // SAFETY: the symbol has this prototype in the standard.
    let get: libloading::Symbol<
        unsafe extern "C" fn(*mut u8, *mut CK_VERSION, *mut *mut CK_INTERFACE, CK_FLAGS) -> CK_RV,
    > = unsafe { library.get(b"C_GetInterface").unwrap() };
    let mut interface = null_mut();
    // SAFETY: NULL asks for the default; `interface` is written.
    assert_eq!(unsafe { get(null_mut(), null_mut(), &raw mut interface, 0) }, CKR_OK);
    // SAFETY: the interface and its list are constants of a library that is never unloaded; behind the version, which
    // takes the place of one pointer, the list holds nothing but function pointers.
    let pointers = unsafe {
        let list = (*interface).pFunctionList.cast::<CK_FUNCTION_LIST_3_2>();
        assert_eq!(((*list).version.major, (*list).version.minor), (3, 2));
        std::slice::from_raw_parts(list.cast::<Any>().add(1), ROWS.len())
    };
    ROWS.iter().map(|row| row.name).zip(pointers.iter().copied()).collect()
}

fn call(function: Any) -> CK_RV {
    // SAFETY: every function takes at most ten register-sized arguments, and NULL and 0 are allowed for each.
    unsafe { function(0, 0, 0, 0, 0, 0, 0, 0, 0, 0) }
}

fn named(functions: &[(&str, Any)], name: &str) -> Any {
    functions.iter().find(|(found, _)| *found == name).unwrap().1
}

/// Runs the test of this name again in a process of its own whose configuration folder is empty; true inside it.
fn in_own_process(test: &str) -> bool {
    const INSIDE: &str = "HATOKI_TEST_INSIDE";
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    let folder = std::env::temp_dir().join(format!("hatoki-{test}-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let status = Command::new(std::env::current_exe().unwrap())
        .args([test, "--exact", "--nocapture", "--test-threads=1"])
        .env(INSIDE, "1")
        .env("ChrystokiConfigurationPath", &folder)
        .status()
        .unwrap();
    std::fs::remove_dir_all(&folder).unwrap();
    assert!(status.success(), "{test} failed in its own process: {status}");
    false
}

fn tool(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).arg(path()).output();
    let output = output.unwrap_or_else(|error| panic!("{program} (package binutils) is needed: {error}"));
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap()
}

#[test]
#[cfg(target_os = "linux")]
fn exactly_the_functions_of_the_standard_are_exported() {
    let listing = tool("nm", &["-D", "--defined-only"]);
    let mut exported: Vec<_> = listing.lines().filter_map(|line| line.split_whitespace().last()).collect();
    exported.sort_unstable();
    let mut expected: Vec<_> = ROWS.iter().map(|row| row.name).collect();
    expected.sort_unstable();
    assert_eq!(exported, expected);
}

#[test]
#[cfg(target_os = "linux")]
fn the_library_is_never_unloaded() {
    assert!(tool("readelf", &["-dW"]).contains("NODELETE"));
}

#[test]
fn before_initialize_tables_work_and_everything_else_says_so() {
    if !in_own_process("before_initialize_tables_work_and_everything_else_says_so") {
        return;
    }
    let library = load();
    for (name, function) in functions(&library) {
        let expected = match name {
            "C_Initialize" => continue,
            "C_GetFunctionList" | "C_GetInterfaceList" | "C_GetInterface" => CKR_ARGUMENTS_BAD,
            _ => CKR_CRYPTOKI_NOT_INITIALIZED,
        };
        assert_eq!(call(function), expected, "{name}");
    }
}

#[test]
fn null_arguments_everywhere_are_refused_and_never_crash() {
    if !in_own_process("null_arguments_everywhere_are_refused_and_never_crash") {
        return;
    }
    let library = load();
    let functions = functions(&library);
    assert_eq!(call(named(&functions, "C_Initialize")), CKR_OK);
    assert_eq!(call(named(&functions, "C_Initialize")), CKR_CRYPTOKI_ALREADY_INITIALIZED);
    for ((name, function), row) in functions.iter().zip(ROWS) {
        if matches!(*name, "C_Initialize" | "C_Finalize") {
            continue;
        }
        let rv = call(*function);
        match row.status {
            Status::NotSupported(refusal) => assert_eq!(rv, refusal.0 as CK_RV, "{name}"),
            Status::Supported => assert!(![CKR_OK, CKR_GENERAL_ERROR].contains(&rv), "{name}: {rv:#x}"),
        }
    }
    assert_eq!(call(named(&functions, "C_Finalize")), CKR_OK);
    assert_eq!(call(named(&functions, "C_Finalize")), CKR_CRYPTOKI_NOT_INITIALIZED);
}

#[test]
fn without_servers_there_are_no_slots_and_the_library_names_itself() {
    if !in_own_process("without_servers_there_are_no_slots_and_the_library_names_itself") {
        return;
    }
    let library = load();
    let functions = functions(&library);
    assert_eq!(call(named(&functions, "C_Initialize")), CKR_OK);
    let mut info = std::mem::MaybeUninit::<CK_INFO>::zeroed();
    let mut count: CK_ULONG = 99;
    // SAFETY: both functions are called with the arguments of their prototypes, padded with zeros.
    unsafe {
        let get_info = named(&functions, "C_GetInfo");
        assert_eq!(get_info(info.as_mut_ptr() as usize, 0, 0, 0, 0, 0, 0, 0, 0, 0), CKR_OK);
        let info = info.assume_init();
        assert_eq!((info.cryptokiVersion.major, info.cryptokiVersion.minor, info.flags), (3, 2, 0));
        assert!(info.libraryDescription.starts_with(b"Hatoki"));
        let get_slots = named(&functions, "C_GetSlotList");
        assert_eq!(get_slots(0, 0, (&raw mut count) as usize, 0, 0, 0, 0, 0, 0, 0), CKR_OK);
    }
    assert_eq!(count, 0);
    assert_eq!(call(named(&functions, "C_Finalize")), CKR_OK);
}

#[test]
fn the_lists_share_their_functions() {
    let library = load();
    // SAFETY: the symbols have these prototypes in the standard; each answer is a constant that stays.
    unsafe {
        let get_list: libloading::Symbol<unsafe extern "C" fn(*mut *mut CK_FUNCTION_LIST) -> CK_RV> =
            library.get(b"C_GetFunctionList").unwrap();
        let mut list = null_mut();
        assert_eq!(get_list(&raw mut list), CKR_OK);
        assert_eq!(((*list).version.major, (*list).version.minor), (2, 40));
        let get_interfaces: libloading::Symbol<
            unsafe extern "C" fn(*mut CK_INTERFACE, *mut CK_ULONG) -> CK_RV,
        > = library.get(b"C_GetInterfaceList").unwrap();
        let mut interfaces = std::mem::MaybeUninit::<[CK_INTERFACE; 3]>::zeroed();
        let mut count: CK_ULONG = 3;
        assert_eq!(get_interfaces(interfaces.as_mut_ptr().cast(), &raw mut count), CKR_OK);
        assert_eq!(count, 3);
        for interface in interfaces.assume_init() {
            let name = std::ffi::CStr::from_ptr(interface.pInterfaceName.cast());
            assert_eq!(name, c"PKCS 11");
            let other = interface.pFunctionList.cast::<CK_FUNCTION_LIST>();
            assert_eq!((*other).C_Sign.map(|f| f as usize), (*list).C_Sign.map(|f| f as usize));
            assert_eq!(
                (*other).C_WaitForSlotEvent.map(|f| f as usize),
                (*list).C_WaitForSlotEvent.map(|f| f as usize)
            );
        }
    }
}

#[test]
#[cfg(unix)]
fn a_forked_child_begins_afresh_and_leaves_the_parent_alone() {
    if !in_own_process("a_forked_child_begins_afresh_and_leaves_the_parent_alone") {
        return;
    }
    let library = load();
    let functions = functions(&library);
    let [initialize, finalize, login] =
        ["C_Initialize", "C_Finalize", "C_Login"].map(|name| named(&functions, name));
    assert_eq!(call(initialize), CKR_OK);
    // SAFETY: the child calls the library and leaves by `_exit`.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let steps = [
            call(login) == CKR_SESSION_HANDLE_INVALID,
            call(initialize) == CKR_OK,
            call(initialize) == CKR_CRYPTOKI_ALREADY_INITIALIZED,
            call(finalize) == CKR_OK,
            call(login) == CKR_CRYPTOKI_NOT_INITIALIZED,
        ];
        let wrong = steps.iter().position(|right| !right).map_or(0, |step| step as i32 + 1);
        // SAFETY: ends the child without running what the parent had registered.
        unsafe { libc::_exit(wrong) };
    }
    let mut status = 0;
    // SAFETY: waits for the child made above.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    assert!(libc::WIFEXITED(status), "the child was killed: {status:#x}");
    assert_eq!(libc::WEXITSTATUS(status), 0, "the number of the first step that went wrong in the child");
    assert_eq!(call(login), CKR_SESSION_HANDLE_INVALID);
    assert_eq!(call(finalize), CKR_OK);
}
