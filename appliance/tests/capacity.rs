//! What an `hsmd` process holds: many links at once, each of which costs little while it is idle.
//!
//! ```text
//! HATOKI_LINKS=2000 cargo test -p appliance --test capacity -- --nocapture
//! ```
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]
mod support;

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use appliance::appliance::Appliance;
use ntls::ServerAddress;
use ntls::exchange::{ExchangeError, Session, Target};
use ntls::instance::InstanceKey;
use ntls::tls::ServerTrust;
use spec::messages::{Answer, Call, Status};
use support::{CO_PIN, Client, SO_PIN, config};
use tempfile::TempDir;

/// So many links unless `HATOKI_LINKS` says otherwise.
const LINKS: usize = 100;
/// What a process needs for its first links is not what each costs.
const FIRST: usize = 20;
/// What an idle link may cost the member, in KiB.
const LINK_KIB_MAX: u64 = 40;

/// `hsmd` over a folder of its own; killed when dropped.
struct Process {
    _place: TempDir,
    child: Child,
    port: u16,
    serial: u64,
    client: Client,
    trust: std::sync::Arc<ServerTrust>,
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Process {
    fn start() -> Process {
        let place = tempfile::tempdir().unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let client = Client::new("client1");
        let appliance = Appliance::open(config(&place, "")).unwrap();
        appliance.domains.create("default").unwrap();
        let serial = appliance.partitions.create("par0", "default", SO_PIN, CO_PIN).unwrap().serial;
        appliance.registry.register("client1", &client.pem).unwrap();
        appliance.registry.assign("client1", serial).unwrap();
        let pem = std::fs::read(appliance.identity.certificate_path()).unwrap();
        let trust = std::sync::Arc::new(ServerTrust::from_pem(&pem, "server.pem").unwrap());
        drop(appliance);
        let file = place.path().join("hsmd.toml");
        let text = format!("data_dir = \"data\"\nlisten = [\"127.0.0.1:{port}\"]\n");
        std::fs::write(&file, text).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_hsmd"));
        command.arg("--config").arg(&file).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().unwrap();
        let process = Process { _place: place, child, port, serial, client, trust };
        let begun = Instant::now();
        while process.open(&InstanceKey::generate()).is_err() {
            assert!(begun.elapsed() < Duration::from_secs(60), "hsmd does not listen");
            std::thread::sleep(Duration::from_millis(50));
        }
        process
    }

    fn open(&self, instance: &InstanceKey) -> Result<Session, ExchangeError> {
        Session::open(&Target {
            server: ServerAddress { host: "127.0.0.1".into(), port: self.port },
            identity: &self.client.identity,
            trust: &self.trust,
            instance,
            software: "test",
            timeout_ms: 20_000,
        })
    }

    /// So many links that have been used.
    fn links(&self, count: usize) -> Vec<Session> {
        let instance = InstanceKey::generate();
        let mut links: Vec<Session> = (0..count).map(|_| self.open(&instance).unwrap()).collect();
        links.iter_mut().for_each(|link| self.ask(link));
        links
    }

    fn ask(&self, link: &mut Session) {
        let reply = link.call(self.serial, Call::Status(Status::default()), &[]).unwrap();
        assert!(matches!(reply.answer, Some(Answer::Status(_))), "outcome {}", reply.outcome);
    }

    /// Its resident memory in KiB.
    fn resident_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }
}

#[test]
fn many_links_are_held_at_once_and_an_idle_one_costs_little_memory() {
    let count = std::env::var("HATOKI_LINKS").map_or(LINKS, |count| count.parse().unwrap());
    let process = Process::start();
    let first = process.links(FIRST);
    let before = process.resident_kib();
    let mut links = process.links(count);
    let grown_kib = process.resident_kib().saturating_sub(before);
    println!(
        "{count} more links: the member grew by {grown_kib} KiB, {} KiB for each",
        grown_kib / count as u64
    );
    assert!(grown_kib <= LINK_KIB_MAX * count as u64, "{count} links took {grown_kib} KiB");
    links.iter_mut().for_each(|link| process.ask(link));
    drop(first);
}
