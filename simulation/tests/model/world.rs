//! The state of the model and its steps: three members, every message ever sent, creator, destroyer, two writers of
//! attributes, repair.
//!
//! ```text
//! creator:   Idle -> Storing -> Committing -> Answered        destroyer, writers:  Idle -> Sent -> Answered
//!                        '----> Failed
//! ```
//! A message that was sent may be delivered at any later time, to any member, any number of times or never: that is
//! delay, loss, repetition and reordering at once. The first send of a change alone is delivered at most once, as a
//! link does; what comes again is marked as resent (HA 2.3). An acknowledgement counts from the moment it is given.
use std::fmt;

use spec::AttributeType as A;
use spec::record::State;
use stateright::Model;

use crate::records::{Book, CREATED, Facts, Id, NOTHING};
use crate::rules::{Break, Scope};

pub(crate) const MEMBERS: usize = 3;
pub(crate) const MINIMUM: u32 = 2;

/// How far one of the clients is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Progress {
    Idle,
    /// The creator has sent Store; the others have sent their request.
    Sent,
    /// The creator has sent Commit.
    Committing,
    /// Success was answered to the application.
    Answered,
    /// "Nothing was created" was answered to the application.
    Failed,
}

/// What went wrong in a step, for the properties.
pub(crate) const ROSE: u8 = 1;
pub(crate) const WEAKENED: u8 = 2;
pub(crate) const WENT_BACK: u8 = 4;

/// One state of everything.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct World {
    /// What each member holds of each object.
    pub(crate) held: [[Id; 2]; MEMBERS],
    pub(crate) creator: Progress,
    pub(crate) destroyer: Progress,
    pub(crate) hardener: Progress,
    pub(crate) labeller: Progress,
    /// Sealed records on their way between members, by object, one bit for each record.
    carried: [u64; 2],
    /// Members that have acknowledged, one bit each.
    stored: [u8; 2],
    committed: [u8; 2],
    destroyed: u8,
    hardened: u8,
    commit_sent: bool,
    /// Whether the only delivery of the first send of B has happened.
    labelled_once: bool,
    /// Whether A was executed first where B's label stood: all that comes of B later was resent.
    pub(crate) over: bool,
    /// How often a change was executed: the greatest counter that a stamp may have.
    pub(crate) executions: u8,
    /// Somebody has found the object.
    pub(crate) seen: bool,
    /// Members that have lost their store.
    pub(crate) lost: u8,
    /// `ROSE`, `WEAKENED`, `WENT_BACK`.
    pub(crate) wrong: u8,
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let held = self.held.map(|held| held.map(|id| id.0));
        write!(f, "held {held:?} creator {:?} destroyer {:?}", self.creator, self.destroyer)?;
        write!(f, " A {:?} B {:?} lost {}", self.hardener, self.labeller, self.lost)
    }
}

/// One step.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Step {
    SendStore,
    Store(usize, usize),
    SendCommit,
    Commit(usize, usize),
    AnswerCreate,
    GiveUp,
    Discard(usize),
    Forget(usize),
    Lose(usize),
    Crash(usize),
    Find(usize),
    SendDestroy,
    Destroy(usize),
    AnswerDestroy,
    /// A member gives out an object's record: repair, or the rest of a change or destroy.
    Export(usize, usize),
    Join(usize, usize, Id),
    SendHarden,
    Harden(usize),
    AnswerHarden,
    SendLabel,
    Label(usize),
    LabelAgain(usize),
}

/// The rules, the size of the world, and the records met so far.
pub(crate) struct Rules {
    pub(crate) scope: Scope,
    pub(crate) broken: Option<Break>,
    pub(crate) book: Book,
    /// Looks for a state of this kind instead of faults.
    pub(crate) reaches: Option<crate::properties::Claim>,
}

impl Rules {
    pub(crate) fn new(scope: Scope, broken: Option<Break>) -> Self {
        Self { scope, broken, book: Book::new(broken), reaches: None }
    }

    pub(crate) fn facts(&self, world: &World, member: usize, slot: usize) -> Option<Facts> {
        self.book.facts(world.held[member][slot])
    }

    pub(crate) fn count(&self, world: &World, slot: usize, wanted: impl Fn(&Facts) -> bool) -> u32 {
        let holds = |member: &usize| self.facts(world, *member, slot).is_some_and(|facts| wanted(&facts));
        u32::try_from((0..MEMBERS).filter(holds).count()).expect("three members")
    }

    fn is(&self, broken: Break) -> bool {
        self.broken == Some(broken)
    }

    fn slots(&self) -> std::ops::Range<usize> {
        0..self.scope.objects
    }

    /// Writes what a member holds, and notes whether that is a step back.
    fn put(&self, world: &mut World, member: usize, slot: usize, id: Id) {
        let before = self.facts(world, member, slot);
        world.held[member][slot] = id;
        let (Some(before), Some(after)) = (before, self.book.facts(id)) else { return };
        if after.state < before.state {
            world.wrong |= ROSE;
        }
        if after.state != State::Deleted {
            if after.extractable && !before.extractable {
                world.wrong |= WEAKENED;
            }
            if after.label_stamp < before.label_stamp {
                world.wrong |= WENT_BACK;
            }
        }
        if slot == 0 && (after.state == State::Deleted || !after.extractable) {
            world.hardened |= 1 << member;
        }
    }

    /// Which objects a Store or Commit names: the batch, or one object under the break that splits it.
    fn batch(&self, part: usize) -> Option<std::ops::Range<usize>> {
        match (self.is(Break::PairAsTwo), part) {
            (true, part) if part < self.scope.objects => Some(part..part + 1),
            (false, 0) => Some(self.slots()),
            _ => None,
        }
    }

    fn store(&self, world: &mut World, member: usize, part: usize) -> Option<()> {
        let batch = self.batch(part)?;
        let refused = |slot: usize| self.book.state(world.held[member][slot]) == Some(State::Deleted);
        world.stored[part] |= 1 << member;
        if self.is(Break::OneTombstoneRefusesTheBatch) && batch.clone().any(refused) {
            return Some(());
        }
        for slot in batch {
            let held = world.held[member][slot];
            let over = self.is(Break::StoreOverTombstone) && self.book.state(held) == Some(State::Deleted);
            let incoming = self.book.provisional(slot);
            let next = if over { incoming } else { self.book.join(held, incoming) };
            self.put(world, member, slot, next);
        }
        Some(())
    }

    fn commit(&self, world: &mut World, member: usize, part: usize) -> Option<()> {
        let batch = self.batch(part)?;
        let state = |slot: usize| self.book.state(world.held[member][slot]);
        if batch.clone().any(|slot| state(slot).is_none()) {
            // Unknown: the client stores the same bytes again, which it may do at any time here.
            self.is(Break::CommitOfNothingIsDone).then(|| world.committed[part] |= 1 << member)?;
            return Some(());
        }
        let ended = batch.clone().any(|slot| state(slot) == Some(State::Deleted));
        world.committed[part] |= 1 << member;
        if self.is(Break::OneTombstoneRefusesTheBatch) && ended {
            return Some(());
        }
        for slot in batch {
            let next = self.book.committed(world.held[member][slot]);
            self.put(world, member, slot, next);
        }
        Some(())
    }

    fn discard(&self, world: &mut World, member: usize) -> Option<()> {
        let state = |slot: usize| self.book.state(world.held[member][slot]);
        let forward = self.is(Break::TombstoneAfterCommit);
        let refuses = |slot: usize| match state(slot) {
            None => true,
            Some(State::Committed) => !forward,
            Some(State::Provisional | State::Deleted) => false,
        };
        if self.slots().any(refuses) {
            return None;
        }
        self.slots().for_each(|slot| self.put(world, member, slot, self.book.tombstone(slot)));
        Some(())
    }

    fn forget(&self, world: &mut World, member: usize) -> Option<()> {
        let provisional =
            |slot: &usize| self.book.state(world.held[member][*slot]) == Some(State::Provisional);
        let forgotten: Vec<usize> = self.slots().filter(provisional).collect();
        for slot in &forgotten {
            let tombstone = self.is(Break::ForgettingIsTombstone);
            world.held[member][*slot] = if tombstone { self.book.tombstone(*slot) } else { NOTHING };
        }
        (!forgotten.is_empty()).then_some(())
    }

    fn destroy(&self, world: &mut World, member: usize) -> Option<()> {
        if world.held[member][0] == NOTHING {
            return None;
        }
        self.put(world, member, 0, self.book.tombstone(0));
        world.destroyed |= 1 << member;
        Some(())
    }

    fn export(&self, world: &mut World, member: usize, slot: usize) -> Option<()> {
        let id = match self.book.state(world.held[member][slot])? {
            State::Provisional if self.is(Break::RepairDecidesProvisional) => {
                self.book.committed(world.held[member][slot])
            }
            State::Provisional => return None,
            State::Committed | State::Deleted => world.held[member][slot],
        };
        world.carried[slot] |= 1 << id.0;
        Some(())
    }

    fn join(&self, world: &mut World, member: usize, slot: usize, incoming: Id) -> Option<()> {
        let joined = self.book.join(world.held[member][slot], incoming);
        self.put(world, member, slot, joined);
        if slot == 0 && self.book.state(joined) == Some(State::Deleted) {
            world.destroyed |= 1 << member;
        }
        Some(())
    }

    /// A change executed by one member, whose answer carries the record to the others.
    fn change(&self, world: &mut World, member: usize, writes: &[(A, u8)], resent: bool) -> Option<()> {
        let held = world.held[member][0];
        if self.book.state(held) != Some(State::Committed) {
            return None;
        }
        let seen = (resent && !self.is(Break::UnconditionalResend)).then_some(CREATED);
        let incarnation = u64::try_from(member).expect("three members") + 1;
        let next = self.book.changed(held, writes, incarnation, seen)?;
        world.executions += u8::from(next != held);
        self.put(world, member, 0, next);
        world.carried[0] |= 1 << next.0;
        Some(())
    }

    fn harden(&self, world: &mut World, member: usize) -> Option<()> {
        let before = self.facts(world, member, 0)?;
        if !before.extractable {
            return None;
        }
        let first = world.hardened == 0;
        self.change(world, member, &[(A::EXTRACTABLE, 0), (A::LABEL, 2)], false)?;
        world.over |= first && before.label == 1;
        Some(())
    }

    fn label(&self, world: &mut World, member: usize, resent: bool) -> Option<()> {
        let all = [(A::LABEL, 1), (A::EXTRACTABLE, 1)];
        let writes = if self.scope.repeats_extractable { &all[..] } else { &all[..1] };
        // Bounded, so that the model stays finite.
        if world.executions > 4 {
            return None;
        }
        self.change(world, member, writes, resent)
    }

    /// Whether the acknowledgements of the create suffice.
    fn enough(&self, acknowledged: [u8; 2]) -> bool {
        let parts = if self.is(Break::PairAsTwo) { self.scope.objects } else { 1 };
        (0..parts).all(|part| acknowledged[part].count_ones() >= MINIMUM)
    }

    fn creator_step(&self, world: &mut World, step: &Step) -> Option<()> {
        let commits_wanted = |world: &World| {
            let early = self.is(Break::SuccessBeforeMinimumCommits) && world.committed[0] != 0;
            early || self.enough(world.committed)
        };
        world.creator = match (step, world.creator) {
            (Step::SendStore, Progress::Idle) => Progress::Sent,
            (Step::SendCommit, Progress::Sent) if self.enough(world.stored) => Progress::Committing,
            (Step::AnswerCreate, Progress::Committing) if commits_wanted(world) => Progress::Answered,
            (Step::GiveUp, Progress::Sent) => Progress::Failed,
            (Step::GiveUp, Progress::Committing) if self.is(Break::TombstoneAfterCommit) => Progress::Failed,
            _ => return None,
        };
        world.commit_sent |= *step == Step::SendCommit;
        Some(())
    }

    pub(crate) fn take(&self, world: &mut World, step: &Step) -> Option<()> {
        match step {
            Step::SendStore | Step::SendCommit | Step::AnswerCreate | Step::GiveUp => {
                self.creator_step(world, step)
            }
            Step::Store(member, part) => self.store(world, *member, *part),
            Step::Commit(member, part) => self.commit(world, *member, *part),
            Step::Discard(member) => self.discard(world, *member),
            Step::Forget(member) => self.forget(world, *member),
            Step::Lose(member) => {
                world.held[*member] = [NOTHING; 2];
                world.lost += 1;
                Some(())
            }
            Step::Crash(member) => {
                // Whatever was acknowledged is durable, so that a crash takes nothing; in transit is anything anyway.
                self.is(Break::AcknowledgeBeforeDurable).then(|| world.held[*member] = [NOTHING; 2])
            }
            Step::Find(member) => {
                let state = self.book.state(world.held[*member][0])?;
                let found = match state {
                    State::Committed => true,
                    State::Provisional => self.is(Break::ProvisionalIsFound),
                    State::Deleted => false,
                };
                (found && !world.seen).then(|| world.seen = true)
            }
            Step::SendDestroy => sent(&mut world.destroyer, world.seen),
            Step::Destroy(member) => self.destroy(world, *member),
            Step::AnswerDestroy => answered(&mut world.destroyer, world.destroyed.count_ones() >= MINIMUM),
            Step::Export(member, slot) => self.export(world, *member, *slot),
            Step::Join(member, slot, id) => self.join(world, *member, *slot, *id),
            Step::SendHarden => sent(&mut world.hardener, world.seen),
            Step::Harden(member) => self.harden(world, *member),
            Step::AnswerHarden => answered(&mut world.hardener, world.hardened.count_ones() >= MINIMUM),
            Step::SendLabel => sent(&mut world.labeller, world.seen),
            Step::Label(member) => {
                world.labelled_once = true;
                self.label(world, *member, false)
            }
            Step::LabelAgain(member) => {
                // Resent only when the first send has ended in doubt; unless it hangs in a stopped member, it is over.
                world.labelled_once |= !self.scope.late_first_send;
                self.label(world, *member, true)
            }
        }
    }
}

fn sent(who: &mut Progress, may: bool) -> Option<()> {
    (may && *who == Progress::Idle).then(|| *who = Progress::Sent)
}

fn answered(who: &mut Progress, may: bool) -> Option<()> {
    (may && *who == Progress::Sent).then(|| *who = Progress::Answered)
}

impl Model for Rules {
    type State = World;
    type Action = Step;

    fn init_states(&self) -> Vec<World> {
        let mut world = World {
            held: [[NOTHING; 2]; MEMBERS],
            creator: Progress::Idle,
            destroyer: Progress::Idle,
            hardener: Progress::Idle,
            labeller: Progress::Idle,
            carried: [0; 2],
            stored: [0; 2],
            committed: [0; 2],
            destroyed: 0,
            hardened: 0,
            commit_sent: false,
            labelled_once: false,
            over: false,
            executions: 0,
            seen: false,
            lost: 0,
            wrong: 0,
        };
        if self.scope.exists {
            world.creator = Progress::Answered;
            world.held = [[self.book.committed(self.book.provisional(0)), NOTHING]; MEMBERS];
        }
        vec![world]
    }

    fn actions(&self, world: &World, steps: &mut Vec<Step>) {
        steps.extend([Step::AnswerCreate, Step::SendCommit, Step::GiveUp]);
        if !self.scope.exists {
            steps.push(Step::SendStore);
        }
        if self.scope.destroyer {
            steps.extend([Step::SendDestroy, Step::AnswerDestroy]);
        }
        if self.scope.hardener {
            steps.extend([Step::SendHarden, Step::AnswerHarden]);
        }
        if self.scope.labeller {
            steps.push(Step::SendLabel);
        }
        let made = !self.scope.exists && world.creator != Progress::Idle;
        for member in 0..MEMBERS {
            steps.extend([Step::Find(member), Step::Forget(member), Step::Crash(member)]);
            for slot in self.slots() {
                steps.push(Step::Export(member, slot));
                let on_way = (1..64_u8).filter(|id| world.carried[slot] >> id & 1 == 1);
                steps.extend(on_way.map(|id| Step::Join(member, slot, Id(id))));
                steps.extend(made.then_some(Step::Store(member, slot)));
                steps.extend(world.commit_sent.then_some(Step::Commit(member, slot)));
            }
            steps.extend((world.creator == Progress::Failed).then_some(Step::Discard(member)));
            steps.extend((world.lost < self.scope.losses_max).then_some(Step::Lose(member)));
            steps.extend((world.destroyer != Progress::Idle).then_some(Step::Destroy(member)));
            steps.extend((world.hardener == Progress::Sent).then_some(Step::Harden(member)));
            if world.labeller != Progress::Idle {
                steps.extend((!world.labelled_once).then_some(Step::Label(member)));
                steps.push(Step::LabelAgain(member));
            }
        }
    }

    fn next_state(&self, world: &World, step: Step) -> Option<World> {
        let mut next = world.clone();
        self.take(&mut next, &step)?;
        (next != *world).then_some(next)
    }

    fn properties(&self) -> Vec<stateright::Property<Self>> {
        match self.reaches {
            Some((name, claim)) => vec![stateright::Property::sometimes(name, claim)],
            None => crate::properties::all(),
        }
    }
}
