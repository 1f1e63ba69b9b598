//! More than the members can do (HA 4.5, 8): 0.7 of their capacity, three times as much for 10 s, and 0.7 again, in virtual
//! time. Callers come when they come, whether those before them are done or not; each gives up after its deadline.
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use spec::HandleObject;

use crate::history::History;
use crate::members::{MEMBERS, members};
use crate::network::{MS, Network};
use crate::platform::Simulated;
use crate::theme::Theme;
use crate::ways::Ways;
use crate::workload::Process;
use crate::world::World;

/// What a member takes for a signature, in milliseconds.
const SERVICE_MS: u64 = 40;
/// `DefaultTimeOut` of the callers, in milliseconds.
const PATIENCE_MS: u64 = 1_500;
/// Calls that the group can do in a second.
const CAPACITY: u64 = MEMBERS as u64 * 1_000 / SERVICE_MS;
/// After so long latency is as it was before, in milliseconds.
const BACK_MS: u64 = 5_000;
/// For so long it is measured after that, in milliseconds.
const MEASURED_MS: u64 = 4_000;
/// How long each load lasts, in milliseconds: usual, three times the capacity, usual. The last is the first again, call for
/// call, and both are measured in their last seconds: at such a load what two different draws of arrivals let callers wait
/// differs by more than half, in four seconds of some two hundred calls.
const PHASES_MS: [u64; 3] = [BACK_MS + MEASURED_MS, 10_000, BACK_MS + MEASURED_MS];
/// Application processes, and threads of each: enough for all that come while one waits.
const PROCESSES: usize = 2;
const THREADS: usize = 200;

/// How a group bore three times what it can do.
#[derive(Clone, Debug)]
pub struct Load {
    /// Calls that were answered in time during the overload, in percent of what the members can do in that time.
    pub goodput_percent: u64,
    /// The median of a call before, in milliseconds.
    pub before_ms: u64,
    /// The same of those that began five seconds after the overload or later.
    pub after_ms: u64,
    /// What calls took on average that came in one second after, in percent of what the same ones took before: the greatest
    /// of all seconds.
    pub second_percent: u64,
    /// What went wrong first.
    pub failure: Option<String>,
}

/// One call: when it came and was done, in nanoseconds, and whether it was answered.
#[derive(Clone, Copy)]
struct Called {
    came: u64,
    done: u64,
    answered: bool,
}

/// Runs a seed.
pub fn overload(seed: u64) -> Load {
    run(seed, None)
}

/// What an overload may leave behind where something is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Left {
    /// A request takes a member so many percent of what it took before.
    Slower(u64),
    /// A call that was not answered in time is made again, until it is.
    Retries,
}

/// Runs a seed in which something stays when the overload is over: what is measured must show it.
pub fn overload_that_lasts(seed: u64, left: Left) -> Load {
    run(seed, Some(left))
}

fn run(seed: u64, left: Option<Left>) -> Load {
    let world = World::enter(seed, PROCESSES, false);
    let members = members(seed);
    let theme = Theme::quick();
    let network = Network::new(world.clone(), members.clone(), PROCESSES, PROCESSES, theme.clone());
    let ways: Arc<dyn Ways> = network.clone();
    ways.calm();
    let history = Arc::<History>::default();
    let processes: Vec<(Arc<Process>, HandleObject)> = (1..=PROCESSES)
        .map(|number| {
            let platform = Simulated::new(world.clone(), number);
            let process = Process::start(PATIENCE_MS, platform, &ways, &members, &history, &theme);
            let key = process.key_to_sign_with();
            (process, key)
        })
        .collect();
    network.limit(SERVICE_MS * MS);
    if let Some(Left::Slower(percent)) = left {
        let (network, slower) = (network.clone(), SERVICE_MS * MS * percent / 100);
        world.after((PHASES_MS[0] + PHASES_MS[1]) * MS, move || network.limit(slower));
    }
    let called = Arc::<Mutex<Vec<Called>>>::default();
    let arrivals = arrivals(&world).map(|own| Arc::new(Mutex::new(own)));
    let begun = world.now();
    let mut threads = Vec::new();
    let callers = processes.iter().zip(&arrivals);
    for ((process, key), arrivals) in callers.flat_map(|one| std::iter::repeat_n(one, THREADS)) {
        let (process, key, called, arrivals) = (process.clone(), *key, called.clone(), arrivals.clone());
        let number = process.number;
        let work = move || {
            let session = process.open_session();
            loop {
                let next = arrivals.lock().unwrap_or_else(PoisonError::into_inner).pop();
                let Some(came) = next else { return };
                process.world.park(came);
                let mut answered = process.signs(session, key);
                while left == Some(Left::Retries) && !answered {
                    answered = process.signs(session, key);
                }
                let one = Called { came, done: process.world.now(), answered };
                called.lock().unwrap_or_else(PoisonError::into_inner).push(one);
            }
        };
        threads.push(world.spawn(number, Box::new(work)));
    }
    threads.iter().for_each(|thread| world.join(*thread));
    world.judge();
    for (process, _) in &processes {
        let own = process.clone();
        let end = world.spawn(process.number, Box::new(move || drop(own.module.finalize())));
        world.join(end);
    }
    World::leave();
    let called = called.lock().unwrap_or_else(PoisonError::into_inner).clone();
    judge(begun, &called, world.failure())
}

/// When calls come to each process, the last one first: at random within each phase, and in the third as in the first.
fn arrivals(world: &Arc<World>) -> [Vec<u64>; PROCESSES] {
    let draw = |tenths: u64, ms: u64| -> Vec<(u64, usize)> {
        let count = CAPACITY * tenths * ms / 10_000;
        let one = |_| world.chance(|chance| (chance.below(ms * MS), chance.place(PROCESSES)));
        (0..count).map(one).collect()
    };
    let usual = draw(7, PHASES_MS[0]);
    let phases = [usual.clone(), draw(30, PHASES_MS[1]), usual];
    let mut begun = world.now();
    let mut arrivals = [const { Vec::new() }; PROCESSES];
    for (phase, ms) in phases.iter().zip(PHASES_MS) {
        phase.iter().for_each(|(after, process)| arrivals[*process].push(begun + after));
        begun += ms * MS;
    }
    arrivals.iter_mut().for_each(|own| own.sort_unstable_by(|one, other| other.cmp(one)));
    arrivals
}

/// What the calls took that came in this time, in nanoseconds; one that was not answered took for ever.
fn took(called: &[Called], range: Range<u64>) -> Vec<u64> {
    let came = called.iter().filter(|one| range.contains(&one.came));
    came.map(|one| if one.answered { one.done - one.came } else { u64::MAX }).collect()
}

fn median_ms(mut took: Vec<u64>) -> u64 {
    took.sort_unstable();
    took.get(took.len() / 2).map_or(u64::MAX, |median| median / MS)
}

/// What calls took together, in percent of what the same ones took before; endless where nothing can be said.
fn percent(before: &[u64], after: &[u64]) -> u64 {
    let sum = |took: &[u64]| took.iter().fold(0, |sum: u64, one| sum.saturating_add(*one));
    match (sum(before), sum(after)) {
        (0 | u64::MAX, _) | (_, u64::MAX) => u64::MAX,
        (before, after) => after.saturating_mul(100) / before,
    }
}

fn judge(begun: u64, called: &[Called], failure: Option<String>) -> Load {
    let [first, middle, last] = PHASES_MS.map(|ms| ms * MS);
    let (from, to) = (begun + first, begun + first + middle);
    let in_time = called.iter().filter(|one| one.answered && (from..to).contains(&one.done)).count() as u64;
    // The same calls, and what they took before and after.
    let pair = |back_ms: u64, ms: u64| {
        let range = |begun: u64| begun + back_ms * MS..begun + (back_ms + ms) * MS;
        (took(called, range(begun)), took(called, range(to)))
    };
    let (before, after) = pair(BACK_MS, MEASURED_MS);
    let seconds = (BACK_MS..last / MS).step_by(1_000).map(|at| pair(at, 1_000));
    Load {
        goodput_percent: in_time * 100 / (CAPACITY * PHASES_MS[1] / 1_000),
        before_ms: median_ms(before),
        after_ms: median_ms(after),
        second_percent: seconds.map(|(before, after)| percent(&before, &after)).max().unwrap_or(u64::MAX),
        failure,
    }
}
