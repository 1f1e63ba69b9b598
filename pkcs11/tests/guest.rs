//! The library as a guest in a process whose signals, descriptors and environment are the application's.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]

use std::io::{Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicI32, Ordering};

use cryptoki_sys::*;
use libloading::{Library, Symbol};

const INSIDE: &str = "HATOKI_TEST_INSIDE";

/// Runs the test of this name again in a process of its own; `None` inside it.
fn in_own_process(test: &str, change: impl FnOnce(&mut Command, &Path)) -> Option<Output> {
    if std::env::var_os(INSIDE).is_some() {
        return None;
    }
    let folder = std::env::temp_dir().join(format!("hatoki-{test}-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args([test, "--exact", "--nocapture", "--test-threads=1"])
        .env(INSIDE, "1")
        .env("HATOKI_TEST_LIBRARY", library())
        .env("ChrystokiConfigurationPath", &folder);
    change(&mut command, &folder);
    let output = command.output().unwrap();
    std::fs::remove_dir_all(&folder).unwrap();
    let heard = String::from_utf8_lossy(&output.stdout);
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{test} failed in its own process: {}\n{heard}\n{told}", output.status);
    Some(output)
}

fn library() -> PathBuf {
    if let Some(told) = std::env::var_os("HATOKI_TEST_LIBRARY") {
        return told.into();
    }
    let folder = std::env::current_exe().unwrap().parent().unwrap().to_path_buf();
    let found =
        [folder.join("libhatoki.so"), folder.join("../libhatoki.so")].into_iter().find(|path| path.exists());
    found.expect("cargo builds libhatoki.so before the tests of its crate")
}

fn folder() -> PathBuf {
    PathBuf::from(std::env::var_os("ChrystokiConfigurationPath").unwrap())
}

/// The 2.40 functions of the library.
struct P11(CK_FUNCTION_LIST);

impl P11 {
    fn load() -> P11 {
        // SAFETY: the library has no constructors of its own and is never unloaded; the symbol has this prototype in the
        // standard, and what it answers is a constant.
        unsafe {
            let library = Library::new(library()).unwrap();
            let get: Symbol<unsafe extern "C" fn(*mut *mut CK_FUNCTION_LIST) -> CK_RV> =
                library.get(b"C_GetFunctionList").unwrap();
            let mut list = std::ptr::null_mut();
            assert_eq!(get(&raw mut list), CKR_OK);
            P11(*list)
        }
    }

    fn initialize(&self) -> CK_RV {
        // SAFETY: NULL asks for the defaults.
        unsafe { self.0.C_Initialize.unwrap()(std::ptr::null_mut()) }
    }

    fn initialize_without_threads(&self) -> CK_RV {
        let mut arguments = CK_C_INITIALIZE_ARGS {
            CreateMutex: None,
            DestroyMutex: None,
            LockMutex: None,
            UnlockMutex: None,
            flags: CKF_OS_LOCKING_OK | CKF_LIBRARY_CANT_CREATE_OS_THREADS,
            pReserved: std::ptr::null_mut(),
        };
        // SAFETY: the structure is a local that outlives the call.
        unsafe { self.0.C_Initialize.unwrap()((&raw mut arguments).cast()) }
    }

    fn finalize(&self) -> CK_RV {
        // SAFETY: the argument is reserved and NULL.
        unsafe { self.0.C_Finalize.unwrap()(std::ptr::null_mut()) }
    }

    fn slots(&self) -> CK_ULONG {
        let mut count = 0;
        // SAFETY: a length query into a local.
        let rv = unsafe { self.0.C_GetSlotList.unwrap()(CK_TRUE, std::ptr::null_mut(), &raw mut count) };
        assert_eq!(rv, CKR_OK);
        count
    }

    /// Starts links and the thread of the library.
    fn token_info(&self) -> CK_RV {
        let mut info = std::mem::MaybeUninit::<CK_TOKEN_INFO>::zeroed();
        // SAFETY: the answer goes to a local of its size.
        unsafe { self.0.C_GetTokenInfo.unwrap()(0, info.as_mut_ptr()) }
    }

    /// A call that leaves a line at level debug.
    fn noise(&self) {
        // SAFETY: a handle that was never issued.
        assert_eq!(unsafe { self.0.C_CloseSession.unwrap()(77) }, CKR_SESSION_HANDLE_INVALID);
    }
}

/// One group behind a port where nobody listens.
fn configure(folder: &Path, log: &str) {
    let text = format!(
        "LunaSA Client = {{\n  ServerName00 = 127.0.0.1;\n  ServerPort00 = 9;\n}}\n\
         VirtualToken = {{\n  VirtualToken00Label = lab;\n  VirtualToken00SN = 11001;\n  \
         VirtualToken00Members = 1001;\n}}\nHatoki = {{\n  OutageWaitMs = 300;\n  StatsPath = off;\n  {log}\n}}\n"
    );
    std::fs::write(folder.join("Chrystoki.conf"), text).unwrap();
}

/// The thread of the library: its number, and the signals that it has blocked.
fn tender() -> Option<(i32, u64)> {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    tasks.filter_map(Result::ok).find_map(|task| {
        let name = std::fs::read_to_string(task.path().join("comm")).ok()?;
        if name.trim() != "hatoki-tender" {
            return None;
        }
        let status = std::fs::read_to_string(task.path().join("status")).ok()?;
        let blocked = status.lines().find_map(|line| line.strip_prefix("SigBlk:"))?;
        Some((task.file_name().to_str()?.parse().ok()?, u64::from_str_radix(blocked.trim(), 16).ok()?))
    })
}

static RAN_ON: AtomicI32 = AtomicI32::new(0);

extern "C" fn handler(_: i32) {
    // SAFETY: asks for the calling thread's number.
    RAN_ON.store(unsafe { libc::gettid() }, Ordering::SeqCst);
}

#[test]
fn a_handler_of_the_application_never_runs_on_a_thread_of_the_library() {
    let test = "a_handler_of_the_application_never_runs_on_a_thread_of_the_library";
    if in_own_process(test, |_, folder| configure(folder, "LogLevel = off;")).is_some() {
        return;
    }
    // SAFETY: the handler does what handlers may.
    unsafe { libc::signal(libc::SIGUSR1, handler as *const () as libc::sighandler_t) };
    let p11 = P11::load();
    assert_eq!(p11.initialize(), CKR_OK);
    assert_eq!(p11.token_info(), CKR_OK);
    // A thread gives itself its name.
    let mut found = None;
    for _ in 0..500 {
        found = tender();
        if found.is_some() {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    let (number, blocked) = found.expect("the library has its thread");
    for signal in [libc::SIGUSR1, libc::SIGTERM, libc::SIGALRM, libc::SIGCHLD, libc::SIGPROF, libc::SIGPIPE] {
        assert_ne!(blocked & (1 << (signal - 1)), 0, "signal {signal}");
    }
    assert_eq!(blocked & (1 << (libc::SIGSEGV - 1)), 0, "a crash handler still hears of our faults");
    for _ in 0..100 {
        // SAFETY: a signal to this process, which has a handler for it.
        unsafe { libc::kill(libc::getpid(), libc::SIGUSR1) };
        std::thread::yield_now();
        assert_ne!(RAN_ON.load(Ordering::SeqCst), number);
    }
    // The thread that the kernel has chosen runs the handler when its turn comes.
    for _ in 0..3_000 {
        if RAN_ON.load(Ordering::SeqCst) != 0 {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    let ran_on = RAN_ON.load(Ordering::SeqCst);
    assert_ne!(ran_on, 0, "the application hears its signal");
    assert_ne!(ran_on, number);
    assert_eq!(p11.finalize(), CKR_OK);
}

/// Gives the application another standard error and keeps the one of before.
fn replace_standard_error(with: i32) -> i32 {
    // SAFETY: numbers of open files of this process.
    unsafe {
        let kept = libc::dup(2);
        assert_eq!(libc::dup2(with, 2), 2);
        kept
    }
}

fn give_back_standard_error(kept: i32) {
    // SAFETY: a number that `replace_standard_error` has made.
    assert_eq!(unsafe { libc::dup2(kept, 2) }, 2);
}

#[test]
fn a_log_on_a_standard_error_that_nobody_reads_neither_kills_nor_blocks_nor_closes() {
    let test = "a_log_on_a_standard_error_that_nobody_reads_neither_kills_nor_blocks_nor_closes";
    if in_own_process(test, |_, folder| configure(folder, "LogLevel = debug;")).is_some() {
        return;
    }
    // SAFETY: as a C program has it; Rust's own start would ignore it.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
    let p11 = P11::load();
    let (mut reader, writer) = std::io::pipe().unwrap();
    let kept = replace_standard_error(writer.as_raw_fd());
    assert_eq!(p11.initialize(), CKR_OK);
    // More than any pipe holds.
    for _ in 0..20_000 {
        p11.noise();
    }
    let mut some = [0; 4096];
    let read = reader.read(&mut some).unwrap();
    drop(reader);
    p11.noise();
    assert_eq!(p11.finalize(), CKR_OK);
    give_back_standard_error(kept);
    let some = String::from_utf8_lossy(&some[..read]).into_owned();
    assert!(some.contains("DEBUG hatoki: C_CloseSession: CKR_SESSION_HANDLE_INVALID"), "{some}");
}

#[test]
fn a_limit_on_the_length_of_files_ends_no_application_that_logs() {
    let test = "a_limit_on_the_length_of_files_ends_no_application_that_logs";
    let change = |_: &mut Command, folder: &Path| {
        let place = folder.display();
        let logs = format!(
            "LogLevel = debug;\n  LogPath = {place}/log;\n  StatsPath = {place}/stats;\n}}\n\
             HAConfiguration = {{\n  haLogStatus = enabled;\n  haLogPath = {place};"
        );
        configure(folder, &logs);
    };
    if in_own_process(test, change).is_some() {
        return;
    }
    let p11 = P11::load();
    let limit = libc::rlimit { rlim_cur: 0, rlim_max: libc::RLIM_INFINITY };
    // SAFETY: as a C program has it; every write to a file now brings the signal to the thread that writes.
    unsafe {
        libc::signal(libc::SIGXFSZ, libc::SIG_DFL);
        assert_eq!(libc::setrlimit(libc::RLIMIT_FSIZE, &raw const limit), 0);
    }
    // Without threads of the library everything is written by ours.
    assert_eq!(p11.initialize_without_threads(), CKR_OK);
    let (log, ha_log) = (folder().join("log"), folder().join("haErrorLog.txt"));
    for _ in 0..600 {
        assert_eq!(p11.token_info(), CKR_OK);
        p11.noise();
        if ha_log.exists() {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    assert_eq!(p11.finalize(), CKR_OK);
    for file in [&log, &ha_log] {
        let length = file.metadata().unwrap_or_else(|error| panic!("{}: {error}", file.display())).len();
        assert_eq!(length, 0, "{}: what cannot be written is lost", file.display());
    }
    assert!(folder().join("stats").read_dir().unwrap().next().is_none(), "no page that is cut short");
}

#[test]
fn a_standard_error_that_the_application_replaced_gets_no_line() {
    let test = "a_standard_error_that_the_application_replaced_gets_no_line";
    if in_own_process(test, |_, folder| configure(folder, "LogLevel = debug;")).is_some() {
        return;
    }
    let p11 = P11::load();
    let path = folder().join("theirs");
    let theirs = std::fs::File::create(&path).unwrap();
    assert_eq!(p11.initialize(), CKR_OK);
    let kept = replace_standard_error(theirs.as_raw_fd());
    p11.noise();
    give_back_standard_error(kept);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "");
    assert_eq!(p11.finalize(), CKR_OK);
}

#[test]
fn a_log_file_whose_number_the_application_took_is_opened_anew_also_in_a_child() {
    let test = "a_log_file_whose_number_the_application_took_is_opened_anew_also_in_a_child";
    if in_own_process(test, |_, folder| configure(folder, "LogLevel = debug; LogPath = log;")).is_some() {
        return;
    }
    let p11 = P11::load();
    assert_eq!(p11.initialize(), CKR_OK);
    let log = folder().join("log");
    let path = folder().join("theirs");
    let mut theirs = std::fs::OpenOptions::new().append(true).create(true).mode(0o600).open(&path).unwrap();
    let number = (3..64)
        .find(|number| std::fs::read_link(format!("/proc/self/fd/{number}")).is_ok_and(|link| link == log));
    let number = number.expect("the log is open");
    // SAFETY: the child calls the library and leaves by `_exit`.
    let child = unsafe { libc::fork() };
    if child == 0 {
        // SAFETY: puts the application's file in the place of the log, which is the child's to do.
        unsafe { libc::dup2(theirs.as_raw_fd(), number) };
        p11.noise();
        p11.finalize();
        // SAFETY: the number is the child's own file; ends it without running what the parent had registered.
        unsafe { libc::_exit(i32::from(libc::fcntl(number, libc::F_GETFD) < 0)) };
    }
    let mut status = 0;
    // SAFETY: waits for the child made above.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    assert_eq!(status, 0, "the child's own file was closed");
    assert!(std::fs::read_to_string(&log).unwrap().contains("C_CloseSession"));
    theirs.write_all(b"own line\n").unwrap();
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "own line\n");
    assert_eq!(p11.finalize(), CKR_OK);
}

/// Whether the system says that this process has other rights than the one who started it.
fn is_set_uid() -> bool {
    // SAFETY: looks up a number that the system gave the process at its start.
    unsafe { libc::getauxval(libc::AT_SECURE) != 0 }
}

#[test]
fn a_set_uid_program_reads_no_configuration_that_its_user_names() {
    let test = "a_set_uid_program_reads_no_configuration_that_its_user_names";
    let copy = std::env::temp_dir().join(format!("hatoki-set-uid-{}", std::process::id()));
    let output = in_own_process(test, |command, folder| {
        configure(folder, "LogLevel = off;");
        std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o755)).unwrap();
        // A program of another user, to be had by root alone; without root it runs with its user's rights.
        let program = copy.join("program");
        std::fs::create_dir_all(&copy).unwrap();
        std::fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
        let module = copy.join("libhatoki.so");
        std::fs::copy(library(), &module).unwrap();
        let _ = std::os::unix::fs::chown(&program, Some(65_534), None);
        for (path, mode) in [(&copy, 0o755), (&program, 0o4755), (&module, 0o755)] {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
        }
        let arguments: Vec<_> = command.get_args().map(ToOwned::to_owned).collect();
        let mut other = Command::new(program);
        other.args(arguments).envs(command.get_envs().filter_map(|(key, value)| Some((key, value?))));
        other.env("HATOKI_TEST_LIBRARY", module).stdin(Stdio::null());
        *command = other;
    });
    if let Some(output) = output {
        std::fs::remove_dir_all(&copy).unwrap();
        print!("{}", String::from_utf8_lossy(&output.stdout));
        return;
    }
    let p11 = P11::load();
    assert_eq!(p11.initialize(), CKR_OK);
    let there_is_one = Path::new("/etc/Chrystoki.conf").exists();
    match (is_set_uid(), there_is_one) {
        (true, false) => assert_eq!(p11.slots(), 0, "the user's folder was looked at"),
        (true, true) => println!("this machine has a configuration in /etc: nothing to show here"),
        (false, _) => {
            println!("this user cannot make a set-uid program: nothing to show here");
            assert_eq!(p11.slots(), 1);
        }
    }
    assert_eq!(p11.finalize(), CKR_OK);
}
