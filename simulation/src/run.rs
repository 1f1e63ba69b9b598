//! One run of a seed: a world, its faults, its rest, and what must hold at the end (HA 8).
use std::sync::{Arc, OnceLock};

use spec::messages::{Answer, Call, Find, GetAttributes, ObjectRef};
use spec::planted::Bug;
use spec::record::{Manifest, MemberRole};
use spec::{Attribute, AttributeType as A, Template};

use crate::history::{Fate, History, Object};
use crate::members::{CO_PIN, Member, ask, caller, change_manifest, members, ticket};
use crate::nemesis::Nemesis;
use crate::network::{MS, Network};
use crate::operator::Operator;
use crate::platform::{BORN_MS, Simulated};
use crate::theme::Theme;
use crate::ways::Ways;
use crate::workload::{CALL_MS_MAX, Process};
use crate::world::{OBSERVER, World};

/// What a run shall be.
#[derive(Clone, Copy, Debug)]
pub struct Wish {
    /// Decides everything.
    pub seed: u64,
    /// Whether anything goes wrong.
    pub faults: bool,
    /// Whether every event is kept in words.
    pub story: bool,
}

/// What came of a run.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// What went wrong first.
    pub failure: Option<String>,
    /// The same for two runs of one seed.
    pub trace: u64,
    /// Every event, if wished.
    pub story: Vec<String>,
    /// Virtual milliseconds.
    pub ms: u64,
    /// Requests sent.
    pub requests: u64,
    /// Messages of each signature.
    pub sends: Vec<u64>,
    /// Requests that went to a second member because the first was slow (HA 4.3).
    pub hedges: u64,
    /// What the run was about.
    pub theme: &'static str,
}

/// Application processes.
pub(crate) const PROCESSES: usize = 2;
/// The number under which the threads of a forked child run.
pub(crate) const CHILD: usize = PROCESSES + 2;
/// The number under which the operator's threads run.
pub(crate) const OPERATOR: usize = PROCESSES + 3;
/// Threads of each.
const THREADS: usize = 2;
/// After the last fault the members must agree within so many milliseconds.
const REST_MS: u64 = 60_000;
/// And for so many messages of all processes at most.
const REST_MESSAGES_MAX: u64 = 1_500;

/// Runs a seed over a network that stands behind the seam itself.
pub fn run(wish: Wish) -> Outcome {
    run_over(wish, |world, members, theme| {
        Network::new(world.clone(), members.clone(), OPERATOR, PROCESSES, theme.clone())
    })
}

/// Runs a seed over these ways.
pub(crate) fn run_over<W: Ways + 'static>(
    wish: Wish,
    make: impl FnOnce(&Arc<World>, &Arc<Vec<Member>>, &Theme) -> Arc<W>,
) -> Outcome {
    let world = World::enter(wish.seed, OPERATOR, wish.story);
    let theme = world.chance(Theme::draw);
    world.note(0, || format!("the theme is {}", theme.name));
    let members = members(wish.seed);
    seat(&members, &theme);
    let network: Arc<dyn Ways> = make(&world, &members, &theme);
    let history = Arc::new(History::default());
    let platforms: Vec<Arc<Simulated>> =
        (1..=PROCESSES + 1).map(|number| Simulated::new(world.clone(), number)).collect();
    let start = {
        let (network, members, history) = (network.clone(), members.clone(), history.clone());
        let (platforms, theme) = (platforms.clone(), theme.clone());
        move |number: usize| {
            let platform = platforms[number - 1].clone();
            Process::start(CALL_MS_MAX, platform, &network, &members, &history, &theme)
        }
    };
    let mut processes: Vec<Arc<Process>> = (1..=PROCESSES).map(&start).collect();
    let operator = Operator::new(&world, &network, &members, OPERATOR);
    let nemesis = Nemesis::begin(&world, &network, &members, platforms, operator, &theme, wish.faults);
    let mut threads = Vec::new();
    for process in processes.iter().flat_map(|process| std::iter::repeat_n(process, THREADS)) {
        let own = process.clone();
        threads.push(world.spawn(process.number, Box::new(move || own.run())));
    }
    let successor = Arc::new(OnceLock::new());
    let heir = succeed(&world, &nemesis, &threads, &successor, start);
    for thread in threads.iter().chain([&heir]) {
        world.join(*thread);
    }
    processes.extend(successor.get().cloned());
    nemesis.calm();
    while nemesis.changes_members() && !world.is_aborted() {
        world.sleep(100 * MS);
    }
    if world.failure().is_none() {
        settle(&world, &*network, &processes);
        log_in_again(&world, &*network, &processes);
        rest(&world, &members, &*network);
        check_end(&world, &members, &history, &*network);
        // Now every member knows which tickets have ended.
        log_in_again(&world, &*network, &processes);
        work_again(&world, &processes);
        processes.iter().for_each(|process| process.check_registers());
    }
    for member in members.iter() {
        if let Some(law) = member.disk.broken_laws().into_iter().next() {
            world.fail(law);
        }
    }
    end(&world, &nemesis, &processes, &threads);
    drop((processes, successor));
    network.end();
    World::leave();
    Outcome {
        failure: world.failure(),
        trace: world.trace(),
        story: world.story(),
        ms: world.now() / MS,
        requests: network.books().sent(),
        sends: history.sends(),
        hedges: network.watch().hedges(),
        theme: theme.name,
    }
}

/// Gives the members the roles that the theme wants.
fn seat(members: &[Member], theme: &Theme) {
    if theme.roles.iter().any(|role| *role != MemberRole::Active) {
        let change = |manifest: &mut Manifest| {
            for (entry, role) in manifest.members.iter_mut().zip(theme.roles) {
                entry.role = role as i32;
            }
        };
        assert!(change_manifest(members, |_| CO_PIN.to_vec(), BORN_MS, change), "the home seats its group");
    }
}

/// The thread that starts another process when one was killed, and does what that one does.
fn succeed(
    world: &Arc<World>,
    nemesis: &Arc<Nemesis>,
    threads: &[usize],
    successor: &Arc<OnceLock<Arc<Process>>>,
    start: impl Fn(usize) -> Arc<Process> + Send + 'static,
) -> usize {
    let (own, nemesis, threads) = (world.clone(), nemesis.clone(), threads.to_vec());
    let successor = successor.clone();
    let work = move || {
        while nemesis.killed().is_none() {
            if threads.iter().all(|thread| own.has_ended(*thread)) {
                return;
            }
            own.sleep(100 * MS);
        }
        successor.get_or_init(|| start(PROCESSES + 1)).run();
    };
    world.spawn(PROCESSES + 1, Box::new(work))
}

/// Ends every process; those that were killed unwind, which proves nothing.
fn end(world: &Arc<World>, nemesis: &Nemesis, processes: &[Arc<Process>], threads: &[usize]) {
    let killed: Vec<usize> = (1..=PROCESSES + 1).filter(|process| world.is_frozen(*process)).collect();
    if !killed.is_empty() {
        world.judge();
        for process in &killed {
            match nemesis.killed() == Some(*process) {
                true => world.thaw(*process),
                false => world.end_threads(*process),
            }
        }
        threads.iter().for_each(|thread| world.join(*thread));
    }
    for process in processes {
        if world.is_aborted() {
            break;
        }
        let own = process.clone();
        let end = world.spawn(
            OBSERVER,
            Box::new(move || own.module.finalize().expect("a module that was initialised ends")),
        );
        world.join(end);
    }
}

/// The processes that are left are connected to every member again.
fn settle(world: &Arc<World>, network: &dyn Ways, processes: &[Arc<Process>]) {
    let left = processes.iter().map(|process| process.platform.process());
    let left: Vec<usize> = left.filter(|process| !world.is_frozen(*process)).collect();
    network.settle(&left);
}

/// Repair needs somebody who is logged in (RULES 3.3): where all tickets were ended the applications log in again. A member
/// that has not heard of it yet may give them a ticket that others have ended.
fn log_in_again(world: &Arc<World>, network: &dyn Ways, processes: &[Arc<Process>]) {
    if !network.watch().was_revoked() {
        return;
    }
    // Every link is up again and every member has been heard.
    world.sleep(1_500 * MS);
    for process in processes.iter().filter(|process| !world.is_frozen(process.platform.process())) {
        let own = process.clone();
        let thread = world.spawn(process.platform.process(), Box::new(move || own.log_in_again()));
        world.join(thread);
    }
}

/// Every process works again after the last fault, and without waiting (HA 8: goodput returns).
fn work_again(world: &Arc<World>, processes: &[Arc<Process>]) {
    for process in processes.iter().filter(|process| !world.is_frozen(process.platform.process())) {
        let own = process.clone();
        let thread = world.spawn(process.platform.process(), Box::new(move || own.work_again()));
        world.join(thread);
    }
}

/// Waits until all members hold the same, or fails.
fn rest(world: &Arc<World>, members: &[Member], network: &dyn Ways) {
    let (begun, sent) = (world.now(), network.books().sent());
    loop {
        let roots: Vec<Option<Vec<u8>>> = members.iter().map(Member::root).collect();
        let recovering =
            members.iter().any(|member| member.partition().is_none_or(|partition| partition.is_recovering()));
        if !recovering && roots[0].is_some() && roots.windows(2).all(|pair| pair[0] == pair[1]) {
            let messages = network.books().sent() - sent;
            if messages > REST_MESSAGES_MAX {
                world.fail(format!(
                    "the members agree after {messages} messages, which is more than {REST_MESSAGES_MAX}"
                ));
            }
            return;
        }
        if world.is_aborted() || world.now() > begun + REST_MS * MS {
            return world.fail(format!(
                "the members do not agree {REST_MS} ms after the last fault{}",
                if recovering { "; one is still recovering" } else { "" }
            ));
        }
        world.sleep(250 * MS);
    }
}

fn check_end(world: &Arc<World>, members: &[Member], history: &History, network: &dyn Ways) {
    let now_ms = BORN_MS + world.now() / MS;
    for (place, member) in members.iter().enumerate() {
        let Some(partition) = member.partition() else { continue };
        let who = caller(usize::from(u8::MAX));
        let pin = network.watch().pin(partition.header().credential_epoch);
        let ticket = ticket(&partition, &who, &pin, now_ms);
        for object in history.objects().iter() {
            let template = Template::from(vec![Attribute::new(A::LABEL, object.label.clone())]);
            let find = Find { template: Some(template), limit: 10, ..Find::default() };
            let Some(Answer::Find(found)) = ask(&partition, &who, &ticket, Call::Find(find), now_ms) else {
                return world.fail(format!("member {place} does not search after the end"));
            };
            if let Some(wrong) = wrong_count(object, found.found.len()) {
                return world.fail(format!("member {place}: {wrong}"));
            }
            for one in &found.found {
                let object_ref = ObjectRef { ouid: one.ouid.clone(), ..ObjectRef::default() };
                let numbers = vec![A::EXTRACTABLE.0];
                let get = GetAttributes { object: Some(object_ref), numbers };
                let answer = ask(&partition, &who, &ticket, Call::GetAttributes(get), now_ms);
                let Some(Answer::GetAttributes(values)) = answer else { continue };
                let value = values.values.first().map(|value| value.value.clone());
                let private = object.parts == 1;
                if private && object.harden == Fate::Done && value != Some(vec![0]) {
                    return world.fail(format!("member {place}: {} is extractable again", name(object)));
                }
            }
        }
    }
}

fn name(object: &Object) -> String {
    String::from_utf8_lossy(&object.label).into_owned()
}

/// Whether so many objects under one label contradict what the application was told.
fn wrong_count(object: &Object, found: usize) -> Option<String> {
    let whole = object.parts;
    let rest = whole - 1;
    let fits = match (object.create, object.destroy) {
        (Fate::Failed, _) => found == 0,
        (Fate::Done, Fate::Not) => found == whole,
        (_, Fate::Done) => found == rest,
        (Fate::Done, _) => found == whole || found == rest,
        _ => found == 0 || found == whole,
    };
    (!fits).then(|| {
        format!(
            "{} has {found} of {whole} objects; its create is {:?}, its destroy {:?}",
            name(object),
            object.create,
            object.destroy
        )
    })
}

/// Plants a bug for all runs of this process until the next call.
pub fn plant(bug: Option<Bug>) {
    #[cfg(feature = "planted")]
    spec::planted::plant(bug);
    #[cfg(not(feature = "planted"))]
    assert!(
        bug.is_none(),
        "wanted a build that has the bugs, found one without: cargo test -p simulation --features planted"
    );
}
