//! What goes wrong, and when: drawn from the seed, one fault after another, until the world is to come to rest.
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use spec::UserType;
use spec::record::{Manifest, MemberRole};

use crate::breaks::{Break, Breaks, Worth};
use crate::members::{MEMBERS, Member, change_manifest, id};
use crate::network::MS;
use crate::operator::Operator;
use crate::platform::{BORN_MS, Simulated};
use crate::run::OPERATOR;
use crate::theme::{Fault, Theme};
use crate::ways::Ways;
use crate::world::World;

/// Longer than the longest lease of repair (HA 4.6), in milliseconds.
const BEYOND_LEASES_MS: u64 = 61_000;

/// Who makes the faults.
pub(crate) struct Nemesis {
    world: Arc<World>,
    network: Arc<dyn Ways>,
    members: Arc<Vec<Member>>,
    platforms: Vec<Arc<Simulated>>,
    operator: Arc<Operator>,
    /// The thread that takes a member out and adds it again, once in a run; 0 for none.
    changing: AtomicUsize,
    theme: Theme,
    calm: AtomicBool,
    /// The process that was killed; 0 for none.
    killed: AtomicUsize,
    forked: AtomicBool,
    /// Whether a process was paused beyond all leases, once in a run.
    paused: AtomicBool,
}

impl Nemesis {
    /// Begins; a world without faults when `faults` is false.
    pub(crate) fn begin(
        world: &Arc<World>,
        network: &Arc<dyn Ways>,
        members: &Arc<Vec<Member>>,
        platforms: Vec<Arc<Simulated>>,
        operator: Operator,
        theme: &Theme,
        faults: bool,
    ) -> Arc<Self> {
        let nemesis = Arc::new(Self {
            world: world.clone(),
            network: network.clone(),
            members: members.clone(),
            platforms,
            operator: Arc::new(operator),
            changing: AtomicUsize::new(0),
            theme: theme.clone(),
            calm: AtomicBool::new(!faults),
            killed: AtomicUsize::new(0),
            forked: AtomicBool::new(false),
            paused: AtomicBool::new(false),
        });
        if faults && theme.drifts() {
            network.watch().clocks_run_apart();
        }
        for (member, drift_ms) in members.iter().zip(theme.drift_ms).filter(|_| faults) {
            member.set_drift(drift_ms);
        }
        nemesis.next();
        if faults {
            network.begin_faults();
        }
        nemesis
    }

    /// No more faults; members that are down start.
    pub(crate) fn calm(self: &Arc<Self>) {
        self.calm.store(true, Ordering::Relaxed);
        self.network.calm();
        for (place, member) in self.members.iter().enumerate() {
            member.disk.set_full(false);
            member.disk.power();
            member.slow_down(0);
            member.overload(0);
            member.go_on();
            member.let_clock_go_on(self.world.now());
            if member.partition().is_none() {
                self.start(place);
            }
        }
    }

    /// The process that was killed, if one was.
    pub(crate) fn killed(&self) -> Option<usize> {
        Some(self.killed.load(Ordering::Relaxed)).filter(|process| *process > 0)
    }

    fn is_calm(&self) -> bool {
        self.calm.load(Ordering::Relaxed)
    }

    fn draw(&self, low: u64, high: u64) -> u64 {
        self.world.chance(|chance| chance.between(low, high))
    }

    fn next(self: &Arc<Self>) {
        let nemesis = self.clone();
        let (low, high) = self.theme.fault_ms;
        self.world.after(self.draw(low, high) * MS, move || {
            if !nemesis.is_calm() {
                nemesis.strike();
                nemesis.next();
            }
        });
    }

    fn later(self: &Arc<Self>, ms: u64, what: impl FnOnce(&Arc<Self>) + Send + 'static) {
        let nemesis = self.clone();
        self.world.after(ms * MS, move || what(&nemesis));
    }

    fn strike(self: &Arc<Self>) {
        let (fault, member, process) = self.world.chance(|chance| {
            let process = chance.place(self.platforms.len() - 1) + 1;
            let process = self.theme.victim.unwrap_or(process);
            (self.theme.fault(chance), chance.place(MEMBERS), process)
        });
        let now = self.world.now();
        match fault {
            Fault::Break => self.network.break_link(process, member),
            Fault::BreakBeforeReply => {
                let breaks = self.breaks();
                self.network.break_before_reply(process, member, breaks);
            }
            Fault::CutSilently => self.network.cut(process, member, true, self.draw(200, 3_000) * MS),
            Fault::Cut => self.network.cut(process, member, false, self.draw(200, 3_000) * MS),
            Fault::StallThere => self.network.stall(process, member, true, self.draw(50, 1_500) * MS),
            Fault::StallBack => self.network.stall(process, member, false, self.draw(50, 1_500) * MS),
            Fault::StallAll => {
                let ns = self.draw(1_000, 4_000) * MS;
                (0..MEMBERS).for_each(|member| self.network.stall(process, member, false, ns));
            }
            Fault::Crash => self.crash(member),
            Fault::FailInCommit => self.fail_in_commit(member),
            Fault::PauseMember => self.network.pause_member(member, now + self.draw(100, 3_000) * MS),
            Fault::PauseProcess => self.network.pause_process(process, self.draw(100, 5_000) * MS),
            Fault::PauseBeyondLeases => {
                if !self.paused.swap(true, Ordering::Relaxed) {
                    self.network.pause_process(process, BEYOND_LEASES_MS * MS);
                }
            }
            Fault::Kill => self.kill(process),
            Fault::Fork => self.fork(process),
            Fault::Jump => {
                let ms = i64::try_from(self.draw(0, 7_200_000)).unwrap_or(0) - 3_600_000;
                self.network.watch().clocks_run_apart();
                self.members[member].jump_clock(ms);
                self.platforms[process - 1].jump_clock(-ms);
            }
            Fault::Fill => self.fill(member),
            Fault::SlowDisk => self.members[member].slow_down(now + self.draw(500, 3_000) * MS),
            Fault::Restore => self.put_back(member, true),
            Fault::RollBack => self.put_back(member, false),
            Fault::Clone => self.clone_of(member),
            Fault::Overload => self.overload(member),
            Fault::Membership => self.change_members(member),
            Fault::Replace => self.replace(member),
            Fault::Revoke => self.revoke(),
        }
    }

    /// How a link breaks before a reply. Where several write one attribute, a change that is sent again long after it was
    /// carried out is what matters (HA 2.3).
    fn breaks(&self) -> Breaks {
        let (kind, of) = self.world.chance(|chance| (chance.below(3), chance.below(3)));
        if self.theme.changes {
            return Breaks { how: Break::Late(self.draw(20, 250) * MS), of: Worth::Change };
        }
        let how = match kind {
            0 => Break::Silent(self.draw(500, 3_000) * MS),
            1 => Break::Late(self.draw(50, 1_000) * MS),
            _ => Break::Plain,
        };
        Breaks { how, of: if of == 0 { Worth::Any } else { Worth::Write } }
    }

    /// The power of a member fails. Clients hear of it now or later.
    fn crash(self: &Arc<Self>, member: usize) {
        if self.members[member].partition().is_none() || self.down() > 1 {
            return;
        }
        self.world.note(10, || format!("member {member} crashes"));
        self.members[member].crash();
        self.network.member_ends(member, self.platforms.len(), true);
        self.later(self.draw(50, 3_000), move |nemesis| nemesis.start(member));
    }

    /// The power fails in the middle of a commit, or shortly after.
    fn fail_in_commit(self: &Arc<Self>, member: usize) {
        self.members[member].disk.fail_in(self.draw(0, 2));
        self.later(self.draw(1, 100), move |nemesis| {
            if !nemesis.is_calm() {
                nemesis.crash(member);
            }
        });
    }

    fn down(&self) -> usize {
        self.members.iter().filter(|member| member.partition().is_none()).count()
    }

    fn start(&self, member: usize) {
        if self.members[member].partition().is_none() {
            self.world.note(11, || format!("member {member} starts"));
            self.members[member].start(member);
            self.network.member_begins(member);
        }
    }

    /// The disk has no room for a while.
    fn fill(self: &Arc<Self>, member: usize) {
        self.members[member].disk.set_full(true);
        self.later(self.draw(100, 1_500), move |nemesis| nemesis.members[member].disk.set_full(false));
    }

    /// Whether a member may lose its store now: once in a run, that is the loss of one member. Not while members come and go:
    /// a manifest that the home alone has been told of goes with the home (docs/rules/STATUS.md).
    fn may_lose(&self, member: usize) -> bool {
        self.changing.load(Ordering::Relaxed) == 0
            && !self.members.iter().any(Member::was_restored)
            && self.members[member].partition().is_some()
    }

    /// An image of the disk is taken now and put back later.
    fn put_back(self: &Arc<Self>, member: usize, owned_up: bool) {
        if !self.may_lose(member) {
            return;
        }
        self.members[member].keep_image();
        self.later(self.draw(500, 4_000), move |nemesis| {
            if !nemesis.is_calm() && nemesis.may_lose(member) {
                nemesis.end_life(member);
                nemesis
                    .world
                    .note(12, || format!("the disk of member {member} is put back: told {owned_up}"));
                nemesis.members[member].start_restored(member, owned_up);
                nemesis.network.member_begins(member);
                if owned_up {
                    nemesis.network.watch().put_back(member);
                }
            }
        });
    }

    /// A member's store was copied, and now the one copy serves and now the other.
    fn clone_of(self: &Arc<Self>, member: usize) {
        if !self.may_lose(member) {
            return;
        }
        self.members[member].keep_image();
        for ms in [self.draw(500, 2_000), self.draw(2_500, 4_000)] {
            self.later(ms, move |nemesis| {
                let others = nemesis.members.iter().enumerate().filter(|(place, _)| *place != member);
                let is_first = !others.into_iter().any(|(_, other)| other.was_restored());
                if !nemesis.is_calm() && is_first && nemesis.members[member].partition().is_some() {
                    nemesis.end_life(member);
                    nemesis.world.note(12, || format!("the other copy of member {member} serves now"));
                    nemesis.members[member].start_other_copy(member);
                    nemesis.network.member_begins(member);
                }
            });
        }
    }

    fn end_life(self: &Arc<Self>, member: usize) {
        self.members[member].crash();
        self.network.member_ends(member, self.platforms.len(), false);
    }

    /// A process is killed, once in a run: its links end, what is on its way may still be carried out.
    fn kill(&self, process: usize) {
        if self.killed().is_none() && !self.world.is_frozen(process) {
            self.world.note(13, || format!("process {process} is killed"));
            self.killed.store(process, Ordering::Relaxed);
            self.world.freeze(process);
            self.network.killed(process);
        }
    }

    /// A process forks, once in a run, when one of its threads is in no call.
    fn fork(&self, process: usize) {
        if self.network.may_fork() && !self.forked.swap(true, Ordering::Relaxed) {
            self.world.wish_fork(process);
        }
    }

    /// One member, or all of them, have more work than they can do.
    fn overload(&self, member: usize) {
        let until = self.world.now() + self.draw(200, 2_500) * MS;
        let all = self.world.chance(|chance| chance.once_in(2));
        self.world.note(14, || format!("overload of member {member}, of all: {all}"));
        for (_, one) in self.members.iter().enumerate().filter(|(place, _)| all || *place == member) {
            one.overload(until);
        }
    }

    /// The operator changes a role or a weight, or moves the home.
    fn change_members(&self, member: usize) {
        let (what, weight) = self.world.chance(|chance| (chance.below(5), chance.between(1, 200)));
        let serial = id(member).0;
        if self.changing.load(Ordering::Relaxed) > 0 || what == 4 && !self.may_be_home(member) {
            return;
        }
        let change = move |manifest: &mut Manifest| {
            if what == 4 {
                manifest.home = serial;
            }
            for entry in manifest.members.iter_mut().filter(|entry| entry.serial == serial) {
                match what {
                    0 => entry.role = MemberRole::Active as i32,
                    1 => entry.role = MemberRole::Standby as i32,
                    2 => entry.role = MemberRole::Draining as i32,
                    3 => entry.weight = u32::try_from(weight).unwrap_or(100),
                    _ => {}
                }
            }
        };
        let now_ms = BORN_MS + self.world.now() / MS;
        let changed = change_manifest(&self.members, |epoch| self.network.watch().pin(epoch), now_ms, change);
        self.world.note(15, || format!("the manifest's word on member {member} changes ({what}): {changed}"));
    }

    /// The operator takes a member out and adds it again, once in a run.
    fn replace(&self, member: usize) {
        if self.changing.load(Ordering::Relaxed) > 0 {
            return;
        }
        let operator = self.operator.clone();
        let (away_ms, emptied) = self.world.chance(|chance| (chance.between(100, 3_000), chance.once_in(2)));
        let emptied = emptied && self.may_lose(member);
        let work = move || operator.replace(member, away_ms, emptied);
        self.changing.store(self.world.spawn(OPERATOR, Box::new(work)), Ordering::Relaxed);
    }

    /// Whether the operator is still at work.
    pub(crate) fn changes_members(&self) -> bool {
        let thread = self.changing.load(Ordering::Relaxed);
        thread > 0 && !self.world.has_ended(thread)
    }

    /// Whether the home may move there: `vtl haAdmin promote` sees to it that the new one holds the newest credentials.
    fn may_be_home(&self, member: usize) -> bool {
        let epoch = |one: &Member| one.partition().map(|partition| partition.header().credential_epoch);
        epoch(&self.members[member])
            .is_some_and(|own| self.members.iter().all(|other| epoch(other) <= Some(own)))
    }

    /// All tickets of the Crypto Officer end, at the home.
    fn revoke(&self) {
        let partitions = self.members.iter().filter_map(Member::partition);
        let home = partitions.into_iter().find(|one| one.manifest().home == one.serial());
        if let Some(home) = home.filter(|home| home.end_tickets(UserType::USER).is_ok()) {
            self.world.note(16, || format!("the home {} ends all tickets", home.serial()));
            self.network.watch().revoked(home.header().credential_epoch);
        }
    }
}
