//! The ways of all processes to all members: what a run asks of its network, whatever it consists of, and how it breaks.
//! There are two: one that stands behind the seam itself (`network`), and the links with their sockets and servers (`whole`).
use std::path::Path;
use std::sync::Arc;

use client::Module;
use client::conf::Configuration;
use spec::platform::Platform;
use spec::seam::Seam;

use crate::books::Books;
use crate::breaks::Breaks;
use crate::members::{GROUP_SERIAL, MEMBERS, id};
use crate::platform::Simulated;
use crate::watch::{LinkEpoch, Watch};

/// See the head of this file. Processes count from 1, members from 0; times are in nanoseconds.
pub(crate) trait Ways: Send + Sync {
    /// What is noted of all requests.
    fn books(&self) -> &Books;

    /// What is watched.
    fn watch(&self) -> &Watch {
        &self.books().watch
    }

    /// Begins the life of a module in a process; its calls end after `call_ms_max` milliseconds.
    fn start(&self, module: &Module, platform: &Arc<Simulated>, call_ms_max: u64);

    /// What a process that is no application asks members through.
    fn operator(&self, platform: &Arc<Simulated>) -> (Arc<dyn Platform>, Arc<dyn Seam>);

    /// The connections of a process that are up, one for each member.
    fn connections(&self, process: usize) -> Vec<LinkEpoch>;

    /// How many members a process is connected to.
    fn connected(&self, process: usize) -> usize {
        self.connections(process).len()
    }

    /// Whether a process was connected to fewer than two members at some moment.
    fn was_lonely(&self, process: usize) -> bool;

    /// Whether processes can fork here.
    fn may_fork(&self) -> bool;

    /// A process has forked: its connections are the parent's and end with it, and nobody waits for what is open.
    fn forked(&self, process: usize);

    /// A process was killed.
    fn killed(&self, process: usize);

    /// The threads of a process do nothing for so long.
    fn pause_process(&self, process: usize, nanoseconds: u64);

    /// A member does nothing until then.
    fn pause_member(&self, member: usize, until: u64);

    /// What connects two breaks; it is tried again until it is up.
    fn break_link(&self, process: usize, member: usize);

    /// What connects two breaks when the next request that is worth it was carried out, before the reply is heard, or
    /// somewhere about there.
    fn break_before_reply(&self, process: usize, member: usize, breaks: Breaks);

    /// No connection between the two until it is mended; an open one breaks, or stalls until somebody notices.
    fn cut(&self, process: usize, member: usize, silently: bool, nanoseconds: u64);

    /// One direction carries nothing for so long.
    fn stall(&self, process: usize, member: usize, there: bool, nanoseconds: u64);

    /// A member has gone; of so many processes each hears of it, now or, if that may be, later.
    fn member_ends(&self, member: usize, processes: usize, may_be_late: bool);

    /// A member is there again.
    fn member_begins(&self, member: usize);

    /// What goes wrong below the seam begins, where there is anything.
    fn begin_faults(&self);

    /// No more faults: every cut is mended, nothing is slow or busy.
    fn calm(&self);

    /// Waits until each of these processes is connected to every member, or fails.
    fn settle(&self, processes: &[usize]);

    /// Everything has ended: what must be gone by now?
    fn end(&self);
}

/// What a process is told: the `DefaultTimeOut`, and settings of its servers and of ours.
pub(crate) fn configuration(call_ms_max: u64, servers: &str, ours: &str) -> Configuration {
    let serials: Vec<String> = (0..MEMBERS).map(|place| id(place).0.to_string()).collect();
    let text = format!(
        "Luna = {{ DefaultTimeOut = {call_ms_max}; KeypairGenTimeOut = {KEYPAIR_MS_MAX}; }}\n\
         LunaSA Client = {{ ReceiveTimeout = 3000; {servers} }}\n\
         VirtualToken = {{ VirtualToken00Label = sim; VirtualToken00SN = {GROUP_SERIAL}; \
         VirtualToken00Members = {}; }}\n\
         Hatoki = {{ LogLevel = off; OutageWaitMs = 4000; {ours} }}\n",
        serials.join(",")
    );
    Configuration::from_bytes(text.as_bytes(), Path::new("/simulation/Chrystoki.conf"))
        .expect("the configuration of the simulation can be read")
}

/// `KeypairGenTimeOut` of the processes here.
const KEYPAIR_MS_MAX: u64 = 12_000;
