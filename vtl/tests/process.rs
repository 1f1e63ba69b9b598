//! The tool as a process: exit codes, standard output and error, JSON, environment.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

fn vtl(folder: &Path, words: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vtl"));
    command.env("ChrystokiConfigurationPath", folder).env_remove("VTL_PASSWORD").args(words);
    command.stdin(std::process::Stdio::null()).output().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap()
}

/// A port on which nothing listens.
fn dead_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

#[test]
fn usage_errors_give_2_and_help_gives_0() {
    let folder = tempfile::tempdir().unwrap();
    for words in
        [&[][..], &["fly"], &["haAdmin"], &["createCert"], &["haAdmin", "newGroup", "-serialNum", "x"]]
    {
        let output = vtl(folder.path(), words);
        assert_eq!(output.status.code(), Some(2), "{words:?}: {}", text(&output.stderr));
        assert!(output.stdout.is_empty() && !output.stderr.is_empty(), "{words:?}");
    }
    for words in [&["-help"][..], &["--help"], &["haAdmin", "newGroup", "-help"], &["--version"]] {
        assert_eq!(vtl(folder.path(), words).status.code(), Some(0), "{words:?}");
    }
}

#[test]
fn a_client_is_set_up_and_an_unreachable_server_is_reported_with_the_reason() {
    let folder = tempfile::tempdir().unwrap();
    let made = vtl(folder.path(), &["createCert", "-n", "app01"]);
    assert_eq!(made.status.code(), Some(0), "{}", text(&made.stderr));
    let (certificate, port) = (folder.path().join("cert/client/app01.pem"), dead_port().to_string());
    let pem = certificate.to_str().unwrap();
    let added = vtl(folder.path(), &["addServer", "-n", "127.0.0.1", "-c", pem, "-p", &port, "--json"]);
    assert_eq!((added.status.code(), json(&added)["added"].as_bool()), (Some(0), Some(true)));
    let listed = vtl(folder.path(), &["listServers"]);
    assert_eq!(text(&listed.stdout), format!("Server: 127.0.0.1:{port}\n"));
    let verified = vtl(folder.path(), &["verify", "-json"]);
    assert_eq!(verified.status.code(), Some(1));
    assert_eq!(json(&verified)["partitions"], Value::Array(Vec::new()));
    let reason = format!("server 127.0.0.1:{port} cannot be reached: ");
    assert!(text(&verified.stderr).contains(&reason), "{}", text(&verified.stderr));
    let words =
        ["haAdmin", "newGroup", "-serialNum", "1000000000001", "-label", "prodha", "-password", "secret-pin"];
    let refused = vtl(folder.path(), &words);
    assert_eq!(refused.status.code(), Some(1));
    let complaint = text(&refused.stderr);
    assert!(
        complaint.contains("wanted the partition 1000000000001") && complaint.contains(&reason),
        "{complaint}"
    );
    assert!(!complaint.contains("secret-pin"));
}

#[test]
fn the_option_config_wins_over_the_environment() {
    let (environment, option) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fs::write(option.path().join("Chrystoki.conf"), "LunaSA Client = { ServerName00 = other; }\n").unwrap();
    let words = ["listServers", "--config", option.path().to_str().unwrap()];
    assert_eq!(text(&vtl(environment.path(), &words).stdout), "Server: other\n");
}

#[test]
fn a_missing_or_malformed_configuration_is_a_failure_with_text_and_json() {
    let folder = tempfile::tempdir().unwrap();
    let output = vtl(folder.path(), &["verify", "--json"]);
    assert_eq!(output.status.code(), Some(1));
    let error = json(&output)["error"].as_str().unwrap().to_owned();
    assert!(error.contains("found no such file; begin with vtl createCert"), "{error}");
    fs::write(folder.path().join("Chrystoki.conf"), "Luna = {\n").unwrap();
    let output = vtl(folder.path(), &["listServers"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("Chrystoki.conf:2:1: wanted `}`"), "{}", text(&output.stderr));
    let output = vtl(&folder.path().join("absent"), &["listServers"]);
    assert!(text(&output.stderr).contains("wanted the folder"), "{}", text(&output.stderr));
}

#[test]
fn servers_without_a_client_certificate_name_the_command_that_makes_it() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("Chrystoki.conf"), "LunaSA Client = { ServerName00 = x; }\n").unwrap();
    let output = vtl(folder.path(), &["verify"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("make the client's certificate with vtl createCert"));
}

/// Makes certificates of so many names and gives their files.
fn certificates(folder: &Path, count: usize) -> Vec<String> {
    let make = |at: usize| {
        let name = format!("hsm{at}");
        assert_eq!(vtl(folder, &["createCert", "-n", &name]).status.code(), Some(0));
        folder.join(format!("cert/client/{name}.pem")).to_str().unwrap().to_owned()
    };
    (0..count).map(make).collect()
}

fn spawned(folder: &Path, words: &[&str]) -> std::process::Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vtl"));
    command.env("ChrystokiConfigurationPath", folder).args(words);
    command.stdin(std::process::Stdio::null()).stdout(std::process::Stdio::null());
    command.stderr(std::process::Stdio::piped()).spawn().unwrap()
}

#[test]
fn several_at_once_lose_no_server_and_no_certificate() {
    const COUNT: usize = 8;
    let (folder, made) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let files = certificates(made.path(), COUNT);
    let add = |(at, file): (usize, &String)| {
        spawned(folder.path(), &["addServer", "-n", &format!("hsm{at}"), "-c", file])
    };
    let running: Vec<_> = files.iter().enumerate().map(add).collect();
    for one in running {
        let output = one.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    }
    let listed = vtl(folder.path(), &["listServers"]);
    assert_eq!(text(&listed.stdout).lines().count(), COUNT, "{}", text(&listed.stdout));
    let trusted = fs::read_to_string(folder.path().join("cert/server/CAFile.pem")).unwrap();
    assert_eq!(trusted.matches("BEGIN CERTIFICATE").count(), COUNT);
}

#[test]
fn a_verb_that_changes_files_waits_for_the_other_and_says_so_and_one_that_does_not_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("Chrystoki.conf"), "LunaSA Client = { ServerName00 = x; }\n").unwrap();
    let other = fs::File::open(folder.path()).unwrap();
    rustix::fs::flock(&other, rustix::fs::FlockOperation::LockExclusive).unwrap();
    assert_eq!(text(&vtl(folder.path(), &["listServers"]).stdout), "Server: x\n");
    let mut waiting = spawned(folder.path(), &["deleteServer", "-n", "x"]);
    let mut told = std::io::BufReader::new(waiting.stderr.take().unwrap());
    let mut line = String::new();
    std::io::BufRead::read_line(&mut told, &mut line).unwrap();
    assert!(line.contains("waiting for another vtl"), "{line}");
    assert!(waiting.try_wait().unwrap().is_none());
    assert_eq!(text(&vtl(folder.path(), &["listServers"]).stdout), "Server: x\n");
    drop(other);
    assert_eq!(waiting.wait().unwrap().code(), Some(0));
    assert_eq!(text(&vtl(folder.path(), &["listServers"]).stdout), "");
}
