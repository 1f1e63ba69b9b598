//! One run of a seed over the simulated links: a network, processes, faults, rest, and what must hold at the end.
use std::sync::Arc;

use super::caller::Caller;
use super::desk::Network;
use super::ledger::Ledger;
use super::nemesis::Nemesis;
use super::process::{Process, offers};
use super::server::Server;
use super::service::Tasks;
use super::theme::{PROCESSES_MAX, Theme};
use super::{MS, S};
use crate::run::{Outcome, Wish};
use crate::world::World;

/// Runs a seed over the simulated links.
pub fn run(wish: Wish) -> Outcome {
    let world = World::enter(wish.seed, PROCESSES_MAX, wish.story);
    let theme = world.chance(|chance| Theme::draw(chance, wish.faults));
    world.note(0, || format!("the theme is {theme:?}"));
    let ledger = Ledger::new(&world);
    let tasks = Tasks::new(&world);
    let servers = (0..theme.servers)
        .map(|number| Server::new(&world, &ledger, tasks.clone(), (number, offers(number, theme.servers))))
        .collect();
    let network = Network::new(&world, &ledger, servers, theme.line, PROCESSES_MAX);
    let processes: Vec<Arc<Process>> =
        (1..=theme.processes).map(|number| Process::start(&network, number, &theme)).collect();
    let desks: Vec<_> = processes.iter().map(|process| process.desk.clone()).collect();
    let nemesis = Nemesis::begin(&network, desks.clone(), theme.hardship());
    if !theme.is_strict && world.chance(|chance| chance.once_in(3)) {
        tasks.be_busy(5);
    }
    let attendants = attend(&world, &processes, &theme);
    let callers = call(&world, &processes, &nemesis, &theme);
    callers.iter().for_each(|thread| world.join(*thread));
    nemesis.calm();
    tasks.be_busy(0);
    rest(&world, &processes, &nemesis);
    close(&world, &processes);
    attendants.iter().for_each(|thread| world.join(*thread));
    drop(processes);
    for desk in desks.iter().filter(|_| !world.is_aborted()) {
        // A lookup may take its time; nobody waits for it.
        world.sleep(25 * S);
        let (threads, streams) = (desk.threads(), desk.streams());
        if threads > 0 || streams > 0 {
            world.fail(format!("{threads} threads and {streams} streams are left when the links are gone"));
        }
    }
    World::leave();
    Outcome {
        failure: world.failure(),
        trace: world.trace(),
        story: world.story(),
        ms: world.now() / MS,
        requests: ledger.count(),
        sends: Vec::new(),
        hedges: 0,
        theme: theme.name,
    }
}

/// Threads that do nothing but the background work.
fn attend(world: &Arc<World>, processes: &[Arc<Process>], theme: &Theme) -> Vec<usize> {
    let attended = processes.iter().filter(|_| theme.attended);
    attended
        .map(|process| {
            let own = process.clone();
            world.spawn(process.number, Box::new(move || own.attend()))
        })
        .collect()
}

/// The callers; now and then one process closes its links in the midst of their calls.
fn call(world: &Arc<World>, processes: &[Arc<Process>], nemesis: &Arc<Nemesis>, theme: &Theme) -> Vec<usize> {
    let mut threads = Vec::new();
    for process in processes {
        for _ in 0..theme.callers {
            let caller = Caller::new(process, nemesis);
            threads.push(world.spawn(process.number, Box::new(move || caller.run())));
        }
    }
    let closes = world.chance(|chance| chance.once_in(6).then(|| chance.between(1, 2_000) * MS));
    if let (Some(after), Some(process)) = (closes, processes.first()) {
        let own = process.clone();
        let close = move || {
            own.world.sleep(after);
            own.close();
        };
        threads.push(world.spawn(process.number, Box::new(close)));
    }
    threads
}

/// After the last fault every process is served again.
fn rest(world: &Arc<World>, processes: &[Arc<Process>], nemesis: &Arc<Nemesis>) {
    let mut threads = Vec::new();
    for process in processes.iter().filter(|process| !process.is_closed()) {
        let (own, caller) = (process.clone(), Caller::new(process, nemesis));
        let work = move || {
            own.restore();
            caller.rest();
        };
        if world.failure().is_none() {
            threads.push(world.spawn(process.number, Box::new(work)));
        }
    }
    threads.iter().for_each(|thread| world.join(*thread));
}

fn close(world: &Arc<World>, processes: &[Arc<Process>]) {
    for process in processes {
        let own = process.clone();
        let thread = world.spawn(process.number, Box::new(move || own.close()));
        world.join(thread);
    }
}
