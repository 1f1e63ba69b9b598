//! The contract suite against SoftHSM2, with its known deviations, and against Hatoki with none: over a laboratory of
//! real appliances, and over partitions of the calling process without a network.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tests::contract::deviations::SOFTHSM2;
use tests::contract::table;
use tests::lab::{Lab, expect_ok, programs};

/// Where distributions put SoftHSM2.
const SOFTHSM2_PATHS: &[&str] = &[
    "/usr/lib/softhsm/libsofthsm2.so",
    "/usr/lib64/softhsm/libsofthsm2.so",
    "/usr/lib64/pkcs11/libsofthsm2.so",
    "/usr/local/lib/softhsm/libsofthsm2.so",
    "/opt/homebrew/lib/softhsm/libsofthsm2.so",
];

const INSTALL: &str = "SoftHSM2 is wanted; install it (Debian, Ubuntu: apt-get install softhsm2)";

/// What a run said of each row: `None` is ok, else why it failed.
type Verdicts = BTreeMap<String, Option<String>>;

/// Runs the table in child processes of one program. A row that kills its process has failed; the next child begins
/// behind it.
fn run(program: &str, environment: &BTreeMap<String, String>) -> Verdicts {
    let rows = table();
    let mut verdicts = Verdicts::new();
    while let Some(next) = rows.get(verdicts.len()) {
        let output = Command::new(programs().join(program))
            .arg(next.name)
            .envs(environment)
            .stdin(Stdio::null())
            .output()
            .expect("the program starts; run `cargo build --workspace` first");
        let before = verdicts.len();
        for line in String::from_utf8_lossy(&output.stdout).lines() {
            if let Some(name) = line.strip_prefix("ok ") {
                verdicts.insert(name.to_owned(), None);
            } else if let Some((name, why)) =
                line.strip_prefix("failed ").and_then(|rest| rest.split_once(": "))
            {
                verdicts.insert(name.to_owned(), Some(why.to_owned()));
            }
        }
        if let Some(deadly) = rows.get(verdicts.len()) {
            let error = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(
                verdicts.len() > before || output.status.signal().is_some(),
                "{program} did not begin: {}\n{error}",
                output.status
            );
            let why = format!("the process ended with {}", output.status);
            verdicts.insert(deadly.name.to_owned(), Some(why));
        }
    }
    verdicts
}

/// A token in a folder of its own, and the environment that leads to it.
fn softhsm2(folder: &Path) -> BTreeMap<String, String> {
    let module: PathBuf = SOFTHSM2_PATHS
        .iter()
        .map(PathBuf::from)
        .chain(std::env::var_os("SOFTHSM2_MODULE").map(PathBuf::from))
        .find(|path| path.exists())
        .expect(INSTALL);
    let tokens = folder.join("tokens");
    std::fs::create_dir(&tokens).unwrap();
    let configuration = folder.join("softhsm2.conf");
    std::fs::write(
        &configuration,
        format!(
            "directories.tokendir = {}\nobjectstore.backend = file\nlog.level = ERROR\n",
            tokens.display()
        ),
    )
    .unwrap();
    let environment: BTreeMap<String, String> = [
        ("SOFTHSM2_CONF", configuration.display().to_string()),
        ("P11_MODULE", module.display().to_string()),
        ("P11_TOKEN_LABEL", "contract".to_owned()),
        ("P11_PIN", "user PIN 1234".to_owned()),
        ("P11_SO_PIN", "officer PIN 1234".to_owned()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into();
    let output = Command::new("softhsm2-util")
        .args(["--init-token", "--free", "--label", "contract"])
        .args(["--pin", &environment["P11_PIN"], "--so-pin", &environment["P11_SO_PIN"]])
        .envs(&environment)
        .stdin(Stdio::null())
        .output()
        .expect(INSTALL);
    expect_ok(&output, "softhsm2-util --init-token");
    environment
}

#[test]
fn softhsm2_keeps_the_contract_but_for_its_known_deviations() {
    let folder = tempfile::tempdir().unwrap();
    let verdicts = run("p11contract", &softhsm2(folder.path()));
    let mut wrong = Vec::new();
    for (name, verdict) in &verdicts {
        let known = SOFTHSM2.iter().find(|deviation| deviation.row == name);
        match (verdict, known) {
            (Some(why), None) => wrong.push(format!("{name}: {why}")),
            (None, Some(_)) => wrong.push(format!("{name} passes; take it out of the deviations")),
            (Some(_), Some(_)) | (None, None) => {}
        }
    }
    assert!(wrong.is_empty(), "{} of {} rows:\n  {}", wrong.len(), verdicts.len(), wrong.join("\n  "));
}

/// No row fails: what Hatoki does otherwise than others stands in the rows themselves.
fn all_hold(verdicts: &Verdicts) {
    let wrong: Vec<String> = verdicts
        .iter()
        .filter_map(|(name, verdict)| verdict.as_ref().map(|why| format!("{name}: {why}")))
        .collect();
    assert!(wrong.is_empty(), "{} of {} rows:\n  {}", wrong.len(), verdicts.len(), wrong.join("\n  "));
}

#[test]
fn hatoki_keeps_the_contract() {
    let lab = Lab::up(2);
    all_hold(&run("p11contract", lab.environment()));
}

#[test]
fn hatoki_keeps_the_contract_over_partitions_of_the_same_process() {
    all_hold(&run("p11inside", &BTreeMap::new()));
}
