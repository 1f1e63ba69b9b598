//! The network of the whole: links, sockets and servers, and how they break.
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use client::{InitializeOptions, Module};
use ntls::ServerAddress;
use ntls::instance::InstanceKey;
use ntls::links::{LinkSettings, Links};
use spec::platform::Platform;
use spec::seam::{Seam, Standing};

use super::partitions::Partitions;
use super::tap::{Looks, Tap};
use crate::books::Books;
use crate::breaks::Breaks;
use crate::chance::Chance;
use crate::links::desk::{Desk, Network};
use crate::links::ledger::Ledger;
use crate::links::nemesis::Fault::{
    self, Clog, CutOne, Fuse, Goodbye, Reset, StallLeader, StallOne, StallProcess, Trickle,
};
use crate::links::nemesis::{Hardship, Nemesis};
use crate::links::papers::Files;
use crate::links::server::{Death, Server};
use crate::links::wire::{Line, Way};
use crate::members::{MEMBERS, Member, id};
use crate::network::MS;
use crate::platform::Simulated;
use crate::run::{OPERATOR, PROCESSES};
use crate::theme::Theme;
use crate::watch::LinkEpoch;
use crate::ways::{Ways, configuration};
use crate::world::World;

/// Nanoseconds of a microsecond.
const US: u64 = 1_000;
/// Where servers listen.
const PORT: u16 = 1792;
/// So long after the last fault every process is connected to every member, in milliseconds: the longest wait between two
/// tries (HA 4.5), and what it takes to find out that a connection leads nowhere.
const SETTLED_MS: u64 = 30_000;
/// Who is connected for so long, in milliseconds, has found out about what broke before.
const STEADY_MS: u64 = 1_000;
/// So long after the end names may still be looked up.
const ENDED_MS: u64 = 2_000;

/// What goes wrong below the seam, beside what goes wrong above it.
const BELOW: &[&[Fault]] = &[
    &[],
    &[Reset, Fuse, Goodbye],
    &[StallLeader, StallOne],
    &[Trickle, Fuse],
    &[Clog, StallLeader],
    &[CutOne, StallProcess, Reset],
    &[Clog, CutOne, Fuse, Goodbye, Reset, StallLeader, StallOne, StallProcess, Trickle],
];

/// A process and what it has of the network.
struct Host {
    process: usize,
    desk: Arc<Desk>,
    /// Set once the process has links.
    links: OnceLock<Weak<Links>>,
    looks: Arc<Mutex<Looks>>,
    /// Certificates and keys.
    files: Files,
    killed: AtomicBool,
}

/// See the head of this file.
pub(super) struct Whole {
    world: Arc<World>,
    books: Arc<Books>,
    ledger: Arc<Ledger>,
    partitions: Arc<Partitions>,
    network: Arc<Network>,
    hosts: Mutex<BTreeMap<usize, Arc<Host>>>,
    below: OnceLock<Arc<Nemesis>>,
    hardship: Hardship,
    links_per_member: usize,
    /// The links of those that are no applications.
    operators: Mutex<Vec<Arc<Links>>>,
}

fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn line(theme: &Theme, chance: &mut Chance) -> Line {
    let delay = if theme.is_quick { 150 * US } else { [30 * US, 200 * US, 2 * MS][chance.place(3)] };
    Line { delay, window: [3_000, 16_000, 64_000][chance.place(3)] }
}

impl Whole {
    /// All servers are there, and nobody is connected yet.
    pub(super) fn new(world: &Arc<World>, members: &Arc<Vec<Member>>, theme: &Theme) -> Arc<Self> {
        let (line, busy_in, links_per_member, hardship) = world.chance(|chance| {
            let faults = BELOW[chance.place(BELOW.len())];
            let gap = chance.between(100, 1_500) * MS;
            let busy_in = [0, 200, 25][chance.place(3)];
            let hardship = Hardship { faults, gap, span: u64::MAX };
            (line(theme, chance), busy_in, 1 + chance.place(2), hardship)
        });
        world.note(0, || format!("{line:?}, {links_per_member} links to each member, {hardship:?}"));
        let books = Books::new(world, members, theme.later_release, busy_in);
        let ledger = Ledger::new(world);
        let partitions = Partitions::new(world, &books, members, &ledger);
        let server = |place| Server::new(world, &ledger, partitions.clone(), (place, vec![id(place).0]));
        let servers = (0..MEMBERS).map(server).collect();
        let network = Network::new(world, &ledger, servers, line, OPERATOR);
        partitions.break_in(&network);
        Arc::new(Self {
            world: world.clone(),
            books,
            ledger,
            partitions,
            network,
            hosts: Mutex::default(),
            below: OnceLock::new(),
            hardship,
            links_per_member,
            operators: Mutex::default(),
        })
    }

    fn host(&self, process: usize) -> Option<Arc<Host>> {
        held(&self.hosts).get(&process).cloned()
    }

    fn new_host(&self, platform: &Arc<Simulated>) -> Arc<Host> {
        let process = platform.process();
        let looks = if process > PROCESSES { Looks::late() } else { Looks::default() };
        let host = Arc::new(Host {
            process,
            desk: Desk::over(&self.network, platform.clone()),
            links: OnceLock::new(),
            looks: Arc::new(Mutex::new(looks)),
            files: Files::new(),
            killed: AtomicBool::new(false),
        });
        // Without a thread of its own a process is connected again when it calls again, and not before.
        host.desk.grant_threads();
        held(&self.hosts).insert(process, host.clone());
        host
    }

    /// Now and then the certificates of applications change while they run; the modules look at the files.
    fn change_certificates(&self) {
        let changes = self.world.chance(|chance| match chance.once_in(4) {
            true => 1 + chance.place(3),
            false => 0,
        });
        for times in 1..=changes {
            let (after, process) =
                self.world.chance(|chance| (chance.between(500, 6_000) * MS, 1 + chance.place(PROCESSES)));
            let Some(host) = self.host(process) else { continue };
            let world = self.world.clone();
            self.world.after(after, move || {
                world.note(19, || format!("process {process} has another certificate"));
                host.files.change(times);
            });
        }
    }

    /// What makes the seam of a host from its links.
    fn tap(&self, host: &Arc<Host>) -> impl Fn(&Arc<Links>) -> Arc<dyn Seam> + Send + Sync + use<> {
        let (world, books, ledger) = (self.world.clone(), self.books.clone(), self.ledger.clone());
        let (partitions, host) = (self.partitions.clone(), host.clone());
        move |links| {
            host.links.get_or_init(|| Arc::downgrade(links));
            host.desk.watch(links);
            Arc::new(Tap {
                world: world.clone(),
                books: books.clone(),
                ledger: ledger.clone(),
                partitions: partitions.clone(),
                desk: host.desk.clone(),
                process: host.process,
                links: links.clone(),
                looks: host.looks.clone(),
                state: Mutex::default(),
            })
        }
    }

    fn server(&self, member: usize) -> &Arc<Server> {
        &self.network.servers[member]
    }

    /// Why a host is not connected, where it is not.
    fn down(&self, host: &Host) -> Vec<String> {
        let links = host.links.get().and_then(Weak::upgrade);
        let standings =
            (0..MEMBERS).filter_map(|place| links.as_ref().map(|links| links.standing(id(place))));
        standings
            .filter_map(|standing| match standing {
                Standing::Up { .. } => None,
                Standing::Down { reason } => Some(format!("process {}: {reason}", host.process)),
            })
            .collect()
    }

    /// What threads and streams are left of a host.
    fn left(host: &Host) -> Option<String> {
        let (threads, streams) = (host.desk.threads(), host.desk.streams());
        let process = host.process;
        (threads > 0 || streams > 0).then(|| {
            format!("{threads} threads and {streams} streams of process {process} are left when it has ended")
        })
    }
}

fn address(place: usize) -> String {
    format!("10.0.0.{place}")
}

impl Ways for Whole {
    fn books(&self) -> &Books {
        &self.books
    }

    fn start(&self, module: &Module, platform: &Arc<Simulated>, call_ms_max: u64) {
        let host = self.new_host(platform);
        let file = |name| host.files.path(name).display().to_string();
        let mut servers = format!(
            "ClientCertFile = {}; ClientPrivKeyFile = {}; ServerCAFile = {};",
            file("client.pem"),
            file("clientKey.pem"),
            file("CAFile.pem")
        );
        for place in 0..MEMBERS {
            servers += &format!(" ServerName0{place} = {}; ServerPort0{place} = {PORT};", address(place));
        }
        let ours = format!("LinksPerMember = {};", self.links_per_member);
        let configuration = configuration(call_ms_max, &servers, &ours);
        let options = InitializeOptions { may_create_threads: true };
        let through = Arc::new(self.tap(&host));
        let begun = module.initialize_through(host.desk.clone(), configuration, through, options);
        begun.expect("a fresh module takes a configuration");
    }

    fn operator(&self, platform: &Arc<Simulated>) -> (Arc<dyn Platform>, Arc<dyn Seam>) {
        let host = self.new_host(platform);
        let servers = (0..MEMBERS).map(|place| ServerAddress { host: address(place), port: PORT });
        let settings = LinkSettings {
            servers: servers.collect(),
            certificate_file: host.files.path("client.pem"),
            key_file: host.files.path("clientKey.pem"),
            server_ca_file: host.files.path("CAFile.pem"),
            links_per_member: 1,
            may_spawn: true,
            receive_timeout_ms: 3_000,
            tcp_keep_alive: true,
            software: "operator".into(),
            instance: Arc::new(InstanceKey::generate()),
        };
        let links = Links::new(host.desk.clone(), settings);
        held(&self.operators).push(links.clone());
        (host.desk.clone(), self.tap(&host)(&links))
    }

    fn connections(&self, process: usize) -> Vec<LinkEpoch> {
        let links = self.host(process).and_then(|host| host.links.get().and_then(Weak::upgrade));
        let Some(links) = links else { return Vec::new() };
        let up = (0..MEMBERS).filter_map(|place| match links.standing(id(place)) {
            Standing::Up { since, .. } => Some((process, place, since.0)),
            Standing::Down { .. } => None,
        });
        up.collect()
    }

    fn was_lonely(&self, process: usize) -> bool {
        self.host(process).is_none_or(|host| held(&host.looks).were_lonely())
    }

    /// The sockets of a parent are its own in this world.
    fn may_fork(&self) -> bool {
        false
    }

    fn forked(&self, _: usize) {}

    /// The system closes its sockets.
    fn killed(&self, process: usize) {
        if let Some(host) = self.host(process) {
            host.killed.store(true, Ordering::Relaxed);
        }
        self.network.wires().iter().filter(|wire| wire.process == process).for_each(|wire| wire.shut());
    }

    fn pause_process(&self, process: usize, nanoseconds: u64) {
        match self.host(process) {
            Some(host) => host.desk.stand_still(nanoseconds),
            None => self.world.pause(process, nanoseconds),
        }
    }

    fn pause_member(&self, member: usize, until: u64) {
        self.server(member).pause(until.saturating_sub(self.world.now()));
    }

    fn break_link(&self, process: usize, member: usize) {
        self.network.break_between(process, member);
    }

    fn break_before_reply(&self, process: usize, member: usize, breaks: Breaks) {
        self.partitions.arm(process, member, breaks);
    }

    fn cut(&self, process: usize, member: usize, silently: bool, nanoseconds: u64) {
        let until = self.world.now() + nanoseconds;
        self.network.cut_one(process, member, until);
        match silently {
            true => self.network.hold_between(process, member, &[Way::Up, Way::Down], until),
            false => self.network.break_between(process, member),
        }
    }

    fn stall(&self, process: usize, member: usize, there: bool, nanoseconds: u64) {
        let way = if there { Way::Up } else { Way::Down };
        self.network.hold_between(process, member, &[way], self.world.now() + nanoseconds);
    }

    fn member_ends(&self, member: usize, _: usize, _: bool) {
        let deaths = [Death::Process, Death::Killed, Death::Host];
        let death = deaths[self.world.chance(|chance| chance.place(deaths.len()))];
        self.world.note(member as u64, || format!("server {member} ends: {death:?}"));
        self.server(member).die(death);
    }

    fn member_begins(&self, member: usize) {
        self.server(member).rise();
    }

    fn begin_faults(&self) {
        self.change_certificates();
        let desks = (1..=PROCESSES).filter_map(|process| self.host(process));
        let desks = desks.map(|host| host.desk.clone()).collect();
        self.below.get_or_init(|| Nemesis::begin(&self.network, desks, self.hardship));
    }

    fn calm(&self) {
        self.books.calm();
        self.partitions.disarm();
        if let Some(below) = self.below.get() {
            below.calm();
        }
        (1..=OPERATOR).for_each(|process| self.network.cut(process, 0));
    }

    fn settle(&self, processes: &[usize]) {
        let hosts: Vec<Arc<Host>> = processes.iter().filter_map(|process| self.host(*process)).collect();
        let still = hosts.iter().map(|host| host.desk.calm()).max().unwrap_or(0);
        self.world.park(still);
        let until = self.world.now() + SETTLED_MS * MS;
        let connections = || hosts.iter().flat_map(|host| self.connections(host.process)).collect::<Vec<_>>();
        loop {
            let before = connections();
            self.world.sleep(STEADY_MS * MS);
            let steady = before.len() == MEMBERS * hosts.len() && connections() == before;
            if steady || self.world.failure().is_some() {
                return;
            }
            if self.world.now() > until {
                let down = hosts.iter().flat_map(|host| self.down(host)).collect::<Vec<_>>();
                return self.world.fail(format!(
                    "{SETTLED_MS} ms after the last fault not everybody is connected for good: {down:?}"
                ));
            }
        }
    }

    fn end(&self) {
        let operators: Vec<Arc<Links>> = held(&self.operators).drain(..).collect();
        operators.iter().for_each(|links| links.close());
        if self.world.is_aborted() {
            return;
        }
        self.world.sleep(ENDED_MS * MS);
        let hosts: Vec<Arc<Host>> = held(&self.hosts).values().cloned().collect();
        // Those of the operator go with the operator, who goes with the world.
        let gone =
            hosts.iter().filter(|host| host.process != OPERATOR && !host.killed.load(Ordering::Relaxed));
        gone.filter_map(|host| Self::left(host)).for_each(|left| self.world.fail(left));
    }
}
