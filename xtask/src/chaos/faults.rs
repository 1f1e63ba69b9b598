//! The faults: what is done to a lab of three, and how it is undone.
use std::thread::sleep;
use std::time::Duration;

use rustix::process::Signal;

use super::load::Load;
use super::{clock, disk, stuck};
use crate::lab::Lab;
use crate::problem::Problem;

/// How long things last.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// The fault-free run in front of each fault.
    pub(super) before: Duration,
    /// The fault.
    pub(super) fault: Duration,
    /// The outage of all.
    pub(super) outage: Duration,
}

/// What a fault needs between the client and the appliances.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Nothing: it is one of processes, disks or clocks.
    Direct,
    /// Proxies.
    Proxied,
    /// The kernel's own network where namespaces can be had, else proxies.
    Cut,
    /// As `Cut`, where the kernel has netem besides.
    Shaped,
}

/// One row of the table.
pub(super) struct Fault {
    /// The word by which `--only` names it.
    pub(super) name: &'static str,
    /// What is done.
    pub(super) text: &'static str,
    /// Where it is played.
    pub(super) place: Place,
    /// Whether the application signs with RSA instead of P-256: RSA is worked off by threads that serve no link.
    pub(super) rsa: bool,
    /// What must be there before the clock runs; `Err` says why this host cannot have the fault.
    pub(super) prepare: fn(&Lab) -> Result<(), Problem>,
    /// Does it, lets it last and undoes it.
    pub(super) play: fn(&Lab, &mut Load, Pace) -> Result<(), Problem>,
    /// Takes away what `prepare` made.
    pub(super) tidy: fn(&Lab) -> Result<(), Problem>,
}

fn nothing(_: &Lab) -> Result<(), Problem> {
    Ok(())
}

const fn direct(
    name: &'static str,
    text: &'static str,
    play: fn(&Lab, &mut Load, Pace) -> Result<(), Problem>,
) -> Fault {
    Fault { name, text, place: Place::Direct, rsa: false, prepare: nothing, play, tidy: nothing }
}

const fn network(
    place: Place,
    name: &'static str,
    text: &'static str,
    play: fn(&Lab, &mut Load, Pace) -> Result<(), Problem>,
) -> Fault {
    Fault { name, text, place, rsa: false, prepare: nothing, play, tidy: nothing }
}

/// All of them, in the order of the table.
pub(super) const FAULTS: &[Fault] = &[
    direct("kill", "SIGKILL of one, started again", |lab, _, pace| {
        lab.kill(2)?;
        sleep(pace.fault);
        lab.start(2)
    }),
    direct("freeze", "SIGSTOP of one, then SIGCONT", |lab, _, pace| {
        lab.freeze(3)?;
        sleep(pace.fault);
        lab.thaw(3)
    }),
    direct("rolling", "rolling restart of all three", rolling),
    direct("outage", "all three dead for 10 s (nothing is created meanwhile)", outage),
    Fault {
        name: "disk",
        text: "the disk of one is full, then has room again (nothing is restarted)",
        place: Place::Direct,
        rsa: false,
        prepare: disk::small,
        play: disk::full,
        tidy: disk::whole,
    },
    Fault {
        name: "clock",
        text: "the clock of one jumps an hour forward, then two back",
        place: Place::Direct,
        rsa: false,
        prepare: clock::own,
        play: clock::jump,
        tidy: clock::none,
    },
    Fault {
        name: "stuck",
        text: "probes of one are answered, its workers are stuck (RSA-2048 instead of P-256)",
        place: Place::Direct,
        rsa: true,
        prepare: stuck::prepare,
        play: stuck::play,
        tidy: stuck::tidy,
    },
    Fault {
        name: "expiry",
        text: "certificates have expired as one sees it: it refuses every new connection",
        place: Place::Proxied,
        rsa: false,
        prepare: clock::own,
        play: clock::expiry,
        tidy: clock::none,
    },
    network(Place::Cut, "blackhole", "black hole: the interface of one is down", |lab, _, pace| {
        broken(lab, "1 blackhole", pace)
    }),
    Fault {
        name: "drop",
        text: "packets to and from one are dropped, and nobody is told",
        place: Place::Cut,
        rsa: false,
        prepare: |lab| match lab.has_namespaces() {
            true => Ok(()),
            false => Err(Problem("it needs network namespaces".into())),
        },
        play: |lab, _, pace| broken(lab, "1 drop", pace),
        tidy: nothing,
    },
    network(Place::Cut, "oneway-up", "one way: nothing to one, its answers arrive", |lab, _, pace| {
        broken(lab, "2 oneway=up", pace)
    }),
    network(
        Place::Cut,
        "oneway-down",
        "one way: requests arrive at one, nothing comes back",
        |lab, _, pace| broken(lab, "3 oneway=down", pace),
    ),
    network(Place::Proxied, "trickle", "a byte every 5 ms to and from one", |lab, _, pace| {
        broken(lab, "1 trickle", pace)
    }),
    network(Place::Shaped, "delay", "20 ms more each way to and from one", |lab, _, pace| {
        broken(lab, "2 delay=20ms", pace)
    }),
    network(Place::Shaped, "loss", "5 % to and from one are lost and sent again", |lab, _, pace| {
        broken(lab, "3 loss=5%", pace)
    }),
    network(Place::Proxied, "reset", "the connections of one are reset, ten times", |lab, _, pace| {
        for _ in 0..10 {
            lab.fault("1 cut")?;
            sleep(pace.fault / 10);
        }
        Ok(())
    }),
];

fn broken(lab: &Lab, fault: &str, pace: Pace) -> Result<(), Problem> {
    lab.fault(fault)?;
    sleep(pace.fault);
    lab.fault("all clear").map(drop)
}

fn rolling(lab: &Lab, load: &mut Load, pace: Pace) -> Result<(), Problem> {
    for member in lab.members() {
        member.signal(Signal::TERM)?;
        member.wait_gone(Duration::from_secs(30))?;
        lab.start(member.number)?;
        super::settled(lab, load)??;
        // An operator looks at the group before the next one; so does the application's own link.
        sleep(pace.fault / 2);
    }
    Ok(())
}

fn outage(lab: &Lab, load: &mut Load, pace: Pace) -> Result<(), Problem> {
    // A create below the minimum fails by rule (HA 2.2), and the first to return is alone.
    load.pause(true)?;
    sleep(Duration::from_secs(1));
    let numbers = 1..=lab.members().len();
    numbers.clone().try_for_each(|number| lab.kill(number))?;
    sleep(pace.outage);
    load.returned()?;
    numbers.clone().try_for_each(|number| lab.start(number))?;
    lab.wait_equal(super::RETURN)?;
    // The calls that waited belong to the fault.
    sleep(pace.fault);
    load.pause(false)
}

/// The appliance whose disk, clock and workers are changed.
pub(super) const VICTIM: usize = 2;

/// Stops that appliance in order, if it runs.
pub(super) fn stop(lab: &Lab) -> Result<(), Problem> {
    let member = lab.member(VICTIM)?;
    if member.is_running() {
        member.signal(Signal::TERM)?;
        member.wait_gone(Duration::from_secs(30))?;
    }
    Ok(())
}
