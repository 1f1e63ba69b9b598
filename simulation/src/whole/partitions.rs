//! What the servers of the whole do with requests: each hands them to its member, a real partition, in the member's time.
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use crate::books::{Asked, Books, call_of};
use crate::breaks::{Break, Breaks, call_name};
use crate::links::desk::Network;
use crate::links::ledger::Ledger;
use crate::links::service::{Done, Job, Service, Taken};
use crate::links::wire::Way;
use crate::members::Member;
use crate::network::MS;
use crate::watch::LinkEpoch;
use crate::world::World;

/// The number of a request in the ledger travels in a field that no release knows: key and eight bytes, the last of its body.
const NUMBER_KEY: [u8; 2] = [0xF9, 0x7F];
/// How long who asks on a connection that takes no more waits, in milliseconds.
const DRAINING_MS: u32 = 20;

/// The field that carries a number.
pub(super) fn numbered(number: u64) -> impl Iterator<Item = u8> {
    NUMBER_KEY.into_iter().chain(number.to_le_bytes())
}

fn number_of(body: &[u8]) -> Option<u64> {
    let (rest, number) = body.split_last_chunk::<8>()?;
    rest.ends_with(&NUMBER_KEY).then_some(u64::from_le_bytes(*number))
}

/// Where a connection breaks, of the three points of a request.
#[derive(Clone, Copy)]
enum Point {
    /// Before it is carried out.
    Before,
    /// When it was carried out and before the reply leaves.
    After,
    /// Within the reply.
    Within,
}

/// See the head of this file.
pub(super) struct Partitions {
    world: Arc<World>,
    books: Arc<Books>,
    members: Arc<Vec<Member>>,
    ledger: Arc<Ledger>,
    network: OnceLock<Weak<Network>>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The connection over which each request was sent, by its number.
    links: BTreeMap<u64, LinkEpoch>,
    /// What breaks next, by process and member.
    armed: BTreeMap<(usize, usize), (Breaks, Point)>,
}

impl Partitions {
    /// Nothing was asked yet.
    pub(super) fn new(
        world: &Arc<World>,
        books: &Arc<Books>,
        members: &Arc<Vec<Member>>,
        ledger: &Arc<Ledger>,
    ) -> Arc<Self> {
        Arc::new(Self {
            world: world.clone(),
            books: books.clone(),
            members: members.clone(),
            ledger: ledger.clone(),
            network: OnceLock::new(),
            state: Mutex::default(),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whose connections break.
    pub(super) fn break_in(&self, network: &Arc<Network>) {
        self.network.get_or_init(|| Arc::downgrade(network));
    }

    /// A request leaves over a connection.
    pub(super) fn sent(&self, number: u64, link: LinkEpoch) {
        self.state().links.insert(number, link);
    }

    /// What connects two breaks at the next request that is worth it.
    pub(super) fn arm(&self, process: usize, member: usize, breaks: Breaks) {
        let points = [Point::Before, Point::After, Point::Within];
        let point = points[self.world.chance(|chance| chance.place(points.len()))];
        self.state().armed.insert((process, member), (breaks, point));
    }

    /// Nothing is to break any more.
    pub(super) fn disarm(&self) {
        self.state().armed.clear();
    }

    /// Whether the member still lives the life that the connection of a request leads to.
    fn is_served(&self, job: &Job) -> bool {
        let member = &self.members[job.server];
        member.partition().is_some() && member.life() == job.life
    }

    /// How the connection of a request breaks, if it is to break at one of these points.
    fn take_break(
        &self,
        job: &Job,
        call: u32,
        fits: impl Fn(Breaks, Point) -> bool,
    ) -> Option<(Break, Point)> {
        let mut state = self.state();
        let place = (job.process, job.server);
        let (breaks, point) = *state.armed.get(&place)?;
        (breaks.of.fits(call) && fits(breaks, point)).then(|| {
            state.armed.remove(&place);
            (breaks.how, point)
        })
    }

    /// Nothing passes for so long, and then everything that connects the two breaks, where that is wanted.
    fn hold(&self, job: &Job, nanoseconds: u64, cuts: bool, breaks: bool) {
        let Some(network) = self.network.get().and_then(Weak::upgrade) else { return };
        let until = self.world.now() + nanoseconds;
        let (process, server) = (job.process, job.server);
        network.hold_between(process, server, &[Way::Up, Way::Down], until);
        if cuts {
            network.cut_one(process, server, until);
        }
        if breaks {
            self.world.after(nanoseconds, move || network.break_between(process, server));
        }
    }
}

impl Service for Partitions {
    fn life(&self, server: usize) -> u64 {
        self.members[server].life()
    }

    fn take(&self, job: &Job, draining: bool) -> Taken {
        let Some(number) = number_of(&job.body) else { return Taken::Strange };
        let call = call_of(&job.body).map_or(0, |call| call.number());
        let is_before = |breaks: Breaks, point| matches!((breaks.how, point), (Break::Plain, Point::Before));
        if !self.is_served(job) || self.take_break(job, call, is_before).is_some() {
            return Taken::Breaks;
        }
        if draining {
            return Taken::Busy { number, ms: DRAINING_MS };
        }
        if let Some(ms) = self.books.busy(job.server, call) {
            return Taken::Busy { number, ms };
        }
        let disk_ms = self.books.disk_ms(job.server, call).unwrap_or(0);
        Taken::Runs { number, nanoseconds: super::work(&self.world) + disk_ms * MS }
    }

    fn execute(&self, number: u64, job: &Job) -> Option<Done> {
        let call = call_of(&job.body).map_or(0, |call| call.number());
        let lost = self.ledger.has_ended(number);
        // The one thing that HA 2.3 does not promise (docs/simulation.md): a first send that nobody waits for any more.
        let is_late = lost && job.header.attempt == 0 && call_name(call) == "SetAttributes";
        if !self.is_served(job) || is_late {
            return None;
        }
        let link = self.state().links.get(&number).copied()?;
        let asked = Asked { link, tag: number, header: &job.header, body: &job.body, window: 0, lost };
        let reply = self.books.carry_out(&asked)?;
        let mut done = Done { reply: Some(reply), broken_within: false };
        match self.take_break(job, call, |_, _| true) {
            Some((Break::Plain, Point::Within)) => done.broken_within = true,
            Some((Break::Plain, _)) => done.reply = None,
            Some((Break::Silent(nanoseconds), _)) => self.hold(job, nanoseconds, true, false),
            Some((Break::Late(nanoseconds), _)) => self.hold(job, nanoseconds, false, true),
            None => {}
        }
        Some(done)
    }
}
