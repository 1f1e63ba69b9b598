//! What must always hold (HA 1, 2), and what must be reachable so that the rest is not true of nothing.
use spec::record::State;
use stateright::Property;

use crate::rules::Break;
use crate::world::{MEMBERS, MINIMUM, Progress, ROSE, Rules, WEAKENED, WENT_BACK, World};

/// A name and a rule about one state.
pub(crate) type Claim = (&'static str, fn(&Rules, &World) -> bool);

pub(crate) const ALWAYS: &[Claim] = &[
    ("HA 1.2: deleted is terminal", |_, world| world.wrong & ROSE == 0),
    ("HA 1.3: no attribute weakens", |_, world| world.wrong & WEAKENED == 0),
    ("HA 1.3: no attribute goes back to an older stamp", |_, world| world.wrong & WENT_BACK == 0),
    ("HA 1.4: only a change mints a stamp", only_changes_mint),
    ("HA 1.3: an acknowledged one-way change is kept", hardened_is_kept),
    ("HA 2.1: batches are whole", batches_are_whole),
    ("HA 2.2: an acknowledged create is kept", create_is_kept),
    ("HA 2.2: a create that failed was never there", failed_was_never_there),
    ("HA 2.3: an acknowledged destroy is kept", destroy_is_kept),
    ("HA 2.3: an older change does not come back", older_change_stays_gone),
];

pub(crate) fn all() -> Vec<Property<Rules>> {
    ALWAYS.iter().map(|(name, claim)| Property::always(name, *claim)).collect()
}

/// So many copies must be left of what the minimum has acknowledged.
fn left(world: &World) -> u32 {
    MINIMUM.saturating_sub(u32::from(world.lost))
}

fn only_changes_mint(rules: &Rules, world: &World) -> bool {
    let minted = u32::from(world.executions);
    (0..MEMBERS)
        .all(|member| rules.facts(world, member, 0).is_none_or(|facts| facts.version.counter <= minted))
}

fn hardened_is_kept(rules: &Rules, world: &World) -> bool {
    let hard = |facts: &crate::records::Facts| facts.state == State::Deleted || !facts.extractable;
    world.hardener != Progress::Answered || rules.count(world, 0, hard) >= left(world)
}

/// While no member has lost its store, one object of a batch is live only where the other is (or was destroyed).
fn batches_are_whole(rules: &Rules, world: &World) -> bool {
    let somewhere = |slot: usize| rules.count(world, slot, |facts| facts.state == State::Committed) > 0;
    world.lost > 0 || rules.scope.objects < 2 || !somewhere(0) || somewhere(1)
}

fn create_is_kept(rules: &Rules, world: &World) -> bool {
    let kept = |slot: usize| {
        let destroyed = slot == 0 && world.destroyer != Progress::Idle;
        destroyed || rules.count(world, slot, |facts| facts.state == State::Committed) >= left(world)
    };
    rules.scope.exists || world.creator != Progress::Answered || (0..rules.scope.objects).all(kept)
}

fn failed_was_never_there(rules: &Rules, world: &World) -> bool {
    let live = rules.count(world, 0, |facts| facts.state == State::Committed);
    world.creator != Progress::Failed || (!world.seen && live == 0)
}

fn destroy_is_kept(rules: &Rules, world: &World) -> bool {
    world.destroyer != Progress::Answered
        || rules.count(world, 0, |facts| facts.state == State::Deleted) >= left(world)
}

/// A change that another writer has overwritten, and whose success was answered, is not the latest one again.
fn older_change_stays_gone(rules: &Rules, world: &World) -> bool {
    let held = || (0..MEMBERS).filter_map(|member| rules.facts(world, member, 0));
    let latest = held().max_by_key(|facts| (facts.state, facts.label_stamp));
    let answered = world.hardener == Progress::Answered && world.over;
    !answered || latest.is_none_or(|facts| facts.state == State::Deleted || facts.label != 1)
}

/// States that a world of its scope must reach.
pub(crate) const REACHED: &[Claim] = &[
    ("a create is answered", |_, world| world.creator == Progress::Answered),
    ("a create fails and leaves tombstones", |rules, world| {
        let deleted = rules.count(world, 0, |facts| facts.state == State::Deleted);
        world.creator == Progress::Failed && deleted > 0
    }),
    ("a destroy is answered while a member holds the object live", |rules, world| {
        let live = rules.count(world, 0, |facts| facts.state == State::Committed);
        world.destroyer == Progress::Answered && live > 0
    }),
    ("a batch is stored again where it was forgotten, after the answer", |rules, world| {
        let open = rules.count(world, 0, |facts| facts.state == State::Provisional);
        world.creator == Progress::Answered && open > 0
    }),
];

/// What HA 2.1 does not promise: of a pair whose create was never answered, one half may outlive the loss of the only
/// member that had committed it, when repair was moving its records at that moment, one by one.
pub(crate) const HALVED: Claim =
    ("half of an unanswered pair outlives the member that had it", |rules, world| {
        let live = |slot: usize| rules.count(world, slot, |facts| facts.state == State::Committed);
        let answered = world.creator == Progress::Answered || world.destroyer != Progress::Idle;
        !answered && world.lost > 0 && live(0) > 0 && live(1) == 0
    });

/// Properties of which a break must violate one.
pub(crate) fn violated_by(broken: Break) -> &'static [&'static str] {
    match broken {
        Break::TombstoneByStamp | Break::StoreOverTombstone => &["HA 1.2: deleted is terminal"],
        Break::ForgettingIsTombstone
        | Break::SuccessBeforeMinimumCommits
        | Break::CommitOfNothingIsDone
        | Break::OneTombstoneRefusesTheBatch
        | Break::AcknowledgeBeforeDurable => &["HA 2.2: an acknowledged create is kept"],
        Break::TombstoneAfterCommit | Break::RepairDecidesProvisional | Break::ProvisionalIsFound => {
            &["HA 2.2: a create that failed was never there"]
        }
        Break::JoinReplaces => &["HA 1.2: deleted is terminal"],
        Break::JoinMintsStamp => &["HA 1.4: only a change mints a stamp"],
        Break::ExtractableByLastWriter => &["HA 1.3: no attribute weakens"],
        Break::UnconditionalResend => &["HA 2.3: an older change does not come back"],
        Break::PairAsTwo => &["HA 2.1: batches are whole"],
    }
}
