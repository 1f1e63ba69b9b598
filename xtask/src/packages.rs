//! The programs of others that demo and tests need: installed as root on Debian and its relatives, otherwise named in
//! one command to run. Never calls sudo.
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::problem::Problem;
use crate::process;

/// One package of Debian and how to see that what we need of it is there.
#[derive(Clone, Copy, Debug)]
pub struct Package {
    /// Its name.
    pub name: &'static str,
    there: fn() -> bool,
}

/// pkcs11-tool.
pub const OPENSC: Package = Package { name: "opensc", there: || is_program("pkcs11-tool") };
/// The command openssl.
pub const OPENSSL: Package = Package { name: "openssl", there: || is_program("openssl") };
/// OpenSSL's engine for PKCS #11.
pub const ENGINE: Package = Package { name: "libengine-pkcs11-openssl", there: has_engine };
/// Java with its compiler.
pub const JAVA: Package =
    Package { name: "default-jdk-headless", there: || is_program("javac") && is_program("java") };
/// The second opinion where the standard decides.
pub const SOFTHSM: Package = Package { name: "softhsm2", there: || is_program("softhsm2-util") };
/// ps and friends.
pub const PROCPS: Package = Package { name: "procps", there: || is_program("ps") };
/// Counts system calls.
pub const STRACE: Package = Package { name: "strace", there: || is_program("strace") };
/// taskset.
pub const UTIL_LINUX: Package = Package { name: "util-linux", there: || is_program("taskset") };
/// script, which gives a program a terminal.
pub const BSDUTILS: Package = Package { name: "bsdutils", there: || is_program("script") };
/// Runs programs on a machine of its own: finds wrong memory accesses, counts instructions.
pub const VALGRIND: Package = Package { name: "valgrind", there: || is_program("valgrind") };

/// What the demo needs.
pub const FOR_DEMO: &[Package] = &[OPENSC, OPENSSL, ENGINE];
/// What the tests need.
pub const FOR_TESTS: &[Package] =
    &[OPENSC, OPENSSL, ENGINE, JAVA, SOFTHSM, PROCPS, STRACE, UTIL_LINUX, BSDUTILS, VALGRIND];
/// What the measurements need.
pub const FOR_BENCH: &[Package] = &[SOFTHSM, UTIL_LINUX];
/// What the count of instructions needs.
pub const FOR_COUNTING: &[Package] = &[VALGRIND];

/// Makes sure that all are there.
///
/// # Errors
/// When some are missing and cannot be installed by us, with the one command that does it.
pub fn need(packages: &[Package]) -> Result<(), Problem> {
    let missing = missing(packages);
    if missing.is_empty() {
        return Ok(());
    }
    let names = missing.join(" ");
    if !rustix::process::geteuid().is_root() || !is_program("apt-get") {
        return Err(Problem(format!(
            "wanted the Debian packages {names}, found them missing; install them with\n\n    sudo apt-get install -y \
             --no-install-recommends {names}\n"
        )));
    }
    println!("installing {names}");
    install(&missing)?;
    match self::missing(packages).as_slice() {
        [] => Ok(()),
        left => Err(Problem(format!("{} still missing after their installation", left.join(" ")))),
    }
}

fn missing(packages: &[Package]) -> Vec<&'static str> {
    packages.iter().filter(|package| !(package.there)()).map(|package| package.name).collect()
}

fn install(names: &[&str]) -> Result<(), Problem> {
    let apt = || {
        let mut command = Command::new("apt-get");
        command.env("DEBIAN_FRONTEND", "noninteractive");
        command
    };
    let command = || {
        let mut command = apt();
        command.args(["install", "-y", "--no-install-recommends"]).args(names);
        command
    };
    // A fresh image has no lists yet; one with lists needs no download of them.
    if process::run(&mut command()).is_ok() {
        return Ok(());
    }
    process::run(apt().arg("update"))?;
    process::run(&mut command()).map(drop)
}

/// Whether a program of that name is in the search path.
pub fn is_program(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(name).is_file())
}

/// Where OpenSSL keeps its engines, if it says so.
fn engine_folder() -> Option<PathBuf> {
    let said = process::text(Command::new("openssl").args(["version", "-e"])).ok()?;
    // ENGINESDIR: "/usr/lib/x86_64-linux-gnu/engines-3"
    said.split('"').nth(1).map(PathBuf::from)
}

fn has_engine() -> bool {
    engine_folder().is_some_and(|folder| has_any(&folder, &["pkcs11.so", "libpkcs11.so", "pkcs11.dylib"]))
}

fn has_any(folder: &Path, names: &[&str]) -> bool {
    names.iter().any(|name| folder.join(name).exists())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_readme_names_what_the_tests_need() {
        let readme = std::fs::read_to_string(crate::cargo::root().join("README.md")).unwrap_or_default();
        let unnamed = FOR_TESTS.iter().filter(|package| !readme.contains(&format!("`{}`", package.name)));
        assert_eq!(unnamed.map(|package| package.name).collect::<Vec<_>>(), [""; 0]);
    }

    #[test]
    fn what_is_missing_is_named_in_order() {
        let there = Package { name: "there", there: || true };
        let gone = Package { name: "gone", there: || false };
        let lost = Package { name: "lost", there: || false };
        assert_eq!(missing(&[gone, there, lost]), ["gone", "lost"]);
        assert!(is_program("sh") && !is_program("no-such-program-anywhere"));
    }
}
