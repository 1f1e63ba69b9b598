//! What operators read: debts that are paid at the end, a call followed through both logs, certificates that end soon.
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use spec::AttributeType;
use spec::messages::{Answer, Call, Find};
use spec::value::{Attribute, Template};
use tests::authority::Authority;
use tests::lab::{Lab, Scene};
use tests::wire::{Client, Wire};

/// Waits until a file has lines that hold all these words; they are answered.
fn lines(file: &Path, words: &[&str]) -> Vec<String> {
    let begun = Instant::now();
    loop {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        let found = text.lines().filter(|line| words.iter().all(|word| line.contains(word)));
        let found: Vec<String> = found.map(str::to_owned).collect();
        if !found.is_empty() {
            return found;
        }
        assert!(begun.elapsed().as_secs() < 60, "a line with {words:?} in {}:\n{text}", file.display());
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// An application that logs everything to this file, and its HA log into the laboratory's folder.
fn logging(lab: &Lab, file: &Path) -> Scene {
    let more = format!(
        "HAConfiguration = {{\n   haLogStatus = enabled;\n   haLogPath = {};\n}}\n\
         Hatoki = {{\n   LogLevel = debug;\n   LogPath = {};\n}}",
        lab.path().display(),
        file.display()
    );
    let mut scene = lab.scene_reaching("steps", &[1, 2, 3], &more);
    scene.expect("READY");
    scene
}

fn logged_in(lab: &Lab, file: &Path) -> Scene {
    let mut scene = logging(lab, file);
    scene.done(&format!("login {}", lab.value("P11_PIN")), 0);
    scene
}

fn end(mut scene: Scene) {
    scene.write(b"end\n");
    scene.finish();
}

/// How many objects of this label a member holds, asked by a link of its own.
fn held(lab: &Lab, member: usize, label: &str) -> usize {
    let mut wire = Wire::open_at(&Client::of(lab), member - 1);
    wire.login(lab.value("P11_PIN"));
    let label = Template::from(vec![Attribute::new(AttributeType::LABEL, label.as_bytes().to_vec())]);
    let reply = wire.call(Call::Find(Find { template: Some(label), after: Vec::new(), limit: 100 }));
    match &reply.answer {
        Some(Answer::Find(found)) => found.found.len(),
        _ => panic!("wanted a page: {}", reply.text),
    }
}

fn signal(lab: &Lab, member: usize, signal: i32) {
    // SAFETY: a plain system call on the number of a process that the laboratory has started.
    assert_eq!(unsafe { libc::kill(lab.process(member), signal) }, 0);
}

/// HA 2.5: an application that ends as soon as a frozen member is thawed has paid it, or says that it has not: the latter
/// when the member's links were given up meanwhile, as a slow host may have it.
fn ending_pays(lab: &Lab) {
    let mut paid = 0;
    for round in 0..5 {
        let (file, label) = (lab.path().join(format!("ends-{round}.log")), format!("late-{round}"));
        let mut scene = logged_in(lab, &file);
        signal(lab, 3, libc::SIGSTOP);
        let said = scene.step(&format!("pair {label}"));
        signal(lab, 3, libc::SIGCONT);
        assert_eq!(said, "DONE 2", "two of three are enough");
        end(scene);
        let owed = std::fs::read_to_string(&file).unwrap().contains("lacks acknowledged writes");
        let held = held(lab, 3, &label);
        assert!(owed || held == 2, "round {round}: it ended in debt and does not say so");
        paid += usize::from(!owed);
    }
    println!("the end of {paid} of 5 applications has paid what a frozen member owed");
    assert!(paid > 0, "no end has paid a member that could take it");
}

/// One number follows a call through the module's log and the appliance's.
fn a_call_is_followed(lab: &Lab) {
    let file = lab.path().join("traced.log");
    let mut scene = logging(lab, &file);
    assert_eq!(scene.step("login certainly-not-it"), "FAILED C_Login answered 0xa0");
    end(scene);
    let line = lines(&file, &["C_Login", "trace="]).remove(0);
    let trace = line.rsplit("trace=").next().unwrap().to_owned();
    assert!(trace.len() == 16 && trace.chars().all(|c| c.is_ascii_hexdigit()), "{line}");
    let begun = Instant::now();
    let told = loop {
        let logs = (1..=3).map(|member| lab.path().join(format!("hsm{member}/hsmd.log")));
        let all: String = logs.map(|log| std::fs::read_to_string(log).unwrap()).collect();
        let found = all.lines().filter(|line| line.contains(&format!("trace={trace}")));
        let found: Vec<String> = found.map(str::to_owned).collect();
        if !found.is_empty() {
            break found;
        }
        assert!(begun.elapsed().as_secs() < 60, "no appliance names {trace}");
        std::thread::sleep(Duration::from_millis(50));
    };
    assert_eq!(told.len(), 1, "one member was asked: {told:?}");
    for word in ["lab-client", "Login", "rv=160"] {
        assert!(told[0].contains(word), "{word} in {}", told[0]);
    }
}

/// HA 2.5 and the vendor's event: a write that a dead member has missed stands in the HA log.
fn a_missed_write_is_logged(lab: &Lab) {
    let mut scene = logged_in(lab, &lab.path().join("missed.log"));
    let (pid, serial) = (scene.pid(), lab.serials()[2].clone());
    lab.kill_now(3);
    scene.done("pair missed", 2);
    let words = [&format!("[{pid}] HA group: "), "failed to replicate", &format!("member: {serial}")];
    let told = lines(&lab.path().join("haErrorLog.txt"), &words);
    assert_eq!(told.len(), 1, "once: {told:?}");
    lab.lab("start", Some(3));
    lab.wait_until_equal(3);
    assert_eq!(held(lab, 3, "missed"), 2);
    end(scene);
}

#[test]
fn debts_are_paid_at_the_end_calls_are_followed_and_missed_writes_are_told() {
    let lab = Lab::up(3);
    ending_pays(&lab);
    a_call_is_followed(&lab);
    a_missed_write_is_logged(&lab);
}

/// A certificate of the appliance that ends in five days, trusted by the client and in service.
fn shorten_the_servers(lab: &Lab) {
    let (host, port) = lab.servers().remove(0);
    lab.hsm_done(1, &["sysconf", "regenCert", "-days", "5"]);
    let next = lab.path().join("hsm1/data/server.next.pem").display().to_string();
    lab.vtl_done(&["addServer", "-n", &host, "-p", &port, "-c", &next]);
    lab.hsm_done(1, &["sysconf", "activateCert"]);
}

/// A certificate of the client that ends in five days, the only one that the appliance knows, and in use; its file.
fn shorten_the_clients(lab: &Lab) -> PathBuf {
    let folder = PathBuf::from(lab.value("ChrystokiConfigurationPath")).join("cert/client");
    let old =
        lab.vtl_done(&["fingerprint", "-f", &folder.join("lab-client.pem").display().to_string(), "--json"]);
    let old: serde_json::Value = serde_json::from_str(&old).unwrap();
    let old = old["certificates"][0]["fingerprint_sha256"].as_str().unwrap();
    lab.vtl_done(&["createCert", "-n", "short", "-days", "5"]);
    let file = folder.join("short.pem");
    let new = file.display().to_string();
    lab.hsm_done(1, &["client", "addCertificate", "-client", "lab-client", "-cert", &new]);
    lab.vtl_done(&["useCert", "-n", "short"]);
    lab.hsm_done(1, &["client", "removeCertificate", "-client", "lab-client", "-fingerprint", old]);
    file
}

#[test]
fn certificates_that_end_in_five_days_are_named_in_both_logs_with_what_to_do() {
    let lab = Lab::up(1);
    let authority = Authority::new(lab.path(), 5);
    let (host, port) = lab.servers().remove(0);
    lab.vtl_done(&["addServer", "-n", &host, "-p", &port, "-c", &authority.certificate()]);
    shorten_the_servers(&lab);
    let own = shorten_the_clients(&lab);
    // Looked at once an hour, and at the start.
    lab.kill_now(1);
    lab.lab("start", Some(1));
    let (told, server) = (lab.path().join("hsm1/hsmd.log"), lab.path().join("hsm1/data/server.pem"));
    for (who, what_to_do) in [
        (format!("the certificate of this server ({})", server.display()), "run `hsm sysconf regenCert`"),
        ("the certificate of client lab-client".to_owned(), "add it with `hsm client addCertificate`"),
    ] {
        lines(&told, &["WARN", &who, " ends on ", ", in 4 days: ", what_to_do]);
    }
    let file = lab.path().join("app.log");
    let scene = logged_in(&lab, &file);
    let trusted = PathBuf::from(lab.value("ChrystokiConfigurationPath")).join("cert/server/CAFile.pem");
    for (who, what_to_do) in [
        (format!("the certificate of this client (CN short) in {}", own.display()), "`vtl createCert`"),
        (format!("the authority \"lab authority\" in ServerCAFile {}", trusted.display()), "`vtl addServer`"),
        ("the server certificate of the member's appliance".to_owned(), "`hsm sysconf regenCert`"),
    ] {
        lines(&file, &["WARN", &who, " ends on ", ", in 4 days: ", what_to_do]);
    }
    end(scene);
}
