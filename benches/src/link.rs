//! The links of the module alone: one request that makes the member do next to nothing, and its reply.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use ntls::ServerAddress;
use ntls::instance::InstanceKey;
use ntls::links::{LINKS_PER_MEMBER, LinkSettings, Links};
use ntls::platform::System;
use prost::Message as _;
use spec::messages::{Call, RequestBody, RequestHeader, Status};
use spec::platform::Platform;
use spec::seam::{Event, MemberId, Outgoing, Seam as _, Tag, Waiter};
use tests::p11::Failed;
use zeroize::Zeroizing;

use crate::work::{Contestant, Work, Worker, prove};

/// How long a reply may take, in milliseconds.
const PATIENCE_MS: u64 = 5_000;

/// Links to all servers of a configuration, with the thread that does their background work.
pub struct Link {
    platform: Arc<dyn Platform>,
    links: Arc<Links>,
    members: Vec<MemberId>,
    stop: Arc<AtomicBool>,
    attendant: Option<JoinHandle<()>>,
}

impl Link {
    /// Connects as `Chrystoki.conf` in a folder says.
    ///
    /// # Errors
    /// When it cannot be read, or no server offers a partition.
    pub fn open(folder: &Path) -> io::Result<Self> {
        let configuration = client::conf::location::load_from(folder).map_err(io::Error::other)?;
        let conf = configuration
            .ok_or_else(|| io::Error::other(format!("{}: no Chrystoki.conf", folder.display())))?;
        let address =
            |server: &client::conf::Server| ServerAddress { host: server.name.clone(), port: server.port };
        let platform: Arc<dyn Platform> = Arc::new(System);
        let settings = LinkSettings {
            servers: conf.servers.iter().map(address).collect(),
            certificate_file: conf.client_certificate.clone().unwrap_or_default(),
            key_file: conf.client_private_key.clone().unwrap_or_default(),
            server_ca_file: conf.server_ca.clone(),
            links_per_member: LINKS_PER_MEMBER,
            may_spawn: true,
            receive_timeout_ms: PATIENCE_MS,
            tcp_keep_alive: true,
            software: "hatoki-load".to_owned(),
            instance: Arc::new(InstanceKey::generate()),
        };
        let links = Links::new(platform.clone(), settings);
        let stop = Arc::new(AtomicBool::new(false));
        let (attended, until, now) = (links.clone(), stop.clone(), platform.clone());
        let attendant = thread::spawn(move || {
            let (_attendance, waiter) = (attended.attend(), Waiter::new(&now));
            while !until.load(Ordering::Relaxed) {
                attended.wait(&waiter, now.now().after_ms(100));
            }
        });
        links.settle(platform.now().after_ms(PATIENCE_MS));
        let members: Vec<MemberId> = links.partitions().iter().map(|seen| MemberId(seen.serial)).collect();
        let link = Self { platform, links, members, stop, attendant: Some(attendant) };
        match link.members.is_empty() {
            true => Err(io::Error::other("no server of the configuration offers a partition")),
            false => Ok(link),
        }
    }
}

impl Contestant for Link {
    fn worker(&self, work: Work, number: usize) -> Result<Option<Worker<'_>>, Failed> {
        if work != Work::RoundTrip {
            return Ok(None);
        }
        let (waiter, mut next) = (Waiter::new(&self.platform), number);
        let call = Some(Call::Status(Status { mechanisms: false, seen: Vec::new() }));
        let body = RequestBody { group: Vec::new(), generation: 0, ticket: Vec::new(), call };
        let body = Arc::new(Zeroizing::new(body.encode_to_vec()));
        Ok(Some(Box::new(move || {
            next = (next + 1) % self.members.len();
            let (member, until) = (self.members[next], self.platform.now().after_ms(PATIENCE_MS));
            let remaining_ms = u32::try_from(PATIENCE_MS).unwrap_or(u32::MAX);
            let header = RequestHeader { partition: member.0, remaining_ms, ..RequestHeader::default() };
            let tag = self.links.submit(&waiter, member, &Outgoing { header, body: body.clone() }, until);
            loop {
                match self.links.wait(&waiter, until) {
                    Event::Reply(got, reply) => {
                        waiter.give_back(reply.body);
                        return prove(got == tag, "reply");
                    }
                    Event::Woken | Event::Progress(Tag(_)) => {}
                    Event::Busy(..) | Event::Fault(..) | Event::Deadline => return prove(false, "link"),
                }
            }
        })))
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(attendant) = self.attendant.take() {
            // It looks every 100 ms.
            let _ = attendant.join();
        }
        self.links.close();
    }
}
