//! What a run is about: how many of everything there are, and which faults happen.
use super::nemesis::Fault::{self, *};
use super::nemesis::Hardship;
use super::wire::Line;
use super::{MS, S, US};
use crate::chance::Chance;

/// Most processes of a world.
pub(crate) const PROCESSES_MAX: usize = 2;

/// See the head of this file.
#[derive(Clone, Debug)]
pub(crate) struct Theme {
    pub(crate) name: &'static str,
    pub(crate) processes: usize,
    /// Callers of each process, and the rounds of calls of each.
    pub(crate) callers: usize,
    pub(crate) rounds: u64,
    pub(crate) servers: usize,
    pub(crate) links_per_member: usize,
    /// Whether one thread of each process does nothing but the background work.
    pub(crate) attended: bool,
    /// Whether the links may make threads.
    pub(crate) may_spawn: bool,
    /// Whether servers are named, not numbered.
    pub(crate) named: bool,
    pub(crate) receive_timeout_ms: u64,
    /// One request of so many is large, and one of so many is slow.
    pub(crate) large_one_in: u64,
    pub(crate) slow_one_in: u64,
    /// Who gives up before the deadline waits so long at most.
    pub(crate) patience_ms: u64,
    pub(crate) line: Line,
    /// Between two faults, in nanoseconds, at most.
    pub(crate) gap: u64,
    pub(crate) faults: &'static [Fault],
    /// Whether no call may hear a fault before its deadline, once all links are up.
    pub(crate) is_strict: bool,
}

/// Names and faults of the themes.
const THEMES: &[(&str, &[Fault])] = &[
    ("hand-over", &[]),
    ("hand-over", &[StallLeader, Reset]),
    ("stalls", &[Stall, StallOne, StallProcess, PauseServer]),
    ("cuts", &[CutOne, CutProcess, Crash, Stall]),
    ("breaks", &[Reset, Fuse, Fuse, Goodbye]),
    ("crashes", &[Crash, Twin, Crash, PauseServer, Goodbye]),
    ("trickle", &[Trickle, Fuse, Stall]),
    ("leaders that stand still", &[StallLeader, StallLeader, Reset, PauseProcess]),
    ("backlog", &[Clog, Clog, PauseServer, Reset]),
    ("new settings", &[Configure, Configure, Offer, Names, Goodbye]),
    ("new certificates", &[Configure]),
    ("everything", Fault::ALL),
];

/// No faults begin so many nanoseconds after the world.
const FAULTS_SPAN: u64 = 20 * S;

impl Theme {
    /// What goes wrong.
    pub(crate) fn hardship(&self) -> Hardship {
        Hardship { faults: self.faults, gap: self.gap, span: FAULTS_SPAN }
    }

    /// A theme by chance.
    pub(crate) fn draw(chance: &mut Chance, faults: bool) -> Self {
        let (name, list) = THEMES[chance.place(THEMES.len())];
        let named = chance.once_in(4);
        // Many callers on one link, who come and go within its answers.
        let is_crowd = name == "hand-over";
        Self {
            name,
            processes: if chance.once_in(4) && !is_crowd { PROCESSES_MAX } else { 1 },
            callers: if is_crowd { 4 + chance.place(4) } else { 2 + chance.place(4) },
            rounds: if is_crowd { 30 } else { chance.between(6, 14) },
            servers: if is_crowd { 1 } else { 1 + chance.place(2) },
            links_per_member: if is_crowd || chance.once_in(2) { 1 } else { 1 + chance.place(3) },
            patience_ms: if is_crowd { 1 } else { 6 },
            attended: !chance.once_in(3),
            may_spawn: named || !chance.once_in(4),
            named,
            receive_timeout_ms: [300, 2_000, 20_000][chance.place(3)],
            large_one_in: if name == "backlog" { 3 } else { chance.between(6, 30) },
            slow_one_in: if is_crowd { 60 } else { chance.between(3, 20) },
            line: Line {
                delay: if is_crowd { 20 * US } else { [30 * US, 200 * US, 3 * MS][chance.place(3)] },
                window: [3_000, 16_000, 64_000][chance.place(3)],
            },
            gap: if name == "breaks" { 30 } else { chance.between(50, 800) } * MS,
            faults: if faults { list } else { &[] },
            is_strict: !faults || list.is_empty() || name == "new certificates",
        }
    }
}
