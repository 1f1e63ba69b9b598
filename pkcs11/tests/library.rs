//! The library as an application meets it: loaded by path, called through its tables, forked, loaded again.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]

use std::path::{Path, PathBuf};
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
    in_own_process_with(test, |_| ()).is_none()
}

/// As [`in_own_process`], with a folder that `prepare` fills. `None` inside the process; what it wrote to standard error
/// outside, where the test checks it.
fn in_own_process_with(test: &str, prepare: impl FnOnce(&Path)) -> Option<String> {
    const INSIDE: &str = "HATOKI_TEST_INSIDE";
    if std::env::var_os(INSIDE).is_some() {
        return None;
    }
    let folder = std::env::temp_dir().join(format!("hatoki-{test}-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    prepare(&folder);
    let output = Command::new(std::env::current_exe().unwrap())
        .args([test, "--exact", "--nocapture", "--test-threads=1"])
        .env(INSIDE, "1")
        .env("ChrystokiConfigurationPath", &folder)
        .output()
        .unwrap();
    std::fs::remove_dir_all(&folder).unwrap();
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    let heard = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{test} failed in its own process: {}\n{heard}\n{told}", output.status);
    Some(told)
}

/// The folder of the configuration, inside a process of [`in_own_process_with`].
fn folder() -> PathBuf {
    PathBuf::from(std::env::var_os("ChrystokiConfigurationPath").unwrap())
}

/// A configuration with one group of one member behind one server, and a client certificate that is there or not.
fn one_server(folder: &Path, port: u16) {
    let text = format!(
        "LunaSA Client = {{\n  NetClient = 1;\n  ServerName00 = 127.0.0.1;\n  ServerPort00 = {port};\n  \
         ClientCertFile = client.pem;\n  ClientPrivKeyFile = clientKey.pem;\n  ServerCAFile = servers.pem;\n}}\n\
         VirtualToken = {{\n  VirtualToken00Label = lab;\n  VirtualToken00SN = 11001;\n  \
         VirtualToken00Members = 1001;\n}}\nHatoki = {{\n  OutageWaitMs = 300;\n  StatsPath = run;\n}}\n"
    );
    std::fs::write(folder.join("Chrystoki.conf"), text).unwrap();
}

fn tool(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).arg(path()).output();
    let output = output.unwrap_or_else(|error| panic!("{program} (package binutils) is needed: {error}"));
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap()
}

#[test]
#[cfg(target_os = "linux")]
fn exactly_the_functions_of_the_standard_and_the_vendors_extensions_are_exported() {
    let listing = tool("nm", &["-D", "--defined-only"]);
    let mut exported: Vec<_> = listing.lines().filter_map(|line| line.split_whitespace().last()).collect();
    exported.sort_unstable();
    let mut expected: Vec<_> = ROWS.iter().map(|row| row.name).collect();
    expected.extend(spec::functions::EXTENSIONS.iter().map(|extension| extension.name));
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

/// The supported functions that take no session.
const WITHOUT_SESSION: &[&str] = &[
    "C_GetInfo",
    "C_GetFunctionList",
    "C_GetSlotList",
    "C_GetSlotInfo",
    "C_GetTokenInfo",
    "C_GetMechanismList",
    "C_GetMechanismInfo",
    "C_OpenSession",
    "C_CloseAllSessions",
    "C_WaitForSlotEvent",
    "C_GetInterfaceList",
    "C_GetInterface",
];

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
            Status::Supported if WITHOUT_SESSION.contains(name) => {
                assert!(
                    ![CKR_OK, CKR_GENERAL_ERROR, CKR_SESSION_HANDLE_INVALID].contains(&rv),
                    "{name}: {rv:#x}"
                );
            }
            // What is said of the session comes before what is said of a NULL (PKCS #11 v3.1, 5.1.2 and 5.1.7).
            Status::Supported => assert_eq!(rv, CKR_SESSION_HANDLE_INVALID, "{name}: {rv:#x}"),
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
fn a_malformed_configuration_is_a_general_error_and_standard_error_names_the_place() {
    let test = "a_malformed_configuration_is_a_general_error_and_standard_error_names_the_place";
    let prepare = |folder: &Path| {
        std::fs::write(folder.join("Chrystoki.conf"), "Luna = {\n   DefaultTimeOut = 5\n}\n").unwrap();
    };
    if let Some(told) = in_own_process_with(test, prepare) {
        let place = "Chrystoki.conf:2:22: wanted `;`, found the end of the line";
        assert!(
            told.lines().any(|line| line.contains("ERROR") && line.contains(place)),
            "RULES 2.13: {told}"
        );
        return;
    }
    let library = load();
    let functions = functions(&library);
    assert_eq!(call(named(&functions, "C_Initialize")), CKR_GENERAL_ERROR);
    assert_eq!(call(named(&functions, "C_Finalize")), CKR_CRYPTOKI_NOT_INITIALIZED);
    std::fs::write(folder().join("Chrystoki.conf"), "").unwrap();
    assert_eq!(call(named(&functions, "C_Initialize")), CKR_OK, "the file was corrected");
}

#[test]
fn a_folder_in_place_of_the_configuration_is_a_general_error() {
    let test = "a_folder_in_place_of_the_configuration_is_a_general_error";
    let prepare = |folder: &Path| std::fs::create_dir(folder.join("Chrystoki.conf")).unwrap();
    if let Some(told) = in_own_process_with(test, prepare) {
        assert!(told.contains("Chrystoki.conf: wanted to read the configuration, found: "), "{told}");
        return;
    }
    let library = load();
    assert_eq!(call(named(&functions(&library), "C_Initialize")), CKR_GENERAL_ERROR);
}

#[test]
#[cfg(unix)]
fn a_configuration_that_may_not_be_read_is_a_general_error() {
    use std::os::unix::fs::PermissionsExt as _;
    let test = "a_configuration_that_may_not_be_read_is_a_general_error";
    let prepare = |folder: &Path| {
        let file = folder.join("Chrystoki.conf");
        std::fs::write(&file, "").unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o000)).unwrap();
    };
    if let Some(told) = in_own_process_with(test, prepare) {
        let refused = told.contains("make the file readable for this process");
        assert!(refused || told.contains("this user reads every file"), "{told}");
        return;
    }
    if std::fs::read(folder().join("Chrystoki.conf")).is_ok() {
        eprintln!("this user reads every file: nothing to show here");
        return;
    }
    let library = load();
    assert_eq!(call(named(&functions(&library), "C_Initialize")), CKR_GENERAL_ERROR);
}

#[test]
fn a_configuration_without_servers_is_no_error_and_no_slot() {
    let test = "a_configuration_without_servers_is_no_error_and_no_slot";
    let prepare = |folder: &Path| {
        let text = "Luna = {\n  DefaultTimeOut = 500000;\n}\nLunaSA Client = {\n  NetClient = 1;\n}\n";
        std::fs::write(folder.join("Chrystoki.conf"), text).unwrap();
    };
    if in_own_process_with(test, prepare).is_some() {
        return;
    }
    let library = load();
    let functions = functions(&library);
    assert_eq!(call(named(&functions, "C_Initialize")), CKR_OK);
    assert_eq!(slot_count(&functions), 0);
    assert_eq!(call(named(&functions, "C_Finalize")), CKR_OK);
}

#[test]
fn without_the_client_certificate_the_slot_is_shown_and_a_use_names_file_and_command() {
    let test = "without_the_client_certificate_the_slot_is_shown_and_a_use_names_file_and_command";
    if let Some(told) = in_own_process_with(test, |folder| one_server(folder, 1)) {
        let named = |line: &str| line.contains("client.pem") && line.contains("`vtl createCert`");
        let fault = |line: &&str| line.contains("ERROR") && named(line);
        assert_eq!(told.lines().filter(fault).count(), 1, "{told}");
        assert!(!told.contains("WARN hatoki"), "one failed use is logged once: {told}");
        return;
    }
    let library = load();
    let functions = functions(&library);
    assert_eq!(call(named(&functions, "C_Initialize")), CKR_OK);
    assert_eq!(slot_count(&functions), 1);
    let mut session: CK_SESSION_HANDLE = 0;
    let flags = (CKF_SERIAL_SESSION | CKF_RW_SESSION) as usize;
    let pin = b"co-pin-1";
    let started = std::time::Instant::now();
    // SAFETY: both functions are called with the arguments of their prototypes, padded with zeros.
    unsafe {
        let open = named(&functions, "C_OpenSession");
        assert_eq!(open(0, flags, 0, 0, (&raw mut session) as usize, 0, 0, 0, 0, 0), CKR_OK);
        let login = named(&functions, "C_Login");
        let rv =
            login(session as usize, CKU_USER as usize, pin.as_ptr() as usize, pin.len(), 0, 0, 0, 0, 0, 0);
        assert_eq!(rv, CKR_DEVICE_ERROR);
    }
    assert!(
        started.elapsed().as_millis() < 3_000,
        "OutageWaitMs is 300, the call took {:?}",
        started.elapsed()
    );
    assert_eq!(call(named(&functions, "C_Finalize")), CKR_OK);
}

/// The descriptors of this process that are connected to a port of this machine; nothing is allocated, so that a forked
/// child may ask.
#[cfg(target_os = "linux")]
fn links_to(port: u16) -> impl Iterator<Item = i32> {
    (0..1_024).filter(move |descriptor| {
        // SAFETY: the address is a local of the size told; a number that is no socket is refused by the system.
        unsafe {
            let mut address = std::mem::zeroed::<libc::sockaddr_in>();
            let mut bytes = size_of::<libc::sockaddr_in>() as libc::socklen_t;
            let known = libc::getpeername(*descriptor, (&raw mut address).cast(), &raw mut bytes);
            known == 0 && u16::from_be(address.sin_port) == port
        }
    })
}

#[cfg(target_os = "linux")]
fn connected_to(port: u16) -> usize {
    links_to(port).count()
}

#[test]
#[cfg(target_os = "linux")]
fn the_first_call_in_a_forked_child_closes_the_links_of_the_parent_and_only_there() {
    let test = "the_first_call_in_a_forked_child_closes_the_links_of_the_parent_and_only_there";
    let pair = ntls::certificate::self_signed(&ntls::certificate::Wanted {
        name: "test",
        hosts: &[],
        now_ms: spec::platform::Platform::wall_ms(&ntls::platform::System),
        days: 10,
    })
    .unwrap();
    let prepare = |folder: &Path| {
        for name in ["client.pem", "servers.pem"] {
            std::fs::write(folder.join(name), &pair.certificate_pem).unwrap();
        }
        std::fs::write(folder.join("clientKey.pem"), pair.key_pem.as_bytes()).unwrap();
    };
    if in_own_process_with(test, prepare).is_some() {
        return;
    }
    // A server that accepts and says nothing: the link stays in its handshake.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    one_server(&folder(), port);
    let library = load();
    let functions = functions(&library);
    let [initialize, finalize, token, login] =
        ["C_Initialize", "C_Finalize", "C_GetTokenInfo", "C_Login"].map(|name| named(&functions, name));
    assert_eq!(call(initialize), CKR_OK);
    let mut info = std::mem::MaybeUninit::<CK_TOKEN_INFO>::zeroed();
    // SAFETY: called with the arguments of its prototype, padded with zeros; it starts the links.
    assert_eq!(unsafe { token(0, info.as_mut_ptr() as usize, 0, 0, 0, 0, 0, 0, 0, 0) }, CKR_OK);
    let _accepted = listener.accept().unwrap();
    for _ in 0..100 {
        if connected_to(port) == 1 {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    assert_eq!(connected_to(port), 1, "the link of the parent");
    std::thread::sleep(std::time::Duration::from_millis(50));
    // SAFETY: the child calls the library and leaves by `_exit`.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let before = connected_to(port);
        let rv = call(login);
        let wrong = if before != 1 { 1 } else { connected_to(port) as i32 * 2 };
        let wrong = if rv == CKR_SESSION_HANDLE_INVALID { wrong } else { 100 };
        // SAFETY: ends the child without running what the parent had registered.
        unsafe { libc::_exit(wrong) };
    }
    let mut status = 0;
    // SAFETY: waits for the child made above.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    assert!(libc::WIFEXITED(status), "the child was killed: {status:#x}");
    assert_eq!(
        libc::WEXITSTATUS(status),
        0,
        "1: nothing was inherited; 2: it was still open; 100: another answer"
    );
    a_child_keeps_a_file_of_its_own_in_the_place_of_the_link(port, login);
    assert_eq!(call(login), CKR_SESSION_HANDLE_INVALID);
    assert_eq!(connected_to(port), 1, "the parent keeps its link");
    assert_eq!(call(finalize), CKR_OK);
}

/// A child that has put a file of its own in the place of the link, as daemons do, keeps it.
#[cfg(target_os = "linux")]
fn a_child_keeps_a_file_of_its_own_in_the_place_of_the_link(port: u16, login: Any) {
    let own = std::fs::File::open("/dev/null").unwrap();
    // SAFETY: the child calls the library and leaves by `_exit`.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let number = links_to(port).next().unwrap_or(-1);
        // SAFETY: closes what the child has inherited and asks about its own file.
        let is_open = unsafe {
            libc::dup2(std::os::fd::AsRawFd::as_raw_fd(&own), number);
            call(login);
            libc::fcntl(number, libc::F_GETFD) >= 0
        };
        // SAFETY: ends the child without running what the parent had registered.
        unsafe { libc::_exit(i32::from(!is_open)) };
    }
    let mut status = 0;
    // SAFETY: waits for the child made above.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    assert_eq!(status, 0, "the library has closed a file of the application");
}

/// The number of slots that `C_GetSlotList` tells.
fn slot_count(functions: &[(&str, Any)]) -> CK_ULONG {
    let mut count: CK_ULONG = 99;
    // SAFETY: the function is called with the arguments of its prototype, padded with zeros.
    let rv =
        unsafe { named(functions, "C_GetSlotList")(0, 0, (&raw mut count) as usize, 0, 0, 0, 0, 0, 0, 0) };
    assert_eq!(rv, CKR_OK);
    count
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

#[test]
fn the_vendors_extensions_are_exported_by_name() {
    let library = load();
    for extension in spec::functions::EXTENSIONS {
        // SAFETY: the symbol is a function that takes at most ten register-sized arguments.
        let function: libloading::Symbol<Any> = unsafe { library.get(extension.name.as_bytes()).unwrap() };
        let rv = call(*function);
        assert!(
            [CKR_CRYPTOKI_NOT_INITIALIZED, CKR_ARGUMENTS_BAD].contains(&rv),
            "{}: {rv:#x}",
            extension.name
        );
    }
}

/// The processes that have a metrics page in the folder of [`one_server`]'s configuration.
#[cfg(target_os = "linux")]
fn pages() -> Vec<u32> {
    let Ok(entries) = std::fs::read_dir(folder().join("run")) else { return Vec::new() };
    let read = |entry: std::fs::DirEntry| {
        let page = spec::stats::read(&std::fs::read(entry.path()).unwrap()).unwrap();
        let name = entry.file_name().into_string().unwrap();
        assert_eq!(spec::stats::parse_file_name(&name), Some((page.pid, page.serial)));
        assert_eq!((page.serial, &*page.label), (11_001, "lab"));
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", page.pid)).unwrap();
        assert_eq!(spec::stats::started_ticks(&stat), Some(page.started_ticks));
        page.pid
    };
    let mut pids: Vec<u32> = entries.map(|entry| read(entry.unwrap())).collect();
    pids.sort_unstable();
    pids
}

#[test]
#[cfg(target_os = "linux")]
fn a_metrics_page_lives_from_the_first_use_to_finalize_and_a_forked_child_has_its_own() {
    if !in_own_process("a_metrics_page_lives_from_the_first_use_to_finalize_and_a_forked_child_has_its_own") {
        return;
    }
    one_server(&folder(), 9);
    let library = load();
    let functions = functions(&library);
    let [initialize, finalize, token] =
        ["C_Initialize", "C_Finalize", "C_GetTokenInfo"].map(|name| named(&functions, name));
    let mut info = std::mem::MaybeUninit::<CK_TOKEN_INFO>::zeroed();
    // SAFETY: called with the arguments of its prototype, padded with zeros.
    let mut ask = || unsafe { token(0, info.as_mut_ptr() as usize, 0, 0, 0, 0, 0, 0, 0, 0) };
    let own = std::process::id();
    assert_eq!(call(initialize), CKR_OK);
    assert!(pages().is_empty());
    assert_eq!(ask(), CKR_OK);
    assert_eq!(pages(), [own]);
    // SAFETY: the child calls the library and leaves by `_exit`.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let asked = ask();
        let mut both = [own, std::process::id()];
        both.sort_unstable();
        let during = pages() == both;
        let finalized = call(finalize);
        let fine = asked == CKR_OK && during && finalized == CKR_OK && pages() == [own];
        // SAFETY: ends the child without running what the parent had registered.
        unsafe { libc::_exit(i32::from(!fine)) };
    }
    let mut status = 0;
    // SAFETY: waits for the child made above.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    assert_eq!(status, 0, "the child has a page of its own and takes it with it");
    assert_eq!(pages(), [own]);
    assert_eq!(call(finalize), CKR_OK);
    assert!(pages().is_empty());
}
