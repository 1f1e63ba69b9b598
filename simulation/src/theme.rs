//! What a run is about, drawn from its seed: which faults, how often, what the application does, who the members are.
//! A world with a few kinds of faults and much of one kind of work reaches corners that a world with a little of
//! everything does not (Groce et al., Swarm Testing, 2012).
use spec::record::MemberRole;

use crate::chance::Chance;
use crate::members::{MEMBERS, STANDS_STILL};
use crate::network::MS;

/// One kind of thing that goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// A link breaks.
    Break,
    /// A link breaks when the member has carried out a request and before the reply leaves.
    BreakBeforeReply,
    /// Nothing passes between two, and nobody is told.
    CutSilently,
    /// Nothing passes between two.
    Cut,
    /// Requests stall.
    StallThere,
    /// Replies stall.
    StallBack,
    /// All links of a process stall: the fault is ours.
    StallAll,
    /// The power of a member fails.
    Crash,
    /// The power fails in a commit.
    FailInCommit,
    /// A member does nothing for a while.
    PauseMember,
    /// A process does nothing for a while.
    PauseProcess,
    /// A process does nothing for longer than any lease.
    PauseBeyondLeases,
    /// A process is killed; another one takes its place.
    Kill,
    /// A process forks while another of its threads is in mid-call; the child goes on.
    Fork,
    /// Clocks jump.
    Jump,
    /// A disk is full for a while.
    Fill,
    /// A disk takes up to two seconds for each commit, for a while.
    SlowDisk,
    /// An older image of a disk is put back, and the operator says so.
    Restore,
    /// An older image of a disk is put back, and nobody says so.
    RollBack,
    /// A disk is copied, and now the one copy serves and now the other.
    Clone,
    /// Members answer Busy to nearly everything for a while.
    Overload,
    /// The manifest changes: a role, a weight, the home.
    Membership,
    /// A member is taken out of the group and added again, with its store or with an empty one.
    Replace,
    /// All tickets of the Crypto Officer end.
    Revoke,
}

use Fault::{
    Break, BreakBeforeReply, Clone as Cloned, Crash, Cut, CutSilently, FailInCommit, Fill, Fork, Jump, Kill,
    Membership, Overload, PauseBeyondLeases, PauseMember, PauseProcess, Replace, Restore, Revoke, RollBack,
    SlowDisk, StallAll, StallBack, StallThere,
};

/// One kind of call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Work {
    /// Generates a key or a pair.
    Create,
    /// Signs with an own key.
    Sign,
    /// Searches for one label.
    Find,
    /// Searches for all keys.
    List,
    /// Finds another process's key and signs with it.
    Borrow,
    /// Sets CKA_EXTRACTABLE to false.
    Harden,
    /// Sets CKA_ID.
    Rename,
    /// Reads CKA_EXTRACTABLE and CKA_ID.
    Read,
    /// Destroys an own object.
    Destroy,
    /// Draws random bytes.
    Random,
    /// Changes the PIN.
    SetPin,
    /// Gives a wrong PIN.
    WrongPin,
}

type Faults = &'static [(Fault, u64)];
type Works = &'static [(Work, u64)];

/// See the head of this file.
#[derive(Clone, Debug)]
pub(crate) struct Theme {
    /// Its name, for the story.
    pub(crate) name: &'static str,
    faults: Faults,
    works: Works,
    /// Calls of each thread.
    calls: u32,
    /// Between two calls of a thread, at most, in milliseconds.
    pub(crate) pause_ms_max: u64,
    /// Between two faults, in milliseconds.
    pub(crate) fault_ms: (u64, u64),
    /// One create in so many is a pair.
    pub(crate) pair_in: u64,
    /// Whether calls go to the newest object more often than not.
    pub(crate) hot: bool,
    /// The process that faults of links and processes hit; any where there is none.
    pub(crate) victim: Option<usize>,
    /// Whether the victim changes one object's attribute and its replies get lost, while another process looks and
    /// changes it too.
    pub(crate) changes: bool,
    /// One request in so many is delivered twice; 0 for none.
    pub(crate) twice_in: u64,
    /// Whether messages carry fields of a later release.
    pub(crate) later_release: bool,
    /// Whether no message takes much longer than the others, unless something is the matter.
    pub(crate) is_quick: bool,
    /// The role of each member.
    pub(crate) roles: [MemberRole; MEMBERS],
    /// Milliseconds by which the clock of each member drifts in a second.
    pub(crate) drift_ms: [i64; MEMBERS],
}

const ALL_FAULTS: Faults = &[
    (Break, 2),
    (BreakBeforeReply, 1),
    (CutSilently, 1),
    (Cut, 1),
    (StallThere, 1),
    (StallBack, 1),
    (StallAll, 1),
    (Crash, 2),
    (FailInCommit, 1),
    (PauseMember, 1),
    (PauseProcess, 1),
    (Kill, 1),
    (Fork, 1),
    (Jump, 1),
    (Fill, 1),
    (SlowDisk, 1),
    (Restore, 1),
    (Overload, 1),
    (Membership, 1),
    (Replace, 1),
];
const ALL_WORKS: Works = &[
    (Work::Create, 22),
    (Work::Sign, 34),
    (Work::Random, 3),
    (Work::Find, 5),
    (Work::List, 5),
    (Work::Borrow, 8),
    (Work::Harden, 6),
    (Work::Rename, 6),
    (Work::Read, 6),
    (Work::Destroy, 8),
    (Work::SetPin, 1),
    (Work::WrongPin, 1),
];
const ATTRIBUTES: Works = &[
    (Work::Create, 12),
    (Work::Harden, 10),
    (Work::Rename, 30),
    (Work::Read, 32),
    (Work::Borrow, 18),
    (Work::Destroy, 2),
];
const SIGNATURES: Works = &[(Work::Sign, 95), (Work::Create, 3), (Work::Read, 2)];
const WRITER: Works = &[(Work::Create, 2), (Work::Rename, 98)];
const WATCHER: Works = &[(Work::Read, 60), (Work::Rename, 35), (Work::Borrow, 5)];
const RANDOM: Works = &[
    (Work::Random, 45),
    (Work::Create, 14),
    (Work::Sign, 25),
    (Work::Find, 6),
    (Work::Rename, 5),
    (Work::Destroy, 5),
];
const KEYS: Works = &[
    (Work::Create, 36),
    (Work::Find, 10),
    (Work::List, 30),
    (Work::Sign, 12),
    (Work::Borrow, 6),
    (Work::Destroy, 6),
];
const PINS: Works = &[
    (Work::SetPin, 30),
    (Work::WrongPin, 24),
    (Work::Create, 12),
    (Work::Sign, 22),
    (Work::Read, 6),
    (Work::Destroy, 6),
];
const USES: Works = &[
    (Work::Create, 15),
    (Work::Sign, 50),
    (Work::Random, 5),
    (Work::Read, 15),
    (Work::Find, 10),
    (Work::Destroy, 5),
];

const NETWORK: Faults =
    &[(BreakBeforeReply, 6), (CutSilently, 2), (StallThere, 3), (StallBack, 1), (Cut, 1), (Jump, 1)];
const RESENDS: Faults = &[(BreakBeforeReply, 8), (StallThere, 2), (Cut, 1), (Break, 1)];
const FORKS: Faults = &[(Fork, 6), (Break, 3), (StallBack, 2), (Crash, 1), (PauseMember, 1)];
const SLOW: Faults = &[(StallBack, 4), (PauseMember, 2), (StallThere, 1)];
const DISKS: Faults = &[
    (Fill, 3),
    (SlowDisk, 4),
    (FailInCommit, 4),
    (Crash, 2),
    (StallThere, 1),
    (PauseMember, 1),
    (BreakBeforeReply, 1),
];
const ROLES: Faults =
    &[(BreakBeforeReply, 5), (Break, 1), (Cut, 3), (Revoke, 2), (Crash, 1), (Membership, 1), (Jump, 1)];
const LOAD: Faults = &[(Overload, 5), (PauseMember, 1), (Break, 1), (SlowDisk, 1)];
const CHANGES: Faults =
    &[(Membership, 4), (Replace, 4), (Crash, 2), (Break, 1), (Cut, 1), (PauseProcess, 1), (Kill, 1)];
const SILENCE: Faults = &[
    (StallAll, 6),
    (CutSilently, 2),
    (PauseMember, 2),
    (PauseBeyondLeases, 1),
    (PauseProcess, 1),
    (Kill, 1),
    (Crash, 1),
];
const LOSS: Faults = &[(Restore, 3), (RollBack, 3), (Cloned, 3), (Crash, 2), (Cut, 1), (BreakBeforeReply, 1)];

impl Theme {
    /// What a seed is about.
    pub(crate) fn draw(chance: &mut Chance) -> Self {
        let plain = Theme {
            name: "everything",
            faults: ALL_FAULTS,
            works: ALL_WORKS,
            calls: 11,
            pause_ms_max: 150,
            fault_ms: (50, 700),
            pair_in: 4,
            hot: false,
            changes: false,
            victim: None,
            twice_in: [0, 40][chance.place(2)],
            is_quick: false,
            later_release: chance.once_in(4),
            roles: [MemberRole::Active; MEMBERS],
            drift_ms: [0; MEMBERS],
        };
        let changes = chance.once_in(2);
        let mut theme = match chance.below(13) {
            0..4 => plain,
            4 if changes => {
                let victim = Some(1);
                Theme { name: "resends", faults: RESENDS, works: WRITER, hot: true, victim, changes, ..plain }
            }
            4 | 5 => Theme { name: "attributes", faults: NETWORK, works: ATTRIBUTES, hot: true, ..plain },
            6 => Theme { name: "disks", faults: DISKS, works: KEYS, pair_in: 2, hot: true, ..plain },
            7 => Theme { name: "roles", faults: ROLES, works: PINS, ..plain },
            8 => Theme { name: "load", faults: LOAD, works: USES, ..plain },
            9 => Theme { name: "membership", faults: CHANGES, works: KEYS, ..plain },
            11 => Theme { name: "forks", faults: FORKS, works: RANDOM, ..plain },
            10 if changes => {
                Theme { name: "hedges", faults: SLOW, works: SIGNATURES, is_quick: true, ..plain }
            }
            10 => Theme { name: "silence", faults: SILENCE, works: USES, ..plain },
            _ => Theme { name: "loss", faults: LOSS, works: ALL_WORKS, ..plain },
        };
        (theme.calls, theme.pause_ms_max, theme.fault_ms) = match theme.name {
            "resends" => (24, 25, (20, 200)),
            // A member is known well enough for a hedge by its hundredth answer (HA 4.3).
            "hedges" => (220, 2, (40, 200)),
            "forks" => (16, 40, (50, 500)),
            "attributes" => (22, 15, (100, 700)),
            "disks" => (12, 60, (20, 400)),
            "load" => (16, 20, (200, 1_000)),
            "silence" => (30, 60, (300, 1_200)),
            _ => (theme.calls, theme.pause_ms_max, theme.fault_ms),
        };
        if theme.name == "membership" || chance.once_in(6) {
            theme.roles[MEMBERS - 1] =
                [MemberRole::Standby, MemberRole::Draining][usize::from(chance.once_in(4))];
        }
        if chance.once_in(3) && !theme.changes {
            theme.drift_ms = std::array::from_fn(|_| match chance.below(101) {
                // One in twenty stands still.
                96.. => STANDS_STILL,
                ms => i64::try_from(ms).unwrap_or(0) - 48,
            });
        }
        theme
    }

    /// What a world without faults is about in which no message takes much longer than the others.
    pub(crate) fn quick() -> Self {
        Self { is_quick: true, later_release: false, twice_in: 0, ..Self::draw(&mut Chance::new(0)) }
    }

    /// Whether clocks run apart from the start.
    pub(crate) fn drifts(&self) -> bool {
        self.drift_ms.iter().any(|ms| *ms != 0)
    }

    /// The next thing that goes wrong.
    pub(crate) fn fault(&self, chance: &mut Chance) -> Fault {
        weighted(self.faults, chance)
    }

    /// The next call of a process.
    pub(crate) fn work(&self, process: usize, chance: &mut Chance) -> Work {
        weighted(if self.duel() && !self.writes(process) { WATCHER } else { self.works }, chance)
    }

    /// Calls of each thread of a process. Who watches a change has much to do until it comes again.
    pub(crate) fn calls(&self, process: usize) -> u32 {
        if self.duel() && !self.writes(process) { self.calls * 5 } else { self.calls }
    }

    /// How long a message takes, in nanoseconds. With a long tail nobody is slow enough for a hedge.
    pub(crate) fn delay(&self, latency: u64, calm: bool, chance: &mut Chance) -> u64 {
        let kinds = match (calm, self.is_quick) {
            (true, _) => 90,
            (false, true) => 98,
            (false, false) => 100,
        };
        match chance.below(kinds) {
            0..90 => chance.between(latency / 4, latency),
            90..98 => chance.between(latency, latency * 8),
            _ => chance.between(latency * 8, 400 * MS),
        }
    }

    /// Whether two processes change and look at one object.
    pub(crate) fn duel(&self) -> bool {
        self.changes
    }

    /// Whether PINs are given and changed all the time.
    pub(crate) fn is_about_pins(&self) -> bool {
        std::ptr::eq(self.works, PINS)
    }

    /// Whether a process is the one whose changes are sent again.
    pub(crate) fn writes(&self, process: usize) -> bool {
        self.victim == Some(process)
    }
}

fn weighted<T: Copy>(table: &[(T, u64)], chance: &mut Chance) -> T {
    let mut left = chance.below(table.iter().map(|(_, weight)| weight).sum());
    for (item, weight) in table {
        match left.checked_sub(*weight) {
            Some(rest) => left = rest,
            None => return *item,
        }
    }
    table[0].0
}
