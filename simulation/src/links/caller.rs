//! A thread of an application that calls through the links, and what each of its calls must hear (HA 4.1).
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use spec::messages::RequestHeader;
use spec::platform::Moment;
use spec::seam::{Event, Fault, MemberId, Outgoing, Seam as _, Standing, Tag, Waiter};
use zeroize::Zeroizing;

use super::ledger::{End, Ledger};
use super::nemesis::Nemesis;
use super::process::Process;
use super::service::Task;
use super::wire::Way;
use super::{MS, S, US};
use crate::world::current_thread;

/// A call that waits for its moment ends so soon after it.
const LATE: u64 = 5 * MS;
/// Once the links are closed, so soon nobody waits any more.
const CLOSED: u64 = 50 * MS;
/// Bytes of a large request, and what a link may hold back (HA 5 (4)): the backlog, one request on top, and as much in the
/// hands of a thread that writes.
const LARGE: usize = 40_000;
const BACKLOG: usize = 2 * ((256 << 10) + LARGE + 4_000);

/// A request that has not ended.
struct Open {
    tag: Tag,
    task: Task,
    deadline: u64,
}

/// See the head of this file.
pub(crate) struct Caller {
    process: Arc<Process>,
    ledger: Arc<Ledger>,
    nemesis: Arc<Nemesis>,
    waiter: Arc<Waiter>,
    open: Vec<Open>,
    /// The tags of requests that have ended.
    ended: BTreeSet<u64>,
    /// By tag, what was given up and may end once more: an end may have been on its way.
    given_up: BTreeMap<u64, Task>,
    /// Since when it has waited without a pause.
    since: u64,
}

impl Caller {
    /// A caller of a process.
    pub(crate) fn new(process: &Arc<Process>, nemesis: &Arc<Nemesis>) -> Self {
        let waiter = Waiter::new(&process.platform);
        Self {
            process: process.clone(),
            ledger: process.network.ledger.clone(),
            nemesis: nemesis.clone(),
            waiter,
            open: Vec::new(),
            ended: BTreeSet::new(),
            given_up: BTreeMap::new(),
            since: 0,
        }
    }

    fn chance<T>(&self, draw: impl FnOnce(&mut crate::chance::Chance) -> T) -> T {
        self.process.world.chance(draw)
    }

    fn fail(&self, what: String) {
        self.process.world.fail(what);
    }

    /// Whether nothing more is to be shown.
    fn is_over(&self) -> bool {
        self.process.is_closed() || self.process.world.failure().is_some()
    }

    /// Its rounds of calls.
    pub(crate) fn run(mut self) {
        self.process.links.subscribe(&self.waiter);
        self.come_up();
        for _ in 0..self.process.theme.rounds {
            if self.is_over() {
                return;
            }
            self.process.follow(self.nemesis.changes(self.process.number - 1));
            let pause = self.chance(|chance| match chance.below(6) {
                0 => chance.between(1, 400) * MS,
                1 => chance.between(1, 1_000) * US,
                _ => 0,
            });
            if pause > 0 {
                self.process.world.sleep(pause);
            }
            match self.chance(|chance| chance.below(24)) {
                0 if self.process.theme.name == "backlog" => self.flood(),
                1 if !self.process.theme.is_strict => self.give_up_member(),
                _ => self.round(),
            }
        }
    }

    /// Waits until some member can be reached, a while at most; where nothing goes wrong, until all can.
    fn come_up(&mut self) {
        let until =
            self.process.platform.now().after_ms(if self.process.theme.is_strict { 10_000 } else { 2_000 });
        let (links, members, all) =
            (&self.process.links, self.process.members(), self.process.theme.is_strict);
        let is_up = |member: &MemberId| matches!(links.standing(*member), Standing::Up { .. });
        let is_done = || if all { members.iter().all(is_up) } else { members.iter().any(is_up) };
        while !is_done() && !self.is_over() {
            match links.wait(&self.waiter, until) {
                Event::Woken => {}
                Event::Deadline if all => {
                    return self.fail("the members cannot be reached after ten seconds".into());
                }
                Event::Deadline => return,
                _ => return self.fail("who has asked for nothing hears an answer".into()),
            }
        }
    }

    fn member(&self) -> MemberId {
        let members = self.process.members();
        members[self.chance(|chance| chance.place(members.len()))]
    }

    /// One or several requests at once, and what comes of them.
    fn round(&mut self) {
        let (count, wait, span) = self.chance(|chance| {
            let count = if chance.once_in(4) { 1 + chance.below(3) } else { 1 };
            let wait = if chance.once_in(8) { chance.between(50 * US, 20 * MS) } else { 0 };
            let span = [20, 200, 1_000, 3_000][chance.place(4)];
            (count, wait, chance.between(span, 2 * span) * MS)
        });
        let deadline = self.process.now().0 + span;
        for _ in 0..count {
            let task = self.task();
            let member = self.member();
            self.submit(member, task, deadline);
        }
        if wait > 0 {
            self.process.world.sleep(wait);
        }
        // Some have less patience than their deadline: they give up what another member has answered, as it were.
        let hasty = self.chance(|chance| {
            chance.once_in(3).then(|| chance.between(50 * US, self.process.theme.patience_ms * MS))
        });
        let until = hasty.map_or(deadline, |hasty| deadline.min(self.process.now().0 + hasty));
        self.hear(until);
        self.cancel();
    }

    fn task(&self) -> Task {
        let theme = &self.process.theme;
        let number = self.ledger.begin();
        let (work_us, asks, answers) = self.chance(|chance| {
            let work = match chance.once_in(theme.slow_one_in) {
                true => chance.between(20_000, 2_500_000),
                false => chance.between(20, 500 * theme.patience_ms),
            };
            let large = chance.once_in(theme.large_one_in);
            let asks = if large { chance.below(LARGE as u64) } else { chance.below(300) };
            let answers =
                if chance.once_in(theme.large_one_in) { chance.below(30_000) } else { chance.below(300) };
            (work, asks, answers)
        });
        let (work_us, answers) =
            (u32::try_from(work_us).unwrap_or(u32::MAX), u32::try_from(answers).unwrap_or(u32::MAX));
        Task { number, work_us, asks: usize::try_from(asks).unwrap_or_default(), answers }
    }

    fn submit(&mut self, member: MemberId, task: Task, deadline: u64) {
        let body = Arc::new(Zeroizing::new(task.encode()));
        let request = Outgoing { header: RequestHeader::default(), body };
        let tag = self.process.links.submit(&self.waiter, member, &request, Moment(deadline));
        self.process
            .world
            .note(task.number, || format!("request {} goes to {member}: {task:?}", task.number));
        if self.ended.contains(&tag.0) || self.open.iter().any(|open| open.tag == tag) {
            self.fail(format!("request {} has a tag that was there before", task.number));
        }
        self.open.push(Open { tag, task, deadline });
    }

    /// Waits until all that is open has ended, or the moment has come.
    fn hear(&mut self, until: u64) {
        self.since = self.process.now().0;
        while !self.open.is_empty() {
            let event = self.process.links.wait(&self.waiter, Moment(until));
            let now = self.process.now().0;
            let (desk, me) = (&self.process.desk, current_thread());
            let from = until.max(self.since);
            if now > from + LATE && !desk.was_stalled(from, now, Some(me)) {
                let late_ms = (now - from) / MS;
                self.fail(format!("HA 4.2: a call comes back {late_ms} ms after its deadline"));
            }
            if let Event::Deadline = event {
                let closed_at = self.process.closed_at();
                if now < until {
                    self.fail(format!("a call is late {} us before its deadline", (until - now) / US));
                } else if now > closed_at.saturating_add(CLOSED) && !desk.was_stalled(closed_at, now, None) {
                    self.fail("the links were closed, and a call waits for its deadline".into());
                }
                return;
            }
            self.take(event);
            if self.process.world.failure().is_some() {
                return;
            }
        }
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::Woken | Event::Deadline => {}
            Event::Progress(tag) => {
                // It may have been on its way when the request ended.
                if !self.open.iter().any(|open| open.tag == tag) && !self.ended.contains(&tag.0) {
                    self.fail(format!("progress of {tag:?}, which never was"));
                }
            }
            Event::Reply(tag, reply) => {
                let Some((task, _)) = self.end(tag, End::Reply) else { return };
                if !task.is_answered_by(&reply.body) || reply.header.seq != task.number {
                    self.fail(format!("request {} hears the answer to another one", task.number));
                }
                self.waiter.give_back(reply.body);
            }
            Event::Busy(tag, _) => {
                self.end(tag, End::Busy);
            }
            Event::Fault(tag, fault) => {
                let end = if fault == Fault::NotSent { End::NotSent } else { End::Unknown };
                let Some((task, deadline)) = self.end(tag, end) else { return };
                let may = self.process.now().0 >= deadline || self.is_over();
                if self.process.theme.is_strict && !may {
                    self.fail(format!("request {} hears {fault:?} although nothing is wrong", task.number));
                }
            }
        }
    }

    /// A request has ended; what it was, and its deadline.
    fn end(&mut self, tag: Tag, end: End) -> Option<(Task, u64)> {
        let Some(place) = self.open.iter().position(|open| open.tag == tag) else {
            let Some(task) = self.given_up.remove(&tag.0) else {
                self.fail(format!("{end:?} for a request that has ended or never was"));
                return None;
            };
            self.ledger.ended_after_all(task.number, end);
            return Some((task, 0));
        };
        let open = self.open.remove(place);
        self.ended.insert(tag.0);
        let number = open.task.number;
        self.process.world.note(number, || format!("request {number} has ended: {end:?}"));
        let desk = &self.process.desk;
        self.ledger.ended(number, end, self.since, |from, to| desk.was_stalled(from, to, None));
        Some((open.task, open.deadline))
    }

    /// Gives up what is open.
    fn cancel(&mut self) {
        while let Some((tag, task)) = self.open.first().map(|open| (open.tag, open.task)) {
            self.end(tag, End::Cancelled);
            self.given_up.insert(tag.0, task);
            self.process.links.cancel(MemberId(0), tag);
        }
    }

    /// Large requests without waiting: past its backlog a link refuses (HA 5 (4)).
    fn flood(&mut self) {
        let member = self.member();
        let deadline = self.process.now().0 + S;
        let links = 4 * self.process.theme.servers;
        let from = self.process.now().0;
        let held = self.process.network.wires();
        let held = held.iter().filter(|wire| wire.process == self.process.number && wire.is_alive());
        held.for_each(|wire| wire.hold(Way::Up, deadline));
        for _ in 0..(links * BACKLOG / LARGE + 20) {
            let number = self.ledger.begin();
            self.submit(member, Task { number, work_us: 100, asks: LARGE, answers: 10 }, deadline);
            if let Some(event) = self.waiter.take() {
                self.take(event);
                break;
            }
        }
        let wires = self.process.network.wires();
        let mut own = wires.iter().filter(|wire| wire.process == self.process.number && wire.is_alive());
        let count = own.clone().count();
        let is_held = count > 0 && own.all(|wire| wire.was_held_up(from, deadline));
        let accepted = self.open.len() * LARGE;
        if is_held && accepted > count * (BACKLOG + (128 << 10)) {
            self.fail(format!("HA 5 (4): {accepted} bytes wait on {count} links whose servers take none"));
        }
        self.hear(deadline);
        self.cancel();
    }

    /// Gives up the links of a member, as one does that finds it silent (HA 4.4).
    fn give_up_member(&mut self) {
        let member = self.member();
        self.process.world.note(member.0, || format!("the links of {member} are given up"));
        self.process.links.abandon(member, "it is silent");
    }

    /// After the last fault: calls as they come for a while, then such as must be answered.
    pub(crate) fn rest(mut self) {
        self.process.links.subscribe(&self.waiter);
        let end = self.process.now().0 + 30 * S;
        while self.process.now().0 < end && self.process.world.failure().is_none() {
            for member in self.process.members() {
                self.one(member, false);
            }
            let pause = self.process.now().after_ms(1_000);
            while !matches!(self.process.links.wait(&self.waiter, pause), Event::Deadline) {}
        }
        for _ in 0..3 {
            for member in self.process.members() {
                self.one(member, true);
            }
        }
    }

    fn one(&mut self, member: MemberId, must: bool) {
        let task = Task { number: self.ledger.begin(), work_us: 500, asks: 50, answers: 50 };
        let until = self.process.now().0 + 400 * MS;
        self.submit(member, task, until);
        self.hear(until);
        if must && !self.ledger.was_answered(task.number) {
            let standing = match self.process.links.standing(member) {
                Standing::Up { .. } => "connected".to_owned(),
                Standing::Down { reason } => reason,
            };
            self.fail(format!(
                "half a minute after the last fault member {member} does not answer: {standing}"
            ));
        }
        self.cancel();
    }
}
