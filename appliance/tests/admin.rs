//! The operator's verbs over a real socket, by the tool itself and by hand; the real `hsmd` process at its start
//! and stop.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]
mod support;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use support::Client;
use tempfile::TempDir;

const HSM: &str = env!("CARGO_BIN_EXE_hsm");
const HSMD: &str = env!("CARGO_BIN_EXE_hsmd");

/// A real server process; killed when dropped.
struct Process {
    child: Child,
    place: TempDir,
}

fn configure(place: &Path, more: &str) {
    let text = format!(
        "data_dir = \"data\"\nlisten = [\"127.0.0.1:0\"]\nargon2_memory_kib = 64\nargon2_passes = 1\n{more}\n"
    );
    fs::write(place.join("hsmd.toml"), text).unwrap();
}

fn hsmd(place: &Path) -> Command {
    let mut command = Command::new(HSMD);
    command.arg("--config").arg(place.join("hsmd.toml")).stdin(Stdio::null());
    command
}

/// Starts a server that must refuse to run, and gives what it says.
fn refused(place: &Path) -> String {
    let output = hsmd(place).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    String::from_utf8(output.stderr).unwrap()
}

impl Process {
    fn start(more: &str) -> Process {
        let place = tempfile::tempdir().unwrap();
        configure(place.path(), more);
        Self::start_in(place)
    }

    fn start_in(place: TempDir) -> Process {
        let log = fs::File::create(place.path().join("log")).unwrap();
        let child = hsmd(place.path()).stderr(log).spawn().unwrap();
        let process = Process { child, place };
        for _ in 0..1000 {
            if process.log().contains("ready") {
                return process;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("hsmd did not start: {}", process.log());
    }

    fn log(&self) -> String {
        fs::read_to_string(self.place.path().join("log")).unwrap()
    }

    fn socket(&self) -> std::path::PathBuf {
        self.place.path().join("data/admin.sock")
    }

    fn path(&self, name: &str) -> String {
        self.place.path().join(name).display().to_string()
    }

    fn hsm(&self, words: &[&str]) -> Output {
        let mut command = Command::new(HSM);
        command.env("HSM_SOCKET", self.socket()).env_remove("HSM_SO_PIN").env_remove("HSM_CO_PIN");
        // Without a terminal of its own there is nobody to ask for a PIN.
        command.args(words).stdin(Stdio::null()).output().unwrap()
    }

    fn ok(&self, words: &[&str]) -> String {
        let output = self.hsm(words);
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{words:?}: {text}{}", String::from_utf8_lossy(&output.stderr));
        text
    }

    fn json(&self, words: &[&str]) -> Value {
        serde_json::from_str(&self.ok(&[words, &["--json"]].concat())).unwrap()
    }

    fn fails(&self, words: &[&str]) -> String {
        let output = self.hsm(words);
        assert_eq!(output.status.code(), Some(1), "{words:?}: {output:?}");
        assert!(String::from_utf8_lossy(&output.stdout).ends_with("Command Result : 1 (Failure)\n"));
        String::from_utf8(output.stderr).unwrap()
    }

    fn terminate(mut self, signal: rustix::process::Signal) -> (Option<i32>, String, TempDir) {
        let id = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(id, signal).unwrap();
        let code = self.child.wait().unwrap().code();
        let log = self.log();
        let place = std::mem::replace(&mut self.place, tempfile::tempdir().unwrap());
        (code, log, place)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn every_verb_works_and_ends_as_the_vendors_shell_does() {
    let server = Process::start("");
    let client = Client::new("client1");
    let cert = server.path("client1.pem");
    fs::write(&cert, &client.pem).unwrap();
    assert!(server.ok(&["init", "-LABEL", "hsm1"]).ends_with("\nCommand Result : 0 (Success)\n"));
    assert_eq!(server.json(&["show"])["label"], "hsm1");
    assert_eq!(server.json(&["show"])["domains"][0]["domain"], "default");
    let made = server.json(&[
        "partition",
        "create",
        "-partition",
        "par0",
        "-sopin",
        "so-pin-1",
        "-copin",
        "co-pin-1",
    ]);
    let serial = made["serial"].as_u64().unwrap();
    assert_eq!(serial.to_string().len(), 13);
    assert_eq!(
        (&made["label"], &made["domain"], &made["fault"]),
        (&json!("par0"), &json!("default"), &Value::Null)
    );
    assert_eq!(server.json(&["partition", "list"])[0]["serial"], serial);
    assert_eq!(server.json(&["partition", "show", "-partition", &serial.to_string()])["label"], "par0");
    server.ok(&["client", "register", "-client", "client1", "-cert", &cert]);
    let assigned = server.json(&["CLIENT", "AssignPartition", "-client", "client1", "-partition", "par0"]);
    assert_eq!(assigned["partitions"], json!(["par0"]));
    assert_eq!(server.json(&["client", "list"])[0]["client"], "client1");
    assert_eq!(server.json(&["partition", "show", "-partition", "par0"])["clients"], json!(["client1"]));
    let ntls = server.json(&["ntls", "show"]);
    assert!(ntls["listen"][0].as_str().unwrap().starts_with("127.0.0.1:"));
    let pem = fs::read(ntls["certificate"].as_str().unwrap()).unwrap();
    let shown = &ntls::certificate::Certificate::all_from_pem(&pem, "server.pem").unwrap()[0];
    assert_eq!(ntls["fingerprint"], shown.fingerprint_text());
    for words in [&["show"][..], &["partition", "list"], &["client", "list"], &["ntls", "show"]] {
        let text = server.ok(words);
        assert!(text.contains("par0") || text.contains("hsm1") || text.contains("127.0.0.1"), "{text}");
    }
    let log = server.log();
    assert!(!log.contains("co-pin-1") && !log.contains("so-pin-1"), "a PIN is in the log");
}

#[test]
fn certificates_and_peers_are_changed_by_the_tool() {
    let server = Process::start("");
    server.ok(&["init", "-label", "hsm1"]);
    let (old, new, other) = (Client::new("app1"), Client::new("app1"), Client::at("hsm2", soon_ended()));
    for (name, client) in [("old.pem", &old), ("new.pem", &new), ("hsm2.pem", &other)] {
        fs::write(server.path(name), &client.pem).unwrap();
    }
    let registered =
        server.json(&["client", "register", "-client", "app1", "-cert", &server.path("old.pem")]);
    let both =
        server.json(&["client", "addCertificate", "-client", "app1", "-cert", &server.path("new.pem")]);
    assert_eq!(both["certificates"].as_array().unwrap().len(), 2);
    let gone = old.identity.certificate().fingerprint_text();
    let left = server.json(&["client", "removecertificate", "-client", "app1", "-fingerprint", &gone]);
    assert_eq!(left["fingerprint"], new.identity.certificate().fingerprint_text());
    assert_eq!(left["identity"], registered["identity"]);
    let before = server.json(&["ntls", "show"])["fingerprint"].clone();
    let prepared = server.json(&["sysconf", "regenCert", "-days", "400"]);
    assert_eq!((&prepared["server"]["fingerprint"], &prepared["next"]["daysLeft"]), (&before, &json!(399)));
    assert!(server.ok(&["sysconf", "show"]).contains("server.next.pem"));
    let active = server.json(&["sysconf", "activateCert"]);
    assert_eq!(
        (&active["server"]["fingerprint"], &active["next"]),
        (&prepared["next"]["fingerprint"], &Value::Null)
    );
    let added = server.json(&[
        "peer",
        "add",
        "hsm2",
        "-host",
        "127.0.0.1",
        "-port",
        "1",
        "-certificate",
        &server.path("hsm2.pem"),
    ]);
    assert_eq!((&added["peer"], &added["domain"]), (&json!("hsm2"), &json!("default")));
    let warnings = server.json(&["ntls", "show"])["warnings"].to_string();
    assert!(warnings.contains("peer hsm2 ends on"), "{warnings}");
    assert!(server.ok(&["peer", "list"]).contains("hsm2"));
    assert_eq!(server.json(&["peer", "remove", "hsm2"]), json!([]));
    let refused = server.hsm(&["sysconf", "activateCert"]);
    assert_eq!(refused.status.code(), Some(1), "nothing is prepared any more");
    let asked = server.json(&["sysconf", "regenCert", "-csr"]);
    let request = asked["request"].as_str().unwrap();
    assert!(fs::read_to_string(request).unwrap().contains("BEGIN CERTIFICATE REQUEST"));
    assert!(server.ok(&["sysconf", "show"]).contains("activateCert -cert FILE"));
    let foreign = server.fails(&["sysconf", "activateCert", "-cert", &server.path("new.pem")]);
    assert!(foreign.contains("is not the key of"), "{foreign}");
    assert_eq!(server.hsm(&["sysconf", "regenCert", "-csr", "-days", "3"]).status.code(), Some(2));
}

/// A certificate of ten days made then ends in five.
fn soon_ended() -> u64 {
    appliance::handler::now_ms() - 5 * 86_400_000
}

#[test]
fn refusals_have_exit_code_one_and_say_why_and_usage_errors_two() {
    let server = Process::start("");
    server.ok(&["init", "-label", "hsm1", "-noDomain"]);
    assert!(server.fails(&["init", "-label", "hsm2"]).contains("hsm1"));
    let create = ["partition", "create", "-partition", "par0", "-soPin", "so-pin-1", "-coPin"];
    assert!(server.fails(&[&create[..], &["co-pin-1"]].concat()).contains("default"), "there is no domain");
    assert!(server.fails(&["partition", "show", "-partition", "par9"]).contains("partition list"));
    assert!(
        server
            .fails(&["client", "register", "-client", "c", "-cert", "/nonexistent"])
            .contains("/nonexistent")
    );
    assert!(
        server.fails(&["client", "assignPartition", "-client", "c", "-partition", "p"]).contains("wanted")
    );
    let output = server.hsm(&["partition", "show", "-partition", "par9", "--json"]);
    let error: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(error["error"].as_str().unwrap().contains("par9"));
    for words in [&["frobnicate"][..], &["init"], &["init", "-label", "x", "-what"], &[]] {
        assert_eq!(server.hsm(words).status.code(), Some(2), "{words:?}");
    }
    let output = Command::new(HSM).args(["--socket", "/nonexistent/admin.sock", "show"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("start hsmd"));
}

#[test]
fn pins_come_from_the_environment_too() {
    let server = Process::start("");
    server.ok(&["init", "-label", "hsm1"]);
    let mut command = Command::new(HSM);
    command.env("HSM_SOCKET", server.socket()).env("HSM_SO_PIN", "so-pin-1").env("HSM_CO_PIN", "co-pin-1");
    let output = command.args(["partition", "create", "-partition", "par0"]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert!(!String::from_utf8_lossy(&output.stdout).contains("pin-1"));
}

#[test]
fn a_domain_moves_between_two_servers_by_the_tool() {
    let (old, new) = (Process::start(""), Process::start(""));
    old.ok(&["init", "-label", "hsm1", "-domain", "pki"]);
    new.ok(&["init", "-label", "hsm2", "-noDomain"]);
    let (request, export) = (new.path("pki.request"), new.path("pki.export"));
    let asked = new.json(&["domain", "export-request", "-domain", "pki", "-out", &request]);
    assert!(asked.get("text").is_none(), "the text is in the file");
    let fingerprint = asked["requestFingerprint"].as_str().unwrap();
    let wrong = "00".repeat(32);
    let words = |fingerprint| {
        [
            "domain",
            "export",
            "-domain",
            "pki",
            "-request",
            &request,
            "-out",
            &export,
            "-fingerprint",
            fingerprint,
        ]
    };
    assert!(old.fails(&words(&wrong)).contains("nothing was exported"));
    assert!(!Path::new(&export).exists());
    let given = old.json(&words(fingerprint));
    assert_eq!(given["requestFingerprint"], fingerprint);
    assert!(old.fails(&words(fingerprint)).contains("wanted a new file"), "nothing is overwritten");
    let taken = new.json(&["domain", "import", "-in", &export]);
    assert_eq!(taken["fingerprint"], given["fingerprint"]);
    assert_eq!(new.json(&["domain", "fingerprint"]), old.json(&["domain", "fingerprint", "-domain", "pki"]));
    assert!(new.fails(&["domain", "import", "-in", &export]).contains("export-request"));
    assert!(old.fails(&["domain", "import", "-in", &export]).contains("export-request"));
    let create = ["partition", "create", "-partition", "par0", "-domain", "pki", "-soPin", "so-pin-1"];
    new.ok(&[&create[..], &["-coPin", "co-pin-1"]].concat());
}

#[test]
fn the_socket_is_private_and_lines_by_hand_are_no_harm() {
    let server = Process::start("");
    let mode = fs::metadata(server.socket()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let talk = |bytes: &[u8]| {
        let mut stream = UnixStream::connect(server.socket()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        // The server may close while a line that is too long is still being written.
        let _ = stream.write_all(bytes);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let mut answer = String::new();
        let _ = BufReader::new(stream).read_line(&mut answer);
        answer
    };
    for line in [
        "{}",
        "[",
        "\u{0}",
        "{\"verb\":\"erase\"}",
        "{\"verb\":\"partitionCreate\",\"args\":{\"soPin\":\"s3cret\"}}",
    ] {
        let answer = talk(format!("{line}\n").as_bytes());
        assert!(answer.starts_with("{\"error\":\"wanted a verb"), "{line}: {answer}");
        assert!(!answer.contains("s3cret"), "{answer}");
    }
    assert_eq!(talk(&vec![b'x'; 2 << 20]), "");
    assert_eq!(talk(b"{\"verb\":\"show\"}"), "", "a line without its end is not carried out");
    assert!(talk(b"{\"verb\":\"show\"}\n").contains("\"ok\""));
    assert!(!server.log().contains("s3cret"));
}

#[test]
fn another_user_is_refused_at_the_socket() {
    if !rustix::process::geteuid().is_root() {
        return; // Only root can become somebody else.
    }
    let place = tempfile::tempdir().unwrap();
    fs::set_permissions(place.path(), fs::Permissions::from_mode(0o755)).unwrap();
    configure(place.path(), "admin_socket = \"admin.sock\"");
    fs::copy(HSM, place.path().join("hsm")).unwrap();
    let server = Process::start_in(place);
    let socket = server.place.path().join("admin.sock");
    let ask = || {
        let mut command = Command::new(server.place.path().join("hsm"));
        command.arg("--socket").arg(&socket).arg("show").current_dir("/").uid(65534).gid(65534);
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    assert!(ask().contains("run hsm as root"), "the mode keeps others out");
    fs::set_permissions(&socket, fs::Permissions::from_mode(0o666)).unwrap();
    assert!(ask().contains("wanted root or user 0, found user 65534"), "and so does the peer's user");
}

#[test]
fn a_start_that_cannot_be_right_is_refused_with_what_to_do() {
    let place = tempfile::tempdir().unwrap();
    let missing = Command::new(HSMD).args(["--config", "/nonexistent.toml"]).output().unwrap();
    assert_eq!(missing.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&missing.stderr).contains("--config"));
    configure(place.path(), "window = 0");
    assert!(
        refused(place.path()).contains("hsmd.toml:5:10: window: wanted a number from 1 to 65536, found 0")
    );
    configure(place.path(), "root_key = \"env:HATOKI_NO_SUCH_KEY\"");
    assert!(refused(place.path()).contains("HATOKI_NO_SUCH_KEY"));
    configure(place.path(), "");
    let server = Process::start_in(place);
    let place = server.place.path();
    assert!(refused(place).contains("in use by process"));
    let (_, _, place) = server.terminate(rustix::process::Signal::TERM);
    let place = place.path();
    let mode = |name: &str, mode: u32| {
        fs::set_permissions(place.join(name), fs::Permissions::from_mode(mode)).unwrap();
    };
    mode("data", 0o755);
    assert!(refused(place).contains("chmod 700"));
    mode("data", 0o700);
    mode("data/root.key", 0o644);
    assert!(refused(place).contains("chmod 600"));
    mode("data/root.key", 0o600);
    fs::rename(place.join("data/root.key"), place.join("kept.key")).unwrap();
    assert!(refused(place).contains("bring it back"));
    fs::rename(place.join("kept.key"), place.join("data/root.key")).unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    configure(place, "");
    let text = fs::read_to_string(place.join("hsmd.toml")).unwrap();
    fs::write(place.join("hsmd.toml"), text.replace("127.0.0.1:0", &taken.local_addr().unwrap().to_string()))
        .unwrap();
    assert!(refused(place).contains("wanted a free address"));
}

#[test]
fn signals_stop_the_server_in_order_and_a_kill_leaves_a_usable_folder() {
    use rustix::process::Signal;
    let server = Process::start("log_format = \"json\"");
    server.ok(&["init", "-label", "hsm1"]);
    let (code, log, place) = server.terminate(Signal::TERM);
    assert_eq!(code, Some(0), "{log}");
    for line in log.lines() {
        let entry: Value = serde_json::from_str(line).unwrap();
        assert!(entry["level"].is_string() && entry["fields"]["message"].is_string(), "{line}");
    }
    assert!(log.contains("stopped"));
    assert!(!place.path().join("data/admin.sock").exists());
    let server = Process::start_in(place);
    assert_eq!(server.json(&["show"])["label"], "hsm1");
    let (code, _, place) = server.terminate(Signal::KILL);
    assert_eq!(code, None);
    assert!(place.path().join("data/admin.sock").exists(), "a killed server leaves its socket");
    let server = Process::start_in(place);
    assert_eq!(server.json(&["show"])["label"], "hsm1");
    assert_eq!(server.terminate(Signal::INT).0, Some(0));
}

#[test]
fn the_process_writes_no_core_dump_and_its_files_are_private() {
    let server = Process::start("");
    let limits = fs::read_to_string(format!("/proc/{}/limits", server.child.id())).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().nth(4), Some("0"), "{core}");
    // Of an undumpable process, files in /proc belong to root; as root there is no difference to see.
    let facts = fs::metadata(format!("/proc/{}/maps", server.child.id())).unwrap();
    assert_eq!(facts.uid(), 0);
    for entry in fs::read_dir(server.place.path().join("data")).unwrap() {
        let entry = entry.unwrap();
        assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o077, 0, "{:?}", entry.path());
    }
}
