//! One run of a seed: a world, its faults, its rest, and what must hold at the end (HA 8).
use std::sync::Arc;

use spec::messages::{Answer, Call, Find, GetAttributes, ObjectRef};
use spec::planted::Bug;
use spec::{Attribute, AttributeType as A, Template};

use crate::history::{Fate, History, Object};
use crate::members::{Member, ask, caller, members, ticket};
use crate::nemesis::Nemesis;
use crate::network::{MS, Network};
use crate::platform::{BORN_MS, Simulated};
use crate::workload::Process;
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
}

/// Application processes.
const PROCESSES: usize = 2;
/// Threads of each.
const THREADS: usize = 2;
/// Calls of each thread.
const CALLS: u32 = 11;
/// After the last fault the members must agree within so many milliseconds.
const REST_MS: u64 = 60_000;

/// Runs a seed.
pub fn run(wish: Wish) -> Outcome {
    let world = World::enter(wish.seed, PROCESSES, wish.story);
    let members = members();
    let network = Network::new(world.clone(), members.clone(), PROCESSES);
    let history = Arc::new(History::default());
    let platforms: Vec<Arc<Simulated>> =
        (1..=PROCESSES).map(|number| Simulated::new(world.clone(), number)).collect();
    let processes: Vec<Arc<Process>> = (1..=PROCESSES)
        .map(|number| {
            Process::start(number, &world, platforms[number - 1].clone(), &network, &members, &history)
        })
        .collect();
    let nemesis = Nemesis::begin(&world, &network, &members, platforms, wish.faults);
    let mut threads = Vec::new();
    for process in processes.iter().flat_map(|process| std::iter::repeat_n(process, THREADS)) {
        let own = process.clone();
        threads.push(world.spawn(process.number, Box::new(move || own.run(CALLS))));
    }
    for thread in threads {
        world.join(thread);
    }
    nemesis.calm();
    if world.failure().is_none() {
        rest(&world, &members);
        check_end(&world, &members, &history);
    }
    for member in members.iter() {
        if let Some(law) = member.disk.broken_laws().into_iter().next() {
            world.fail(law);
        }
    }
    for process in &processes {
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
    World::leave();
    Outcome {
        failure: world.failure(),
        trace: world.trace(),
        story: world.story(),
        ms: world.now() / MS,
        requests: network.sent(),
    }
}

/// Waits until all members hold the same, or fails.
fn rest(world: &Arc<World>, members: &Arc<Vec<Member>>) {
    let begun = world.now();
    loop {
        let roots: Vec<Option<Vec<u8>>> = members.iter().map(Member::root).collect();
        let recovering =
            members.iter().any(|member| member.partition().is_none_or(|partition| partition.is_recovering()));
        if !recovering && roots[0].is_some() && roots.windows(2).all(|pair| pair[0] == pair[1]) {
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

fn check_end(world: &Arc<World>, members: &Arc<Vec<Member>>, history: &History) {
    let now_ms = BORN_MS + world.now() / MS;
    for (place, member) in members.iter().enumerate() {
        let Some(partition) = member.partition() else { continue };
        let who = caller(PROCESSES + 1);
        let ticket = ticket(&partition, &who, now_ms);
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
