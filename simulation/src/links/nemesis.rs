//! The faults of the network, the servers and the processes, one after another until it is told to end.
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::desk::{Desk, Network};
use super::server::{Death, Server};
use super::wire::{Way, Wire};
use super::{MS, S};
use crate::world::World;

/// What goes wrong, how often, and for how long.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hardship {
    pub(crate) faults: &'static [Fault],
    /// Between two faults, in nanoseconds, at most.
    pub(crate) gap: u64,
    /// No faults begin so many nanoseconds after the world.
    pub(crate) span: u64,
}

/// One kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Everything stands still for a while.
    Stall,
    /// One way of one connection stands still for a while: packets are lost and sent again.
    StallOne,
    /// All connections of one process stand still for a while, one way or both.
    StallProcess,
    /// One way of one connection is cut.
    CutOne,
    /// All connections of one process are cut, one way or both.
    CutProcess,
    /// A connection is reset.
    Reset,
    /// A connection breaks after some more bytes, within a record or a frame.
    Fuse,
    /// Bytes come one by one.
    Trickle,
    /// A server ends, in one of several ways, and comes back.
    Crash,
    /// A server begins anew; what was connected goes on with the earlier one.
    Twin,
    /// A server stands still.
    PauseServer,
    /// A server takes no more requests on what is connected.
    Goodbye,
    /// A server offers other partitions for a while.
    Offer,
    /// A server takes no bytes for a while, while requests go on.
    Clog,
    /// A process stands still.
    PauseProcess,
    /// A thread that reads for all stands still.
    StallLeader,
    /// Names are looked up in vain.
    Names,
    /// The settings of a process change.
    Configure,
}

impl Fault {
    /// All of them.
    pub(crate) const ALL: &'static [Fault] = &[
        Fault::Stall,
        Fault::StallOne,
        Fault::StallProcess,
        Fault::CutOne,
        Fault::CutProcess,
        Fault::Reset,
        Fault::Fuse,
        Fault::Trickle,
        Fault::Crash,
        Fault::Twin,
        Fault::PauseServer,
        Fault::Goodbye,
        Fault::Offer,
        Fault::Clog,
        Fault::PauseProcess,
        Fault::StallLeader,
        Fault::Names,
        Fault::Configure,
    ];
}

/// See the head of this file.
pub(crate) struct Nemesis {
    world: Arc<World>,
    network: Arc<Network>,
    desks: Vec<Arc<Desk>>,
    hardship: Hardship,
    over: AtomicBool,
    /// For each process, how often its settings are to have changed.
    changes: Mutex<Vec<u64>>,
}

impl Nemesis {
    /// The faults begin; none, if there are no kinds of them.
    pub(crate) fn begin(network: &Arc<Network>, desks: Vec<Arc<Desk>>, hardship: Hardship) -> Arc<Self> {
        let nemesis = Arc::new(Self {
            world: network.world.clone(),
            network: network.clone(),
            changes: Mutex::new(vec![0; desks.len()]),
            desks,
            hardship,
            over: AtomicBool::new(hardship.faults.is_empty()),
        });
        nemesis.wait();
        nemesis
    }

    /// Whether there are no more faults.
    pub(crate) fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    /// How often the settings of a process are to have changed by now.
    pub(crate) fn changes(&self, process: usize) -> u64 {
        self.changes.lock().unwrap_or_else(PoisonError::into_inner)[process]
    }

    /// No more faults; what is broken is whole again.
    pub(crate) fn calm(&self) {
        self.over.store(true, Ordering::Relaxed);
        self.network.lose_names(false);
        for server in &self.network.servers {
            server.rise();
            server.forget_twins();
            server.offer(server.all().to_vec());
        }
        (1..=self.desks.len()).for_each(|process| self.network.cut(process, 0));
        self.network.wires().iter().for_each(Wire::heal);
        self.world.note(0, || "the faults are over".into());
    }

    fn wait(self: &Arc<Self>) {
        if self.is_over() || self.world.now() > self.hardship.span {
            return;
        }
        let gap = self.world.chance(|chance| chance.between(MS, self.hardship.gap));
        self.later(gap, |nemesis| {
            nemesis.strike();
            nemesis.wait();
        });
    }

    fn later(self: &Arc<Self>, delay: u64, what: impl FnOnce(&Arc<Nemesis>) + Send + 'static) {
        let weak = Arc::downgrade(self);
        self.world.after(delay, move || {
            if let Some(nemesis) = weak.upgrade().filter(|nemesis| !nemesis.is_over()) {
                what(&nemesis);
            }
        });
    }

    fn span(&self, low_ms: u64, high_ms: u64) -> u64 {
        self.world.chance(|chance| chance.between(low_ms * MS, high_ms * MS))
    }

    fn strike(self: &Arc<Self>) {
        let faults = self.hardship.faults;
        let fault = faults[self.world.chance(|chance| chance.place(faults.len()))];
        self.world.note(fault as u64, || format!("fault: {fault:?}"));
        let server = {
            let place = self.world.chance(|chance| chance.place(self.network.servers.len()));
            self.network.servers[place].clone()
        };
        let process = self.world.chance(|chance| chance.place(self.desks.len()));
        match fault {
            Fault::Crash | Fault::Twin | Fault::PauseServer | Fault::Goodbye | Fault::Offer => {
                self.hurt_server(fault, &server);
            }
            Fault::PauseProcess => self.desks[process].pause(self.span(1, 3_000)),
            Fault::StallLeader => self.desks[process].stall_leader(self.span(1, 3_000)),
            Fault::Names => {
                self.network.lose_names(true);
                let span = self.span(10, 5_000);
                self.later(span, |nemesis| nemesis.network.lose_names(false));
            }
            Fault::Configure => {
                self.changes.lock().unwrap_or_else(PoisonError::into_inner)[process] += 1;
            }
            Fault::Stall
            | Fault::StallOne
            | Fault::StallProcess
            | Fault::CutOne
            | Fault::CutProcess
            | Fault::Clog
            | Fault::Reset
            | Fault::Fuse
            | Fault::Trickle => self.hurt_wires(fault, process + 1, &server),
        }
    }

    fn hurt_server(self: &Arc<Self>, fault: Fault, server: &Arc<Server>) {
        match fault {
            Fault::Crash => {
                let deaths = [Death::Process, Death::Killed, Death::Host];
                let death = deaths[self.world.chance(|chance| chance.place(deaths.len()))];
                server.die(death);
                let (span, risen) = (self.span(1, 4_000), server.clone());
                self.later(span, move |_| risen.rise());
            }
            Fault::Twin => {
                server.die(Death::Twin);
                let (span, later) = (self.span(1, 4_000), server.clone());
                self.later(span, move |_| later.forget_twins());
            }
            Fault::PauseServer => server.pause(self.span(1, 3_000)),
            Fault::Goodbye => server.connections().iter().for_each(|connection| connection.say_goodbye()),
            _ => {
                let all = server.all().to_vec();
                let some = self.world.chance(|chance| chance.place(all.len() + 1));
                server.offer(all[..some].to_vec());
                let (span, later) = (self.span(10, 1_000), server.clone());
                self.later(span, move |_| later.offer(all));
            }
        }
    }

    fn hurt_wires(self: &Arc<Self>, fault: Fault, process: usize, server: &Arc<Server>) {
        let mut wires: Vec<Arc<Wire>> = self.network.wires();
        wires.retain(|wire| match fault {
            Fault::Stall => true,
            Fault::StallProcess | Fault::CutProcess => wire.process == process,
            Fault::Clog => wire.server.number == server.number,
            _ => wire.is_alive(),
        });
        if matches!(fault, Fault::StallOne | Fault::CutOne | Fault::Reset | Fault::Fuse | Fault::Trickle)
            && !wires.is_empty()
        {
            let place = self.world.chance(|chance| chance.place(wires.len()));
            wires = vec![wires.swap_remove(place)];
        }
        let (up, down) = match self.world.chance(|chance| chance.below(3)) {
            0 => (true, false),
            1 => (false, true),
            _ => (true, true),
        };
        let ways =
            [(Way::Up, up), (Way::Down, down)].into_iter().filter(|(_, hurt)| *hurt).map(|(way, _)| way);
        let now = self.world.now();
        let until = match fault {
            Fault::CutOne | Fault::CutProcess => now + self.span(1_000, 60_000),
            _ => now + self.span(5, 1_500),
        };
        if fault == Fault::CutProcess {
            self.network.cut(process, until);
        }
        for wire in &wires {
            match fault {
                Fault::Reset => wire.reset(),
                Fault::Clog => wire.hold(Way::Up, until + 2 * S),
                Fault::Fuse => {
                    let bytes = self.world.chance(|chance| chance.between(1, 900));
                    ways.clone().for_each(|way| wire.light(way, bytes));
                }
                Fault::Trickle => ways.clone().for_each(|way| wire.trickle(way, true)),
                _ => ways.clone().for_each(|way| wire.hold(way, until)),
            }
        }
    }
}
